"""Trials of a study that a search is driving: asking for them, and ending them.

The driver knows what it needs of its study's trials, so that it does not read them for each event.
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
        id: The storage's id.
        params: All of its params.
        num_reported: Epochs that the study has.
        unwritten: Params with their distributions that the study lacks, because the program that
            asked for the trial ended while it drew them; None: it has all.
        refused: Why the space refuses an enqueued trial; None: it does not.
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
        next_number: Number of the next trial, if no other program adds one before.
        waiting: Trials that were enqueued, the next one first.
        running: RUNNING trials by their numbers.
    """

    sampling: ProxyStudy
    next_number: int
    waiting: deque[FrozenTrial] = field(default_factory=deque)
    running: dict[int, RunningTrial] = field(default_factory=dict)

    @classmethod
    def of(
        cls, trials: Iterable[FrozenTrial], next_number: int, config: StudyConfig, space: Space
    ) -> "LiveTrials":
        """What there is to know of a study with these trials, sorted by their numbers."""
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
    """Takes trials from a study, and knows those that run without reading them again."""

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
        """What is known of the trials; read from the study at first, and after an outage."""
        if self._live is None:
            # Counted first: a trial that is added between is noticed when ours is made.
            number = self._gate.read(self._writer.num_trials)
            frozen = self._gate.read(lambda: self._study.get_trials(deepcopy=False))
            self._live = LiveTrials.of(frozen, number, self._config, self._space)
        return self._live

    def forget(self) -> None:
        """Has the trials read from the study again."""
        self._live = None

    def ask(self, chosen: Params | None, is_retry: bool) -> Proposal:
        """The first trial that waits, else a new one with `chosen` or what the sampler draws."""
        if is_retry:  # the earlier try may have made the trial, and its answer was lost
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
        """A new trial; None: another program has added trials since the study was read."""
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
        """The waiting trial, RUNNING; params that the space does not have are drawn anew."""
        live, number, wanted = self.live, waiting.number, _wanted(waiting)
        refused = _refused(wanted, self._space)
        fixed = {path: value for path, value in wanted.items() if path not in refused}
        params, distributions = live.sampling.draw(number, fixed)
        self._writer.start(waiting._trial_id, params, distributions, again=again)
        reasons = "; ".join(refused.values())
        live.running[number] = RunningTrial(waiting._trial_id, params, refused=reasons)
        return self.take(number)

    def take(self, number: int, _is_retry: bool = False) -> Proposal:
        """A RUNNING trial, which is this process's from now on."""
        running = self.live.running[number]
        if running.unwritten is not None:
            self._writer.start(running.id, *running.unwritten, again=True)
            running.unwritten = None
        self._taken.add(number)
        return Proposal(number, running.params, running.num_reported, running.refused)

    def end(self, number: int, ending: Ending) -> None:
        """Ends a RUNNING trial; to the values of a pruned one Optuna has something to say."""
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
    """Why not, by path, of an enqueued trial's params that the space does not have."""
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
