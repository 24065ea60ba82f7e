"""Permissions of a test's folder."""

import tempfile
from pathlib import Path


def open_to_others(folder: Path) -> None:
    """Lets any user enter a folder of the tests; pytest opens its folders to their owner only."""
    temporary = Path(tempfile.gettempdir())
    for parent in (folder, *folder.parents):
        if parent.is_relative_to(temporary) and parent != temporary:
            parent.chmod(0o755)
