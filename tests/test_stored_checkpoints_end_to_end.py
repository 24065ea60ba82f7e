"""Searches on a cluster without a shared run folder: checkpoints are in an S3 server (moto).

The machines are namespaces (tests/support/namespaces.py); the server runs on the head, as they
reach nothing beyond their network. Each has /tmp of its own, and so the head its run folder.
"""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_line import PATIENCE_SECONDS, PROGRAM, Background, run
from namespaces import CACHE, DATA, SHARED, Machines, Node
from s3 import KEYS, server_on
from searches import search_values

from hpo import open_run

pytestmark = pytest.mark.cluster

NAME, NUM_TRIALS, NUM_EPOCHS = "stored", 3, 9
SEARCH_FILE, RUNS = SHARED / "stored.yaml", Path("/tmp/runs")
URL = "s3://bucket/checkpoints"
PORT = 5000
# Runs on the head: prints each object's name, and of attempts.csv the text.
LIST = """
import json
from pyarrow import fs
files, root = fs.FileSystem.from_uri("s3://bucket/checkpoints/stored")
found = files.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
names = [one.path.removeprefix(root + "/") for one in found if one.type == fs.FileType.File]
read = lambda name: files.open_input_stream(root + "/" + name).read().decode()
print(json.dumps({name: read(name) if name.endswith(".csv") else "" for name in names}))
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Iterator[Machines]:
    """A head with an S3 server, and two nodes; the search file is all that they share."""
    folder = tmp_path_factory.mktemp("machines")
    shared = folder / "common"
    shared.mkdir()
    values = search_values(DATA, CACHE)
    values["study"] = {"num_trials": NUM_TRIALS, "name": NAME, "sampler": "random"}
    values["scheduler"] = {"name": "none"}
    values["retrain"] = {
        "seeds": 1,
        "top_k": 2,
        "max_epochs": 2,
        "proof_images": 8,
        "max_share": None,
    }
    values["train"] |= {"max_epochs": NUM_EPOCHS, "early_stopping": {"patience": None}}
    values["train"]["optimizer"]["batch_size"] = 5  # epochs long enough to be disturbed
    values["resources"]["max_concurrent_trials"] = None  # every node that joins gets a worker
    (shared / SEARCH_FILE.name).write_text(yaml.safe_dump(values))
    variables = {"AWS_ENDPOINT_URL": f"http://head:{PORT}", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (variables | KEYS).items():
            patched.setenv(name, value)
        machines = Machines(folder, shared, image_folder)
        try:
            machines.add("head")
            with server_on(machines["head"].inside, PORT, folder / "s3.log", "bucket"):
                machines.add("node1", "node2")
                yield machines
        finally:
            machines.close()


def arguments(url: str) -> tuple[object, ...]:
    return (
        "search", SEARCH_FILE, "--output-dir", RUNS, "--ray-address", Machines.address,
        "--set", f"study.checkpoint_to={url}",
    )  # fmt: skip


def as_seen_by(node: Node, path: Path) -> Path:
    """A node's own path, for this process."""
    return Path(f"/proc/{node.pid}/root") / path.relative_to("/")


def stored(head: Node) -> dict[str, str]:
    names: dict[str, str] = json.loads(head.run(PROGRAM[0], "-c", LIST))
    return names


def begun(head: Node) -> list[tuple[str, str, str]]:
    """Training, host name and number of each epoch begun, by the store."""
    found = []
    for name, text in stored(head).items():
        if name.endswith("/attempts.csv"):
            rows = csv.DictReader(text.splitlines())
            found += [(name.split("/")[1], row["hostname"], row["epoch"]) for row in rows]
    return found


def trains_on(head: Node, name: str) -> bool:
    """Whether the node is in the midst of a trial."""
    latest = {training: (host, int(epoch)) for training, host, epoch in begun(head)}
    return any(host == name and 2 <= epoch < NUM_EPOCHS - 3 for host, epoch in latest.values())


def test_a_search_needs_no_shared_folder_and_survives_a_node(
    machines: Machines, tmp_path: Path
) -> None:
    head = machines["head"]
    driver = Background(
        *head.program, *arguments(URL), log=tmp_path / "log", environment=head.environment,
        program=(),
    )  # fmt: skip
    try:
        driver.wait_for(lambda: trains_on(head, "node2"))
        machines.lose("node2")
        assert driver.process.wait(PATIENCE_SECONDS) == 0, driver.log.read_text()
    finally:
        driver.kill_everything()
    run_dir = tmp_path / NAME  # SQLite cannot follow the path to the head's own folder
    shutil.copytree(as_seen_by(head, RUNS / NAME), run_dir)
    trials = open_run(run_dir).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * NUM_TRIALS
    assert [sorted(trial.curve) for trial in trials] == [
        list(range(1, NUM_EPOCHS + 1))
    ] * NUM_TRIALS
    assert "finalists on one fresh seed" in driver.log.read_text()
    assert (run_dir / "best" / "model.onnx").exists()
    assert not (run_dir / "trials").exists()
    names = stored(head)
    kept = {name.split("/")[1] for name in names if name.endswith(".safetensors")}
    assert len(kept) == 2  # retrain.top_k
    assert not any("retraining" in name for name in names)
    epochs = [(trial, epoch) for trial, _, epoch in begun(head) if epoch.isdigit()]
    assert len(epochs) - len(set(epochs)) <= 1  # the epoch of the node that was lost
    hosts = [{host for one, host, _ in begun(head) if one == str(n)} for n in range(NUM_TRIALS)]
    assert {"node1", "node2"} in hosts  # it went on elsewhere
    node = machines["node1"]
    assert not as_seen_by(node, RUNS).exists()
    left = as_seen_by(node, CACHE / "trainings").iterdir()
    assert [path for path in left if path.is_dir()] == []
    assert "node1 decodes images: 110 of 110" in driver.log.read_text()


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("s3://missing/checkpoints", "error: cannot write to s3://missing/checkpoints/wrong: "),
        ("file:///tmp/checkpoints", "1 of 1 nodes cannot train for this search:\n  node1 (NODE): "
         "file:///tmp/checkpoints/wrong as node1 sees it has no file .mark (study.checkpoint_to)"),
    ],
)  # fmt: skip
def test_a_url_that_is_wrong_is_told_before_the_trials(
    machines: Machines, url: str, fault: str
) -> None:
    head, node = machines["head"], machines["node1"]
    if machines.has("node2"):
        machines.lose("node2")
    done = run(
        *arguments(url), "--study-name", "wrong", program=head.program, expect=2,
        **head.environment,
    )  # fmt: skip
    assert done.stderr.count("error: ") == 1
    assert fault.replace("NODE", node.address) in done.stderr
    assert not any(secret in done.stderr for secret in KEYS.values())
