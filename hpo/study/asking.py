"""How a search takes new trials from the study that it drives, and ends them.

The driver remembers what it needs of the trials, so that it does not read the study for each
event.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from hpo.config.schema import StudyConfig
from hpo.config.search_space import Parameter, Params, Space, Value, suggest_params
from hpo.samplers.proxy_study import ProxyStudy
from hpo.study.gate import StudyGate
from hpo.study.trial import Proposal, facts_of_pause
from hpo.study.writer import Ending, TrialWriter

Drawn = tuple[Params, dict[str, BaseDistribution]]


@dataclass
class RunningTrial:
    """A trial that is RUNNING in the study.

    Attributes:
        id: The trial's id in the storage.
        params: All of the trial's params.
        num_reported: The last epoch that the study has; 0 before the first.
        unwritten: Params and distributions that the study lacks, because the program that asked
            for the trial ended while it drew them; None: the study has all.
        refused: Why the space refuses an enqueued trial; empty: the space allows it.
    """

    id: int
    params: Params
    num_reported: int = 0
    unwritten: Drawn | None = None
    refused: str = ""


@dataclass
class LiveTrials:
    """The trials of a study that a search is driving.

    Attributes:
        sampling: Draws the params of new trials.
        next_number: Number of the next trial, unless another program adds a trial before.
        waiting: Enqueued trials that have not started, the next one first.
        running: RUNNING trials by number.
    """

    sampling: ProxyStudy
    next_number: int
    waiting: deque[FrozenTrial] = field(default_factory=deque)
    running: dict[int, RunningTrial] = field(default_factory=dict)

    @classmethod
    def of(
        cls, trials: Iterable[FrozenTrial], next_number: int, config: StudyConfig, space: Space
    ) -> "LiveTrials":
        """The live trials of a study that has these `trials`, given in the order of numbers."""
        live = cls(ProxyStudy(config, space), next_number)
        for trial in trials:
            if trial.state == TrialState.WAITING:
                live.waiting.append(trial)
            elif trial.state == TrialState.RUNNING:
                live._take_up(trial, space)
            else:
                live.sampling.add(trial)
        return live

    def _take_up(self, trial: FrozenTrial, space: Space) -> None:
        number, curve = trial.number, trial.intermediate_values
        running = RunningTrial(trial._trial_id, dict(trial.params), max(curve, default=0))
        if _is_whole(trial, space):
            self.sampling.add(trial)
        else:
            running.unwritten = self.sampling.draw(number, dict(trial.params))
            running.params = running.unwritten[0]
            self.sampling.report(number, curve)
        if not curve and "fixed_params" in trial.system_attrs:
            running.refused = "; ".join(_refused(_wanted(trial), space).values())
        self.running[number] = running
        if facts_of_pause(trial.user_attrs, running.num_reported) is not None:
            self.sampling.pause(number)


class Asking:
    """Takes trials from a study, and remembers the running ones without reading them again."""

    def __init__(
        self,
        study: optuna.Study,
        writer: TrialWriter,
        gate: StudyGate,
        config: StudyConfig,
        space: Space,
    ) -> None:
        self._study, self._writer, self._gate = study, writer, gate
        self._config, self._space = config, space
        self._live: LiveTrials | None = None
        self._taken: set[int] = set()  # running trials that this process has asked for

    @property
    def live(self) -> LiveTrials:
        """The live trials; read from the study at first, and after each `forget`."""
        if self._live is None:
            # Count before reading: `create` then notices a trial that is added in between.
            number = self._gate.read(self._writer.num_trials)
            frozen = self._gate.read(lambda: self._study.get_trials(deepcopy=False))
            self._live = LiveTrials.of(frozen, number, self._config, self._space)
        return self._live

    def forget(self) -> None:
        """Has the next use read the trials from the study again."""
        self._live = None

    def ask(self, chosen: Params | None, is_retry: bool) -> Proposal:
        """The first waiting trial, else a new one with params `chosen` (None: the sampler's)."""
        if is_retry:  # the earlier try may have made the trial, but its answer was lost
            self._live = None
            for number in self.live.running.keys() - self._taken:
                return self.take(number)
        proposal = None
        while proposal is None:
            waiting = self.live.waiting
            if waiting:
                return self._start(waiting.popleft(), again=is_retry)
            proposal = self._create(chosen)
        return proposal

    def _create(self, chosen: Params | None) -> Proposal | None:
        """Makes a new trial; None: another program has added trials since the last read."""
        live = self.live
        params, distributions = live.sampling.draw(live.next_number, chosen)
        created = self._writer.create(live.next_number, params, distributions)
        if created is None:
            self.forget()
            return None
        trial_id, number = created
        if number == live.next_number:
            live.next_number += 1
            live.running[number] = RunningTrial(trial_id, params)
        else:  # the other program was faster by a moment
            self.forget()
        return self.take(number)

    def _start(self, waiting: FrozenTrial, *, again: bool) -> Proposal:
        """Makes a waiting trial RUNNING; draws params anew that the space does not have."""
        live, number, wanted = self.live, waiting.number, _wanted(waiting)
        refused = _refused(wanted, self._space)
        fixed = {path: value for path, value in wanted.items() if path not in refused}
        params, distributions = live.sampling.draw(number, fixed)
        self._writer.start(waiting._trial_id, params, distributions, again=again)
        reasons = "; ".join(refused.values())
        live.running[number] = RunningTrial(waiting._trial_id, params, refused=reasons)
        return self.take(number)

    def take(self, number: int, _is_retry: bool = False) -> Proposal:
        """Takes a RUNNING trial for this process."""
        running = self.live.running[number]
        if running.unwritten is not None:
            self._writer.start(running.id, *running.unwritten, again=True)
            running.unwritten = None
        self._taken.add(number)
        return Proposal(number, running.params, running.num_reported, running.refused)

    def end(self, number: int, ending: Ending) -> None:
        """Ends a RUNNING trial; Optuna gives a pruned one its last epoch's value."""
        trial_id, sampling = self.live.running[number].id, self.live.sampling
        values = sampling.finish(number, ending.state, ending.values, ending.constraints)
        kept = replace(ending, values=values)
        self._gate.write(lambda again: self._writer.finish(trial_id, kept, again=again))
        del self.live.running[number]
        self._taken.discard(number)


def _wanted(enqueued: FrozenTrial) -> Params:
    """The params that somebody enqueued a trial with."""
    wanted: Params = enqueued.system_attrs.get("fixed_params", enqueued.params)
    return wanted


def _refused(wanted: Params, space: Space) -> dict[str, str]:
    """Why the space refuses params of an enqueued trial, by path; empty: it refuses none."""
    reasons = {}
    for path, value in wanted.items():
        parameter = space.get(path)
        if parameter is None:
            reasons[path] = f"{path}={value!r}: the search space has no such parameter"
        elif not _contains(parameter, value):
            reasons[path] = f"{path}={value!r}: expected {parameter.describe()}"
    return reasons


def _contains(parameter: Parameter, value: Value) -> bool:
    try:
        return parameter.contains(value)
    except TypeError:  # another program may enqueue anything
        return False


def _is_whole(trial: FrozenTrial, space: Space) -> bool:
    try:
        suggest_params(FixedTrial(trial.params), space)
    except ValueError:
        return False
    return True
