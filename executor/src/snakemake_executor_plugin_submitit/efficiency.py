"""What the jobs of each rule used of what they requested: a table, and warnings of wasted requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit import files, ledger

SHORTEST = 60.0  # seconds; shorter starts say nothing about a request
LOW = 0.3  # a request of memory or CPUs is wasted when less than this part of it is used
LOW_TIME = 0.1  # the same for the time limit, which costs nothing but delays the start
SMALL_MB, SMALL_MINUTES = 2000, 60  # requests that are small anyway


@dataclass
class Efficiency:
    """The starts of one rule; sums over starts, except the three `max_`.

    Attributes:
        starts: number of starts.
        hours, cpu_hours, gpu_hours: allocated.
        cpu_used_hours: CPU time used by the starts that measured it, and measured_cpu_hours: their allocation.
        max_rss_mb: largest memory a start used, in MB.
        mem_mb, runtime, cpus: largest requests, in MB, minutes and CPUs.
        max_mem, max_time: largest part of the request that a start of at least SHORTEST seconds used, None: not known.
    """

    starts: int = 0
    hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    cpu_used_hours: float = 0.0
    measured_cpu_hours: float = 0.0
    max_rss_mb: float = 0.0
    mem_mb: int = 0
    runtime: int = 0
    cpus: int = 0
    max_mem: float | None = None
    max_time: float | None = None

    @property
    def cpu(self) -> float | None:
        """The part of the allocated CPU time that was used, None if it was not measured."""
        return self.cpu_used_hours / self.measured_cpu_hours if self.measured_cpu_hours else None

    def add(self, line: Mapping[str, Any]) -> None:
        """Add one line of the ledger."""
        hours = float(line["elapsed"]) / 3600
        used, peak = float(line.get("cpu_seconds") or 0), float(line.get("max_rss_mb") or 0)
        mem_mb, runtime = int(line.get("mem_mb") or 0), int(line.get("runtime") or 0)
        self.starts += 1
        self.hours += hours
        self.cpu_hours += hours * line["cpus"]
        self.gpu_hours += hours * line["gpus"]
        self.max_rss_mb = max(self.max_rss_mb, peak)
        self.mem_mb, self.runtime = max(self.mem_mb, mem_mb), max(self.runtime, runtime)
        self.cpus = max(self.cpus, line["cpus"])
        if line["elapsed"] < SHORTEST:
            return
        if used:
            self.cpu_used_hours += used / 3600
            self.measured_cpu_hours += hours * line["cpus"]
        if mem_mb and peak:
            self.max_mem = max(self.max_mem or 0.0, peak / mem_mb)
        if runtime:
            self.max_time = max(self.max_time or 0.0, float(line["elapsed"]) / (60 * runtime))


def by_rule(lines: Iterable[Mapping[str, Any]]) -> dict[str, Efficiency]:
    """Sum up a ledger; a line repeated after a crash (same submission and start) counts once."""
    found: dict[str, Efficiency] = defaultdict(Efficiency)
    for line in ledger.unique(lines):
        if line["attempts"]:
            found[str(line["rule"])].add(line)
    return dict(sorted(found.items()))


def table(rules: Mapping[str, Efficiency]) -> str:
    """Return a table in Markdown."""

    def part(value: float | None) -> str:
        return "–" if value is None else f"{value:.0%}"

    rows = [
        f"| {rule} | {e.starts} | {e.hours:.2f} | {e.gpu_hours:.2f} | {e.cpu_hours:.2f} | {part(e.cpu)} "
        f"| {e.max_rss_mb:.0f} | {part(e.max_mem)} | {part(e.max_time)} |"
        for rule, e in rules.items()
    ]
    head = "| rule | starts | hours | GPU-hours | CPU-hours | CPU used | max MB | memory used | time used |"
    return "\n".join([head, "|---|" + "---:|" * 8, *rows]) + "\n"


def warnings(rules: Mapping[str, Efficiency]) -> list[str]:
    """Return a sentence for each request that was mostly unused."""
    found = []
    for rule, e in rules.items():
        if e.max_mem is not None and e.max_mem < LOW and e.mem_mb > SMALL_MB:
            found.append(f"Rule {rule} requests {e.mem_mb} MB and used at most {e.max_rss_mb:.0f}: lower its mem_mb.")
        if e.cpu is not None and e.cpu < LOW and e.cpus > 1:
            found.append(f"Rule {rule} requests {e.cpus} CPUs and used {e.cpu:.0%} of them: lower its threads.")
        if e.max_time is not None and e.max_time < LOW_TIME and e.runtime > SMALL_MINUTES:
            found.append(f"Rule {rule} requests {e.runtime} min and used at most {e.max_time:.0%}: lower its runtime.")
    return found


def report(root: Path, run: str) -> list[str]:
    """Write the table over all runs to `efficiency.md` and return the warnings about one run; raises OSError."""
    lines = ledger.read(root / "ledger")
    if not lines:
        return []
    files.write_text(root / "efficiency.md", table(by_rule(lines)))
    return warnings(by_rule(line for line in lines if line["run"] == run))
