"""Tests of copying results to file://, to fsspec's memory://, and to a local S3 server."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest
from pyarrow import fs
from s3 import KEYS, s3_environment

from hpo.config.loading import load_search_config
from hpo.config.schema import SearchConfig
from hpo.delivery.results_copy import check_results_url, copy_results, results_url
from hpo.errors import RunError, StudyError
from hpo.run_folder import RunFolder


@dataclass(frozen=True)
class Place:
    """A URL, and how a test looks at what lies there."""

    url: str
    files: Callable[[], dict[str, bytes]]


def files_of_s3() -> dict[str, bytes]:
    files, root = fs.FileSystem.from_uri("s3://bucket/runs")
    found = files.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    return {
        one.path.removeprefix(f"{root}/"): files.open_input_stream(one.path).read()
        for one in found
        if one.type == fs.FileType.File
    }


@pytest.fixture(scope="module")
def _s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with s3_environment(tmp_path_factory.mktemp("s3") / "log", "bucket"):
        yield


@pytest.fixture(params=["file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        request.getfixturevalue("_s3")
        return Place("s3://bucket/runs/", files_of_s3)
    if request.param == "memory":
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        return Place(
            "memory://runs",
            lambda: {path.removeprefix("/runs/"): memory.cat(path) for path in memory.find("/")},
        )
    root = tmp_path / "delivered"
    return Place(
        root.as_uri(),
        lambda: {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        },
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A folder with files of a run, some of which are no results."""
    for name in (
        "best/model.onnx", "best/model.onnx.data", "best/metrics.json", "best/pictures.json",
        "front/3/model.onnx",
        "leaderboard.csv", "report.html", "search.yaml", "study.db",
        "trials/0/last.safetensors", ".mark", "best/exemplars/herding.tar",
    ):  # fmt: skip
        path = tmp_path / "work" / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"first {name}")
    return RunFolder(tmp_path / "work" / "tiny")


def delivering_to(search_file: Path, url: str) -> SearchConfig:
    return load_search_config(search_file, [f"study.deliver_to={url}"])[0]


def test_results_are_copied_and_replaced_and_nothing_else(
    search_file: Path, run: RunFolder, place: Place
) -> None:
    config = delivering_to(search_file, place.url)
    check_results_url(run, config)
    assert place.files() == {}
    assert copy_results(run, config) == f"{place.url.rstrip('/')}/tiny"
    names = {
        "best/model.onnx", "best/model.onnx.data", "best/metrics.json", "best/pictures.json",
        "front/3/model.onnx",
        "leaderboard.csv", "report.html", "search.yaml",
    }  # fmt: skip
    assert place.files() == {f"tiny/{name}": f"first {name}".encode() for name in names}
    (run.front / "3").rename(run.front / "4")
    (run.best / "model.onnx").write_text("second")
    copy_results(run, config)
    now = place.files()
    assert now["tiny/best/model.onnx"] == b"second"
    assert ("tiny/front/4/model.onnx" in now, "tiny/front/3/model.onnx" in now) == (True, False)
    assert len(now) == len(names)


@pytest.mark.usefixtures("_s3")
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://missing/runs", "bucket does not exist"),
        ("file:///proc/none", "Cannot create directory '/proc/none"),
        ("nothing://x/y", "Protocol not known: nothing"),
        ("sftp://nobody@127.0.0.1:1/runs", "paramiko|connect"),
    ],
)
def test_a_url_that_cannot_be_written_to_is_refused_without_a_secret(
    search_file: Path, run: RunFolder, url: str, reason: str
) -> None:
    config = delivering_to(search_file, url)
    with pytest.raises(StudyError, match=rf"cannot write to {url}/tiny: .*{reason}") as refused:
        check_results_url(run, config)
    with pytest.raises(RunError, match=rf"results are in {run.path}, but .* {url}") as failed:
        copy_results(run, config)
    for error in (refused.value, failed.value):
        assert not any(secret in str(error) for secret in KEYS.values())


def test_a_server_that_is_gone_is_told(
    search_file: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = delivering_to(search_file, "s3://bucket/runs?endpoint_override=127.0.0.1:1")
    assert results_url(config) == "s3://bucket/runs/tiny?endpoint_override=127.0.0.1:1"
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StudyError, match="Could not connect to server"):
        check_results_url(run, config)


def test_the_folder_of_the_run_is_no_place_to_copy_it_to(
    search_file: Path, run: RunFolder
) -> None:
    config = delivering_to(search_file, run.path.parent.as_uri())
    with pytest.raises(StudyError, match="is the folder in which the run works; give another"):
        check_results_url(run, config)
    assert run.report.read_text() == "first report.html"


def test_without_a_url_nothing_is_copied(search_file: Path, run: RunFolder) -> None:
    config, _ = load_search_config(search_file)
    before = sorted(os.walk(run.path.parent))
    check_results_url(run, config)
    assert copy_results(run, config) is None
    assert sorted(os.walk(run.path.parent)) == before
