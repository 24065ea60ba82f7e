"""Tests with made-up cgroups: a folder that holds proc/self/cgroup and sys/fs/cgroup."""

import os
from pathlib import Path

import pytest

from sgformer.cpus import AHEAD, in_threads, usable_cpus, usable_memory

JOB = "system.slice/job.scope"


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        # A container with a name space of its own; a service; a quota of what is above the job.
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": f"0::/{JOB}", f"sys/fs/cgroup/{JOB}/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": f"0::/{JOB}", f"sys/fs/cgroup/{JOB}/cpu.max": "250000 100000"}, 2),
        (
            {
                "proc/self/cgroup": f"0::/{JOB}",
                f"sys/fs/cgroup/{JOB}/cpu.max": "600000 100000",
                "sys/fs/cgroup/system.slice/cpu.max": "400000 100000",
            },
            4,
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "9900000 100000"}, 8),
        # Version 1: the path is often that on the host, whose folder a container does not see.
        (
            {
                "proc/self/cgroup": "9:name=systemd:/x\n4:cpu,cpuacct:/docker/1f\n0::/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "3:cpuset:/\n1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
    ],
)
def test_a_quota_limits_the_cpus_that_count(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    assert usable_cpus(write(tmp_path, files)) == expected


def test_the_affinity_limits_the_cpus_that_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5})
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "300000 100000"}
    assert usable_cpus(write(tmp_path, files)) == 1


def test_results_of_threads_come_in_order_and_few_are_worked_out_ahead() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    results = in_threads(work, range(10_000))
    assert [next(results) for _ in range(100)] == [i * i for i in range(100)]
    assert len(begun) <= 100 + AHEAD * usable_cpus()
    results.close()
    assert list(in_threads(work, range(5))) == [0, 1, 4, 9, 16]


def test_an_error_of_a_thread_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 / item, (2, 1, 0)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16 * 2**30),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}, 16 * 2**30),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "2000000000"}, 2 * 10**9),
        (
            {
                "proc/self/cgroup": f"0::/{JOB}",
                f"sys/fs/cgroup/{JOB}/memory.max": "max",
                "sys/fs/cgroup/system.slice/memory.max": "3000000000",
            },
            3 * 10**9,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/1f",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000000",
            },
            10**9,
        ),
        (  # version 1 has no word for "no limit", but a number beyond any machine
            {
                "proc/self/cgroup": "4:memory:/",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            16 * 2**30,
        ),
    ],
)
def test_a_limit_of_the_cgroup_bounds_the_memory(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    machine = {"proc/meminfo": "MemTotal:       16777216 kB\nMemFree:        1 kB"}
    assert usable_memory(write(tmp_path, machine | files)) == expected
