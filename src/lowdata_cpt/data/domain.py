"""What a domain is: a configuration that can say what decides its content, and decode itself once."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import identity
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.store import Store, Task

DECODE_VERSION = 1


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

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks this domain is probed on; the workflow asks before anything is decoded."""
        return self.labelled

    def absent(self) -> str | None:
        """Return why the data cannot be had on this machine, None where it can; a look, not a check of its content."""
        return None

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides the decoded content: own settings and the sources' sha256.

        Raises:
            UserError: the source is missing or has another layout; the message says what to put where.
        """

    @abstractmethod
    def build(self, target: Path, content_sha256: str) -> None:
        """Decode into the empty folder `target` (see `store` for the layout).

        Raises:
            UserError: nothing usable was found, or labels do not fit the images.
        """

    @classmethod
    @abstractmethod
    def card(cls) -> str:
        """Return the data card (Markdown): source, licence, splits, units, known limits."""


def prepare(domain: Domain, cache: Path) -> Store:
    """Decode `domain` into `cache/<key>` unless that content is there already, and open it.

    The folder appears under its final name only when complete, so a killed run leaves no half store.
    """
    key = identity({"fingerprint": domain.fingerprint(), "decode": DECODE_VERSION})
    target = cache / key[:16]
    if not (target / "meta.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{key[:16]}.", dir=cache))
        try:
            domain.build(staging, key)
            staging.chmod(0o755)
            if not target.exists():
                staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    store = Store(target)
    check_disjoint(store)
    return store


def check_disjoint(store: Store) -> None:
    """Assert that no validation or test image can enter a draw, by content hash.

    Raises:
        UserError: an image of such a set is in the pool.
    """
    pool = store.rows(store.meta.pool)
    held_out = store.held_out()
    shared = pool[pool["sha256"].isin(held_out)]
    if len(shared):
        raise UserError(
            f"domain {store.meta.domain!r}: {len(shared)} images of the unlabelled pool are validation or test images "
            f"too (for one, {shared['id'].iloc[0]} is a {held_out[shared['sha256'].iloc[0]]} image); remove the copies "
            "from one of them"
        )
