"""Reads images out of the rows of parquet files, a row group at a time."""

import threading
from collections import OrderedDict
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sgformer.errors import DataError
from sgformer.sources.columns import image_column

MOST_BYTES: Final = 2**28  # of row groups that are kept in memory; one of any size is


class ParquetRows:
    """The images in the rows of parquet files; threads may share one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[str, npt.NDArray[np.int64]] = {}  # of each file's row groups, in rows
        self._columns: dict[str, str] = {}
        self._groups: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def group_of(self, path: str, row: int) -> int:
        """The number of the row group in which a row of a file is; 0 if the file is damaged."""
        try:
            return int(np.searchsorted(self._ends_of(path), row, side="right"))
        except _failures():
            return 0

    def read(self, path: str, row: int) -> bytes:
        """The bytes of the image in a row; none if they cannot be read."""
        try:
            with self._lock:
                ends = self._ends_of(path)
                group = int(np.searchsorted(ends, row, side="right"))
                images = self._images(path, group)
            value = images[row - (int(ends[group - 1]) if group else 0)].as_py()
        except _failures():
            return b""
        content = value.get("bytes") if isinstance(value, dict) else value
        return content if isinstance(content, bytes) else b""

    def _ends_of(self, path: str) -> npt.NDArray[np.int64]:
        import pyarrow.parquet as pq

        if path not in self._ends:
            with pq.ParquetFile(path) as file:
                about = file.metadata
                counts = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
                self._columns[path] = image_column(file.schema_arrow, path)
            self._ends[path] = np.cumsum(counts)
        return self._ends[path]

    def _images(self, path: str, group: int) -> Any:
        """The column of images of a row group, a pyarrow.ChunkedArray."""
        import pyarrow.parquet as pq

        key = path, group
        if key not in self._groups:
            with pq.ParquetFile(path) as file:
                # Without pyarrow's threads, which a process that is forked does not have.
                table = file.read_row_group(
                    group, columns=[self._columns[path]], use_threads=False
                )
            self._groups[key] = table.column(0)
            while len(self._groups) > 1 and self._num_bytes > MOST_BYTES:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    @property
    def _num_bytes(self) -> int:
        return sum(group.nbytes for group in self._groups.values())


def _failures() -> tuple[type[Exception], ...]:
    """What pyarrow raises for files that are missing or damaged."""
    import pyarrow as pa

    return OSError, LookupError, pa.ArrowException, DataError
