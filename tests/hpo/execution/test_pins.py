import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from hpo.errors import ClusterError
from hpo.execution.pins import installed_pins


def test_pins_are_the_versions_that_are_installed() -> None:
    pins = installed_pins()
    assert f"ray[tune]=={metadata.version('ray')}" in pins.direct
    assert f"numpy=={metadata.version('numpy')}" in pins.direct
    assert {pin.partition("[")[0].partition("=")[0] for pin in pins.direct} <= {
        pin.partition("=")[0] for pin in pins.all
    }
    assert f"alembic=={metadata.version('alembic')}" in pins.all  # through optuna
    assert f"tensorboardx=={metadata.version('tensorboardX')}" in pins.all  # through ray[tune]
    assert not [pin for pin in pins.all if pin.startswith(("pytest", "sgformer"))]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the metadata of a distribution, which is found before the installed one."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(name: str, version: str, *requires: str) -> None:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += ["Provides-Extra: postgresql"]
        lines += [f"Requires-Dist: {one}" for one in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")

    return write


def test_local_versions_extras_and_circles(install: Callable[..., None]) -> None:
    install(
        "sgformer_hpo", "1", "Made_Up[fast]>=1", "other; python_version < '3'",
        "server; extra == 'postgresql'", "absent-one; extra == 'postgresql'",
    )  # fmt: skip
    install("made_up", "2.1+cpu", "below", "wheel-of; extra == 'fast'", "unasked; extra == 'x'")
    install("below", "3", "made.up")
    install("wheel_of", "4")
    install("server", "5")
    pins = installed_pins()
    assert pins.direct == ("made-up[fast]==2.1", "server==5")
    assert pins.all == ("below==3", "made-up==2.1", "server==5", "wheel-of==4")


def test_a_requirement_that_is_missing_here_is_named(install: Callable[..., None]) -> None:
    install("sgformer_hpo", "1", "nowhere-to-be-found>=1")
    with pytest.raises(ClusterError, match=r"nowhere-to-be-found is not installed here .*\.\)"):
        installed_pins()
