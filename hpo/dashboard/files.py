"""The files of a run that the page offers, read where they lie: nothing is copied."""

import io
import mimetypes
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import yaml

from hpo.model_files import ModelFiles
from hpo.run_folder import RunFolder
from sgformer.export.names import FILES

TEXT: Final = "text/plain; charset=utf-8"
TYPES: Final = {".yaml": TEXT, ".md": TEXT, ".csv": "text/csv", ".json": "application/json"}
OTHER: Final = "application/octet-stream"
OF_A_TRIAL: Final = ("epochs.csv", "attempts.csv")
CONFIG: Final = "config"  # a trial's attribute that holds its configuration


@dataclass(frozen=True)
class SharedFile:
    """A file of a run, or of a trial's configuration, under the id that the page asks for.

    Attributes:
        id: The id.
        name: The name that the page shows.
        path: Where the file lies; None: `values` is shown as YAML.
        values: A configuration.
    """

    id: str
    name: str
    path: Path | None = None
    values: Mapping[str, Any] | None = None

    @property
    def type(self) -> str:
        """The media type."""
        suffix = Path(self.name).suffix
        return TYPES.get(suffix) or mimetypes.guess_type(self.name)[0] or OTHER

    def open(self) -> BinaryIO:
        """The content; raises OSError if the file is gone."""
        if self.path is not None:
            return self.path.open("rb")
        text = yaml.safe_dump(self.values, sort_keys=False, allow_unicode=True)
        return io.BytesIO(text.encode())

    def as_artifact(self) -> dict[str, str]:
        """The file as optuna-dashboard lists artifacts."""
        return {
            "artifact_id": self.id, "filename": self.name, "mimetype": self.type, "encoding": "",
        }  # fmt: skip


class RunFiles:
    """The files of one study's run; only those that were listed are found.

    Args:
        study_id: The study's id, which ids of files depend on.
        folder: The run's folder; None: it is not known, and only configurations are offered.
    """

    def __init__(self, study_id: int, folder: RunFolder | None) -> None:
        self._study_id, self._folder = study_id, folder
        self._known: dict[str, SharedFile] = {}
        self._lock = threading.Lock()

    def of_the_study(self) -> list[SharedFile]:
        """The report, the search file, and the files of the delivered model."""
        if self._folder is None:
            return []
        run, best = self._folder, ModelFiles(self._folder.best)
        files = {path.name: path for path in (run.report, run.leaderboard, run.search_file)}
        if run.is_delivered:
            told = (best.card, best.metrics, best.pictures, best.config, best.classes,
                    best.export_report)  # fmt: skip
            models = (best.folder / name for name in FILES.values())
            files |= {f"best/{path.name}": path for path in (*told, *models)}
        return self._listed("", files)

    def of_a_trial(self, number: int, attributes: Mapping[str, Any]) -> list[SharedFile]:
        """A trial's learning curve and attempts, and its configuration."""
        files = []
        if self._folder is not None:
            folder = self._folder.trials / str(number)
            files = self._listed(f"{number}/", {name: folder / name for name in OF_A_TRIAL})
        if CONFIG in attributes:
            shown = self._id(f"{number}/{CONFIG}")
            files.append(self._add(SharedFile(shown, "config.yaml", values=attributes[CONFIG])))
        return files

    def find(self, file_id: str) -> SharedFile | None:
        """A file that was listed; None: there is none of this id."""
        return self._known.get(file_id)

    def _listed(self, prefix: str, files: Mapping[str, Path]) -> list[SharedFile]:
        there = {name: path for name, path in files.items() if path.is_file()}
        return [
            self._add(SharedFile(self._id(prefix + name), name, path))
            for name, path in there.items()
        ]

    def _add(self, file: SharedFile) -> SharedFile:
        with self._lock:
            self._known[file.id] = file
        return file

    def _id(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._study_id}/{name}"))
