"""What SLURM says: one `squeue` for all jobs, `sacct` only for those it has forgotten, and `scancel`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from snakemake_executor_plugin_submitit.decide import LIVE_STATES, normalise

TIMEOUT = 30  # seconds; with the controller down SLURM's programs can hang for minutes


@dataclass(frozen=True)
class Row:
    """One job as SLURM sees it."""

    state: str
    name: str
    reason: str = ""


@dataclass(frozen=True)
class Snapshot:
    """SLURM's answer at one moment.

    Attributes:
        taken: when, on the monotonic clock; -inf: never.
        rows: job id -> row.
        complete: False when SLURM could not be asked about some jobs: a missing job then means nothing.
    """

    taken: float = float("-inf")
    rows: dict[str, Row] = field(default_factory=dict)
    complete: bool = False

    def find(self, job_id: str | None, name: str) -> Row | None:
        """Return the row of a job. Ids come round again, so the name has to agree as well."""
        row = self.rows.get(job_id or "")
        return row if row is not None and row.name == name else None

    def id_of(self, name: str) -> str | None:
        """Return the id of the job with this name."""
        return next((job_id for job_id, row in self.rows.items() if row.name == name), None)


def parse_squeue(text: str) -> dict[str, Row]:
    """Parse `squeue --format=%i|%T|%r|%j`."""
    rows = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 3)
        if len(parts) == 4:
            rows[parts[0]] = Row(state=normalise(parts[1]), name=parts[3], reason=parts[2])
    return rows


def parse_sacct(text: str) -> dict[str, Row]:
    """Parse `sacct --parsable2 --format=JobIDRaw,State,JobName`; steps (`7.batch`) are left out."""
    rows = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 2)
        if len(parts) == 3 and "." not in parts[0]:
            rows[parts[0]] = Row(state=normalise(parts[1]), name=parts[2])
    return rows


Runner = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's programs; a time-out counts as failure."""
    # In a session of its own: a Ctrl-C in the terminal is for Snakemake, which then still needs the answer.
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, start_new_session=True
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not installed")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]} gave no answer within {TIMEOUT} s")


class Slurm:
    """SLURM, asked at most once in `interval` seconds however many jobs there are."""

    def __init__(self, interval: float, runner: Runner = run, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval = interval
        self.accounting = True  # until sacct says otherwise
        self.complaint = ""
        self._runner = runner
        self._clock = clock
        self._asked = float("-inf")
        self._last = Snapshot()

    def snapshot(self, job_ids: Collection[str], fresh: bool = False) -> Snapshot:
        """Return SLURM's newest answer, asking again when the last question is `interval` seconds old.

        While the controller does not answer, the last answer is returned: nothing new is known.
        """
        now = self._clock()
        if not fresh and now - self._asked < self.interval:
            return self._last
        self._asked = now
        # All states: the controller remembers ended jobs for MinJobAge (300 s) even without accounting.
        queue = self._runner(["squeue", f"--user={os.getuid()}", "--states=all", "--noheader", "--format=%i|%T|%r|%j"])
        if queue.returncode != 0:
            self.complaint = queue.stderr.strip()
            return self._last
        rows = parse_squeue(queue.stdout)
        forgotten = [job_id for job_id in job_ids if job_id not in rows]
        complete = True
        if forgotten and self.accounting:
            command = ["sacct", "--allocations", "--noheader", "--parsable2", "--format=JobIDRaw,State,JobName"]
            past = self._runner([*command, f"--jobs={','.join(forgotten)}"])
            if past.returncode == 0:
                # What the controller does not list is not running, whatever the data base missed ("runaway" jobs).
                past_rows = parse_sacct(past.stdout)
                rows.update({job: row for job, row in past_rows.items() if row.state not in LIVE_STATES})
            elif past.returncode == 127 or "disabled" in past.stderr:
                self.accounting = False
            else:
                self.complaint, complete = past.stderr.strip(), False
        snapshot = Snapshot(taken=now, rows=rows, complete=complete)
        self._last = snapshot
        return snapshot  # not `_last`: another thread may be asking too

    def cancel(
        self, job_ids: Collection[str], names: Collection[str] = (), pairs: Collection[tuple[str, str]] = ()
    ) -> str:
        """Cancel jobs by id, by name where no id is known, or by both; return SLURM's complaint, if any."""
        complaints = []
        ids = sorted(job_ids)
        commands = [["scancel", *ids[start : start + 500]] for start in range(0, len(ids), 500)]
        commands += [["scancel", f"--user={os.getuid()}", f"--name={name}"] for name in names]
        commands += [["scancel", f"--name={name}", job_id] for job_id, name in pairs]
        for command in commands:
            for _ in range(3):
                answer = self._runner(command)
                if answer.returncode == 0 or "Invalid job id" in answer.stderr:
                    break
                time.sleep(1)
            else:
                complaints.append(answer.stderr.strip())
        return "; ".join(complaints)
