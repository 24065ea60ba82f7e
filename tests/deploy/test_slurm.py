"""deploy/slurm.sh, with Slurm's and Ray's commands as stubs: no Slurm can run here."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import PATIENCE_SECONDS

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm.sh"
JOB_ID = 4321
PORT = 10000 + JOB_ID % 220 * 100
LOG = 'echo "$(basename "$0") $*" >>"$STUB_LOG"\n'
STUBS = {
    "scontrol": LOG
    + 'case "$*" in\n'
    + '  "show hostnames "*) printf "node1\\nnode2\\n" ;;\n'
    + '  "show job "*) echo "JobState=RUNNING OverSubscribe=$STUB_OVERSUBSCRIBE" ;;\n'
    + "esac\n",
    # Runs the command here, once, whatever the nodes.
    "srun": LOG + 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "hostname": "echo 127.0.0.1 10.9.9.9\n",
    # symmetric-run runs what follows --; start --head listens until it is told to end.
    "ray": LOG
    + 'echo "token ${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >>"$STUB_LOG"\n'
    + 'port=$(grep -o "[-]-port=[0-9]*" <<<"$*" | cut -d= -f2) || true\n'
    + 'if [[ $1 == symmetric-run ]]; then while [[ $1 != -- ]]; do shift; done; "${@:2}"\n'
    + "elif [[ $* == *--head* ]]; then\n"
    + f'  exec {sys.executable} -m http.server --bind 127.0.0.1 "$port"\n'
    + "else exec sleep 600; fi\n",
    # Ends when the second node of a shared cluster has started.
    "sgformer-hpo": LOG
    + "if [[ $STUB_OVERSUBSCRIBE == OK ]]; then\n"
    + '  until grep -q "^ray start --block" "$STUB_LOG"; do sleep 0.05; done\n'
    + "fi\n"
    + 'if [[ $STUB_SEARCH == waits ]]; then\n'
    + '  trap "echo saved >>$STUB_LOG; exit 1" TERM\n'
    + '  touch "$STUB_LOG.waits"; while :; do sleep 0.1; done\n'
    + "fi\nexit $STUB_SEARCH\n",
    "python": f'exec {sys.executable} "$@"\n',
}  # fmt: skip

Job = Callable[..., subprocess.Popen]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def job(tmp_path: Path, log: Path) -> Job:
    """Starts the script as Slurm would on the first of two nodes."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in STUBS.items():
        path = programs / name
        path.write_text(f"#!/usr/bin/env bash\n{text}")
        path.chmod(0o755)

    def start(*, exclusive: bool, search: str = "0") -> subprocess.Popen:
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}", "SGFORMER": str(programs),
            "TMPDIR": str(tmp_path), "STUB_LOG": str(log), "STUB_SEARCH": search,
            "STUB_OVERSUBSCRIBE": "NO" if exclusive else "OK",
            "SLURM_JOB_ID": str(JOB_ID), "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "4",
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", SCRIPT, "core.yaml", "--data-dir", "/shared/images"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return start


def end_of(process: subprocess.Popen) -> int:
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert "error" not in output
    return int(process.returncode)


def test_the_script_has_no_finding_of_shellcheck() -> None:
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, SCRIPT], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_whole_nodes_run_ray_symmetrically(job: Job, log: Path) -> None:
    assert end_of(job(exclusive=True)) == 0
    calls = log.read_text()
    assert (
        f"ray symmetric-run --address 127.0.0.1:{PORT} --min-nodes 2 --num-cpus=8 --num-gpus=4 "
        "--include-dashboard=false -- "
    ) in calls
    assert (
        f"sgformer-hpo search core.yaml --data-dir /shared/images --ray-address 127.0.0.1:{PORT} "
        "--resume\n"
    ) in calls
    assert "token 64 token\n" in calls
    assert "ray start" not in calls
    assert "requeue" not in calls


def test_on_shared_nodes_ray_has_ports_of_this_job_alone(job: Job, log: Path) -> None:
    assert end_of(job(exclusive=False)) == 0
    calls = log.read_text()
    assert "symmetric-run" not in calls
    head, node = (line for line in calls.splitlines() if line.startswith("ray start"))
    assert "--head --block --node-ip-address=127.0.0.1" in head
    assert f"start --block --address=127.0.0.1:{PORT} --num-cpus=8 --num-gpus=4" in node
    assert re.search("srun .*--nodes=1 .*--exclude=node1 ray start --block --address", calls)
    ports = [int(port) for port in re.findall(r"-port=(\d+)", head)]
    assert len(set(ports)) == len(ports) == 10
    assert all(PORT <= port < PORT + 100 for port in ports)
    assert calls.count("token 64 token\n") == 2
    assert (
        f"sgformer-hpo search core.yaml --data-dir /shared/images --ray-address 127.0.0.1:{PORT}"
        in calls
    )


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_search_that_fails_fails_the_job(job: Job, log: Path, exclusive: bool) -> None:
    assert end_of(job(exclusive=exclusive, search="2")) == 2
    assert "requeue" not in log.read_text()


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_job_that_must_end_saves_its_search_and_is_queued_again(
    job: Job, log: Path, tmp_path: Path, exclusive: bool
) -> None:
    process = job(exclusive=exclusive, search="waits")
    while not Path(f"{log}.waits").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    end_of(process)
    calls = log.read_text()
    assert calls.index("saved") < calls.index(f"scontrol requeue {JOB_ID}")
    assert not list(tmp_path.glob("*.pid"))


def test_two_jobs_on_a_node_have_no_port_in_common() -> None:
    """Neighbouring job ids; those 220 apart would meet, and Ray would say so."""
    text = SCRIPT.read_text()
    assert "first_port=$((10000 + SLURM_JOB_ID % 220 * 100))" in text
    assert 10000 + 219 * 100 + 99 < 32768


def test_the_script_ends_its_own_processes_only() -> None:
    commands = [line for line in SCRIPT.read_text().splitlines() if not line.startswith("#")]
    assert not re.search(r"pkill|killall|ray stop|scancel", "\n".join(commands))
