"""What a domain is: a configuration that can say what decides its content, and decode itself once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lowdata_cpt.core.code_versions import code_version
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import identity
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.store import Store, Task


class Domain(Strict, ABC):
    """Configuration and decoder of one domain. Subclasses add `kind: Literal[...]` and their own keys."""

    sizes: tuple[int, ...] = Field(
        default=(),
        description="Numbers n of unlabelled images to draw from the pool; nested, paired by seed.",
    )
    resolution: int = Field(default=128, ge=16, le=2048, description="Side in pixels of the decoded square images.")

    label: ClassVar[str]
    """How tables and figures call the domain."""
    labelled: ClassVar[tuple[Task, ...]] = ()
    """Tasks that the domain has labels for."""
    segmentation_classes: ClassVar[int] = 20
    """Classes of its masks; a guess, for a forecast, where they are only known when they are decoded."""

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks this domain is probed on; the workflow asks before anything is decoded."""
        return self.labelled

    def count(self) -> int | None:
        """Return how many images the domain has, as rendered, published or counted; None where nobody can know yet."""
        return None

    def absent(self) -> str | None:
        """Return why the data cannot be had on this machine, None where it can; a look, not a check of its content."""
        return None

    def remarks(self) -> list[str]:
        """Return what a user should hear of the raw data before the run, one sentence each; nothing is decoded."""
        return []

    def groups(self, store: Store, task: Task) -> NDArray[np.int32] | None:
        """Return the group [M] of each test image of a task, None where each image stands for itself.

        Images of one group, such as frames of one video, are near-copies: a bootstrap of test images draws them whole.
        """
        return None

    @classmethod
    def code_modules(cls) -> tuple[str, ...]:
        """Return the modules that, with all they import, decide the decoded content (for `core.code_versions`)."""
        return (cls.__module__.removeprefix("lowdata_cpt."),)

    @abstractmethod
    def raw_fingerprint(self) -> str:
        """Return what identifies the raw data's content, "absent" where they are not on this machine.

        Cheap enough for every start of the workflow: files that have not changed are not read again.

        Raises:
            UserError: the data have another layout; the message says what to put where.
        """

    def fingerprint(self) -> dict[str, Any]:
        """Return everything but the code that decides the decoded content: settings, and the raw data's content.

        Raises:
            UserError: the source is missing or has another layout; the message says what to put where.
        """
        return {"settings": self.model_dump(mode="json", exclude={"sizes"}), "raw": self.raw_fingerprint()}

    @abstractmethod
    def build(self, target: Path) -> None:
        """Decode into the empty folder `target` (see `store` for the layout).

        Raises:
            UserError: nothing usable was found, or labels do not fit the images.
        """

    @classmethod
    @abstractmethod
    def card(cls) -> str:
        """Return the data card (Markdown): source, licence, splits, units, known limits."""


def prepare(domain: Domain, cache: Path) -> Store:
    """Decode `domain` into `cache/<key>` unless that content is there already and whole, and open it.

    The folder appears under its final name only when complete, so a killed run leaves no half store.
    """
    key = identity({"fingerprint": domain.fingerprint(), "code": code_version(*domain.code_modules())})[:16]
    target = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    _sweep(cache)
    if not _is_whole(target):
        with _staging(cache, key) as folder:
            domain.build(folder)
            if not target.exists():
                folder.rename(target)
    store = Store(target)
    check_disjoint(store)
    return store


def _is_whole(target: Path) -> bool:
    """Say whether a store is there and is what was written; remove it where it is damaged."""
    if not target.exists():
        return False
    try:
        Store(target).verify()
    except UserError as error:
        print(f"decoding again: {error}")
        shutil.rmtree(target)
        return False
    return True


@contextlib.contextmanager
def _staging(cache: Path, key: str) -> Iterator[Path]:
    """Yield a new folder for a store in the making; it is locked while this process lives, and removed if left over."""
    folder = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=cache))
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders: then nothing is swept there
            fcntl.flock(handle, fcntl.LOCK_EX)
        folder.chmod(0o755)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Remove what killed runs left: staging folders that no living process holds."""
    for folder in cache.iterdir():
        if not re.fullmatch(r"\.[0-9a-f]{16}\..+", folder.name):
            continue
        with contextlib.suppress(OSError):  # held by a process that decodes now, or gone meanwhile
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def check_disjoint(store: Store) -> None:
    """Assert that no validation or test image can enter a draw, by content hash.

    Raises:
        UserError: an image of such a set is in the pool.
    """
    pool, held_out = store.rows(store.meta.pool), store.held_out()
    shared = pool[pool["sha256"].isin(held_out)]
    if len(shared):
        raise UserError(
            f"domain {store.meta.domain!r}: {len(shared)} images of the unlabelled pool are validation or test images "
            f"too (for one, {shared['id'].iloc[0]} is a {held_out[shared['sha256'].iloc[0]]} image); remove the copies "
            "from one of them"
        )
