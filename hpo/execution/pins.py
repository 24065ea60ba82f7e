"""The versions of this package's requirements that are installed here, for a cluster's nodes."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final

from hpo.errors import ClusterError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION: Final = "sgformer-hpo"
OPTIONAL_EXTRA: Final = "postgresql"  # its packages are pinned where they are installed


@dataclass(frozen=True)
class Pins:
    """Installed versions, as lines of a requirements file.

    Attributes:
        direct: What this package itself requires, such as 'ray[tune]==2.60.0'.
        all: What it requires directly or through other packages, such as 'numpy==2.4.6'.
    """

    direct: tuple[str, ...]
    all: tuple[str, ...]


def installed_pins() -> Pins:
    """The installed versions; local ones, such as 2.14.1+cpu, without what follows the '+'.

    Raises:
        ClusterError: This package, or one that it requires, is not installed here.
    """
    try:
        direct = [*_required(DISTRIBUTION), *_required_by_extra()]
        return Pins(
            tuple(sorted(_pin(one, with_extras=True) for one in direct)),
            tuple(sorted({_pin(one, with_extras=False) for one in _with_theirs(direct)})),
        )
    except metadata.PackageNotFoundError as error:
        raise ClusterError(
            f"cannot tell the nodes which versions to install: {error.name} is not installed here "
            "(pip install -c constraints.txt .); where the nodes have this package, give "
            "--image-has-it"
        ) from None


def _with_theirs(requirements: list["Requirement"]) -> Iterator["Requirement"]:
    """The requirements, what they require, and so on."""
    left, seen = list(requirements), set[str]()
    while left:
        requirement = left.pop()
        yield requirement
        for extra in ("", *sorted(requirement.extras)):
            key = f"{requirement.name}[{extra}]"
            if key not in seen:
                seen.add(key)
                left += _required(requirement.name, extra)


def _required(distribution: str, extra: str = "") -> Iterator["Requirement"]:
    """What a distribution requires on this machine; with an extra, what that adds as well."""
    from packaging.requirements import Requirement

    for text in metadata.requires(distribution) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _required_by_extra() -> Iterator["Requirement"]:
    plain = {requirement.name for requirement in _required(DISTRIBUTION)}
    for requirement in _required(DISTRIBUTION, OPTIONAL_EXTRA):
        if requirement.name not in plain and _is_installed(requirement.name):
            yield requirement


def _is_installed(distribution: str) -> bool:
    return next(iter(metadata.distributions(name=distribution)), None) is not None


def _pin(requirement: "Requirement", *, with_extras: bool) -> str:
    from packaging.utils import canonicalize_name

    name, extras = canonicalize_name(requirement.name), ""
    if with_extras and requirement.extras:
        extras = f"[{','.join(sorted(requirement.extras))}]"
    return f"{name}{extras}=={metadata.version(name).partition('+')[0]}"
