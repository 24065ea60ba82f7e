"""The CPUs and the memory that this process may use, of which a machine often has more."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

ROOT: Final = Path("/")
AHEAD: Final = 16  # items a thread
Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cpus(root: Path = ROOT) -> int:
    """CPUs of this process's affinity, or fewer if its cgroups allow it less time; at least 1.

    A batch system often binds a job to some CPUs (the affinity), and a container or a service
    often gets a quota of CPU time. Of a quota of 2.5 CPUs 2 count: with a third busy process the
    kernel would halt all of them for a part of the time.

    Args:
        root: The folder with proc/self/cgroup and sys/fs/cgroup.
    """
    quota = min(_quotas(root), default=math.inf)
    return int(max(1, min(len(os.sched_getaffinity(0)), quota)))


def usable_memory(root: Path = ROOT) -> int:
    """Bytes of memory that this process may fill: the machine's, or fewer by its cgroups' limits.

    Args:
        root: The folder with proc/meminfo, proc/self/cgroup and sys/fs/cgroup.

    Source: proc_meminfo(5), and the kernel's documentation of memory.max and
    memory.limit_in_bytes.
    """
    lines = dict(line.split(":", 1) for line in _text(root / "proc/meminfo").splitlines())
    machine = 1024 * int(lines.get("MemTotal", "0 kB").split()[0])
    limits = [
        _text(folder / ("memory.max" if is_v2 else "memory.limit_in_bytes"))
        for folder, is_v2 in _cgroups(root, "memory")
    ]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The function's results in order, from a thread a CPU, at most AHEAD ahead of the caller."""
    num_threads = usable_cpus()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == AHEAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of this process's cgroups, and of those that they lie in, in CPUs.

    Source: the kernel's documentation of cpu.max and cpu.cfs_quota_us.
    """
    for folder, is_v2 in _cgroups(root, "cpu"):
        limit = _limit_of_v2(folder) if is_v2 else _limit_of_v1(folder)
        if limit is not None:
            yield limit


def _cgroups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of this process's cgroups and of those above, and whether they are version 2's.

    Source: cgroups(7).
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        is_v2 = not controllers
        if not is_v2 and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("" if is_v2 else controller)
        folder = mount / path.strip("/")
        # In a container the path may be that on the host, of which only the mount itself is seen.
        for above in (folder, *folder.parents):
            yield above, is_v2
            if above == mount:
                break


def _limit_of_v2(folder: Path) -> float | None:
    """The cgroup's own quota in CPUs; None: it has none."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    return None if quota in {"", "max"} else int(quota) / int(period)


def _limit_of_v1(folder: Path) -> float | None:
    """The cgroup's own quota in CPUs; None: it has none."""
    quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return None if not period or int(quota) <= 0 else int(quota) / int(period)


def _text(file: Path) -> str:
    """The file's text; empty if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
