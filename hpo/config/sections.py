"""The independent sections of a search file: scheduler, resources, budget, retrain and others."""

from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from sgformer.export.names import FILES
from sgformer.validation import FrozenConfig

Placement = Literal["pack", "strict_pack", "spread"]
AUTO: Final = "auto"  # of gpus_per_trial
Deliver = Literal["winner", "soup", "ensemble"]
Scheduler = Literal["freeze_thaw", "asha", "asha_promotion", "hyperband", "median", "none"]


class SchedulerConfig(FrozenConfig):
    """How trials compete for epochs.

    Attributes:
        name: freeze_thaw pauses trials at rungs, and a surrogate of their learning curves selects
            the trial to resume. asha stops a trial at a rung unless it is among the best
            1 / reduction_factor there. asha_promotion pauses every trial at a rung, and resumes
            the best one when a slot is free. hyperband runs brackets of asha; each further
            bracket skips one more of the first rungs. median stops a trial whose best value is
            worse than the median of the other trials' averages. none stops no trial.
            None: freeze_thaw, or asha if study.sampler is not curves.
        min_epochs: The first rung, in epochs; for median the epoch of the first comparison.
            None: 4; with freeze_thaw about a seventh of max_epochs, until the learning curves
            suggest another epoch.
        reduction_factor: asha has rungs at min_epochs * reduction_factor**k, k = 0, 1, ...
        cost_aware: Whether freeze_thaw divides a trial's expected gain by the GPU-seconds of
            the epochs to train.
    """

    name: Scheduler | None = None
    min_epochs: int | None = Field(default=None, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    cost_aware: bool = False


class ResourcesConfig(FrozenConfig):
    """The CPUs, GPUs and processes of a trial, and how many trials run at a time.

    Attributes:
        cpus_per_trial: CPUs of each process; None: the node's CPUs divided by its GPUs, times
            gpus_per_trial; 1 without GPUs.
        gpus_per_trial: GPUs of each process, from 0 to 1; None: 1 if any node has a GPU, else 0.
            auto: for each architecture of the space the share in which it fits, as a few of its
            steps show when the search starts; 0 if no node has a GPU.
        workers_per_trial: How many processes train one trial together, and so the winner.
        placement: Where they run: strict_pack on one node, pack on as few nodes as possible,
            spread on as many as possible. None: strict_pack if a node can hold them all, else
            pack.
        max_concurrent_trials: The most trials that run at a time; None: as many as fit.
        wait_hours: How long a search on a cluster waits while Ray can place none of its trainings,
            before it ends and can be resumed.
        latency_node: The node of the cluster that measures latency_ms: its address, its host name,
            or a resource of Ray that it alone has; None: the machine that runs the search.
    """

    cpus_per_trial: int | None = Field(default=None, ge=1)
    gpus_per_trial: float | Literal["auto"] | None = None
    workers_per_trial: int = Field(default=1, ge=1)
    placement: Placement | None = None
    max_concurrent_trials: int | None = Field(default=None, ge=1)
    wait_hours: float = Field(default=12.0, ge=0, allow_inf_nan=False)
    latency_node: str | None = Field(default=None, min_length=1)

    @field_validator("gpus_per_trial", mode="before")
    @classmethod
    def _share_or_whole(cls, gpus: object) -> object:
        if gpus is None or gpus == AUTO:
            return gpus
        try:
            number = float(str(gpus))
        except ValueError:
            number = -1.0
        if number > 1:
            raise ValueError(
                f"a process trains on one GPU or a share of one, got {number:g}; for more, set "
                "resources.workers_per_trial"
            )
        if not number >= 0:
            raise ValueError(f"takes GPUs, from 0 to 1, or auto, got {gpus!r}")
        return number

    @model_validator(mode="after")
    def _whole_gpus_for_groups(self) -> Self:
        if self.workers_per_trial > 1 and self.gpus_per_trial not in (None, 0, 1):
            raise ValueError(
                f"processes that train together take a whole GPU each, got gpus_per_trial="
                f"{self.gpus_per_trial}"
            )
        return self

    @property
    def known_gpus(self) -> float | None:
        """GPUs of each process, if the config says how many."""
        return None if self.gpus_per_trial == AUTO else self.gpus_per_trial


class StopWhen(FrozenConfig):
    """Ends the search when more trials are no longer worth their cost.

    Attributes:
        gain_per_gpu_hour: The search ends when the surrogate expects the metric to improve by
            less than this in another GPU-hour.
    """

    gain_per_gpu_hour: float = Field(gt=0)


class BudgetConfig(FrozenConfig):
    """Limits on the trials and on the trainings after them; None: no limit.

    With scheduler freeze_thaw and no limit on epochs or hours, the trials may train a quarter of
    the epochs of num_trials full trainings, or, if that is more, enough epochs for every trial to
    reach the first rung and for two trials to reach max_epochs.

    Attributes:
        total_epochs: Epochs of all trials and of all trainings after them.
        gpu_hours: GPU-hours of all these trainings; a process without a GPU counts as one GPU.
        wall_clock_hours: Wall-clock hours of the search, added up over interruptions.
        disk_bytes: The most bytes of all checkpoints of trials.
        stop_when: Ends the search when freeze_thaw's surrogate expects too little of more trials.
    """

    total_epochs: int | None = Field(default=None, ge=1)
    gpu_hours: float | None = Field(default=None, gt=0)
    wall_clock_hours: float | None = Field(default=None, gt=0)
    disk_bytes: int | None = Field(default=None, ge=1)
    stop_when: StopWhen | None = None


class RetrainConfig(FrozenConfig):
    """How finalists are compared, and how the winner is trained.

    The finalists, which are the best trials and the default configuration, are trained again on
    fresh seeds; the finalist with the best mean wins. With several objectives there is no
    comparison: `study.select` determines which trials are delivered.

    Attributes:
        max_epochs: The length of a training on a fresh seed; None: train.max_epochs.
        top_k: How many of the best trials become finalists; as many keep their checkpoints.
        seeds: On how many fresh seeds each finalist is trained; 0: no comparison, the best
            trial is the winner.
        max_share: The most that these trainings may cost, as a share of what the trials cost. If
            all of them cost more, fewer seeds are used, then fewer finalists; where only one is
            left, it wins without a comparison. None: no such limit.
        deliver: `winner` is one trained model. `soup` is the mean of the weights of the winner's
            and other finalists' trainings of its architecture; `ensemble` is one network of
            several of these models, whose mean probability answers. Both are delivered only if
            val tells a gain over the winner's model alone from chance.
        members: The most models of an ensemble, the winner's included.
        proof_images: On how many val images an exported model is checked, at most.
    """

    max_epochs: int | None = Field(default=None, ge=1)
    top_k: int = Field(default=3, ge=1)
    seeds: int = Field(default=3, ge=0)
    max_share: float | None = Field(default=0.2, gt=0)
    deliver: Deliver = "winner"
    members: int = Field(default=3, ge=2, le=16)
    proof_images: int = Field(default=512, ge=1)


class ExportConfig(FrozenConfig):
    """The files of the delivered model beside model.onnx, and what they say of it.

    Attributes:
        uint8: Whether model.uint8.onnx is delivered too, which takes RGB images of any size.
        int8: Whether a model in 8-bit integers is delivered too, if it is smaller, faster on this
            machine, and within `max_top1_drop`; "smallest": even if it is slower.
        fp16: Whether a model in half precision is delivered too, if it is within `max_top1_drop`.
        openvino: Whether OpenVINO's files are delivered too.
        tensorrt: Whether a TensorRT engine is delivered too.
        max_top1_drop: The share of val images that a model of less precision may lose.
        compute_capabilities: The GPUs that the engine is built for, such as [8.6, 8.9]; empty:
            all that TensorRT knows, or the one here.
        license: The model's license, such as apache-2.0, for the files' metadata; None: none is
            named.
    """

    uint8: bool = False
    int8: bool | Literal["smallest"] = False
    fp16: bool = False
    openvino: bool = False
    tensorrt: bool = False
    max_top1_drop: float = Field(default=0.005, ge=0, le=1)
    compute_capabilities: tuple[float, ...] = ()
    license: str | None = Field(default=None, min_length=1, max_length=100)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to deliver, by their names in `sgformer.export.names.FILES`."""
        return ("onnx", *(name for name in FILES if getattr(self, name, False)))


class KeptExemplarsConfig(FrozenConfig):
    """What a delivered model keeps so that it can be extended, and what an extension may lose.

    Attributes:
        keep_exemplars: Train images of each class that are kept in best/exemplars, chosen by
            herding, and as many chosen at random; val and test images are kept beside them.
            0: nothing is kept.
        keep_bytes: The most bytes of each of these sets of images; a larger one is cut evenly
            over the classes.
        max_forgetting: The most that an extended model may lose of its old classes' val top-1; a
            model that loses more is not delivered.
    """

    keep_exemplars: int = Field(default=20, ge=0)
    keep_bytes: int = Field(default=2**26, ge=1)
    max_forgetting: float = Field(default=0.02, ge=0, le=1)


class ReportConfig(FrozenConfig):
    """What is shown of a run.

    Attributes:
        images: Whether pictures.json is written beside a delivered model: small copies of images
            that it gets wrong, for the report.
    """

    images: bool = True
