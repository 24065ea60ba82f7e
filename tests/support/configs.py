"""Changed configurations of trainings."""

from sgformer.config import TrainConfig
from sgformer.validation import validate


def changed(config: TrainConfig, **sections: object) -> TrainConfig:
    """The config with other settings; those of a section are given as a dict."""
    values = config.model_dump()
    for name, section in sections.items():
        values[name] = values[name] | section if isinstance(section, dict) else section
    return validate(TrainConfig, values, "a test")
