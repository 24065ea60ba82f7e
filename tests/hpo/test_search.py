"""Tests of a search that finds an existing run; whole searches are in tests/test_*.py."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mounts import pretend_mounted
from studies import create_study

from hpo.config.loading import dump_search_config, load_search_config
from hpo.config.resumed import with_common_decode_size, with_former_defaults
from hpo.config.schema import SearchConfig
from hpo.config.search_space import default_params
from hpo.continuation import check_continuation, config_of_study, find_study, with_output
from hpo.continuation import create_study as create_run_study
from hpo.errors import ClusterError, RunError, StudyError
from hpo.reporting.display import Display
from hpo.run_folder import RunFolder
from hpo.schedulers.first_rung import FirstRung, read_first_rungs
from hpo.search import check_start, run_search
from hpo.study.trial import TrialStatus
from hpo.transfer.carry_over import continuation
from sgformer.errors import ConfigError, DataError, InputError

IMAGES = {"classes": ["a", "b"], "train": 3, "val": 2}


@pytest.fixture
def config(search_file: Path) -> SearchConfig:
    return load_search_config(search_file)[0]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "tiny")
    run.make()
    return run


def changed(search_file: Path, *overrides: str) -> SearchConfig:
    return load_search_config(search_file, overrides)[0]


def test_a_new_run_has_no_study_and_gets_one(config: SearchConfig, run: RunFolder) -> None:
    assert find_study(config, run, None, resume=True) is None
    create_run_study(config, run, None, IMAGES)
    study = find_study(config, run, None, resume=True)
    assert study is not None
    assert study.metadata.images == IMAGES


def test_what_earlier_studies_say_of_the_first_level_is_kept(
    config: SearchConfig, run: RunFolder
) -> None:
    level = FirstRung(epoch=2, late=4, num_trials=9, agreement={1: 0.25, 2: 0.75})
    create_run_study(config, run, None, IMAGES, level)
    study = find_study(config, run, None, resume=True)
    assert study is not None
    assert read_first_rungs(study.metadata.first_levels) == (level,)


def test_a_taken_name_is_refused_without_resume(config: SearchConfig, run: RunFolder) -> None:
    create_run_study(config, run, None, IMAGES)
    with pytest.raises(StudyError, match=r"'tiny' exists already in sqlite.*--resume"):
        find_study(config, run, None, resume=False)
    run.save_config(config)
    with pytest.raises(StudyError, match=r"'tiny' exists already: .*--resume"):
        check_continuation(config, run, None, resume=False)


def test_a_resumed_run_keeps_its_storage(
    config: SearchConfig, run: RunFolder, tmp_path: Path
) -> None:
    url = f"journal:{tmp_path / 'journal'}"
    first = check_continuation(config, run, url, resume=False)
    create_run_study(first, run, url, IMAGES)
    run.save_config(first)
    resumed = check_continuation(config, run, None, resume=True)
    assert resumed.study.storage == url
    assert find_study(resumed, run, None, resume=True) is not None
    with pytest.raises(ConfigError, match=r"study\.storage: journal:.* -> sqlite:////other\.db"):
        check_continuation(config, run, "sqlite:////other.db", resume=True)


def test_a_url_as_output_folder_is_kept_and_may_be_given_later(
    config: SearchConfig, run: RunFolder
) -> None:
    assert with_output(config, run.path.parent) == (config, run.path.parent)
    delivering, folder = with_output(config, "s3://bucket/runs")
    assert (delivering.study.deliver_to, folder) == ("s3://bucket/runs", Path("runs"))
    run.save_config(config)
    resumed = check_continuation(delivering, run, None, resume=True)
    assert resumed.study.deliver_to == "s3://bucket/runs"
    run.save_config(resumed)
    assert check_continuation(config, run, None, resume=True) == resumed


def test_a_resumed_run_keeps_the_place_of_its_checkpoints(
    config: SearchConfig, search_file: Path, run: RunFolder, tmp_path: Path
) -> None:
    url = (tmp_path / "checkpoints").as_uri()
    storing = changed(search_file, f"study.checkpoint_to={url}")
    run.save_config(storing)
    assert check_continuation(config, run, None, resume=True) == storing
    other = changed(search_file, f"study.checkpoint_to={url}-2")
    with pytest.raises(ConfigError, match=rf"study\.checkpoint_to: {url} -> {url}-2"):
        check_continuation(other, run, None, resume=True)
    wider = changed(search_file, f"study.checkpoint_to={url}", "space.model.drop_rate.high=0.4")
    with pytest.raises(ConfigError, match=r"checkpoint_to are not carried over; choose another"):
        check_start(wider, run.path.parent, resume=True)


def test_a_storages_file_is_named_for_any_working_folder(
    search_file: Path, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = changed(search_file, "study.storage=sqlite:///a.db")
    kept = check_continuation(config, run, None, resume=False)
    assert kept.study.storage == f"sqlite:///{tmp_path}/a.db"
    create_run_study(kept, run, None, IMAGES)
    run.save_config(kept)
    assert check_continuation(config, run, None, resume=True) == kept
    assert find_study(kept, run, None, resume=True) is not None


def test_what_else_than_the_space_was_changed_is_what_is_named(
    config: SearchConfig, search_file: Path, run: RunFolder
) -> None:
    run.make()
    run.save_config(config)
    other = changed(search_file, "train.max_epochs=9", "space.model.drop_rate.high=0.4")
    with pytest.raises(ConfigError, match=r"train\.max_epochs: 4 -> 9") as caught:
        check_continuation(other, run, None, resume=True)
    assert "drop_rate" not in str(caught.value)


FORMER = {
    "precision": "float32",
    "channels_last": False,
    "data": {"crop_pct": 0.875, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}
# Settings that the first release did not have.
NEW = ("freeze", "unfreeze_epoch", "grad_checkpointing")


def save_as_a_former_version(config: SearchConfig, run: RunFolder) -> None:
    """Writes search.yaml as the first release did: with its defaults, and fewer settings."""
    values = yaml.safe_load(dump_search_config(config))
    train = values["train"]
    for name in NEW:
        del train[name]
    for name in ("pretrained", "checkpoint"):
        del train["model"][name]
    del train["optimizer"]["head_learning_rate_factor"], train["data"]["interpolation"]
    for name, value in FORMER["data"].items():  # type: ignore[attr-defined]
        if train["data"][name] is None:
            train["data"][name] = value
    train |= {name: FORMER[name] for name in ("precision", "channels_last")}
    run.search_file.write_text(yaml.safe_dump(values, sort_keys=False))


def test_a_run_of_a_former_version_goes_on_with_its_defaults(
    edit: Callable[[Callable[[dict], None]], Path], run: RunFolder
) -> None:
    file = edit(lambda values: values["train"]["data"].pop("crop_pct"))
    config = load_search_config(file)[0]
    save_as_a_former_version(config, run)
    resumed = check_continuation(config, run, None, resume=True)
    train = resumed.train
    assert (train.precision, train.channels_last) == ("float32", False)
    assert (train.data.crop_pct, train.data.mean) == (0.875, (0.485, 0.456, 0.406))
    assert train.fingerprint() == run.load_config().train.fingerprint()
    run.save_config(resumed)  # as a resumed search does, with the settings of this version
    assert check_continuation(config, run, None, resume=True) == resumed
    assert continuation(config, run).config.train == resumed.train


def test_a_run_of_a_former_version_keeps_its_defaults_in_another_space(
    edit: Callable[[Callable[[dict], None]], Path], run: RunFolder
) -> None:
    file = edit(lambda values: values["train"]["data"].pop("crop_pct"))
    save_as_a_former_version(load_search_config(file)[0], run)
    other = changed(file, "space.model.drop_rate.high=0.4")
    now = continuation(other, run)
    assert now.run.path.name == "tiny-2"
    assert (now.config.train.precision, now.config.train.data.crop_pct) == ("float32", 0.875)


def test_a_run_of_a_former_version_that_searches_what_is_now_open_goes_on(
    edit: Callable[[Callable[[dict], None]], Path], run: RunFolder
) -> None:
    def search_open(values: dict) -> None:
        values["train"]["data"].pop("crop_pct")
        values["space"] |= {
            "data.crop_pct": {"type": "float", "low": 0.8, "high": 1.0},
            "precision": {"type": "categorical", "choices": ["float32", "bf16"]},
        }

    config = load_search_config(edit(search_open))[0]
    save_as_a_former_version(config, run)
    resumed = check_continuation(config, run, None, resume=True)
    default = default_params(resumed.train, resumed.space)
    assert (default["data.crop_pct"], default["precision"]) == (0.875, "float32")
    assert default == default_params(config.train, config.space)


def test_a_study_of_a_former_version_in_a_database_keeps_its_defaults(
    search_file: Path, config: SearchConfig, run: RunFolder
) -> None:
    former = changed(search_file, "train.precision=float32")
    create_run_study(former, run, None, IMAGES)
    study = find_study(config, run, None, resume=True)
    assert study is not None
    assert config_of_study(study, config).train.precision == "float32"


def test_another_precision_than_the_runs_is_refused(
    search_file: Path, config: SearchConfig, run: RunFolder
) -> None:
    save_as_a_former_version(config, run)
    with pytest.raises(ConfigError, match=r"train\.precision: float32 -> bf16"):
        check_continuation(changed(search_file, "train.precision=bf16"), run, None, resume=True)
    more_memory = changed(search_file, "train.grad_checkpointing=true")
    kept = check_continuation(more_memory, run, None, resume=True)
    assert kept.train.grad_checkpointing


def test_the_storages_password_is_not_kept(config: SearchConfig, run: RunFolder) -> None:
    kept = check_continuation(config, run, "postgresql://u:pw@h/d", resume=False)
    assert kept.study.storage == "postgresql://u@h/d"


def test_a_study_in_a_database_is_compared_with_though_the_folder_is_new(
    config: SearchConfig, search_file: Path, run: RunFolder, tmp_path: Path
) -> None:
    url = f"journal:{tmp_path / 'journal'}"
    create_run_study(check_continuation(config, run, url, resume=False), run, url, IMAGES)
    other = changed(search_file, "train.max_epochs=9")
    other_run = RunFolder(tmp_path / "elsewhere" / "tiny")
    with pytest.raises(ConfigError, match=r"train\.max_epochs: 4 -> 9"):
        find_study(check_continuation(other, other_run, url, resume=True), other_run, url,
                   resume=True)  # fmt: skip


def test_checkpoints_without_a_study_are_not_taken_for_its_own(
    config: SearchConfig, run: RunFolder
) -> None:
    (run.trials / "0").mkdir(parents=True)
    with pytest.raises(StudyError, match="holds checkpoints of a study that is gone"):
        create_run_study(config, run, None, IMAGES)


def test_wrong_input_leaves_no_study_behind(
    search_file: Path, own_image_folder: Path, run: RunFolder
) -> None:
    images = own_image_folder / "train" / "1"
    for path in images.iterdir():
        path.write_text("no image")
    config, _ = load_search_config(search_file, data_dir=own_image_folder)
    with pytest.raises(DataError, match="6 of 110 images"):
        run_search(config, run.path.parent)
    assert [path.name for path in run.path.iterdir()] == [".lock"]


def test_a_cluster_without_tokens_is_refused_before_anything_is_written(
    config: SearchConfig, tmp_path: Path, open_address: str
) -> None:
    with pytest.raises(ClusterError, match=f"at {open_address} has no token authentication"):
        run_search(config, tmp_path / "runs", ray_address=open_address)
    assert not (tmp_path / "runs").exists()


def test_a_cluster_that_cannot_hold_a_trial_leaves_no_study_behind(
    search_file: Path, run: RunFolder
) -> None:
    config = changed(search_file, "resources.cpus_per_trial=4096")
    with pytest.raises(ClusterError, match="no node can hold a trial"):
        run_search(config, run.path.parent)
    assert [path.name for path in run.path.iterdir()] == [".lock"]


def test_other_images_are_refused(
    config: SearchConfig, search_file: Path, own_image_folder: Path, run: RunFolder
) -> None:
    study = create_study(run.storage_url(config), config)
    study.metadata.images = IMAGES
    moved, _ = load_search_config(search_file, data_dir=own_image_folder)
    with pytest.raises(InputError, match="made over other images"):
        run_search(moved, run.path.parent, resume=True)


class Phases(Display):
    """Records the phases and notes of a search."""

    def __init__(self, config: SearchConfig) -> None:
        super().__init__(config)
        self.phases: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase(self, text: str) -> None:
        self.phases.append(text)


@pytest.mark.parametrize(
    ("seconds", "phases"),
    [(0.0, ["decoding images"]), (60.0, ["decoding images", "starting Ray"])],
)
def test_while_images_are_decoded_that_is_the_phase_that_progress_is_told_of(
    search_file: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch,
    seconds: float, phases: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("hpo.search_steps.SECONDS_BEFORE_RAY", seconds)
    config = changed(search_file, "resources.cpus_per_trial=4096")
    heard = Phases(config)
    with pytest.raises(ClusterError):
        run_search(config, run.path.parent, heard)
    assert heard.phases == phases


def test_a_run_without_a_winner_says_so_though_a_trial_of_it_was_retrained(
    search_file: Path, run: RunFolder
) -> None:
    config = changed(search_file, "study.num_trials=2", "retrain.seeds=0")
    run.save_config(config)
    study = create_study(run.storage_url(config), config)
    for _ in range(2):
        number = study.ask().number
        study.report(number, {1: 0.5})
        study.finish(number, TrialStatus.PRUNED, {"end_reason": "pruned"}, None)
    run.best.mkdir()
    for path in (run.best / "export.json", run.report, run.leaderboard):
        path.touch()
    study.metadata.delivered_trial = 1  # by `retrain --trial 1`
    with pytest.raises(RunError, match="no trial of study 'tiny' ran to its end"):
        run_search(config, run.path.parent, resume=True)


@pytest.mark.parametrize(
    ("kind_at_start", "note"),
    [("nfs4", "a journal file, which all nodes"), ("ext4", "without its write-ahead log")],
)
def test_a_study_on_a_network_is_told_of_once(
    search_file: Path, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind_at_start: str, note: str,
) -> None:  # fmt: skip
    pretend_mounted(monkeypatch, tmp_path, runs=kind_at_start)
    config = changed(search_file, "study.num_trials=1", "retrain.seeds=0")
    run.save_config(config)
    study = create_study(run.storage_url(config), config)
    number = study.ask().number
    study.finish(number, TrialStatus.PRUNED, {"end_reason": "pruned"}, None)
    del study
    gc.collect()  # closes its file
    pretend_mounted(monkeypatch, tmp_path, runs="nfs4")
    heard = Phases(config)
    with pytest.raises(RunError, match="no trial of study 'tiny' ran to its end"):
        run_search(config, run.path.parent, heard, resume=True)
    assert [note in text for text in heard.notes] == [True]


SIZES = "space.data.image_size={type: categorical, choices: [32, 64]}"


def decode_size(config: SearchConfig) -> int | None:
    return config.train.data.decode_size


def test_one_set_of_decoded_images_serves_all_image_sizes(search_file: Path) -> None:
    sizes = with_common_decode_size(changed(search_file, SIZES))
    assert decode_size(sizes) == 64
    crops = "space.data.crop_pct={type: float, low: 0.5, high: 1.0}"
    assert decode_size(with_common_decode_size(changed(search_file, SIZES, crops))) == 128
    assert decode_size(with_common_decode_size(changed(search_file))) is None
    chosen = changed(search_file, SIZES, "train.data.decode_size=80")
    assert decode_size(with_common_decode_size(chosen)) == 80


def test_a_resumed_search_decodes_as_it_did_before(search_file: Path) -> None:
    config = changed(search_file, SIZES)
    begun = with_common_decode_size(config)
    assert decode_size(with_former_defaults(begun, config)) == 64
    assert decode_size(with_former_defaults(begun, changed(search_file))) == 64
    # A search that an earlier version began decoded images for each size.
    assert decode_size(with_former_defaults(config, begun)) is None
    larger = changed(search_file, SIZES.replace("64", "96"))
    assert decode_size(with_former_defaults(begun, larger)) == 96  # which is then refused
    chosen = changed(search_file, SIZES, "train.data.decode_size=80")
    assert decode_size(with_former_defaults(begun, chosen)) == 80


def test_an_earlier_versions_run_with_several_sizes_is_continued(
    search_file: Path, run: RunFolder
) -> None:
    config = changed(search_file, SIZES)
    create_run_study(config, run, None, IMAGES)
    run.save_config(config)
    assert not continuation(config, run).begins
    resumed = check_continuation(config, run, None, resume=True)
    assert decode_size(resumed) is None
    study = find_study(with_common_decode_size(config), run, None, resume=True)
    assert study is not None
    assert decode_size(config_of_study(study, with_common_decode_size(config))) is None


def test_a_search_begins_without_a_run(search_file: Path, run: RunFolder) -> None:
    assert continuation(changed(search_file, SIZES), run).begins
