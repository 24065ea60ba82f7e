"""The documents of runs, searches and jobs."""

from typing import Any

from hpo.cli.documents.base import Document, OpenDocument, Params, told


class Card(Document):
    name: str = told("what was checked")
    grade: str = told("`PASS`, `WARN` or `FAIL`")
    text: str = told("what was found")
    remedy: str = told("what to do about it; empty if it passed")


class BestTrial(Document):
    number: int
    value: float = told("its metric so far; the best of many is biased upwards")
    params: Params = told("settings by their paths")


class FrontTrial(OpenDocument):
    number: int = told("and beside it each objective by its name")


class TrialEpoch(Document):
    number: int
    epoch: int = told("the last epoch that ended; 0: none")


class Interval(Document):
    mean: float
    low: float | None = told("end of the interval")
    high: float | None = told("end of the interval")


class Winner(OpenDocument):
    number: int = told("and beside it the metric by its name, as `gain_over_default`")
    num_seeds: int = told("trainings on fresh seeds")
    gain_over_default: Interval | None
    is_within_noise: bool
    best_epochs: list[int] = told("its best epoch on each seed")
    without_teacher: Interval | None = told("its mean without its teacher; null: it has none")
    gain_of_teacher: Interval | None = told("what its teacher adds to that")


class FirstRung(Document):
    epoch: int = told("where trials are first compared")
    late: int = told("the epoch that earlier ones were compared with")
    num_trials: int = told("trials that have reached it")
    agreement: dict[str, float] = told("Spearman's rank correlation by epoch")
    from_trial: int = told("the first trial that the rung holds for")
    is_of_earlier_studies: bool


class MemberTraining(Document):
    trial: int
    seed: int = told("the fresh seed that it was trained on")


class Combination(Document):
    asked: str = told("`retrain.deliver`: `soup` or `ensemble`")
    delivered: str = told("what best/ has; `winner`: the winner's model alone")
    members: list[MemberTraining] = told("as all of val chose them, the winner's model first")
    num_candidates: int = told("trained models to choose from")
    num_missing: int = told("further ones, whose weights are gone")
    metric: str
    alone: float | None = told("the winner's model on val")
    together: float | None = told("the members on val, which chose them")
    gain: float | None = told("over the winner's model, on val images that chose no member")
    low: float | None = told("end of the gain's interval")
    high: float | None = told("end of the gain's interval")
    starts_alike: bool = told("whether all started from the same trained weights")


class TeacherScores(Document):
    top1: float
    top5: float
    macro_f1: float
    loss: float
    num_images: int


class DeliveredTeacher(Document):
    models: list[str]
    num_parameters: int = told("of all its models")
    val: TeacherScores = told("as it teaches: it sees the student's input")
    may_know_val: bool = told("whether it may have been trained on some of these images")


class Extension(Document):
    base: str | None = told("the model that was extended: its run's name and folder")
    num_old_classes: int
    new_classes: list[str]
    num_old_images: int = told("val images of old classes")
    num_new_images: int = told("val images of new classes")
    before: float = told("top-1 of the base on old classes, 0 to 1")
    after: float = told("top-1 of the extended model on the same images")
    forgetting: float = told("`before` less `after`")
    low: float = told("end of forgetting's 95 % interval")
    high: float = told("end of forgetting's 95 % interval")
    new: float = told("top-1 of the extended model on new classes")
    exemplars: int | None = told("replayed of each old class, at most; `null`: all that were kept")
    choice: str = told("how they were chosen")
    seconds: float | None = told("how long it was trained; `null`: unknown")


class Milliseconds(Document):
    p50: float
    p95: float


class Status(Document):
    study: str
    num_trials: int = told("`study.num_trials`")
    counts: dict[str, int] = told("trials by state; paused ones are RUNNING")
    budget: dict[str, list[float]] = told(
        "used and total of each limit, in epochs, GPU-seconds or seconds"
    )
    first_level: FirstRung | None = told("as learning curves chose it; `null`: as configured")
    best: BestTrial | None
    front: list[FrontTrial] = told("the Pareto front")
    running: list[TrialEpoch] = told("trials that run or are paused")
    winner: Winner | None = told("by the finalists' comparison")
    delivered: bool = told("whether best/ holds a model")
    delivered_trial: int | None
    combination: Combination | None = told("the soup or ensemble that was asked for")
    teacher: DeliveredTeacher | None = told("the delivered model's teacher")
    latency_ms: dict[str, dict[str, Milliseconds]] | None = told(
        "of the delivered model, and of the winner alone and the teacher where there is one, by "
        "turns, by batch size"
    )
    extension: Extension | None = told("what the delivered model was extended from, and forgets")
    health: list[Card] = told("the worst first")


class WatchedTrial(Document):
    number: int
    epoch: int
    latest: float | None = told("the metric after the last epoch")
    best: float | None
    hostname: str | None = told("where it trains, if that is known")
    gpu_utilization: float | None = told("share of the last epoch, 0 to 1")
    params: Params = told("settings by their paths")


class WatchedBest(Document):
    number: int
    value: float


class Watched(Document):
    study: str
    phase: str = told("what the search does, in words")
    num_trials: int = told("`study.num_trials`")
    counts: dict[str, int] = told("ended trials by state")
    running: list[WatchedTrial]
    num_paused: int
    best: WatchedBest | None
    seconds: float = told("how long the search has run")
    seconds_left: float | None = told("until the last trial ends, estimated")
    budget_left: list[str] = told("what is left of each limit, in words")
    health: list[Card] = told("the worst first")


class Report(Document):
    report: str | None = told("path of report.html; `null` if several runs are compared")
    leaderboard: str | None = told("path of leaderboard.csv; `null` if several runs are compared")
    comparison: str | None = told("path of the page that compares several runs")
    copied_to: str | None = told("where `study.deliver_to` has a copy")


class Replayed(Document):
    scheduler: str
    sampler: str
    num_slots: int = told("trials at a time")
    seconds: float = told("simulated, to the end of the last epoch")
    slot_seconds: float = told("simulated, of all slots together")
    num_epochs: int
    states: dict[str, int] = told("trials by state")
    best_trial: int | None
    best_value: float | None
    best_params: Params | None = told("settings by their paths")
    share_recorded: float = told("of the epochs, 0 to 1; the others are predicted")
    num_surrogate_trials: int = told("trials of another study that predictions use")


class Job(Document):
    id: str
    status: str = told("pending, running, stopped, succeeded or failed")
    run: str | None = told("the run's folder, on the nodes")
    begun: str | None = told("time as ISO 8601")
    ended: str | None = told("time as ISO 8601")
    error: str | None = told("why it failed")


class TrialTakes(Document):
    cpus: int = told("of each process")
    gpus: float = told("of each process")
    num_processes: int
    num_slots: int = told("trials at a time")


class Cost(Document):
    architecture: str
    settings: Params = told("that decide what it costs")
    epoch_seconds: float | None
    memory_bytes: int
    gpu_bytes: int | None = told("memory of the whole GPU")
    utilization: float | None = told("share of time in which the GPU worked, 0 to 1")
    micro_batch_size: int
    device: str
    problem: str | None = told("why it cannot be trained")


class Forecast(Document):
    num_trials: int
    num_epochs: int
    gpu_hours: float
    seconds: float = told("to the end of the last training")
    share_simulated: float = told("0 to 1; the rest is taken to go on alike")


class Profile(Document):
    costs: list[Cost]
    forecasts: dict[str, Forecast] = told("by scheduler; `none`: without stopping")
    assumptions: dict[str, str] = told("in words")


class Plan(Document):
    config: dict[str, Any] = told("the search file with all defaults")
    images: dict[str, int] = told("by split")
    num_classes: int
    a_trial_takes: TrialTakes
    weights: list[str] = told("what models start from, in words")
    teacher: list[str] = told("the models that teach, in words")
    num_tried_early: int = told("configurations of earlier studies")
    num_finalist_trainings: int = told("on fresh seeds, at most")
    notes: list[str] = told("what to know of the images")
    profile: Profile | None = told("with `--profile`")
