"""docs/cluster.md is true: its commands are run on several machines, namespaces of this one."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_line import PATIENCE_SECONDS, epochs_begun
from namespaces import CACHE, DATA, NETWORK, ROOT, SHARED, Machines, Node, machines_on_fuse
from page import Page, Reader
from postgres import RESTART, install_postgres
from s3 import KEYS, server_on
from searches import search_values

pytestmark = pytest.mark.cluster

FAULTS = (
    f"the folder of the images {DATA} is empty on node7; all nodes need them (--data-dir)",
    f"the run folder {SHARED}/runs/core is not there on node7; it must be one that all nodes "
    "share (--output-dir)",
)
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
def machines(tmp_path: Path, image_folder: Path) -> Iterator[Machines]:
    with machines_on_fuse(tmp_path, image_folder) as machines:
        yield machines


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
    assert shown.endswith(f" {'; '.join(FAULTS)}")

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
        submit.wait_for(lambda: len(epochs_begun(run_dir)) > 1)
        (job,) = re.findall(r"^job +(\S+)", log.read_text())
        laptop.placeholders["JOB"] = job
        assert f"{job}  running" in laptop.runs("jobs list")
        assert "running" in laptop.runs("jobs status")
        assert "trial 0 starts" in laptop.runs("jobs logs")
        assert "running" in laptop.runs("status RUN")
        assert "asked for" in laptop.runs("resize")
        assert "stopped since" in laptop.runs("jobs stop")
        assert submit.process.wait(PATIENCE_SECONDS) == 1
    assert "to go on: python run_search.py search " in laptop.runs("watch JOB")


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
