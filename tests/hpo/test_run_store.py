"""Tests of checkpoints at file:// and at a local S3 server; memory:// is one process's alone."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from s3 import KEYS, s3_environment

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.errors import ClusterError, StoreError, StudyError
from hpo.run_folder import RunFolder, becomes_true
from hpo.run_store import RunStore, StoredTrials, claim_store, store_of
from hpo.stored_training import StoredTraining
from hpo.url_folder import UrlFolder, open_url
from sgformer.errors import CheckpointError, DiskFullError

TRIAL = "trials/3"


@pytest.fixture(scope="module")
def _s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with s3_environment(tmp_path_factory.mktemp("s3") / "log", "bucket"):
        yield


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        request.getfixturevalue("_s3")
        return f"s3://bucket/{tmp_path.name}"
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return "memory://checkpoints"
    return (tmp_path / "checkpoints").as_uri()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "tiny")
    folder.make()
    return folder


@pytest.fixture
def config(search_file: Path, url: str) -> SearchConfig:
    return storing_at(search_file, url)


@pytest.fixture
def store(config: SearchConfig, run: RunFolder) -> RunStore:
    claim_store(config, run)
    found = store_of(config, run)
    assert found is not None
    return found


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.stored_training.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("hpo.stored_training.FIRST_WAIT", 0.1)


def storing_at(search_file: Path, url: str) -> SearchConfig:
    return load_search_config(search_file, [f"study.checkpoint_to={url}"])[0]


def trained(folder: Path, epoch: int, best: int) -> Path:
    """A training's folder after an epoch, as a process leaves it on its disk."""
    folder.mkdir(exist_ok=True)
    for name, said in (("last", epoch), ("best", best)):
        path = folder / f"{name}.safetensors"
        if not path.exists() or path.read_text() != f"{name} {said}":
            (folder / "new").write_text(f"{name} {said}")
            (folder / "new").replace(path)
    (folder / "epochs.csv").write_text("epoch\n" + "".join(f"{i + 1}\n" for i in range(epoch)))
    (folder / "attempts.csv").write_text("started_at,hostname,pid,epoch\n")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def stored_names(store: RunStore) -> list[str]:
    return sorted(open_url(store.url).sizes(""))


def taken(store: RunStore) -> StoredTraining:
    stored = store.open(TRIAL)
    stored.take()
    return stored


def test_a_checkpoint_goes_on_elsewhere_and_replaces_the_one_before(
    store: RunStore, tmp_path: Path
) -> None:
    first = taken(store)
    first.save_attempts(trained(tmp_path / "a", 1, 1))
    first.save(tmp_path / "a")
    first.save(trained(tmp_path / "a", 2, 1))
    second, there = taken(store), tmp_path / "b"
    there.mkdir()
    second.fetch(there)
    assert contents(there) == {
        "last.safetensors": "last 2", "best.safetensors": "best 1",
        "attempts.csv": "started_at,hostname,pid,epoch\n",
    }  # fmt: skip
    assert (second.num_epochs(), second.attempts()) == (2, contents(there)["attempts.csv"])
    before = {name for name in stored_names(store) if "best-" in name}
    second.save(trained(there, 3, 1))
    names = stored_names(store)
    assert {name for name in names if "best-" in name} == before  # it is not sent again
    assert [name.rpartition("-")[0] for name in names if name.endswith(".safetensors")] == [
        f"{TRIAL}/best", f"{TRIAL}/last",
    ]  # fmt: skip


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_an_upload_that_is_cut_leaves_the_checkpoint_before(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    stored = taken(store)
    stored.save(trained(tmp_path / "a", 1, 1))
    write, write_text, done = UrlFolder.write, UrlFolder.write_text, iter(range(9))

    def cut_off(call: Callable[..., None]) -> Callable[..., None]:
        def step(self: UrlFolder, name: str, what: Path | str) -> None:
            if next(done) >= cut:  # a part of the file arrives, as an object of its own
                write_text(self, name if name.endswith(".safetensors") else f"{name}.part", "la")
                raise OSError("the line is cut")
            call(self, name, what)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(UrlFolder, "write", cut_off(write))
        patched.setattr(UrlFolder, "write_text", cut_off(write_text))
        with pytest.raises(StoreError, match=r"could not be reached .*: the line is cut"):
            stored.save(trained(tmp_path / "a", 2, 2))
    there = tmp_path / "b"
    there.mkdir()
    taken(store).fetch(there)
    found = contents(there)
    assert (found["last.safetensors"], found["best.safetensors"]) == ("last 1", "best 1")


def test_who_has_lost_a_training_to_another_process_saves_nothing_more(
    store: RunStore, tmp_path: Path
) -> None:
    cut_off, folder = taken(store), trained(tmp_path / "a", 1, 1)
    cut_off.save(folder)
    goes_on = taken(store)
    with pytest.raises(CheckpointError, match=r"trials/3 was taken by another process; the one"):
        cut_off.save(trained(folder, 2, 2))
    goes_on.save(trained(tmp_path / "b", 5, 5))
    assert store.open(TRIAL).num_epochs() == 5


@pytest.mark.parametrize("damage", ["short", "gone"])
def test_a_checkpoint_that_is_not_whole_is_refused(
    store: RunStore, tmp_path: Path, damage: str
) -> None:
    taken(store).save(trained(tmp_path / "a", 1, 1))
    files, (last,) = open_url(store.url), [n for n in stored_names(store) if "/last-" in n]
    if damage == "gone":
        files.delete(last)
    else:
        files.write_text(last, "la")
    expected = "of the checkpoint is not there" if damage == "gone" else "has 2 bytes and not 6"
    with pytest.raises(CheckpointError, match=expected):
        store.open(TRIAL).fetch(tmp_path / "a")


def test_checkpoints_of_ended_trials_are_removed_and_curves_stay(
    store: RunStore, tmp_path: Path
) -> None:
    for name in (TRIAL, "trials/31", ".retraining/x"):
        stored = store.open(name)
        stored.take()
        stored.save_attempts(trained(tmp_path / "a", 1, 1))
        stored.save(tmp_path / "a")
    notes: list[str] = []
    trials = StoredTrials(store, notes.append)
    assert trials.size(3) == len("last 1") + len("best 1")
    trials.remove(3)
    assert becomes_true(lambda: trials.size(3) == 0)
    store.discard(".retraining")
    assert notes == []
    names = stored_names(store)
    left = [name for name in names if name.startswith(f"{TRIAL}/")]
    assert left == [f"{TRIAL}/attempts.csv", f"{TRIAL}/epochs.csv"]
    assert "trials/31/checkpoint.json" in names
    assert not any("retraining" in name for name in names)


def test_a_store_is_one_runs(
    store: RunStore, config: SearchConfig, run: RunFolder, tmp_path: Path
) -> None:
    store.check()
    claim_store(config, run)  # as a resumed search does
    other = RunFolder(tmp_path / "others" / "tiny")
    other.make()
    with pytest.raises(ClusterError, match=r"is another run's, as its \.mark says"):
        replace(store, mark="another").check()
    claim_store(config, other)  # nothing is lost by it
    with pytest.raises(ClusterError, match=r"not this run's as \S+ sees it"):
        taken(store)
    claim_store(config, run)
    taken(store).save(trained(tmp_path / "a", 1, 1))
    with pytest.raises(StudyError, match="/tiny holds the checkpoints of another run, or of this"):
        claim_store(config, other)
    claim_store(config, run)


def test_a_look_leaves_nothing(config: SearchConfig, run: RunFolder) -> None:
    claim_store(config, run, is_trial=True)
    assert not list(run.path.iterdir())
    url = f"{config.study.checkpoint_to}/tiny"
    assert list(open_url(url).sizes("")) == []
    with pytest.raises(ClusterError, match=r"has no file \.mark"):
        RunStore(url, "a").check()


def test_without_a_url_there_is_no_store(search_file: Path, run: RunFolder) -> None:
    config, _ = load_search_config(search_file)
    claim_store(config, run)
    assert store_of(config, run) is None
    assert not list(run.path.iterdir())


@pytest.mark.usefixtures("_s3", "_impatient")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://missing/runs", "bucket does not exist"),
        ("file:///proc/none", "Cannot create directory '/proc/none"),
        ("nothing://x/y", "Protocol not known: nothing"),
    ],
)
def test_a_url_that_cannot_be_written_to_is_told_without_a_secret(
    search_file: Path, run: RunFolder, url: str, reason: str
) -> None:
    config = storing_at(search_file, url)
    store = store_of(config, run)
    assert store is not None
    with pytest.raises(StudyError, match=rf"cannot write to {url}/tiny: .*{reason}") as driver:
        claim_store(config, run)
    with pytest.raises(ClusterError, match=rf"cannot write to {url}/tiny on \S+: ") as node:
        store.check()
    for error in (driver.value, node.value):
        assert str(error).endswith("(study.checkpoint_to)")
        assert not any(secret in str(error) for secret in KEYS.values())


@pytest.mark.usefixtures("_impatient")
def test_a_store_that_is_away_is_told_once_and_tried_again(
    search_file: Path, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = storing_at(search_file, (tmp_path / "checkpoints").as_uri())
    claim_store(config, run)
    store = store_of(config, run)
    assert store is not None
    monkeypatch.setattr("hpo.stored_training.PATIENCE_SECONDS", 60.0)
    write, told, tries = UrlFolder.write_text, list[str](), iter(range(9))

    def away_twice(self: UrlFolder, name: str, text: str) -> None:
        if next(tries) < 2:
            raise OSError("no route")
        write(self, name, text)

    monkeypatch.setattr(UrlFolder, "write_text", away_twice)
    store.open(TRIAL, told.append).take()
    (note,) = told
    assert "cannot be reached (no route); trying for 60 seconds" in note
    pointer = json.loads((tmp_path / "checkpoints/tiny/trials/3/checkpoint.json").read_text())
    assert (pointer["epochs"], pointer["mark"]) == (0, run.mark())


def test_a_full_disk_of_this_machine_is_no_fault_of_the_store(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(store).save(trained(tmp_path / "a", 1, 1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UrlFolder, "read", full)
    with pytest.raises(DiskFullError, match="no space left on the disk of"):
        store.open(TRIAL).fetch(tmp_path / "a")


def test_a_secret_in_the_url_is_refused(search_file: Path) -> None:
    with pytest.raises(ValueError, match=r"study\.checkpoint_to: .*holds a password or a key"):
        storing_at(search_file, "s3://AKIA:hidden@bucket/runs")
