"""A CSV file that says the class of each image, and maybe which images belong together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.raw import printable

FILE, CLASS = "file", "class"


class Listing:
    """The rows of such a file: `file` is the path below the domain's folder or its images/, or the bare name."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            UserError: it is missing, no CSV file, has no column `file`, or names a file twice.
        """
        self.path = path
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; expected a CSV file with the columns file,class") from None
        except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise UserError(f"{path}: not a readable CSV file ({' '.join(str(error).split())})") from None
        self.columns = tuple(map(str, table.columns))
        if FILE not in self.columns:
            raise UserError(f"{path}: the columns are {list(self.columns)}; expected file,class (or file and a group)")
        twice = table[FILE][table[FILE].duplicated()]
        if len(twice):
            raise UserError(f"{path}: {twice.iloc[0]} has two rows; expected one")
        self.rows = {PurePosixPath(row[FILE]).as_posix(): row for row in table.to_dict("records")}

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
