"""Searches over several machines, some of which are lost or lack something, with a real Ray.

The machines are namespaces of this one (tests/support/namespaces.py). Samples and decisions of
the search do not depend on which trial is faster, so its trials are the same in every test.
"""

import csv
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from clock_ahead import WATCH
from command_line import PATIENCE_SECONDS, PROGRAM, TRAIN_ONLY, Background, load_epochs, run
from mounts import served_by_fuse
from namespaces import CACHE, DATA, NETWORK, ROOT, SHARED, Machines, Node, child_of
from page import Page, Reader
from postgres import RESTART, install_postgres
from s3 import KEYS, server_on
from searches import search_values

from hpo import open_run

pytestmark = pytest.mark.cluster

NAME, NUM_TRIALS, NUM_EPOCHS = "nodes", 6, 12
SEARCH_FILE = SHARED / "nodes.yaml"
NO_IMAGES = "the folder of the images {} is empty on {}; all nodes need them (--data-dir)"
NO_RUN_FOLDER = (
    "the run folder {} is not there on {}; it must be one that all nodes share (--output-dir)"
)
CLOCK_AHEAD = (sys.executable, str(Path(__file__).parent / "support" / "clock_ahead.py"))


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Iterator[Machines]:
    """A head and two nodes; FUSE serves their shared folder, which has a search file."""
    folder = tmp_path_factory.mktemp("machines")
    values = search_values(DATA, CACHE)
    values["study"] = {"num_trials": NUM_TRIALS, "name": NAME, "sampler": "random"}
    values["scheduler"] = {"name": "none"}
    values["train"] |= {"max_epochs": NUM_EPOCHS, "early_stopping": {"patience": None}}
    values["train"]["optimizer"]["batch_size"] = 5  # epochs long enough to be disturbed
    values["resources"]["max_concurrent_trials"] = None  # every node that joins gets a worker
    with served_by_fuse(folder / "network") as shared:
        (shared / SEARCH_FILE.name).write_text(yaml.safe_dump(values))
        machines = Machines(folder, shared, image_folder)
        try:
            machines.add("head")
            machines.add("node1", "node2")
            yield machines
        finally:
            machines.close()


def arguments(runs: str) -> tuple[object, ...]:
    """The arguments of a search in the folder `runs` of the shared folder."""
    return SEARCH_FILE, "--output-dir", SHARED / runs, "--ray-address", Machines.address


@contextmanager
def driven(node: Node, log: Path, *command: object) -> Iterator[Background]:
    """A command that runs on a node for the block."""
    driver = Background(*command, log=log, environment=node.environment, program=node.inside)
    try:
        yield driver
    finally:
        driver.kill_everything()


@dataclass(frozen=True)
class Calm:
    """A search that two drivers, started at the same instant on two nodes, wanted to drive.

    Attributes:
        trials: The trials of the search, which nothing disturbed.
        refused: The driver that ended first.
        winner: The node of the other one.
        listening: While trials ran there, for each socket that listened beyond loopback the
            command line of its process.
    """

    trials: list[tuple[Any, ...]]
    refused: Background
    winner: str
    listening: list[str]


@pytest.fixture(scope="module")
def calm(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    run_dir, logs = machines.shared / "calm" / NAME, tmp_path_factory.mktemp("logs")
    command = (*PROGRAM, "search", *arguments("calm"))
    with ExitStack() as stack:
        drivers = {
            name: stack.enter_context(driven(machines[name], logs / name, *command))
            for name in ("head", "node1")
        }
        while all(driver.process.poll() is None for driver in drivers.values()):
            time.sleep(0.1)
        ended = [name for name in drivers if drivers[name].process.poll() is not None]
        refused = drivers.pop(ended[0])
        ((winner, driver),) = drivers.items()
        driver.wait_for(lambda: len(begun(run_dir)) > 2)
        listening = listening_beyond_loopback(machines[winner])
        # Without the delivery, which takes half a minute.
        driver.wait_for(lambda: "retraining trial" in driver.log.read_text())
    return Calm(trials_of(run_dir), refused, winner, listening)


def listening_beyond_loopback(node: Node) -> list[str]:
    """The command lines of processes that listen there, one for each of their sockets."""
    found = []
    for line in node.run("ss", "-ltnp").splitlines()[1:]:
        address = line.split()[3]
        if not address.startswith(("127.", "[::1]", "[::ffff:127.")):
            pid = re.findall(r"pid=(\d+)", line)[0]
            found.append(node.run("cat", f"/proc/{pid}/cmdline").replace("\0", " "))
    return found


def trials_of(run_dir: Path) -> list[tuple[Any, ...]]:
    """What must be equal whatever happened to the search."""
    return [
        (t.number, t.state.name, repr(t.value), t.params, repr(sorted(t.curve.items())))
        for t in open_run(run_dir).trials
    ]


def begun(run_dir: Path) -> list[tuple[int, str, str]]:
    """Trial, host name and number of each epoch begun in the trials."""
    found = []
    for path in run_dir.glob("trials/*/attempts.csv"):
        number = int(path.parent.name)
        rows = csv.DictReader(path.read_text().splitlines())
        found += [(number, row["hostname"], row["epoch"]) for row in rows]
    return found


def trains_on(run_dir: Path, *names: str) -> bool:
    """Whether one of these nodes is in the midst of a trial."""
    latest = {number: (name, int(epoch)) for number, name, epoch in begun(run_dir)}
    return any(name in names and 2 <= epoch < NUM_EPOCHS - 3 for name, epoch in latest.values())


def is_as_undisturbed(run_dir: Path, calm: Calm, most_again: int) -> None:
    """Checks that nothing is lost, that no epoch counts twice, and that few were begun twice."""
    assert trials_of(run_dir) == calm.trials
    for number in range(NUM_TRIALS):
        epochs = [int(row["epoch"]) for row in load_epochs(run_dir, number)]
        assert epochs == list(range(1, NUM_EPOCHS + 1))
    epochs = [(number, epoch) for number, _, epoch in begun(run_dir) if epoch.isdigit()]
    assert len(epochs) - len(set(epochs)) <= most_again


def test_of_two_drivers_at_the_same_instant_one_goes_on(calm: Calm) -> None:
    said = calm.refused.log.read_text()
    assert calm.refused.process.returncode == 2, said
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    working = f"another process is working on {SHARED}/calm/{NAME}: "
    assert re.search(rf"{working}process \d+ on {calm.winner}\n", said)
    assert [state for _, state, *_ in calm.trials] == ["COMPLETE"] * NUM_TRIALS


def test_only_ray_listens_beyond_loopback(calm: Calm) -> None:
    ours = [line for line in calm.listening if not re.search(r"^ray::|/ray/| -m ray\.", line)]
    assert len(ours) == 1, "\n".join(ours)  # Ray's own socket of the driver
    assert "run_search.py search" in ours[0]


@pytest.mark.parametrize(
    ("hidden", "fault"),
    [
        ((DATA, CACHE), NO_IMAGES.format(DATA, "node2")),
        ((SHARED,), NO_RUN_FOLDER.format(SHARED / "hidden" / NAME, "node2")),
    ],
)
def test_a_node_that_lacks_a_folder_is_named_before_the_trials(
    machines: Machines, hidden: tuple[Path, ...], fault: str
) -> None:
    head, node = machines["head"], machines["node2"]
    with node.without(*hidden):
        done = run(
            "search", *arguments("hidden"), program=head.program, expect=2, **head.environment
        )
    assert done.stderr.count("error: ") == 1
    assert "1 of 2 nodes cannot train for this search:\n" in done.stderr
    assert done.stderr.endswith(f"  node2 ({node.address}): {fault}\n")
    assert not begun(machines.shared / "hidden" / NAME)


def test_a_driver_that_is_killed_is_followed_by_one_on_another_node(
    machines: Machines, calm: Calm, tmp_path: Path
) -> None:
    run_dir = machines.shared / "driver-lost" / NAME
    command = (*TRAIN_ONLY, *arguments("driver-lost"))
    with driven(machines["head"], tmp_path / "first", *command) as first:
        first.wait_for(lambda: trains_on(run_dir, "node1", "node2"))
        os.kill(child_of(first.process.pid), signal.SIGKILL)
        first.process.wait(PATIENCE_SECONDS)
    resume = (*CLOCK_AHEAD, *command[1:], "--resume")
    with driven(machines["node1"], tmp_path / "second", *resume) as second:
        assert second.process.wait(PATIENCE_SECONDS) == 0, second.log.read_text()
    watched = rf"process \d+ on head had this study; waiting {WATCH:.0f} seconds"
    assert re.search(watched, second.log.read_text())
    is_as_undisturbed(run_dir, calm, most_again=2)


def test_a_node_that_is_lost_costs_an_epoch_and_a_new_one_takes_part(
    machines: Machines, calm: Calm, tmp_path: Path
) -> None:
    run_dir = machines.shared / "node-lost" / NAME
    command = (*TRAIN_ONLY, *arguments("node-lost"))
    with driven(machines["head"], tmp_path / "log", *command) as driver:
        driver.wait_for(lambda: trains_on(run_dir, "node2"))
        machines.lose("node2")
        machines.add("node3")
        assert driver.process.wait(PATIENCE_SECONDS) == 0, driver.log.read_text()
    assert {"node1", "node2", "node3"} == {name for _, name, _ in begun(run_dir)}
    is_as_undisturbed(run_dir, calm, most_again=1)


# What a reader of docs/cluster.md writes for its words, and what stands here for what cannot run.
PLACEHOLDERS = {
    "HEAD": "head",
    "/shared/images": str(DATA),
    "/shared": str(SHARED),
    "RUN": f"{SHARED}/runs/core",
    "N": "1",
    "PASSWORD": "a-password",
    "BUCKET": "results",
    "10.0.0.0/24": f"{NETWORK}.0/24",
    "sudo -u postgres": "runuser -u postgres --",
    "sudo systemctl restart postgresql": RESTART,
}
SUBMIT, SEARCH = (f".venv/bin/python run_search.py {name}" for name in ("submit", "search"))
OUTPUT_DIR = f" --output-dir {SHARED}/runs"
NOT_RUN = {
    ".venv/bin/pip install -c constraints.txt '.[cluster]'": "no package index is reached",
    ".venv/bin/pip install -c constraints.txt '.[postgresql]'": "no package index is reached",
    "sudo apt-get install postgresql": "`install_postgres` does what Debian's package does",
    "ssh -L 8265:localhost:8265 HEAD": "no ssh server; the head is reached by --dashboard-host",
    "python -m run_search": "what `submit` lets the head run",
    "ray start": "what `Machines` runs on each node",
    "... --output-dir /var/lib/runs": "test_stored_checkpoints_end_to_end.py has such a search",
}


@pytest.fixture
def core(machines: Machines) -> Path:
    """core.yaml, a tiny search, in what looks to the nodes like a checkout of this program."""
    (machines.shared / ".venv").symlink_to(sys.prefix)
    (machines.shared / "run_search.py").symlink_to(ROOT / "run_search.py")
    values = search_values(DATA, CACHE)
    values["train"]["max_epochs"] = 2
    values["resources"]["max_concurrent_trials"] = None
    file = machines.shared / "search_spaces" / "core.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(values))
    return file


def set_num_trials(file: Path, num_trials: int) -> None:
    values = yaml.safe_load(file.read_text()) | {"study": {"num_trials": num_trials}}
    file.write_text(yaml.safe_dump(values))


def test_the_page_on_clusters_is_true_from_top_to_bottom(
    machines: Machines, core: Path, tmp_path: Path
) -> None:
    machines.add_without_ray("laptop", "database")
    install_postgres(machines["database"])
    page = Page(ROOT / "docs" / "cluster.md")
    words = PLACEHOLDERS | {"10.0.0.5": machines["database"].address}
    laptop, head, database = (
        Reader(page, machines[name], SHARED, words) for name in ("laptop", "head", "database")
    )
    set_num_trials(core, 99)
    a_search_is_submitted_and_stopped(laptop, machines.shared / "runs/core", tmp_path / "submit")

    with head.starts(".venv/bin/optuna-dashboard", log=tmp_path / "dashboard") as opened:
        opened.wait_for(lambda: "LISTEN" in machines["head"].run("ss", "-ltn", "sport = :8080"))
        assert '"core"' in answer_to(machines["head"], "http://127.0.0.1:8080/api/studies")
    shown = page.take("error: 1 of 2 nodes cannot train", words)
    faults = (NO_IMAGES.format(DATA, "node7"), NO_RUN_FOLDER.format(words["RUN"], "node7"))
    assert shown.endswith(f" {'; '.join(faults)}")

    set_num_trials(core, 1)
    a_database_is_made_and_keeps_a_study(database, head, laptop)

    inside, bucket = machines["head"].inside, words["BUCKET"]
    with server_on(inside, 0, tmp_path / "s3", bucket, host="127.0.0.1") as port:
        address = f"http://127.0.0.1:{port}"
        head.environment |= KEYS | {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
        head.placeholders["..."] = page.take(SEARCH, words).replace(OUTPUT_DIR, "")
        its_results_are_copied(head)
        keys = answer_to(machines["head"], f"{address}/{bucket}")
    assert "<Key>runs/team-core/best/model.onnx</Key>" in keys
    for command in NOT_RUN:
        page.take(command, words)
    assert page.left == []


def a_search_is_submitted_and_stopped(laptop: Reader, run_dir: Path, log: Path) -> None:
    laptop.exports("export RAY_API_SERVER_ADDRESS")
    with laptop.starts(SUBMIT, "--image-has-it", log=log) as submit:
        submit.wait_for(lambda: len(begun(run_dir)) > 1)
        (job,) = re.findall(r"^job +(\S+)", log.read_text())
        laptop.placeholders["JOB"] = job
        assert f"{job}  running" in laptop.runs("jobs list")
        assert "running" in laptop.runs("jobs status")
        assert "trial 0 starts" in laptop.runs("jobs logs")
        assert "running" in laptop.runs("status RUN")
        assert "asked for" in laptop.runs("resize")
        assert "stopped since" in laptop.runs("jobs stop")
        assert submit.process.wait(PATIENCE_SECONDS) == 1


def a_database_is_made_and_keeps_a_study(database: Reader, head: Reader, laptop: Reader) -> None:
    twice = f"{database.placeholders['PASSWORD']}\\n" * 2
    database.runs("sudo -u postgres createuser", typed=twice)
    for command in ("sudo -u postgres createdb", "echo 'hostssl", "sudo -u postgres psql"):
        database.runs(command)
    for reader in (laptop, head):
        reader.exports("export HPO_STORAGE")
    assert "ONNX model" in head.runs(SEARCH)
    assert "1 complete" in laptop.runs(".venv/bin/python run_search.py status")


def its_results_are_copied(head: Reader) -> None:
    url = f"s3://{head.placeholders['BUCKET']}/runs"
    for command in ("... --output-dir s3", "... --output-dir /shared"):
        assert url in head.runs(command, "--resume")
    head.placeholders["RUN"] = f"{SHARED}/runs/team-core"
    assert url in head.runs("report RUN")


def answer_to(node: Node, url: str) -> str:
    """What a server answers to a program of the node."""
    program = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
    return node.run(sys.executable, "-c", program, url)
