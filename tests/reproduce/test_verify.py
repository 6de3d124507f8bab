"""Each check on files made here: right ones pass, and each kind of damage fails in its own row."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lowdata_cpt.analysis.commands import make_claims, make_figures, make_statistics
from lowdata_cpt.analysis.metrics import write_metrics
from lowdata_cpt.analysis.table import COLUMNS, read_scores
from lowdata_cpt.analysis.tables import write_tables
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.reproduce import dvc_files as dvcfiles
from lowdata_cpt.reproduce import recompute, verify

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = """head_room: 5
entries:
- id: a
  statement: A helps.
  source: here
  cells: {method: diet_cp, reference: base}
  metrics: {miou: miou}
  direction: better
"""


def scores() -> pd.DataFrame:
    rows = [
        ("quick", "tiny", "tabletop", method, n, seed, "segmentation", metric, split, value + 0.01 * seed, 10 * n, 1.5)
        for method, n, value in (("base", 0, 0.4), ("diet_cp", 100, 0.45), ("dino", 100, 0.43))
        for seed in (0, 1, 2)
        for metric in ("miou", "pixel_accuracy")
        for split in ("test", "val")
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def lock(outs: dict[str, str]) -> None:
    stages = {name: {"cmd": "x", "outs": []} for name in dvcfiles.stage_names("quick")}
    stages["figures@quick"]["outs"] = [{"path": path, "md5": md5} for path, md5 in outs.items()]
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("results/quick")
    folder.mkdir(parents=True)
    Path("config").mkdir()
    Path("config/claims.yaml").write_text(CLAIMS)
    scores().to_csv(folder / "scores.csv", index=False, lineterminator="\n")
    return folder


def failing(rows: list[verify.Row]) -> dict[str, str]:
    return {row.subject: row.verdict for row in rows if row.verdict != "ok"}


def test_files_are_hashed_and_named(folder: Path, tmp_path: Path) -> None:
    models = folder / "cells"
    for name in ("a/x.bin", "b/x.bin"):
        (models / name).parent.mkdir(parents=True)
        (models / name).write_bytes(name.encode())
    (models / ".snakemake_timestamp").touch()
    listing = dvcfiles.listing(models)
    table = dvcfiles.file_md5(folder / "scores.csv")
    lock({"results/quick/cells": dvcfiles.listing_md5(listing), "results/quick/scores.csv": table})
    assert not failing(verify.check_files("quick", None))
    (models / "b/x.bin").write_bytes(b"b/x.biN")
    assert failing(verify.check_files("quick", None)) == {"results/quick/cells": "differs"}
    cached = dvcfiles.object_path(tmp_path / "cache", dvcfiles.listing_md5(listing))
    cached.parent.mkdir(parents=True)
    entries = ", ".join(f'{{"md5": "{listing[n]}", "relpath": "{n}"}}' for n in sorted(listing))
    cached.write_text(f"[{entries}]")
    assert failing(verify.check_files("quick", tmp_path / "cache")) == {"results/quick/cells/b/x.bin": "differs"}
    (models / "a/x.bin").unlink()
    assert failing(verify.check_files("quick", tmp_path / "cache"))["results/quick/cells/a/x.bin"] == "missing"


def test_lock_without_the_study_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="make dvc-commit"):
        dvcfiles.locked_outs("quick")
    lock({})
    with pytest.raises(UserError, match="models@paper"):
        dvcfiles.locked_outs("paper")


def test_damaged_cache_objects_are_named(folder: Path, tmp_path: Path) -> None:
    out = dvcfiles.Out(folder / "scores.csv", dvcfiles.file_md5(folder / "scores.csv"))
    stored = dvcfiles.object_path(tmp_path, out.md5)
    stored.parent.mkdir(parents=True)
    stored.write_bytes((folder / "scores.csv").read_bytes())
    assert dvcfiles.damaged_objects([out], tmp_path) == {}
    stored.write_bytes(b"?" + stored.read_bytes()[1:])
    assert dvcfiles.damaged_objects([out], tmp_path) == {stored: out.path}


def test_sidecars(folder: Path) -> None:
    assert verify.check_sidecars(folder)[0].verdict == "missing"
    write_json(folder / "claims.json", [])
    write_sidecar(folder / "claims.json", inputs=[folder / "scores.csv"])
    assert not failing(verify.check_sidecars(folder))
    (folder / "scores.csv").write_text("other")
    assert "another" in verify.check_sidecars(folder)[0].detail
    write_json(folder / "claims.json", [1])
    assert len(verify.check_sidecars(folder)) == 2
    (folder / "claims.json").unlink()
    assert ("results/quick/claims.json", "missing") in {r[1:3] for r in verify.check_sidecars(folder)}


def test_statistics_claims_and_figures_follow_from_the_table(folder: Path, tmp_path: Path) -> None:
    make_statistics(folder / "scores.csv", folder / "statistics")
    write_metrics(folder / "scores.csv", folder / "statistics/metrics.json")
    make_claims(folder / "scores.csv", verify.CLAIMS, folder, "quick")
    make_figures(folder, folder / "figures")
    write_tables(read_scores(folder / "scores.csv"), folder / "tables")

    def check(number: int) -> dict[str, str]:
        work = tmp_path / f"work{number}"
        work.mkdir()
        makers = (verify.check_statistics, verify.check_claims, verify.check_figures)
        return failing([row for make in makers for row in make(folder, work)])

    assert check(0) == {}
    claims = (folder / "claims.json").read_text()
    assert '"verdict": "reproduced"' in claims
    (folder / "claims.json").write_text(claims.replace('"reproduced"', '"not reproduced"'))
    source = folder / "figures/gain_by_n.csv"
    table = pd.read_csv(source)
    number = table.select_dtypes("float").columns[0]
    table[number] = table[number] + 0.01
    table.to_csv(source, index=False)
    (folder / "statistics/ranks.csv").unlink()
    assert check(1) == {
        "results/quick/claims.json": "differs",
        "results/quick/figures/claims.csv": "differs",  # it is drawn from claims.json
        "results/quick/figures/gain_by_n.csv": "differs",
        "results/quick/statistics/ranks.csv": "missing",
    }


def test_six_digits_are_compared() -> None:
    assert verify._close({"a": [1.0, math.nan]}, {"a": [1.000001, math.nan]})
    assert not verify._close({"a": [1.0]}, {"a": [1.001]})
    assert not verify._close([1.0], [1.0, 2.0])


def test_verify_reports_everything_although_everything_is_missing(folder: Path) -> None:
    rows = list(verify.verify("quick"))
    assert {row.check for row in rows} == {"dvc.lock", "sidecar", "scores", "statistics", "claims", "figure", "table"}
    assert verify.print_table(rows) is False


def test_an_unreadable_file_is_a_row(folder: Path) -> None:
    (folder / "scores.csv").write_bytes(b"\xff\xfe\x00")
    rows = list(verify.verify("quick"))
    assert all(row.verdict != "ok" for row in rows)


@pytest.mark.parametrize(
    ("metric", "stored", "found", "holds"),
    [
        ("miou", 0.4, 0.4, True),
        ("miou", 0.4, 0.415, True),
        ("miou", 0.4, 0.43, False),
        ("rmse", 2.0, 2.08, True),
        ("rmse", 2.0, 2.2, False),
        ("miou", 0.4, math.nan, False),
        ("unknown", 0.4, 0.43, False),
    ],
)
def test_tolerance(metric: str, stored: float, found: float, holds: bool) -> None:
    assert recompute.Score("task", metric, "test", stored, found).holds is holds


def test_cells_are_named_as_their_folders() -> None:
    from lowdata_cpt.study.load import load

    study = load(ROOT / "config/quick.yaml")
    cell = next(recompute.cells(study))
    name = f"{cell.backbone}/{cell.domain}/{cell.method}/n{cell.n}/s{cell.seed}"
    assert recompute.parse_cell(name, study) == cell
    for wrong in ("", "a/b", name.replace("/s0", "/s9"), f"../{name}"):
        with pytest.raises(UserError, match="for example"):
            recompute.parse_cell(wrong, study)
