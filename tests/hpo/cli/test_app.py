import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import run

from hpo.cli import app as cli
from hpo.config.loading import load_search_config
from hpo.config.search_space import Params
from hpo.run_folder import RunFolder
from hpo.simulation.simulation import Curve, SimulatedSearch
from hpo.study.study import SearchStudy

Call = Callable[..., tuple[int, str, str]]
NO_GPU = not torch.cuda.is_available()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process: exit code, standard output, standard error."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["run_search.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_command


def refused(result: tuple[int, str, str]) -> str:
    """The message of a command that found its input wrong."""
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    return err


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


@pytest.mark.skipif(not NO_GPU, reason="this machine has a GPU")
def test_gpus_where_there_are_none_end_with_2(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    command = ("search", search_file, "--output-dir", tmp_path, "--set")
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
        (add_class, "has classes that train lacks: 7, seven"),
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


def test_an_unwritable_output_folder_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    message = refused(call("search", search_file, "--output-dir", tmp_path / "file"))
    assert f"cannot write to the run folder {tmp_path / 'file'}" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")
def test_a_folder_without_permission_ends_with_2(
    search_file: Path, tmp_path: Path, image_folder: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o755)
    program = (
        "import os, sys; from hpo.run_folder import RunFolder; from pathlib import Path\n"
        "from sgformer.errors import InputError\n"
        "os.setuid(65534)\n"
        "try: RunFolder(Path(sys.argv[1]) / 'a').make()\n"
        "except InputError as error: print(error)"
    )
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", program, str(locked)], check=True, capture_output=True, text=True
    )
    assert f"cannot write to the run folder {locked}/a: Permission denied" in done.stdout


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


def test_a_cluster_that_does_not_answer_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = ("search", search_file, "--output-dir", tmp_path, "--ray-address", address)
    assert f"no Ray cluster answers at {address}" in refused(call(*command))


def test_the_storages_password_is_not_printed(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:9/x"
    message = refused(call("search", search_file, "--output-dir", tmp_path, "--storage", url))
    assert "me@127.0.0.1:9" in message
    assert "secret" not in message


def test_wrong_models_images_and_splits_end_with_2(
    call: Call, tmp_path: Path, image_folder: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("text")
    data = ("--data-dir", image_folder)
    assert f"not an ONNX model: {path}" in refused(call("evaluate", path, *data))
    assert f"not an ONNX model: {path}" in refused(call("predict", path, path))
    assert "no such file" in refused(call("evaluate", tmp_path / "none.onnx", *data))
    assert "'tests' is none of train, val, test" in refused(
        call("evaluate", path, *data, "--split", "tests")
    )


@pytest.mark.parametrize("command", ["status", "report", "dashboard", "retrain", "export"])
def test_what_is_no_run_folder_ends_with_2(call: Call, tmp_path: Path, command: str) -> None:
    assert f"not a run folder: {tmp_path}" in refused(call(command, tmp_path))


def test_an_unknown_option_ends_with_2(call: Call) -> None:
    assert "No such option" in refused(call("search", "--bogus"))


def test_a_dry_run_prints_the_plan_and_starts_nothing(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    code, out, _ = call(
        "search", search_file, "--output-dir", tmp_path / "runs", "--dry-run",
        "--set", "study.num_trials=77",
    )  # fmt: skip
    assert code == 0
    assert "60 train, 30 val, 20 test in 10 classes" in out
    assert "1 CPU; 0 GPU" in out
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
    assert "of 4 epochs" in out


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


def test_status_of_a_run_whose_study_is_gone_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "search.yaml").write_text(search_file.read_text())
    assert "is gone: no file" in refused(call("status", run_dir))
    assert sorted(path.name for path in run_dir.iterdir()) == ["search.yaml"]


def write_run(folder: Path, search_file: Path, *overrides: str) -> Path:
    """A run folder whose trials have all ended, in no time."""
    config, _ = load_search_config(search_file, overrides, name=folder.name)
    run_folder = RunFolder(folder)
    run_folder.make()
    run_folder.save_config(config)
    study = SearchStudy.create(run_folder.storage_url(config), config.study, config.space)

    def curve(params: Params) -> Curve:
        """Trials rank at each epoch as they do at their end."""
        return Curve([50 * float(params["optimizer.learning_rate"])] * 4, [1.0] * 4)

    SimulatedSearch(config, curve, 1, study).run()
    return folder


def test_a_run_with_a_study_of_its_own_needs_no_database(
    call: Call, search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = write_run(tmp_path / "own", search_file)
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path}/of-another-run.db")
    assert "of 4 started" in call("status", run_dir)[1]
    assert json.loads(call("status", run_dir, "--json")[1])["delivered_trial"] is None


def test_a_wrong_storage_is_refused_before_anything_starts(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    command = ("search", search_file, "--output-dir", tmp_path, "--dry-run")
    assert "not a storage URL: 'foo'" in refused(call(*command, "--set", "study.storage=foo"))


def test_status_says_where_trials_are_first_compared_and_why(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    thaw = ("scheduler={name: freeze_thaw}", "study.num_trials=40")
    run_dir = write_run(tmp_path / "long", search_file, *thaw)
    text = call("status", run_dir)[1]
    assert re.search(r"first decision +epoch 1 of 4: ranks there and at", text)
    level = json.loads(call("status", run_dir, "--json")[1])["first_level"]
    assert (level["epoch"], level["agreement"].keys()) == (1, {"1"})
    short = write_run(tmp_path / "short", search_file, *thaw[:1])
    text = call("status", short)[1]
    assert re.search(r"epoch 1 of 4 \(default: \d of 4 trials needed have come to epoch 2", text)
    assert json.loads(call("status", short, "--json")[1])["first_level"] is None
    as_set = write_run(tmp_path / "set", search_file)
    assert "epoch 1 of 4 (scheduler.min_epochs)" in call("status", as_set)[1]
    without = write_run(tmp_path / "none", search_file, "scheduler.name=none")
    assert "first decision" not in call("status", without)[1]


def test_simulate_says_what_the_surrogate_has(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    own = write_run(tmp_path / "own", search_file)
    other = write_run(tmp_path / "other", search_file, "study.seed=1", "study.num_trials=6")
    command = ("simulate", own, "--scheduler", "asha", "--sampler", "random")
    code, out, err = call(*command, "--surrogate", other)
    assert code == 0, err
    assert "6 of the 6 trials of study other" in out
    assert "surrogate" not in call(*command)[1]
    _, out, _ = call(*command, "--surrogate", other, "--json")
    assert json.loads(out)["num_surrogate_trials"] == 6


def test_a_storage_that_is_given_is_not_that_of_a_surrogate_in_its_folder(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    url = f"journal:{tmp_path / 'journal'}"
    stored = write_run(tmp_path / "own", search_file, f"study.storage={url}")
    other = write_run(tmp_path / "other", search_file)
    strategy = ("--scheduler", "asha", "--sampler", "random")
    for run_dir, surrogate in ((stored, other), (other, stored)):
        storage = ("--storage", url) if run_dir == stored else ()
        code, _, err = call("simulate", run_dir, "--surrogate", surrogate, *strategy, *storage)
        assert code == 0, err


def test_a_surrogate_that_cannot_be_used_ends_with_2(
    call: Call, search_file: Path, tmp_path: Path
) -> None:
    own = write_run(tmp_path / "own", search_file)
    longer = write_run(tmp_path / "longer", search_file, "train.max_epochs=3")
    for surrogate, message in (
        (own / ".." / "own", "is the run itself; name another run's folder"),
        (longer, "max_epochs: 3 there, 4 here"),
        (tmp_path, f"not a run folder: {tmp_path} has no search.yaml"),
    ):
        assert message in refused(call("simulate", own, "--surrogate", surrogate))


def test_help_needs_none_of_the_heavy_modules() -> None:
    heavy = ("torch", "ray", "timm", "optuna", "optuna_dashboard", "sklearn", "cv2")
    program = (
        "import sys; sys.argv = ['x', '--help']\n"
        "from hpo.cli.app import main\n"
        "try: main()\n"
        f"finally: print('loaded:', [m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "loaded: []" in done.stdout
    assert "search" in done.stdout


def test_a_wrong_setting_is_found_without_torch_or_ray(search_file: Path) -> None:
    program = (
        "import sys; sys.argv = ['x', 'search', sys.argv[1], '--set', 'study.num_trials=0']\n"
        "from hpo.cli.app import main\n"
        "try: main()\n"
        "finally: print('loaded:', [m for m in ('torch', 'ray', 'timm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(search_file)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "loaded: []" in done.stdout


@pytest.mark.parametrize("width", ["40", "80"])
def test_help_fits_a_narrow_terminal(width: str) -> None:
    text = run("search", "--help", COLUMNS=width).stdout
    assert max(map(len, text.splitlines())) <= int(width)
    assert "--dry-run" in text
