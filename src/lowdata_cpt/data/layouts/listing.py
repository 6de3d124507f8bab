"""A CSV file that says the class of each image, and maybe which images belong together."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.raw import printable

FILE, CLASS = "file", "class"


def _table(path: Path) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Return the columns of a CSV file, and its rows by column.

    Raises:
        UserError: it is missing or no CSV file, a column stands twice, or a row has more values than there are columns.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        columns = tuple(next((values for values in lines if any(values)), ()))
        if twice := [column for column, count in Counter(columns).items() if column and count > 1]:
            raise UserError(f"{path}: the column {twice[0]!r} stands twice; expected each once")
        rows = []
        for values in lines:
            if len(values) > len(columns):
                raise UserError(
                    f"{path}: line {lines.line_num} has {len(values)} values, the header {len(columns)}; expected one "
                    "a column (a value that holds a comma goes in quotes)"
                )
            if any(values):
                rows.append(dict(zip_longest(columns, values, fillvalue="")))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a CSV file with the columns file,class") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file ({' '.join(str(error).split())}); expected UTF-8") from None
    if not columns:
        raise UserError(f"{path}: not a readable CSV file (it is empty); expected the columns file,class")
    return columns, rows


class Listing:
    """The rows of such a file: `file` is the path below the domain's folder or its images/, or the bare name."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            UserError: it is missing, no CSV file, has no column `file`, or names a file twice.
        """
        self.path = path
        self.columns, rows = _table(path)
        if FILE not in self.columns:
            raise UserError(f"{path}: the columns are {list(self.columns)}; expected file,class (or file and a group)")
        self.rows: dict[str, dict[str, str]] = {}
        for row in rows:
            key = PurePosixPath(row[FILE]).as_posix()  # 0.png and ./0.png are one file
            if key in self.rows:
                raise UserError(f"{path}: {key} has two rows; expected one")
            self.rows[key] = row

    def key(self, name: str) -> str | None:
        """Return the `file` that stands for the image `name` (a path below the domain's folder), None for none."""
        found = (name, name.removeprefix("images/"), PurePosixPath(name).name)
        return next((key for key in found if key in self.rows), None)

    def column(self, column: str, names: Iterable[str]) -> dict[str, str]:
        """Return image -> value of those images that have one.

        Raises:
            UserError: there is no such column, no image has a row, or one row stands for two images.
        """
        if column not in self.columns:
            raise UserError(f"{self.path}: no column {column!r}; it has {list(self.columns)}")
        by_key: dict[str, str] = {}
        names = list(names)
        for name in names:
            key = self.key(name)
            if key in by_key:
                raise UserError(f"{self.path}: the row {key} stands for {by_key[key]} and {name}; expected their paths")
            if key is not None:
                by_key[key] = name
        if names and not by_key:
            raise UserError(f"{self.path}: no row is of an image; expected paths like {names[0]} in the column `file`")
        return {name: value for key, name in by_key.items() if (value := printable(self.rows[key][column].strip()))}

    def without_image(self, names: Iterable[str]) -> list[str]:
        """Return the rows of no image."""
        used = {self.key(name) for name in names}
        return [key for key in self.rows if key not in used]
