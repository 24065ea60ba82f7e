"""ExtensionConfig: how a trained model learns new classes without forgetting its old ones."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from sgformer.validation import FrozenConfig


class ExtensionConfig(FrozenConfig):
    """A delivered model that is given new classes; its own keep their places in the outputs.

    The old classes' images are its exemplars: those that were kept when it was delivered. Sources:
    iCaRL, Rebuffi et al., arXiv:1611.07725 (herding, exemplars, distillation on the old classes);
    Castro et al., arXiv:1807.09536 (balanced fine-tuning at the end).

    Attributes:
        base: The model that a run delivered (`runs/x/best`); None: nothing is extended.
        exemplars: Exemplars of each old class that are trained on, at most; None: all that were
            kept. 0: none, which leaves the old classes to distillation.
        choice: Which of the kept exemplars: `herding`, whose mean features are nearest to their
            class's mean, or `random`.
        balanced_share: Share of the training at its end in which every class is drawn as often;
            before, every image is.
    """

    base: Path | None = None
    exemplars: int | None = Field(default=None, ge=0)
    choice: Literal["herding", "random"] = "herding"
    balanced_share: Annotated[float, Field(ge=0, le=1)] = 0.3

    @field_validator("base", mode="before")
    @classmethod
    def _is_named(cls, base: object) -> object:
        if base == "":  # as a path it would be the current folder
            raise ValueError("names no model; give a path, or leave it out, got ''")
        return base

    @property
    def is_used(self) -> bool:
        """Whether a model is extended."""
        return self.base is not None
