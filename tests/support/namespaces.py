"""A Ray cluster of namespaces of this machine, which see of one another what machines would.

A node has an address, a host name, processes, temporary files, data, cache and home of its own.
Nothing leads out of the nodes' network. When a node's first process is killed, the kernel ends
the others and removes the node's mounts; so does the end of the test process.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from command_line import PATIENCE_SECONDS, PROGRAM, environment_of_a_test
from mounts import served_by_fuse

# As the nodes see them.
SHARED, DATA, CACHE, HOME = (Path("/tmp") / name for name in ("shared", "data", "cache", "home"))
ROOT = Path(__file__).parents[2]
CODE = (ROOT, sys.prefix, sys.base_prefix)  # what every node sees, also if it is below /tmp
RAY = Path(sys.executable).with_name("ray")
PROGRAMS = ("setpriv", "unshare", "nsenter", "ip", "ss")
AS_LONG_AS_WE = ("setpriv", "--pdeathsig", "KILL")  # live: the kernel ends it after this process
KINDS = ("--mount", "--uts", "--ipc", "--net", "--pid")
RAY_START = (
    str(RAY), "start", "--block", "--disable-usage-stats", "--object-store-memory=80000000",
)  # fmt: skip
HEAD = ("--head", "--num-cpus=0", "--dashboard-host=head")
NODE = ("--address=head:6379", "--num-cpus=1")
RAY_HAS_STARTED = "Ray runtime started"
NO_RAY = ("sh", "-c", f"echo no {RAY_HAS_STARTED}; exec sleep infinity")
# The head misses a node that is cut off after a quarter of a minute; by itself after a whole one.
HEALTH = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}
NETWORK = "10.77.0"
# Runs as the node's first process. Its files are put together in a folder, which then becomes
# /tmp. The network is there when standard input ends.
BOOT = """
set -e
own=$1 name=$2; shift 2
hostname "$name"
mount --bind "$own/../hosts" /etc/hosts
for place in /dev/shm /var/tmp; do mount -t tmpfs none "$place"; done
mkdir "$own/root" && mount -t tmpfs none "$own/root" && cd "$own/root"
for place in shared data; do mkdir $place; mount --bind "$own/../$place" $place; done
for path in $BELOW_TMP; do mkdir -p "./${path#/tmp/}"; mount --bind $path "./${path#/tmp/}"; done
mkdir cache && install -D -m 600 "$own/../token" home/.ray/auth_token
mount --rbind "$own/root" /tmp && cd /
read -r _ || true
"$@" & wait $!
"""


class Node:
    """A node of `Machines`.

    Attributes:
        name: Its host name.
        address: Its IP address.
        program: The start of a command line that runs the program there.
        environment: Variables that the program needs there.
    """

    def __init__(self, name: str, number: int, folder: Path, command: Sequence[str]) -> None:
        self.name, self.port, self.address = name, f"port{number}", f"{NETWORK}.{number}"
        own = folder / name
        own.mkdir()
        self.log = own / "ray.log"
        code = [str(path) for path in CODE if str(path).startswith("/tmp/")]
        self.environment = {"HOME": str(HOME), "TMPDIR": "/tmp"}
        path = f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"  # jobs run the `python` there
        variables = {"RAY_AUTH_MODE": "token", "BELOW_TMP": " ".join(code), "PATH": path, **HEALTH}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *AS_LONG_AS_WE, "unshare", *KINDS, "--fork", "--kill-child", "--mount-proc",
                    "sh", "-c", BOOT, "-", str(own), name, *command,
                ],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env=environment_of_a_test() | self.environment | variables,
            )  # fmt: skip
        self.pid = child_of(self.process.pid)
        self.inside = ("nsenter", f"--target={self.pid}", *KINDS, "--")
        self.program = (*self.inside, *PROGRAM)

    def run(self, *command: object) -> str:
        """Runs a command on the node; returns what it prints."""
        return _output(*self.inside, *command)

    def boot(self) -> None:
        """Lets the node's own command start, as the network is there."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> None:
        """Waits until the node's own command has started."""
        end = time.monotonic() + PATIENCE_SECONDS
        while RAY_HAS_STARTED not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    @contextlib.contextmanager
    def without(self, *folders: Path) -> Iterator[None]:
        """Hides folders from the node for the block: they are empty there."""
        for folder in folders:
            self.run("mount", "-t", "tmpfs", "none", folder)
        try:
            yield
        finally:
            for folder in folders:
                self.run("umount", "--lazy", folder)


class Machines:
    """A head with a dashboard, nodes with one CPU each, and others, on a switch of their own.

    Attributes:
        shared: The shared folder as the test sees it; the nodes see it as SHARED.
        address: HOST:PORT of the head, for programs on the nodes.
    """

    address = "head:6379"

    def __init__(self, folder: Path, shared: Path, data: Path) -> None:
        if os.geteuid() != 0 or not all(map(shutil.which, PROGRAMS)):
            pytest.skip(f"machines as namespaces need root, and {', '.join(PROGRAMS)}")
        done = subprocess.run(["unshare", *KINDS, "true"], check=False, capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"namespaces cannot be made here: {done.stderr.decode().strip()}")
        self.shared, self._folder = shared, folder
        self._nodes: dict[str, Node] = {}
        self._num_nodes = 0
        for name, source in (("shared", shared), ("data", data)):
            (folder / name).symlink_to(source)
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        (folder / "token").write_text(os.urandom(32).hex())
        self._switch = subprocess.Popen([*AS_LONG_AS_WE, "unshare", "--net", "sleep", "infinity"])
        own, its = (Path(f"/proc/{pid}/ns/net") for pid in ("self", self._switch.pid))
        while own.readlink() == its.readlink():  # until it has left this network
            time.sleep(0.01)

    def __getitem__(self, name: str) -> Node:
        return self._nodes[name]

    def has(self, name: str) -> bool:
        return name in self._nodes

    def add(self, *names: str) -> None:
        """Starts nodes of the cluster, and waits for them; the first of all is "head"."""
        for name in names:
            self._start(name, (*RAY_START, *(HEAD if name == "head" else NODE)))
        for name in names:
            self[name].wait()

    def add_without_ray(self, *names: str) -> None:
        """Starts machines on the same switch that are no nodes of the cluster."""
        for name in names:
            self._start(name, NO_RAY)
        for name in names:
            self[name].wait()

    def lose(self, name: str) -> None:
        """Ends a node as a power cut does: none of its processes can take leave."""
        node = self._nodes.pop(name)
        self._at_switch("link", "set", node.port, "down")
        node.process.kill()
        node.process.wait()

    def close(self) -> None:
        for node in self._nodes.values():
            node.process.kill()
        self._switch.kill()
        for process in (self._switch, *(node.process for node in self._nodes.values())):
            process.wait()

    def _start(self, name: str, command: Sequence[str]) -> None:
        self._num_nodes += 1
        node = self._nodes[name] = Node(name, self._num_nodes, self._folder, command)
        with (self._folder / "hosts").open("a") as hosts:
            hosts.write(f"{node.address} {name}\n")
        self._connect(node)
        node.boot()

    def _connect(self, node: Node) -> None:
        if self._num_nodes == 1:
            self._at_switch("link", "add", "bridge", "type", "bridge")
            self._at_switch("link", "set", "bridge", "up")
        pair = ("name", "eth0", "netns", node.pid)
        self._at_switch("link", "add", node.port, "type", "veth", "peer", *pair)
        self._at_switch("link", "set", node.port, "master", "bridge", "up")
        node.run("ip", "addr", "add", f"{node.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            node.run("ip", "link", "set", link, "up")

    def _at_switch(self, *command: object) -> None:
        _output("nsenter", f"--target={self._switch.pid}", "--net", "--", "ip", *command)


@contextlib.contextmanager
def machines_on_fuse(folder: Path, data: Path) -> Iterator[Machines]:
    """A head, node1 and node2, whose shared folder FUSE serves."""
    with served_by_fuse(folder / "network") as shared:
        machines = Machines(folder, shared, data)
        try:
            machines.add("head")
            machines.add("node1", "node2")
            yield machines
        finally:
            machines.close()


def child_of(pid: int) -> int:
    """The only child of a process, which may be about to start it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < end
        time.sleep(0.01)
    (child,) = found
    return int(child)


def _output(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.args}: {done.stderr}"
    return done.stdout
