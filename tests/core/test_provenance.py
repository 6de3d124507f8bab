"""Sidecars, and the one file a study that gathers them: whole, small, and equal for equal runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lowdata_cpt.core import provenance
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file, write_json, write_text
from lowdata_cpt.core.provenance import (
    check,
    gather,
    last_ended,
    read_records,
    sidecar_path,
    write_provenance,
    write_sidecar,
)

FOLDER = Path("results/quick")
CELL = "cells/tiny/camvid/mae/n4/s0"


def test_a_sidecar_says_how_an_artifact_came_about(tmp_path: Path) -> None:
    source, artifact = tmp_path / "in.csv", tmp_path / "out.json"
    source.write_text("a\n1\n")
    artifact.write_text("{}")
    write_sidecar(artifact, inputs=[source], config={"seed": 3}, seconds=1.5)
    facts = json.loads(sidecar_path(artifact).read_text())
    assert facts["artifact"] == {"path": "out.json", "sha256": sha256_file(artifact), "bytes": 2}
    assert facts["inputs"] == [{"path": str(source), "sha256": sha256_file(source)}]
    assert facts["config"] == {"seed": 3}
    assert facts["job"]["seconds"] == 1.5
    assert set(facts["code"]) == {"version", "commit", "dirty", "lock_sha256"}
    assert {"torch", "timm", "numpy"} <= set(facts["environment"]["packages"])


def run(seconds: float, value: float = 0.5, *, folder: Path = FOLDER) -> None:
    """Write the files and sidecars of a run: a cell's model (deleted), cost and scores, and the study's table."""
    write_text(folder / "data/camvid/manifest.json", "{}")
    write_sidecar(folder / "data/camvid/manifest.json", config={"resolution": 32}, seconds=seconds)
    cell, config = folder / CELL, {"method": "mae", "seed": 0}
    write_text(cell / "export/model.safetensors", f"weights {value}")
    write_json(cell / "cost.json", {"steps": 1, "train_seconds": seconds})
    for name in ("export/model.safetensors", "cost.json"):
        cost = {"steps": 1, "train_seconds": seconds}
        write_sidecar(cell / name, inputs=[folder / "data/camvid/manifest.json"], config=config, cost=cost)
    (cell / "export/model.safetensors").unlink()
    write_json(cell / "evaluation.json", {"miou": value})
    write_sidecar(cell / "evaluation.json", inputs=[cell / "features.npz"][:0], config=config)
    write_text(folder / "scores.csv", f"value\n{value}\n")
    write_sidecar(folder / "scores.csv", inputs=[cell / "evaluation.json", cell / "cost.json"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run(1.5)
    return FOLDER


def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(provenance.time, "time", lambda: 2e9)
    other = provenance.environment() | {"cpu": "another", "platform": "elsewhere"}
    monkeypatch.setattr(provenance, "environment", lambda: other)


def without_sidecars(folder: Path) -> None:
    for sidecar in folder.rglob("*.prov.json"):
        sidecar.unlink()


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("job", "cost")}


def test_the_gathered_file_says_what_the_sidecars_said(folder: Path) -> None:
    before = read_records(folder)
    write_provenance(folder)
    without_sidecars(folder)
    after = read_records(folder)
    assert list(after) == [
        *(f"{CELL}/{name}" for name in ("cost.json", "evaluation.json", "export/model.safetensors")),
        "data/camvid/manifest.json",
        "scores.csv",
    ]
    assert {name: untimed(one) for name, one in after.items()} == {name: untimed(one) for name, one in before.items()}
    assert after[f"{CELL}/cost.json"]["cost"] == {"steps": 1}
    assert last_ended(folder) == max(one["job"]["ended"] for one in before.values())


def test_tables_stand_once(folder: Path) -> None:
    found = gather(folder)
    assert len(found["code"]) == len(found["environment"]) == 1
    assert found["config"] == [{"method": "mae", "seed": 0}, {"resolution": 32}]
    assert found["artifacts"]["scores.csv"]["inputs"] == [
        f"results/quick/{CELL}/{n}.json" for n in ("evaluation", "cost")
    ]


def test_equal_runs_give_an_equal_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_provenance(folder).read_bytes()
    on_another_machine(monkeypatch)
    run(99.0)
    assert write_provenance(folder).read_bytes() == first


def test_what_is_measured_or_of_the_job_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    run(1234.5)
    text = json.dumps(gather(folder))
    assert all(word not in text for word in ("4711", "1234.5", "ended", "seconds"))


def test_another_result_changes_its_records_and_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_provenance(folder)
    first = read_json(folder / "provenance.json")
    on_another_machine(monkeypatch)
    run(1.5, value=0.6)
    write_provenance(folder)
    second = read_json(folder / "provenance.json")
    changed = {name for name, record in second["artifacts"].items() if record != first["artifacts"][name]}
    assert changed == {f"{CELL}/evaluation.json", f"{CELL}/export/model.safetensors", "scores.csv"}
    assert second["environment"][second["artifacts"]["scores.csv"]["environment"]]["cpu"] == "another"
    assert second["ended"] == 2_000_000_000


def test_another_file_beside_equal_bytes_changes_the_record(folder: Path) -> None:
    """As when a table of the same rows is collected again, and says another reason for what was not run."""
    table, reasons = folder / "scores.csv", folder / "not_run.json"
    for reason in ("none is computed", "two are computed"):
        write_json(reasons, {"nyuv2": reason})
        write_sidecar(table, inputs=[folder / CELL / "evaluation.json"], beside=[reasons])
        write_provenance(folder)
    without_sidecars(folder)
    assert check(reasons, table) == reasons
    write_json(reasons, {"nyuv2": "none is computed"})
    with pytest.raises(UserError, match=r"not_run.json: damaged"):
        check(reasons, table)


def test_a_fresh_clone_that_draws_again_loses_no_record(folder: Path) -> None:
    write_provenance(folder)
    without_sidecars(folder)
    for path in (folder / CELL).rglob("*.json"):
        path.unlink()
    write_text(folder / "claims.json", "[]")
    write_sidecar(folder / "claims.json", inputs=[folder / "scores.csv"])
    before = set(read_json(folder / "provenance.json")["artifacts"])
    assert set(gather(folder)["artifacts"]) == before | {"claims.json"}
    # What nothing leads to any more goes: the table was collected from other cells.
    write_text(folder / "scores.csv", "value\n0.7\n")
    write_sidecar(folder / "scores.csv", inputs=[folder / "data/camvid/manifest.json"])
    assert set(gather(folder)["artifacts"]) == {"claims.json", "data/camvid/manifest.json", "scores.csv"}


def test_350_cells_stay_below_2_mib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(1.0)
    cell = FOLDER / CELL
    config = {"method": {f"setting_{i}": i * 0.1 for i in range(60)}, "seed": 0}
    template = sidecar_path(cell / "evaluation.json").read_text()
    evaluations = []
    for domain in range(6):
        for method in range(7):
            for seed in range(9):
                place = FOLDER / f"cells/vits14_imgfocus/domain_{domain}/method_number_{method}/n1000/s{seed}"
                for name in ("cost.json", "evaluation.json", "outcomes.npz", "export/i100000/model.safetensors"):
                    facts = json.loads(template)
                    facts["artifact"] = {"path": Path(name).name, "sha256": f"{len(evaluations):064x}", "bytes": 1}
                    facts["config"] = config | {"seed": seed, "method": config["method"] | {"name": method}}
                    facts["command"] = ["lowdata-cpt", "pretrain", "--config", json.dumps(facts["config"])]
                    facts["inputs"] = [{"path": str(FOLDER / "data/camvid/manifest.json"), "sha256": "0" * 64}] * 3
                    sidecar = sidecar_path(place / name)
                    sidecar.parent.mkdir(parents=True, exist_ok=True)
                    sidecar.write_text(json.dumps(facts))
                evaluations.append({"path": str(place / "evaluation.json"), "sha256": f"{len(evaluations):064x}"})
    for name in ("scores.csv", "selected.csv", "curves.csv"):
        facts = read_json(sidecar_path(FOLDER / "scores.csv"))
        write_text(sidecar_path(FOLDER / name), json.dumps(facts | {"inputs": evaluations}))
    assert len(evaluations) == 378
    assert write_provenance(FOLDER).stat().st_size < 2 * 2**20


@pytest.mark.parametrize("text", ["[]", '{"artifacts": {"a": {}}}', '{"artifacts": [], "code": []}'])
def test_a_damaged_file_is_named(folder: Path, text: str) -> None:
    write_text(folder / "provenance.json", text)
    with pytest.raises(UserError, match="not a study's provenance"):
        read_records(folder)


def test_a_damaged_sidecar_is_named(folder: Path) -> None:
    write_text(sidecar_path(folder / "scores.csv"), '{"artifact": {}}')
    with pytest.raises(UserError, match=r"scores\.csv\.prov\.json: not a sidecar"):
        read_records(folder)


def test_nothing_to_gather_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the study"):
        gather(tmp_path)


def test_a_published_table_is_held_to_its_record_wherever_the_folder_lies(tmp_path: Path) -> None:
    published = Path(__file__).parents[2] / "results/quick"
    for name in ("provenance.json", "scores.csv"):
        shutil.copy(published / name, tmp_path)
    table = tmp_path / "scores.csv"
    assert check(table) == table
    table.write_bytes(table.read_bytes().replace(b"0.", b"1.", 1))
    with pytest.raises(UserError, match=r"scores.csv: damaged"):
        check(table)
