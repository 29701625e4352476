"""Rows of numbers in CSV files: a dataclass is a row, its fields are the columns.

Knows text and types; knows nothing of what the numbers mean.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from prioritized_replay.runs.files import read_file, replace_text

Row = TypeVar("Row")

_LARGEST = 1 << 28

# How a cell is read, by the annotation of its field. An empty cell is NaN or None, a truth value 1
# or 0: so every reader of CSV files understands them.
_READ: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    int | None: lambda cell: int(cell) if cell else None,
    float: lambda cell: float(cell or "nan"),
    bool: lambda cell: bool(int(cell)),
}


def columns(kind: type[Any]) -> list[str]:
    """Return the names of the fields of a row."""
    return [field.name for field in fields(kind)]


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Read the rows that are whole: a last line without an end was cut off and does not count.

    Parameters
    ----------
    path : pathlib.Path
        A file that :func:`write_rows` wrote; if there is none, there are no rows.
    kind : dataclass
        With fields of type str, int, int | None, float or bool.

    Raises
    ------
    ValueError
        The columns are not the fields of ``kind``, or a cell is not what its field holds.
    """
    if not path.exists():
        return []
    lines = read_file(path, _LARGEST).decode("utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    names = columns(kind)
    table = csv.reader(lines)
    if next(table, names) != names:
        raise ValueError(f"{path} does not have the columns {', '.join(names)}")
    hints = get_type_hints(kind)
    read = [_READ[hints[name]] for name in names]
    rows = []
    for cells in table:
        try:
            rows.append(kind(*(parse(cell) for parse, cell in zip(read, cells, strict=True))))
        except ValueError as error:
            raise ValueError(f"{path}, line {table.line_num}: {error}") from error
    return rows


def write_rows(path: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    """Put a file of these rows in place of the one at ``path``, in one step."""
    replace_text(path, _lines(kind, rows, header=True))


def append_rows(path: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    """Add rows to the end of a file.

    Raises
    ------
    OSError
        ``path`` is a link, or cannot be written.
    """
    if path.is_symlink():
        raise OSError(f"{path} must be a file, got a link: put the file itself there")
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(_lines(kind, rows, header=False))


def _lines(kind: type[Row], rows: Sequence[Row], *, header: bool) -> str:
    names, text = columns(kind), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(names)
    writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return "" if isinstance(value, float) and math.isnan(value) else value
