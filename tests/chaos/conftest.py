"""Short and full counts of the reliability tests; a full run writes its counts into docs/reliability.md."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

FULL = os.environ.get("CHAOS") == "full"
PAGE = Path(__file__).resolve().parents[2] / "docs/reliability.md"
Record = Callable[[str, Mapping[str, int]], None]


def count(full: int, short: int) -> int:
    """Return how many trials a test makes: `make chaos` the full number, CI the short one."""
    return full if FULL else short


@pytest.fixture
def record(capsys: pytest.CaptureFixture[str]) -> Record:
    """Say the counts of a test; those of a full run replace its row in docs/reliability.md."""

    def say(kind: str, counts: Mapping[str, int]) -> None:
        text = ", ".join(f"{number} {what}" for what, number in counts.items())
        with capsys.disabled():
            print(f"\n{kind}: {text}")
        if FULL:
            row, page = f"| {kind} | {text} | {datetime.now(UTC):%Y-%m-%d} |", PAGE.read_text(encoding="utf-8")
            page, replaced = re.subn(rf"^\| {kind} \|.*$", lambda _: row, page, count=1, flags=re.MULTILINE)
            assert replaced, f"{PAGE} has no row {kind}"
            PAGE.write_text(page, encoding="utf-8")

    return say
