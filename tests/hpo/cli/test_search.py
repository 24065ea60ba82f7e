"""Tests of the command search: refused input, and the output of a dry run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from commands import Call, refused
from feature_tables import names_of, write_csv
from ports import free_port

from hpo.config.loading import load_search_config
from hpo.run_folder import RunFolder
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.study import SearchStudy

NO_GPU = not torch.cuda.is_available()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.data.image_size=100"], "train.data.image_size: must be a multiple of 32 pixels"),
        (["study.num_trials=-1"], "study.num_trials: input should be greater than or equal to 1"),
        (["train.modle.name=x"], "train.modle: unknown key; nearest known: model"),
        (["space.model.drop_rate.low=0.9"], "low must be below high, got low=0.9 and high=0.5"),
        (
            ["space.model.droprate={type: float, low: 0, high: 1}"],
            "space.model.droprate: no such setting of a training; nearest known: model.drop_rate",
        ),
        (["train.model.name=sg_former_b9"], "no such model: 'sg_former_b9'; nearest known: sg_fo"),
        (
            [
                "train.model.name=test_resnet",
                "space.model.attn_drop_rate={type: float, low: 0, high: 0.5}",
            ],
            "space.model.attn_drop_rate: test_resnet takes no attn_drop_rate; it takes drop_rate",
        ),
        (["train.model.name=timm/resnet18"], "train.model.name: a model's name has no prefix"),
        (["train.model.name=mobilenetv5_300m_enc"], "is no classifier of images"),
        (
            ["study.constraints=[latency_ms <= 5]", "resources.latency_node=edge"],
            "resources.latency_node: 'edge' is not this machine, whose names are ",
        ),
        (["resources.cpus_per_trial=4096"], "no node can hold a trial: it asks for 4096 CPU"),
    ],
)
def test_wrong_settings_end_with_2(
    call: Call, search_file: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    sets = [part for override in overrides for part in ("--set", override)]
    command = ("search", search_file, "--output-dir", tmp_path / "runs", *sets)
    assert message in refused(call(*command))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
def test_gpus_where_there_are_none_end_with_2(
    call: Call, search_file: Path, tmp_path: Path, dry_run: tuple[str, ...]
) -> None:
    command = ("search", search_file, "--output-dir", tmp_path, *dry_run, "--set")
    message = refused(call(*command, "resources.gpus_per_trial=1"))
    assert "no node can hold a trial: it asks for 1 CPU and 1 GPU" in message


def spoil_class(folder: Path) -> None:
    for path in (folder / "train" / "3").iterdir():
        path.unlink()


def add_class(folder: Path) -> None:
    (folder / "train" / "7").rename(folder / "val" / "seven")


def spoil_images(folder: Path) -> None:
    for i in range(3):
        (folder / "train" / "1" / f"{i}.png").write_text("no image")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_class, "class without images: "),
        (add_class, "has classes that train lacks: '7', 'seven'"),
        (spoil_images, "3 of 110 images in "),
    ],
)
def test_wrong_folders_end_with_2(
    call: Call, search_file: Path, own_image_folder: Path, tmp_path: Path,
    spoil: Callable[[Path], None], message: str,
) -> None:  # fmt: skip
    spoil(own_image_folder)
    command = ("search", search_file, "--data-dir", own_image_folder, "--output-dir", tmp_path)
    assert message in refused(call(*command))


def test_a_missing_folder_ends_with_2(call: Call, search_file: Path, tmp_path: Path) -> None:
    message = refused(call("search", search_file, "--data-dir", tmp_path / "none"))
    assert f"image folder not found: {tmp_path / 'none'}" in message


def test_what_is_no_search_file_ends_with_2(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    assert f"cannot read search file {path}" in refused(call("search", path))
    path.write_text("a: [")
    assert f"{path} is not YAML" in refused(call("search", path))


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_study_that_exists_ends_with_2_and_so_do_changed_settings(
    call: Call, search_file: Path, tmp_path: Path, dry_run: tuple[str, ...]
) -> None:
    config = load_search_config(search_file)[0]
    run = RunFolder(tmp_path / config.study.name)
    run.make()
    run.save_config(config)
    command = ("search", search_file, "--output-dir", tmp_path, *dry_run)
    assert "exists already: " in refused(call(*command))
    message = refused(call(*command, "--resume", "--set", "train.seed=7"))
    assert "a resumed search cannot change what its trials have in common" in message


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_an_unwritable_output_folder_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path, dry_run: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    message = refused(call("search", search_file, "--output-dir", tmp_path / "file", *dry_run))
    assert f"cannot write to the run folder {tmp_path / 'file'}" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--storage", "nonsense"), "not a storage URL: 'nonsense'"),
        (("--storage", "sqlite:////nowhere/x.db"), "cannot use storage sqlite:////nowhere/x.db"),
        (("--ray-address", "nonsense"), "not a Ray address: 'nonsense'"),
        (("--study-name", "a/b"), "names a folder"),
        (("--set", "study"), "--set takes path=value, got 'study'"),
    ],
)
def test_wrong_options_end_with_2(
    call: Call, search_file: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in refused(call("search", search_file, "--output-dir", tmp_path, *options))


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_url_that_cannot_be_written_to_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    dry_run: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    message = refused(call("search", search_file, "--output-dir", "file:///proc/none", *dry_run))
    assert "cannot write to file:///proc/none/tiny: " in message
    assert not (tmp_path / "file:").exists()


def test_a_url_gets_no_more_than_a_mark_before_the_search(
    call: Call, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = (tmp_path / "delivered").as_uri()
    code, out, err = call("search", search_file, "--output-dir", url, "--dry-run")
    assert code == 0, err
    assert f"deliver_to: {url}" in out
    assert list((tmp_path / "delivered" / "tiny").iterdir()) == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "url", ["s3://AKIA:hidden@bucket/runs", "s3://bucket/runs?access_key=AKIA&secret_key=hidden"]
)
@pytest.mark.parametrize("option", ["--output-dir", "--set"])
def test_a_url_with_a_secret_ends_with_2_and_does_not_show_it(
    call: Call, search_file: Path, option: str, url: str
) -> None:
    value = url if option == "--output-dir" else f"study.deliver_to={url}"
    message = refused(call("search", search_file, option, value))
    assert "holds a password or a key; leave it out" in message
    assert "hidden" not in message


def test_the_demo_takes_no_url(call: Call) -> None:
    message = refused(call("demo", "--output-dir", "s3://bucket/runs"))
    assert "--output-dir: takes a folder here, and no URL" in message


def test_a_wrong_storage_is_refused_before_anything_starts(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    command = ("search", search_file, "--output-dir", tmp_path, "--dry-run")
    assert "not a storage URL: 'foo'" in refused(call(*command, "--set", "study.storage=foo"))


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_cluster_that_does_not_answer_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path, dry_run: tuple[str, ...]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    command = ("search", search_file, "--output-dir", tmp_path, "--ray-address", address)
    assert f"no Ray cluster answers at {address}" in refused(call(*command, *dry_run))


def test_a_cluster_without_tokens_is_refused_unless_it_is_asked_for(
    call: Call, search_file: Path, tmp_path: Path, open_address: str
) -> None:
    command = ("search", search_file, "--output-dir", tmp_path, "--ray-address", open_address)
    assert "has no token authentication" in refused(call(*command))
    missing = ("--insecure", "--data-dir", tmp_path / "nowhere")
    assert "image folder not found" in refused(call(*command, *missing))  # looked for next


def test_the_storages_password_is_not_printed(
    call: Call, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:9/x"
    command = ("search", search_file, "--output-dir", tmp_path)
    typed = refused(call(*command, "--storage", url))
    monkeypatch.setenv("HPO_STORAGE", url)
    given = refused(call(*command))
    assert "the storage URL's password is in the process list" in typed
    assert "process list" not in given
    for message in (typed, given):
        assert "me@127.0.0.1:9" in message
        assert "secret" not in message


def test_a_dry_run_prints_the_plan_and_starts_nothing(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    code, out, _ = call(
        "search", search_file, "--output-dir", tmp_path / "runs", "--dry-run",
        "--set", "study.num_trials=77",
    )  # fmt: skip
    assert code == 0
    assert "60 train, 30 val, 20 test in 10 classes" in out
    assert "1 CPU; 0 GPU; trials at a time: " in out
    assert "finalists         none: the best trial is the winner (retrain.seeds)" in out
    assert not (tmp_path / "runs").exists()
    values = yaml.safe_load(out[: out.index("images")])
    assert values["study"]["num_trials"] == 77


def test_a_dry_run_says_what_comparing_finalists_takes(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    _, out, _ = call(
        "search", search_file, "--output-dir", tmp_path / "runs", "--dry-run",
        "--set", "retrain={seeds: 2, top_k: 5}",
    )  # fmt: skip
    assert "the best 5 and the default, each trained on 2 fresh seed(s): up to 12 trainings" in out
    assert "of 4 epochs, for 0.2 of the trials' cost at most (retrain.max_share)" in out


def test_a_dry_run_says_that_several_objectives_are_not_compared(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    _, out, _ = call(
        "search", search_file, "--output-dir", tmp_path / "runs", "--dry-run",
        "--set", "retrain.seeds=2", "--set", "study.select=front",
        "--set", "study.objectives=[[val_top1, maximize], [num_parameters, minimize]]",
    )  # fmt: skip
    assert "none: with several objectives study.select, front, says what is delivered" in out


def test_a_search_after_another_says_what_it_begins_with_before_it_starts(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    config = load_search_config(search_file, name="a")[0]
    earlier = RunFolder(tmp_path / "a")
    earlier.make()
    earlier.save_config(config)
    study = SearchStudy.create(earlier.storage_url(config), config.study, config.space)
    study.metadata.search_config = config.model_dump(mode="json")
    SimulatedSearch(config, lambda _: Curve([0.5] * 4, [1.0] * 4), 1, study).run()

    arguments = ("search", search_file, "--output-dir", tmp_path / "runs")
    _, out, _ = call(*arguments, "--dry-run", "--set", f"study.warm_start=[{earlier.path}]")
    assert "configurations of earlier studies" in out
    for more in ((), ("--dry-run",)):
        error = refused(call(*arguments, *more, "--set", "study.warm_start=[gone]"))
        assert "not a run folder: gone has no search.yaml" in error
    assert not (tmp_path / "runs" / config.study.name / "study.db").exists()


def test_a_dry_run_notes_what_is_passed_over_among_the_images(
    call: Call, search_file: Path, own_image_folder: Path, tmp_path: Path
) -> None:
    (own_image_folder / "train" / "3" / "@eaDir").mkdir()
    command = ("search", search_file, "--data-dir", own_image_folder, "--output-dir", tmp_path)
    code, _, err = call(*command, "--dry-run")
    assert code == 0
    assert "note: hidden files and folders passed over: 1, such as 'train/3/@eaDir'\n" in err


def test_resize_asks_the_search_that_runs(call: Call, search_file: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.make()
    run.save_config(load_search_config(search_file)[0])
    command = ("resize", run.path, "--slots", "3")
    assert "no search runs over" in refused(call(*command))
    with run.locked(print):
        code, output, _ = call(*command)
        assert (code, "3 trials at a time" in output) == (0, True)
        assert run.asked_slots() == 3
    with run.locked(print):  # the next search begins with its own number
        assert run.asked_slots() is None


@pytest.mark.fuse
def test_features_and_texts_are_named_by_options(
    call: Call, search_file: Path, image_folder: Path, tmp_path: Path
) -> None:
    table = write_csv(tmp_path / "t.csv", names_of(image_folder), lambda _: {"text": "word"})
    code, out, err = call("search", search_file, "--texts", table, "--dry-run")
    assert code == 0, err
    data = yaml.safe_load(out.partition("\nimages")[0])["train"]["data"]
    assert (data["features"], data["text_encoder"]) == (str(table), "hashing")
    both = refused(call("search", search_file, "--texts", table, "--features", table, "--dry-run"))
    assert f"--features and --texts: give one, got {table} and {table}" in both
    none = refused(call("search", search_file, "--features", tmp_path / "n.csv", "--dry-run"))
    assert f"no such file of features: {tmp_path / 'n.csv'}" in none
