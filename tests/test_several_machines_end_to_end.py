"""Searches over several machines, some of which are lost or lack something, with a real Ray.

The machines are namespaces of this one (tests/support/namespaces.py). Samples and decisions of
the search do not depend on which trial is faster, so its trials are the same in every test.
"""

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
from command_line import (
    PATIENCE_SECONDS,
    PROGRAM,
    TRAIN_ONLY,
    Background,
    epochs_begun,
    load_epochs,
    run,
)
from namespaces import CACHE, DATA, SHARED, Machines, Node, child_of, machines_on_fuse
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
    """A head and two nodes, whose shared folder has a search file."""
    values = search_values(DATA, CACHE)
    values["study"] = {"num_trials": NUM_TRIALS, "name": NAME, "sampler": "random"}
    values["scheduler"] = {"name": "none"}
    values["train"] |= {"max_epochs": NUM_EPOCHS, "early_stopping": {"patience": None}}
    values["train"]["optimizer"]["batch_size"] = 5  # epochs long enough to be disturbed
    values["resources"]["max_concurrent_trials"] = None  # every node that joins gets a worker
    with machines_on_fuse(tmp_path_factory.mktemp("machines"), image_folder) as machines:
        (machines.shared / SEARCH_FILE.name).write_text(yaml.safe_dump(values))
        yield machines


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
        driver.wait_for(lambda: len(epochs_begun(run_dir)) > 2)
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


def trains_on(run_dir: Path, *names: str) -> bool:
    """Whether one of these nodes is in the midst of a trial."""
    latest = {number: (name, int(epoch)) for number, name, epoch in epochs_begun(run_dir)}
    return any(name in names and 2 <= epoch < NUM_EPOCHS - 3 for name, epoch in latest.values())


def is_as_undisturbed(run_dir: Path, calm: Calm, most_again: int) -> None:
    """Checks that nothing is lost, that no epoch counts twice, and that few were begun twice."""
    assert trials_of(run_dir) == calm.trials
    for number in range(NUM_TRIALS):
        epochs = [int(row["epoch"]) for row in load_epochs(run_dir, number)]
        assert epochs == list(range(1, NUM_EPOCHS + 1))
    epochs = [(number, epoch) for number, _, epoch in epochs_begun(run_dir) if epoch.isdigit()]
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
    assert not epochs_begun(machines.shared / "hidden" / NAME)


def test_a_node_and_a_driver_that_are_lost_cost_few_epochs_and_a_new_node_takes_part(
    machines: Machines, calm: Calm, tmp_path: Path
) -> None:
    run_dir = machines.shared / "lost" / NAME
    command = (*TRAIN_ONLY, *arguments("lost"))
    with driven(machines["head"], tmp_path / "first", *command) as first:
        first.wait_for(lambda: trains_on(run_dir, "node2"))
        machines.lose("node2")
        machines.add("node3")
        first.wait_for(lambda: trains_on(run_dir, "node3"))
        os.kill(child_of(first.process.pid), signal.SIGKILL)
        first.process.wait(PATIENCE_SECONDS)
    resume = (*CLOCK_AHEAD, *command[1:], "--resume")
    with driven(machines["node1"], tmp_path / "second", *resume) as second:
        assert second.process.wait(PATIENCE_SECONDS) == 0, second.log.read_text()
    watched = rf"process \d+ on head had this study; waiting {WATCH:.0f} seconds"
    assert re.search(watched, second.log.read_text())
    assert {"node1", "node2", "node3"} == {name for _, name, _ in epochs_begun(run_dir)}
    is_as_undisturbed(run_dir, calm, most_again=3)  # one of node2's, two of the driver's
