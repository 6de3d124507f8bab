"""What a failed run says last, on Snakemake's own logs as they look."""

from __future__ import annotations

from pathlib import Path

import pytest

from lowdata_cpt.jobs.failures import last_words

FAILURE = """\
[Thu Nov 26 02:25:14 2026]
Error in rule {rule}:
    message: None
    jobid: {job}
    output: out
    log: {log} (check log file(s) for error details)
    shell:
        lowdata-cpt {rule}
        (command exited with non-zero exit code)
"""


def run_log(folder: Path, *parts: str) -> Path:
    path = folder / "run.log"
    path.write_text("Building DAG of jobs...\n" + "Select jobs to execute...\n".join(parts))
    return path


def failure(log: Path, rule: str = "pretrain", job: int = 4) -> str:
    return FAILURE.format(rule=rule, job=job, log=log)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("step 1\nerror: weights.pth: expected safetensors\n", "weights.pth: expected safetensors"),
        ("error: first attempt\nstep 1\nerror: second attempt\nbye\n", "second attempt"),
        ("Traceback\nMemoryError: 8 GiB\n\n", "MemoryError: 8 GiB"),
        ("", "it said nothing, so it was killed or never started"),
        (None, "it wrote no log, so it was killed or never started"),
    ],
)
def test_a_failed_job_is_one_sentence(said: str | None, why: str, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    if said is not None:
        log.write_text(said)
    assert last_words([run_log(tmp_path, failure(log))]) == [f"pretrain failed: {why} ({log})"]


def test_each_failure_once_and_none_that_a_later_attempt_mended(tmp_path: Path) -> None:
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    first.write_text("error: no data\n")
    second.write_text("error: node died\n")
    mended = failure(second, "evaluate", 7) + "Finished jobid: 7 (Rule: evaluate)\n"
    again = failure(first) + "Finished jobid: 41 (Rule: data)\n"
    found = last_words([run_log(tmp_path, failure(first), mended, again), tmp_path / "missing.log"])
    assert found == [f"pretrain failed: no data ({first})"]
