"""The checks of `make chaos-slurm`, tested without SLURM."""

from __future__ import annotations

from pathlib import Path

from snakemake_executor_plugin_submitit import ledger
from snakemake_executor_plugin_submitit.files import write_json
from snakemake_executor_plugin_submitit.records import Record
from tests.slurm.chaos import overlaps


def record(folder: Path, uid: str, outputs: list[str]) -> Record:
    return Record(
        key="k", uid=uid, name=uid, folder=str(folder), signature="s", rule="pretrain", wildcards={}, outputs=outputs,
        job_id="7",
    )  # fmt: skip


def test_a_job_that_continued_after_its_ledger_line_was_written_is_seen(tmp_path: Path) -> None:
    """The job's own notes count, not the ledger line written at a Ctrl-C."""
    first, second = tmp_path / "train/all/u1", tmp_path / "train/all/u2"
    write_json(first / "attempt-001.json", {"start": 0.0, "beat": 15.0, "job_id": "7"})
    lines = ledger.lines_of(record(first, "u1", ["a", "b"]), "cancelled", "run1")
    write_json(second / "attempt-001.json", {"start": 20.0, "end": 40.0, "beat": 40.0, "job_id": "8"})
    lines += ledger.lines_of(record(second, "u2", ["b"]), "finished", "run2")
    assert overlaps(lines, tmp_path) == []
    write_json(first / "attempt-001.json", {"start": 0.0, "end": 30.0, "beat": 30.0, "job_id": "7"})
    assert overlaps(lines, tmp_path) == [("u1", "u2")]
