"""The parameters of the wire's settings in the forms of two libraries, imported where needed."""

from typing import Any

from wire import Settings


def syne_tune_space(settings: Settings) -> dict[str, Any]:
    from syne_tune import config_space

    kinds = {
        ("int", True): config_space.lograndint, ("int", False): config_space.randint,
        ("float", True): config_space.loguniform, ("float", False): config_space.uniform,
    }  # fmt: skip
    return {
        name: (
            config_space.choice(entry["choices"])
            if entry["type"] == "categorical"
            else kinds[entry["type"], entry["log"]](entry["low"], entry["high"])
        )
        for name, entry in settings["space"].items()
    }


def config_space(settings: Settings) -> Any:
    """A seeded ConfigSpace.ConfigurationSpace."""
    import ConfigSpace

    space = ConfigSpace.ConfigurationSpace(seed=settings["seed"])
    for name, entry in settings["space"].items():
        if entry["type"] == "categorical":
            space.add(ConfigSpace.Categorical(name, entry["choices"]))
            continue
        made = ConfigSpace.Integer if entry["type"] == "int" else ConfigSpace.Float
        space.add(made(name, (entry["low"], entry["high"]), log=entry["log"]))
    return space
