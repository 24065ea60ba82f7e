"""Exports the architectures of a space on the connected Ray, several at a time."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.config.schema import ExportConfig, SearchConfig
from hpo.config.search_space import Params, apply_params
from hpo.engine.architectures import has_to_be_exported
from hpo.engine.observer import SearchObserver
from hpo.errors import RunError
from hpo.execution.cluster import TrialResources
from hpo.run_folder import RunFolder
from sgformer.config import TrainConfig

if TYPE_CHECKING:
    from sgformer.export.architecture_costs import Int8


def export_architectures(
    config: SearchConfig,
    missing: Mapping[str, Params],
    num_classes: int,
    run: RunFolder,
    resources: TrialResources,
    observer: SearchObserver,
) -> dict[str, Path]:
    """ONNX files, by name, of the architectures whose bytes or latency are to be measured.

    Each trial's slot exports one at a time, with the trial's CPUs. An export takes many seconds of
    a CPU, on whichever node. Latency is measured later, on one machine alone, one architecture
    after another, so that no neighbour and no other kind of machine changes the figures.

    Args:
        config: The config of the search.
        missing: A configuration of each architecture that is yet to be measured, by its name.
        num_classes: The number of classes.
        run: Gets the files, which an interrupted search leaves for the next one.
        resources: The slots.
        observer: Is told of the exports.

    Returns:
        No file where there is nothing to do at the same time: of one architecture, or one slot.

    Raises:
        ExportError: PyTorch cannot export an architecture.
        RunError: A process that exported one has died.
    """
    if resources.num_slots == 1 or len(missing) == 1:
        return {}
    due = {n: p for n, p in missing.items() if has_to_be_exported(config, p, num_classes)}
    if not due:
        return {}
    observer.phase("exporting architectures")
    run.architectures.mkdir(exist_ok=True)
    paths = {n: run.architectures / f"{n.replace('/', '_')}.onnx" for n in due}
    waiting = {
        paths[name]: apply_params(config.train, params, "space")
        for name, params in due.items()
        if not paths[name].exists()
    }
    observer.step(len(due) - len(waiting), len(due))
    _export_all(waiting, num_classes, config.export, resources, observer, len(due))
    return paths


def _export_all(
    waiting: dict[Path, TrainConfig],
    num_classes: int,
    settings: ExportConfig,
    resources: TrialResources,
    observer: SearchObserver,
    total: int,
) -> None:
    import ray

    task = ray.remote(num_cpus=resources.cpus)(_export)
    running: dict[Any, Path] = {}
    due = list(waiting.items())
    while due or running:
        while due and len(running) < resources.num_slots:
            path, train = due.pop()  # the last first: spaces often list the largest model last
            running[task.remote(train, num_classes, settings.int8, path.name)] = path
        (ended,), _ = ray.wait(list(running), num_returns=1)
        path = running.pop(ended)
        try:
            files = ray.get(ended)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(
                f"exporting an architecture broke: {reason}; --resume retries"
            ) from error
        for name, content in files.items():  # the model itself comes last
            _write_whole(path.with_name(name), content)
        observer.step(total - len(due) - len(running), total)


def _export(train: TrainConfig, num_classes: int, int8: "Int8", name: str) -> dict[str, bytes]:
    """The model's files, by name; runs in a process of Ray, maybe without the run's folder."""
    from sgformer.export.architecture_costs import export_untrained
    from sgformer.export.onnx_file import files_of

    with tempfile.TemporaryDirectory(prefix="sgformer-export-") as folder:
        path = Path(folder) / name
        *others, _ = export_untrained(train, num_classes, path, int8=int8)
        return {file.name: file.read_bytes() for file in (*others, *files_of(path))}


def _write_whole(path: Path, content: bytes) -> None:
    """Writes a file; a search that is killed while it does leaves none."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
