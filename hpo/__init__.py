"""Hyperparameter search for image classifiers: Ray Tune runs the trials that Optuna samples.

The Python interface:

    from hpo import load_search_config, open_run, run_search

Each name is loaded when it is first used, so that `import hpo` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hpo.config.loading import load_search_config
    from hpo.config.schema import SearchConfig
    from hpo.engine.observer import SearchObserver
    from hpo.run import Run, open_run
    from hpo.run_folder import RunFolder
    from hpo.search import run_search

__all__ = [
    "Run",
    "RunFolder",
    "SearchConfig",
    "SearchObserver",
    "load_search_config",
    "open_run",
    "run_search",
]

_HOMES: Final = {
    "Run": "hpo.run",
    "RunFolder": "hpo.run_folder",
    "SearchConfig": "hpo.config.schema",
    "SearchObserver": "hpo.engine.observer",
    "load_search_config": "hpo.config.loading",
    "open_run": "hpo.run",
    "run_search": "hpo.search",
}


def __getattr__(name: str) -> Any:
    """Imports a name of the Python interface when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The names that `dir(hpo)` and completion in a notebook list, sorted."""
    return sorted({*globals(), *__all__})
