"""The command simulate: runs another strategy on a run's recorded learning curves."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import AsJson, RunDir, Storage, open_run
from hpo.cli.output import print_json, print_rows
from sgformer.errors import InputError

if TYPE_CHECKING:
    from hpo.config.schema import SearchConfig
    from hpo.reporting.rows import Rows
    from hpo.run import Run
    from hpo.simulation.replay import Replay
    from hpo.transfer.prior_trials import Surrogate


def simulate(
    run_dir: RunDir,
    slots: Annotated[int, typer.Option(min=1, max=1000, help="Trials at a time.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="As scheduler.name, such as asha. Default: the run's.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="As study.sampler. Default: the run's, or the scheduler's.")
    ] = None,
    surrogate: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Another run; the model learns its curves as well."),
    ] = None,
    as_json: AsJson = False,
    storage: Storage = None,
) -> None:
    """What another strategy would have made of a run's trainings, on a simulated clock.

    The study's learning curves are replayed. Those of other configurations are predicted by a
    model of its curves, and of the curves of --surrogate that lie in its space.
    """
    from hpo.simulation.replay import replay

    run = open_run(run_dir, storage)
    facts = run.study.metadata
    other = None if surrogate is None else _find_other(run, surrogate, storage)
    result = replay(
        run.config,
        run.trials,
        slots,
        scheduler,
        sampler,
        () if other is None else other.trials,
        facts.architectures,
        facts.warm_start or (),
        facts.first_levels,
    )
    if as_json:
        print_json(asdict(result))
    else:
        print_rows(_rows(run.config, result, other))


def _rows(config: "SearchConfig", result: "Replay", other: "Surrogate | None") -> "Rows":
    from hpo.reporting.rows import counts_text, params_rows
    from hpo.reporting.snapshot import clock_time

    rows = {
        "strategy": f"{result.scheduler} with {result.sampler}, {result.num_slots} at a time",
        "trials": counts_text(result.states),
        "epochs": f"{result.num_epochs}, {result.share_recorded:.0%} of them as recorded, "
        "the others predicted",
        "time": f"{clock_time(result.seconds)}, {clock_time(result.slot_seconds)} of training",
        "best": "no trial came to its end"
        if result.best_value is None
        else f"{config.study.metric} {result.best_value:.4f} (trial {result.best_trial})",
    }
    rows |= params_rows(result.best_params or {})
    if other is not None:
        num = len(other.trials)
        rows["surrogate"] = f"{num} of the {other.num_trials} trials of study {other.name}"
    return rows


def _find_other(run: "Run", surrogate: Path, storage: str | None) -> "Surrogate":
    """The trials of the run `surrogate` that lie in the space of this run."""
    from hpo.run_folder import RunFolder
    from hpo.transfer.prior_trials import find_surrogate

    if surrogate.resolve() == run.folder.path.resolve():
        raise InputError(f"--surrogate: {surrogate} is the run itself; name another run's folder")
    in_database = RunFolder(surrogate).load_config().study.storage is not None
    other = open_run(surrogate, storage if in_database else None)
    return find_surrogate(run.config, run.study, other.config, other.study)
