"""The ledger counts every start once, whatever its outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit import ledger
from snakemake_executor_plugin_submitit.files import write_json
from snakemake_executor_plugin_submitit.records import Record


def record(folder: Path, uid: str, method: str) -> Record:
    return Record(
        key="k", uid=uid, name=uid, folder=str(folder), signature="s", rule="pretrain", wildcards={"method": method},
        outputs=[], gpus=2, cpus=4, job_id="7",
    )  # fmt: skip


def test_requeued_starts_and_a_killed_one(tmp_path: Path) -> None:
    write_json(tmp_path / "attempt-001.json", {"start": 0.0, "end": 1800.0, "beat": 1800.0, "job_id": "7"})
    write_json(tmp_path / "attempt-002.json", {"start": 2000.0, "beat": 5600.0, "job_id": "7"})  # killed: no end
    lines = ledger.lines_of(record(tmp_path, "u", "glare"), "failed", "run1")
    assert [(line["state"], line["elapsed"]) for line in lines] == [("requeued", 1800.0), ("failed", 3600.0)]
    totals = ledger.summarise(lines, by=("rule", "method"))[("pretrain", "glare")]
    assert totals["gpu_hours"] == pytest.approx(3.0)
    assert totals["requeued_gpu_hours"] == pytest.approx(1.0)
    assert totals["failed_gpu_hours"] == pytest.approx(2.0)
    assert totals["cpu_hours"] == pytest.approx(6.0)
    assert (totals["starts"], totals["requeued"], totals["failed"], totals["finished"]) == (2, 1, 1, 0)


def test_a_line_written_twice_counts_once_and_a_truncated_one_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "job" / "attempt-001.json", {"start": 0.0, "end": 3600.0, "job_id": "7"})
    lines = ledger.lines_of(record(tmp_path / "job", "u", "tec"), "cancelled", "run1")
    ledger.append(tmp_path / "ledger" / "a.jsonl", lines)
    ledger.append(tmp_path / "ledger" / "b.jsonl", lines)
    with (tmp_path / "ledger" / "b.jsonl").open("a") as stream:
        stream.write('{"submission": "cut o')
    read = ledger.read(tmp_path / "ledger")
    assert len(read) == 2
    assert ledger.summarise(read, by=("method",)) == {
        ("tec",): ledger.summarise(lines, by=("method",))[("tec",)],
    }
    assert ledger.summarise(read, by=("method",))[("tec",)]["gpu_hours"] == pytest.approx(2.0)


def test_a_job_that_never_started_costs_nothing_but_is_recorded(tmp_path: Path) -> None:
    (line,) = ledger.lines_of(record(tmp_path, "u", "tec"), "cancelled", "run1")
    assert (line["state"], line["elapsed"], line["attempts"]) == ("cancelled", 0.0, 0)


def test_lines_that_are_none_are_skipped(tmp_path: Path) -> None:
    (line,) = ledger.lines_of(record(tmp_path, "u", "glare"), "failed", "run1")
    ledger.append(tmp_path / "a.jsonl", [line])
    (tmp_path / "b.jsonl").write_bytes(b'5\nnull\n[1]\n{}\n{"outputs": ["a"]}\n\xff\xfe\n{"cut')
    assert ledger.read(tmp_path) == [line]
