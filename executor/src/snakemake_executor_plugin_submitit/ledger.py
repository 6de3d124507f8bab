"""Ledger of the compute used: one line per start of a job, whatever its outcome."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.records import Record

NEEDED = {"submission", "attempts", "state", "elapsed", "cpus", "gpus"}
"""The keys of a line that are summed up."""
STATES = ("finished", "failed", "requeued", "cancelled")


def lines_of(record: Record, outcome: str, run: str) -> list[dict[str, Any]]:
    """Return the ledger lines of one submission that has ended.

    Every start except the last was requeued; the last one has the submission's `outcome` (one of STATES). A job that
    was killed wrote no end time: its last heartbeat is used instead.
    """
    common = {
        "run": run,
        "submission": record.uid,
        "rule": record.rule,
        "wildcards": record.wildcards,
        "outputs": record.outputs,
        "gpus": record.gpus,
        "cpus": record.cpus,
        "mem_mb": record.mem_mb,
        "runtime": record.runtime,
    }
    attempts = record.attempts()
    if not attempts:  # cancelled or failed before it started: it cost nothing, but it is recorded
        never = {"job_id": record.job_id, "state": outcome, "attempts": 0, "start": None, "elapsed": 0.0, "host": ""}
        return [common | never]
    lines = []
    measured = record.nodes == 1  # the job sees its first node only
    for number, attempt in enumerate(attempts, start=1):
        start = float(attempt["start"])
        end = float(attempt.get("end") or attempt.get("beat") or start)
        lines.append(
            common
            | {
                "job_id": attempt.get("job_id", record.job_id),
                "state": outcome if number == len(attempts) else "requeued",
                "attempts": number,
                "start": start,
                "elapsed": round(max(0.0, end - start), 3),
                "host": attempt.get("host", ""),
                "max_rss_mb": attempt.get("max_rss_mb") if measured else None,
                "cpu_seconds": attempt.get("cpu_seconds") if measured else None,
            }
        )
    return lines


def append(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append lines to a ledger file in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


def read(folder: Path) -> list[dict[str, Any]]:
    """Read the ledgers of all runs in a folder, oldest run first; a line that a crash cut or damaged is skipped."""
    lines = []
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and line.keys() >= NEEDED and isinstance(line.get("outputs", []), list):
                lines.append(line)
    return lines


def unique(lines: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Return the lines without those repeated after a crash (same submission and start)."""
    return {(line["submission"], line["attempts"]): line for line in lines}.values()


def summarise(
    lines: Iterable[Mapping[str, Any]], by: Sequence[str] = ("rule",)
) -> dict[tuple[str, ...], dict[str, float]]:
    """Sum up a ledger.

    Args:
        lines: ledger lines; a line repeated after a crash (same submission and start) counts once.
        by: keys of the lines or names of wildcards to group by, such as ("rule", "method").

    Returns:
        group -> `starts`, `hours`, `cpu_hours`, `gpu_hours`, and for each state in STATES `<state>` (starts) and
        `<state>_gpu_hours`. A job without one of the wildcards is filed under "".
    """
    totals: dict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in unique(lines):
        wildcards = line.get("wildcards") or {}
        group = tuple(str(line[name] if name in line else wildcards.get(name, "")) for name in by)
        hours = float(line["elapsed"]) / 3600
        total = totals[group]
        total["starts"] += 1
        total["hours"] += hours
        total["cpu_hours"] += hours * line["cpus"]
        total["gpu_hours"] += hours * line["gpus"]
        for state in STATES:
            total[state] += line["state"] == state
            total[f"{state}_gpu_hours"] += hours * line["gpus"] * (line["state"] == state)
    return {group: dict(total) for group, total in sorted(totals.items())}
