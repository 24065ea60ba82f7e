import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mounts import pretend_mounted
from studies import create_study

from hpo.config.loading import load_search_config
from hpo.errors import ClusterError, StudyError
from hpo.model_files import ModelFiles
from hpo.run_folder import (
    RunFolder,
    finish_replacing,
    newcomer_of,
    replace_folder,
    replace_text,
)
from sgformer.errors import InputError


def test_the_config_is_kept(search_file: Path, tmp_path: Path) -> None:
    config, _ = load_search_config(search_file)
    run = RunFolder(tmp_path / "runs" / "a")
    run.make()
    run.save_config(config)
    assert run.load_config() == config


def test_the_study_lies_in_the_folder_unless_told_otherwise(
    search_file: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    config, _ = load_search_config(search_file)
    stored, _ = load_search_config(search_file, ["study.storage=postgresql://u@h/d"])
    assert run.storage_url(config) == f"sqlite:///{tmp_path}/study.db"
    assert run.storage_url(stored) == "postgresql://u@h/d"
    assert run.storage_url(stored, "postgresql://u:p@h/d") == "postgresql://u:p@h/d"


def test_on_a_network_a_new_study_is_a_journal_file_that_every_node_finds(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = load_search_config(search_file)
    run = RunFolder(tmp_path / "shared" / "a")
    run.make()
    pretend_mounted(monkeypatch, tmp_path, shared="nfs4")
    assert run.storage_url(config) == f"journal:{run.path}/study.journal"
    assert run.storage_url(config, "sqlite:////other.db") == "sqlite:////other.db"
    create_study(run.storage_url(config), config)
    pretend_mounted(monkeypatch, tmp_path)  # the node that exports the folder
    assert run.storage_url(config) == f"journal:{run.path}/study.journal"
    assert RunFolder(tmp_path / "b").storage_url(config) == f"sqlite:///{tmp_path}/b/study.db"


def test_a_study_that_is_sqlite_stays_it_on_a_network(
    search_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = load_search_config(search_file)
    run = RunFolder(tmp_path / "shared")
    run.make()
    create_study(run.storage_url(config), config)
    pretend_mounted(monkeypatch, tmp_path, shared="nfs4")
    assert run.storage_url(config) == f"sqlite:///{run.path}/study.db"


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"not a run folder: .* has no search\.yaml"):
        RunFolder(tmp_path).load_config()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(InputError, match=r"cannot write to the run folder .*runs/a: Not a dir"):
        RunFolder(tmp_path / "runs" / "a").make()


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    program = (
        "import sys; from pathlib import Path; from hpo.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(print):\n"
        "    print('mine', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        message = rf"another process is working on .*: process {other.pid} on \S+$"
        with pytest.raises(StudyError, match=message), run.locked(print):
            pass
    finally:
        other.kill()
        other.wait()
    with run.locked(print):  # a dead process holds nothing
        pass


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_text(path, "one")
    replace_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


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


def test_the_mark_of_a_folder_stays_and_is_no_other_folders(tmp_path: Path) -> None:
    runs = [RunFolder(tmp_path / name) for name in "ab"]
    for run in runs:
        run.make()
    mark = runs[0].mark()
    assert RunFolder(tmp_path / "a").mark() == mark
    assert runs[1].mark() != mark
    runs[0].check_mark(mark)


def test_a_folder_without_the_runs_mark_is_refused_with_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.run_folder.SECONDS_UNTIL_SEEN", 0.0)
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    run = RunFolder(tmp_path / "run")
    share = r"; it must be one that all nodes share \(--output-dir\)$"
    with pytest.raises(ClusterError, match=f"{run.path} is not there on node7{share}"):
        run.check_mark("a mark")
    run.make()
    run.check_mark(None)
    message = rf"{run.path} on node7 is not this run's: it has no file \.mark{share}"
    with pytest.raises(ClusterError, match=message):
        run.check_mark("a mark")
    run.mark()
    with pytest.raises(ClusterError, match=rf"{run.path} on node7 is another run's, .*{share}"):
        run.check_mark("a mark")


def test_a_mark_that_is_seen_late_is_waited_for(tmp_path: Path) -> None:
    mark = RunFolder(tmp_path).mark()
    (tmp_path / ".mark").rename(tmp_path / "unseen")
    timer = threading.Timer(0.2, (tmp_path / "unseen").rename, (tmp_path / ".mark",))
    timer.start()
    RunFolder(tmp_path).check_mark(mark)
    timer.join()


def make_model(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / "model.onnx").write_text(name)
    (folder / "export.json").write_text("{}")


class CrashError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("has_former", [True, False])
@pytest.mark.parametrize("num_renames", [0, 1, 2])
def test_a_crash_between_the_renames_of_best_loses_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_renames: int, has_former: bool
) -> None:
    run = RunFolder(tmp_path)
    new, rename = newcomer_of(run.best), Path.rename
    make_model(new, "new")
    if has_former:
        make_model(run.best, "former")
    done: list[Path] = []

    def crashing(path: Path, target: Path) -> Path:
        if len(done) == num_renames:
            raise CrashError
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", crashing)
        try:
            replace_folder(run.best, new)
        except CrashError:
            assert num_renames < (2 if has_former else 1)
    with run.locked(print):
        is_former = has_former and num_renames == 0
        assert (run.best / "model.onnx").read_text() == ("former" if is_former else "new")
    replace_folder_again(run.best)


def replace_folder_again(best: Path) -> None:
    """What a crash has left over is in no later model's way."""
    new = newcomer_of(best)
    if not new.exists():
        make_model(new, "later")
    expected = (new / "model.onnx").read_text()
    replace_folder(best, new)
    assert (best / "model.onnx").read_text() == expected
    assert [path.name for path in best.parent.glob(".best*")] == []


def test_a_model_that_was_not_checked_does_not_replace_the_former_one(tmp_path: Path) -> None:
    best = tmp_path / "best"
    make_model(newcomer_of(best), "new")
    (newcomer_of(best) / "export.json").unlink()
    finish_replacing(best)
    assert not best.exists()
    make_model(tmp_path / ".best-old", "former")
    finish_replacing(best)
    assert ModelFiles(best).onnx.read_text() == "former"
