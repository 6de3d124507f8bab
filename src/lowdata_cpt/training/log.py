"""The per-step log of a run (JSON lines, cut back on resume) and the progress line a person watches."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import sha256_bytes, sha256_file, write_text, writing


class StepLog:
    """Append-only `steps.jsonl`; rows at or after the resumed step are dropped, so that none is there twice."""

    def __init__(self, folder: Path, start: int, sha256: str = "") -> None:
        """Open the log of the run in `folder` that goes on at step `start`; until there its hash is `sha256`.

        Raises:
            UserError: it is not.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "steps.jsonl"
        kept = [row for row in self.rows() if row["step"] < start]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        if start and sha256_bytes(text.encode()) != sha256:
            raise UserError(
                f"{self.path}: not the log of the training state beside it; delete {folder} to start this run again"
            )
        write_text(self.path, text)
        self.seconds_before: float = kept[-1]["seconds"] if kept else 0.0
        self.stream = self.path.open("a", encoding="utf-8")

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows so far; a line cut short by a kill, or damaged, ends them."""
        rows: list[dict[str, Any]] = []
        if self.path.exists():
            for line in self.path.read_bytes().splitlines():
                try:
                    row = json.loads(line)
                    row["step"] + row["seconds"], row["parts"]
                except (ValueError, KeyError, TypeError):
                    break
                rows.append(row)
        return rows

    def write(self, step: int, images_seen: int, seconds: float, parts: dict[str, float]) -> None:
        """Append one step."""
        row = {"step": step, "images_seen": images_seen, "seconds": round(seconds, 4), "parts": parts}
        with writing(self.path):
            self.stream.write(json.dumps(row) + "\n")

    def flush(self) -> str:
        """Bring everything written to the disk, as a checkpoint must never be ahead of its log; return its hash."""
        with writing(self.path):
            self.stream.flush()
            os.fsync(self.stream.fileno())
        return sha256_file(self.path)

    def frame(self) -> pd.DataFrame:
        """Return the log in long form: step, images_seen, part, value."""
        self.flush()
        rows = [
            {"step": row["step"], "images_seen": row["images_seen"], "part": part, "value": value}
            for row in self.rows()
            for part, value in row["parts"].items()
        ]
        return pd.DataFrame(rows, columns=["step", "images_seen", "part", "value"])


class ProgressLine:
    """Images per second, time left and loss parts: one line that rewrites itself, or a line every ten seconds."""

    def __init__(self, label: str, steps: int, start: int, unit: str = "images") -> None:
        """Start a line for a run of `steps` that goes on at `start`; `unit` is what a batch counts."""
        self.label, self.steps, self.start, self.unit = label, steps, start, unit
        self.started = self.printed = time.monotonic()
        self.images = 0
        self.terminal = sys.stdout.isatty()

    def update(self, step: int, batch: int, parts: dict[str, float]) -> None:
        """Report that `step` is done with `batch` images."""
        self.images += batch
        now = time.monotonic()
        done = step + 1 == self.steps
        if not done and now - self.printed < (0.5 if self.terminal else 10.0):
            return
        self.printed = now
        elapsed = max(now - self.started, 1e-9)
        left = elapsed / (step + 1 - self.start) * (self.steps - step - 1)
        values = " ".join(f"{name} {value:.4g}" for name, value in parts.items())
        text = (
            f"{self.label} {step + 1}/{self.steps} {self.images / elapsed:.1f} {self.unit}/s ETA {left:.0f} s {values}"
        )
        end = "\n" if done or not self.terminal else "\r"
        print(text[:200], end=end, flush=True)
