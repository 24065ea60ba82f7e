"""The protocol of trackers, which show a search elsewhere, and what they are told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, Self

from hpo.config.search_space import Value
from sgformer.errors import InputError

if TYPE_CHECKING:
    from hpo.run import Run
    from hpo.tracking.search_end import SearchEnd

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sent:
    """What a tracker has of a trial.

    Attributes:
        num_epochs: The last epoch that it has; 0: none.
        has_ended: Whether it has the trial's end.
    """

    num_epochs: int = 0
    has_ended: bool = False


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended.

    Attributes:
        state: A TrialStatus.
        reason: Why, in words.
        value: The objective at the trial's best epoch; None: it has none.
    """

    state: str
    reason: str
    value: float | None


@dataclass(frozen=True)
class News:
    """What a tracker does not have of a trial.

    Attributes:
        params: The trial's params.
        rows: Metrics of the epochs that it lacks, one after the other.
        is_paused: Whether the trial is paused now.
        end: How it ended; None: it has not.
        num_epochs: The trial's last epoch, with these rows; a Mirror sets it.
    """

    params: Mapping[str, Value]
    rows: Sequence[Row] = ()
    is_paused: bool = False
    end: TrialEnd | None = None
    num_epochs: int = 0

    def then(self, later: Self) -> Self:
        """These news and later ones in one."""
        return replace(later, rows=(*self.rows, *later.rows))


class Tracker(Protocol):
    """Shows a search elsewhere. But for `check`, all is called in one thread of its own.

    Any method may raise whatever its library raises: the search goes on, and what is missing is
    sent later.

    Attributes:
        name: Its name in messages.
        option: The option that asks for it, such as '--tensorboard'.
    """

    name: str
    option: str

    def check(self) -> None:
        """Checks that it can be used, and creates nothing that a user would see.

        Raises:
            InputError: A package is missing, or what it writes to cannot be reached.
        """

    def begin(self) -> dict[int, Sent]:
        """Opens what it writes to; returns what it has of this run's trials, by number."""

    def send(self, number: int, news: News) -> None:
        """Adds what it does not have of a trial."""

    def finish(self, end: "SearchEnd", run: "Run") -> None:
        """Adds how the search ended, and its files."""

    def close(self) -> None:
        """Closes what it has open."""


def numbers_of(row: Row) -> dict[str, float]:
    """The numbers of an epoch's metrics by name, without those that are not known."""
    return {name: float(value) for name, value in row.items() if isinstance(value, (int, float))}


def need_package(module: str, extra: str, option: str) -> None:
    """Raises InputError if a package is not installed; `extra` is the extra that has it."""
    if find_spec(module) is None:
        raise InputError(
            f"{option} needs the package {extra}, which is not installed: pip install -c "
            f"constraints.txt '.[{extra}]'"
        )


def parts_of(items: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    """The rows in parts of at most `size`."""
    return (items[i : i + size] for i in range(0, len(items), size))
