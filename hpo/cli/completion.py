"""What a shell completes: run folders and search files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

MOST_LEVELS: Final = 3  # of folders below the one that is typed
MOST_FOLDERS: Final = 500  # that are looked into


def complete_runs(incomplete: str) -> list[str]:
    """Run folders whose path begins with what is typed."""
    found = (str(folder) for folder in _folders(incomplete) if _is_run(folder))
    return sorted(path for path in found if path.startswith(incomplete))


def complete_search_files(incomplete: str) -> list[str]:
    """Search files whose path begins with what is typed; those of run folders are left out."""
    found = (
        str(file)
        for folder in _folders(incomplete)
        if not _is_run(folder)
        for file in folder.glob("*.yaml")
    )
    return sorted(path for path in found if path.startswith(incomplete))


def _is_run(folder: Path) -> bool:
    """Whether it is a run's folder, and not one in which `init` has written a search.yaml."""
    return (folder / "search.yaml").is_file() and (folder / ".mark").exists()


def _folders(incomplete: str) -> Iterable[Path]:
    """The folder that is typed, and folders below it; hidden ones are left out."""
    begin = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    waiting, num_seen = [(begin, 0)], 0
    while waiting and num_seen < MOST_FOLDERS:
        folder, level = waiting.pop(0)
        num_seen += 1
        yield folder
        if level < MOST_LEVELS:
            waiting += [(one, level + 1) for one in _subfolders(folder)]


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:  # it may not be read, or is not there
        return []
