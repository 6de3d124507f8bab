"""Which images belong together, so that no group has some in training and others in validation or test."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.splits import balanced_order


class Grouping(Strict):
    """One rule of which images are frames of one video, crops of one picture, slices of one patient."""

    by: Literal["folder"] | None = Field(default=None, description="folder: images of one folder.")
    separator: str | None = Field(
        default=None, min_length=1, description="File names that are equal up to the last of it: _ for walk3_0007.png."
    )
    pattern: str | None = Field(
        default=None, description="Regular expression on the path below the folder; its first (…), or all of the match."
    )
    column: str | None = Field(default=None, min_length=1, description="Column of the CSV file of `labels`.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"no regular expression ({error})") from None
        return pattern

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"group has {given or 'no rule'}; expected one of by, separator, pattern, column")
        return self

    def of(self, name: str, columns: Mapping[str, str]) -> str:
        """Return the group of the image `name` (a path below the folder); `columns`: name -> the column's value.

        Raises:
            UserError: the rule says nothing about it.
        """
        path = PurePosixPath(name)
        if self.by:
            return path.parent.as_posix()
        if self.separator:
            return path.stem.rpartition(self.separator)[0] or name
        if self.column:
            return columns.get(name) or name
        found = re.search(self.pattern or "", name)
        if found is None or found[found.re.groups and 1] is None:
            raise UserError(f"group.pattern {self.pattern!r} does not match {name}; expected it to match every image")
        return str(found[1] if found.re.groups else found[0])


def cut_groups(groups: Sequence[str], strata: Sequence[str], counts: Sequence[int], seed: int) -> list[list[int]]:
    """Cut images into parts, whole groups each: `splits.seeded_split` for groups.

    Args:
        groups: group of each image.
        strata: stratum of each; a group has that of most of its images.
        counts: images wanted in each part but the last; a part comes as near as whole groups allow.
        seed: of the order.

    Returns:
        Sorted positions of each part, one more than `counts`.

    Raises:
        UserError: there are fewer groups than parts.
    """
    members: dict[str, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    if len(members) <= len(counts):
        raise UserError(f"{len(members)} group(s) of images by `group`; expected at least {len(counts) + 1} to split")
    names = sorted(members)
    most = [Counter(strata[position] for position in members[name]).most_common(1)[0][0] for name in names]
    waiting = [names[position] for position in balanced_order(names, most, seed, "split")]
    parts: list[list[int]] = []
    for left, count in zip(range(len(counts), 0, -1), counts, strict=True):
        part: list[int] = []
        for name in list(waiting):
            if abs(len(part) + len(members[name]) - count) < abs(len(part) - count) and len(waiting) > left:
                part += members[name]
                waiting.remove(name)
        if not part:  # every group is more than twice what is wanted
            smallest = min(waiting, key=lambda name: len(members[name]))
            part += members[smallest]
            waiting.remove(smallest)
        parts.append(sorted(part))
    return [*parts, sorted(position for name in waiting for position in members[name])]
