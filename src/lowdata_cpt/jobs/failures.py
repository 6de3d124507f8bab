"""What failed, in a sentence a job: Snakemake tells a failure in thirty lines, and the reason scrolls away."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FAILED = re.compile(r"^Error in rule (?P<rule>\w+):\n(?P<block>(?: +\S.*\n)*)", re.MULTILINE)
SENTENCE = "error: "


def last_words(run_logs: Iterable[str | Path]) -> list[str]:
    """Return a line for each job that failed and did not succeed in a later attempt: rule, its log, why.

    Args:
        run_logs: Snakemake's logs of a run; one that is missing says nothing.

    Returns:
        `pretrain failed: <the job's last line with "error: ", else its last line> (<its log>)`, equal lines once.
    """
    found: dict[str, None] = {}
    for text in (Path(path).read_text(encoding="utf-8", errors="replace") for path in run_logs if Path(path).exists()):
        for failure in FAILED.finditer(text):
            block = failure["block"]
            job = re.search(r"^ +jobid: (\d+)$", block, re.MULTILINE)
            if job and re.search(rf"^Finished jobid: {job[1]}\b", text[failure.end() :], re.MULTILINE):
                continue
            log = re.search(r"^ +log: ([^\s,]+)", block, re.MULTILINE)
            where = f" ({log[1]})" if log else ""
            found.setdefault(f"{failure['rule']} failed: {_reason(Path(log[1])) if log else 'no log'}{where}")
    return list(found)


def _reason(log: Path) -> str:
    """Return the sentence that a job's log ends with."""
    if not log.exists():
        return "it wrote no log, so it was killed or never started"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(SENTENCE)]
    return (said or lines or ["it said nothing, so it was killed or never started"])[-1].removeprefix(SENTENCE)
