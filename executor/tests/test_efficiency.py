"""The efficiency report: what was requested, what was used, and a warning where the difference is large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fake_cluster import Cluster, FakeJob, Run
from snakemake_executor_plugin_submitit import efficiency, ledger
from snakemake_executor_plugin_submitit.files import write_json
from snakemake_executor_plugin_submitit.records import Record


def lines(folder: Path, rule: str = "train", **changes: Any) -> list[dict[str, Any]]:
    """An hour on two GPUs and four CPUs, of which one was used, and 1 GB of the 64 GB."""
    note = {"start": 0.0, "end": 3600.0, "max_rss_mb": 1000.0, "cpu_seconds": 3600.0}
    write_json(folder / rule / "attempt-001.json", note | changes.pop("note", {}))
    values: dict[str, Any] = {"gpus": 2, "cpus": 4, "mem_mb": 64000, "runtime": 1440} | changes
    record = Record(key="k", uid=rule, name=rule, folder=str(folder / rule), signature="s", rule=rule, wildcards={},
                    outputs=[], job_id="7", **values)  # fmt: skip
    return ledger.lines_of(record, "finished", "run1")


def test_the_table_has_gpu_hours_and_what_was_used_per_rule(tmp_path: Path) -> None:
    found = efficiency.by_rule([*lines(tmp_path), *lines(tmp_path), *lines(tmp_path, "score", gpus=0)])
    table = efficiency.table(found).splitlines()
    assert table[2].startswith("| score | 1 | 1.00 | 0.00 | 4.00 | 25% | 1000 | 2% | 4% |")
    assert table[3].startswith("| train | 1 | 1.00 | 2.00 |")  # the line that came twice counts once


def test_wasted_requests_are_warned_of(tmp_path: Path) -> None:
    memory, cpus, time = efficiency.warnings(efficiency.by_rule(lines(tmp_path)))
    assert memory == "Rule train requests 64000 MB and used at most 1000: lower its mem_mb."
    assert cpus == "Rule train requests 4 CPUs and used 25% of them: lower its threads."
    assert time == "Rule train requests 1440 min and used at most 4%: lower its runtime."


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus": 1, "mem_mb": 2000, "runtime": 120},  # used well, or small anyway
        {"note": {"end": 59.0}},  # too short to tell
        {"cpus": 1, "mem_mb": 0, "runtime": 0},  # nothing requested
        {"nodes": 2, "runtime": 120},  # what the other node used is not known
    ],
)
def test_nothing_to_warn_of(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert efficiency.warnings(efficiency.by_rule(lines(tmp_path, **changes))) == []


def test_the_report_is_written_and_the_warnings_are_said_at_the_end_of_a_run(cluster: Cluster) -> None:
    run, job = Run(cluster), FakeJob("a", mem_mb=64000, runtime=600, gpu=1)
    run.executor.run_job(job)
    record = run.record(job)
    write_json(record.path / "attempt-001.json", {"start": 0.0, "end": 7200.0, "max_rss_mb": 900.0, "cpu_seconds": 1e4})
    cluster.finish(record)
    run.check()
    run.executor.handle_job_success(job)
    run.executor.shutdown()
    assert "Rule train requests 64000 MB and used at most 900" in run.text
    assert "| train | 1 | 2.00 | 2.00 |" in (run.executor.root / "efficiency.md").read_text()
