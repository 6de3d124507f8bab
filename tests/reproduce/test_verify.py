"""Each check on files made here: right ones pass, and each kind of damage fails in its own row."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lowdata_cpt.analysis.commands import make_claims, make_statistics, make_tables
from lowdata_cpt.analysis.figures import draw
from lowdata_cpt.analysis.table import COLUMNS
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import write_json, write_text
from lowdata_cpt.core.provenance import sidecar_path, write_provenance, write_sidecar
from lowdata_cpt.jobs.pretrain import inputs_of
from lowdata_cpt.reproduce import dvc_files as dvcfiles
from lowdata_cpt.reproduce import recompute, verify
from lowdata_cpt.reproduce.rows import Row, compare, is_close, print_table
from lowdata_cpt.study.grid import Cell, cell_of, cells
from lowdata_cpt.study.load import load
from lowdata_cpt.study.paths import Paths

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


def failing(rows: list[Row]) -> dict[str, str]:
    return {row.subject: row.verdict for row in rows if row.verdict != "held"}


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
    assert failing(verify.check_files("quick", None)) == {"results/quick/cells": "failed"}
    cached = dvcfiles.object_path(tmp_path / "cache", dvcfiles.listing_md5(listing))
    cached.parent.mkdir(parents=True)
    entries = ", ".join(f'{{"md5": "{listing[n]}", "relpath": "{n}"}}' for n in sorted(listing))
    cached.write_text(f"[{entries}]")
    assert failing(verify.check_files("quick", tmp_path / "cache")) == {"results/quick/cells/b/x.bin": "failed"}
    (models / "a/x.bin").unlink()
    assert failing(verify.check_files("quick", tmp_path / "cache"))["results/quick/cells/a/x.bin"] == "not here"


def test_what_is_drawn_is_no_part_of_a_folder_and_a_report_is_judged_by_its_tables(folder: Path) -> None:
    write_text(folder / "figures/gain.csv", "a\n1\n")
    write_text(folder / "report.html", "<p>")
    figures = dvcfiles.listing_md5(dvcfiles.listing(folder / "figures"))
    lock({"results/quick/figures": figures, "results/quick/report.html": dvcfiles.file_md5(folder / "report.html")})
    for name in ("gain.png", "gain.pdf", "gain.png.prov.json"):
        write_text(folder / "figures" / name, "drawn elsewhere")
    write_text(folder / "report.html", "<p>built elsewhere")
    assert not failing(verify.check_files("quick", None))
    (folder / "report.html").unlink()
    assert failing(verify.check_files("quick", None)) == {"results/quick/report.html": "not here"}


def test_a_study_that_dvc_does_not_carry_fails_nothing(folder: Path) -> None:
    assert failing(verify.check_files("quick", None)) == {"quick": "not here"}
    lock({})
    assert failing(verify.check_files("embedded", None)) == {"embedded": "not here"}
    Path("dvc.lock").write_text("stages: []")
    with pytest.raises(UserError, match="not a lock file"):
        verify.check_files("quick", None)


def test_cells_computed_again_are_judged_by_their_results(folder: Path) -> None:
    cells = folder / "cells"
    for name, text in (("a/evaluation.json", "{}"), ("a/cost.json", '{"train_seconds": 1}')):
        write_text(cells / name, text)
        write_sidecar(cells / name)
    write_provenance(folder)
    lock({"results/quick/cells": dvcfiles.listing_md5(dvcfiles.listing(cells))})
    write_text(cells / "a/cost.json", '{"train_seconds": 2}')
    assert failing(verify.check_files("quick", None)) == {}
    write_text(cells / "a/evaluation.json", '{"other": 1}')
    assert failing(verify.check_files("quick", None)) == {str(cells): "failed"}
    (cells / "a/evaluation.json").unlink()
    assert failing(verify.check_files("quick", None)) == {str(cells): "failed"}


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


def test_artifacts_are_held_against_their_records(folder: Path) -> None:
    assert failing(verify.check_provenance(folder)) == {"results/quick": "not here"}
    write_json(folder / "claims.json", [])
    write_sidecar(folder / "claims.json", inputs=[folder / "scores.csv"])
    assert not failing(verify.check_provenance(folder))
    write_provenance(folder)
    sidecar_path(folder / "claims.json").unlink()  # as in a fresh clone
    assert not failing(verify.check_provenance(folder))
    table = (folder / "scores.csv").read_text()
    (folder / "scores.csv").write_text("other")
    assert "another" in verify.check_provenance(folder)[0].detail
    write_json(folder / "claims.json", [1])
    assert [row.verdict for row in verify.check_provenance(folder)] == ["failed", "failed"]
    (folder / "claims.json").unlink()
    (folder / "scores.csv").write_text(table)
    assert failing(verify.check_provenance(folder)) == {"results/quick/claims.json": "not here"}


def test_what_a_run_deletes_itself_is_not_asked_for(folder: Path) -> None:
    cell = folder / "cells/a/b/c/n1/s0"
    model = cell / "export/i400/model.safetensors"
    for path in (model, cell / "evaluation.json"):
        write_text(path, path.name)
    write_sidecar(model)
    write_sidecar(cell / "evaluation.json", inputs=[model])
    model.unlink()
    assert failing(verify.check_provenance(folder)) == {}
    (cell / "evaluation.json").unlink()
    assert set(failing(verify.check_provenance(folder)).values()) == {"not here"}


def test_scores_need_the_cells_that_they_name(folder: Path, tmp_path: Path) -> None:
    assert failing(verify.check_scores(folder, tmp_path)) == {"results/quick/cells": "not here"}
    write_text(folder / "cells/a.json", "{}")
    write_text(folder / "cells/b.json", "{}")
    write_sidecar(folder / "scores.csv", inputs=[folder / "cells/a.json", folder / "cells/b.json"])
    (folder / "cells/b.json").unlink()
    assert failing(verify.check_scores(folder, tmp_path)) == {"results/quick/cells/b.json": "not here"}


def test_tables_of_outcomes_that_are_not_here_have_not_failed(folder: Path) -> None:
    write_text(folder / "statistics/cells.csv", "a\n1\n")
    row = Row("statistics", str(folder / "statistics/cells.csv"), "failed", "its values are others")
    assert verify._without_outcomes(row, folder).verdict == "failed"
    write_text(folder / "outcomes/a-b.npz", "x")
    write_sidecar(folder / "outcomes/a-b.npz")
    write_provenance(folder)
    assert verify._without_outcomes(row, folder).verdict == "failed"
    shutil.rmtree(folder / "outcomes")
    assert verify._without_outcomes(row, folder).verdict == "not here"
    assert verify._without_outcomes(row._replace(verdict="held"), folder).verdict == "held"
    (folder / "statistics/cells.csv").unlink()
    assert verify._without_outcomes(row, folder).verdict == "failed"


def test_statistics_claims_and_figures_follow_from_the_table(folder: Path, tmp_path: Path) -> None:
    make_statistics(folder, folder / "statistics")
    make_claims(folder, Path(verify.CLAIMS), folder, "quick")
    for name in ("gains", "learning", "claims"):
        draw(name, folder, folder / "figures")
    make_tables(folder, folder / "tables")

    def check(number: int) -> dict[str, str]:
        work = tmp_path / f"work{number}"
        work.mkdir()
        makers = (verify.check_statistics, verify.check_claims, verify.check_figures)
        return failing([row for make in makers for row in make(folder, work)])

    assert check(0) == {}
    claims = (folder / "claims.json").read_text()
    assert '"verdict": "reproduced"' in claims
    (folder / "claims.json").write_text(claims.replace('"reproduced"', '"not reproduced"'))
    source = folder / "figures/gains.csv"
    table = pd.read_csv(source)
    number = table.select_dtypes("float").columns[0]
    table[number] = table[number] + 0.01
    table.to_csv(source, index=False)
    (folder / "statistics/ranks.csv").unlink()
    assert check(1) == {
        "results/quick/claims.json": "failed",
        "results/quick/figures/claims.csv": "failed",  # it is drawn from claims.json
        "results/quick/figures/gains.csv": "failed",
        "results/quick/statistics/ranks.csv": "failed",
        "results/quick/tables/answer.md": "failed",
        "results/quick/tables/verdicts.md": "failed",
    }


def test_six_digits_are_compared() -> None:
    assert is_close({"a": [1.0, math.nan]}, {"a": [1.000001, math.nan]})
    assert not is_close({"a": [1.0]}, {"a": [1.001]})
    assert is_close([1, 2], [1.000001, 2.0])  # a column of whole numbers, and one with a fraction
    assert not is_close([1, 2], [1.001, 2.0])
    assert not is_close([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("again", "verdict"), [("1.000001", "held"), ("1.001", "failed"), ("", "failed")])
def test_six_digits_are_compared_in_a_column_with_an_empty_field(tmp_path: Path, again: str, verdict: str) -> None:
    paths = [tmp_path / "committed.csv", tmp_path / "again.csv"]
    for path, value in zip(paths, ("1.0", again), strict=True):
        path.write_text(f"method,p\nbase,\ndiet_cp,{value}\n")
    assert compare("statistics", *paths).verdict == verdict


def test_only_a_failure_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("scores", "a", "held", ""), Row("scores", "b", "not here", "")]
    assert print_table(rows) is True
    said = capsys.readouterr().out
    assert "1 held, 0 failed, 1 not here" in said
    assert "make pull" in said
    assert "make reproduce" in said
    assert print_table([*rows, Row("scores", "c", "failed", "")]) is False
    assert "1 held, 1 failed, 1 not here" in capsys.readouterr().out
    assert print_table(rows[:1]) is True
    assert "make pull" not in capsys.readouterr().out


def test_everything_is_reported_although_tables_are_missing(folder: Path) -> None:
    rows = list(verify.verify("quick"))
    assert {row.check for row in rows} == {
        "dvc.lock",
        "provenance",
        "scores",
        "statistics",
        "claims",
        "figure",
        "table",
    }
    # The published statistics are gone: that is a failure, and `git checkout` mends it.
    assert print_table(rows) is False


def test_an_unknown_study_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no such study"):
        list(verify.verify("quik"))


def test_an_unreadable_file_is_a_row(folder: Path) -> None:
    (folder / "scores.csv").write_bytes(b"\xff\xfe\x00")
    rows = list(verify.verify("quick"))
    assert all(row.verdict != "held" for row in rows)
    assert {row.check for row in rows if row.verdict == "failed"} >= {"statistics", "claims", "figure"}


def test_a_damaged_configuration_is_a_row(folder: Path) -> None:
    (folder / "study.json").write_text("{")
    failed = {row.check: row.detail for row in verify.verify("quick") if row.verdict == "failed"}
    assert "study.json: not valid JSON" in failed["statistics"]


def test_of_a_cell_only_the_cell_is_judged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "results/quick/study.json", folder)
    name = "vits14_imgfocus/tabletop/diet_cp/n100/s0"
    (row,) = verify.verify("quick", name)
    assert (row.check, row.verdict) == ("cell", "not here")
    assert "subsets/tabletop/s0/n100.csv" not in row.subject  # the first of three is named
    assert "and 2 more" in row.subject
    with pytest.raises(UserError, match="has no such cell"):
        list(verify.verify("quick", name.replace("diet_cp", "dietcp")))
    for path in inputs_of(Cell("vits14_imgfocus", "tabletop", "diet_cp", 100, 0), Paths(folder)):
        write_text(path, "x")
    again = recompute.Recomputed([recompute.Score("depth", "rmse", "test", 400, 1.0, 1.0)], same_weights=True)
    monkeypatch.setattr(recompute, "recompute", lambda *arguments: again)
    assert [row.verdict for row in verify.verify("quick", name)] == ["held", "held"]


def test_a_cell_is_held_against_each_of_its_milestones(folder: Path) -> None:
    table = scores()
    early = table.assign(images_seen=table["images_seen"] // 2, value=0.0)[table["n"] > 0]
    pd.concat([table, early]).to_csv(folder / "scores.csv", index=False)
    found = recompute._stored(folder / "scores.csv", Cell("tiny", "tabletop", "dino", 100, 1))
    values = {
        images: value for (task, metric, split, images), value in found.items() if (metric, split) == ("miou", "test")
    }
    assert sorted(values.values()) == [0.0, 0.44]
    assert values[max(values)] == 0.44


def test_threads_are_those_of_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(folder / "cells/a/cost.json", "{}")
    assert recompute._threads(folder, folder / "cells/a/cost.json") == "1"
    monkeypatch.setattr("sys.argv", ["lowdata-cpt", "pretrain", "--threads", "3"])
    write_sidecar(folder / "cells/a/cost.json")
    write_provenance(folder)
    sidecar_path(folder / "cells/a/cost.json").unlink()
    assert recompute._threads(folder, folder / "cells/a/cost.json") == "3"


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
    assert recompute.Score("task", metric, "test", 0, stored, found).holds is holds


def test_cells_are_named_as_their_folders() -> None:
    study = load(ROOT / "config/quick.yaml")
    cell = next(cells(study))
    assert cell_of(cell.name, study) == cell
    for wrong in ("", "a/b", f"../{cell.name}"):
        with pytest.raises(UserError, match="expected BACKBONE"):
            cell_of(wrong, study)
    with pytest.raises(UserError, match="for example"):
        cell_of(cell.name.replace("/s0", "/s9"), study)


def test_brackets_in_a_row_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert not print_table([Row("cell", "results/[/x]", "failed", "expected [a, b], got [/]")])
    said = capsys.readouterr().out
    assert "results/[/x]" in said
    assert "expected [a, b], got [/]" in said
