"""What the report of a study shows, as plain values for the templates: every number and text, no HTML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lowdata_cpt.analysis.answer import answer_of
from lowdata_cpt.analysis.claims import count_verdicts, p_text, reproduced_line, signed
from lowdata_cpt.analysis.figures import FIGURES
from lowdata_cpt.analysis.measure import PLACE
from lowdata_cpt.analysis.preconditions import CELL, Cell, cell_of
from lowdata_cpt.analysis.report.images import thumbnails
from lowdata_cpt.analysis.study_files import StudyFiles
from lowdata_cpt.analysis.style import domain_label, ordered, style_of
from lowdata_cpt.analysis.summary import by_domain, count_cells, seeds_text, sizes_text
from lowdata_cpt.analysis.table import HEADLINE, LEDGER_COLUMNS, METRICS, at_end, held_out, read_table, records
from lowdata_cpt.analysis.tables import gain_text, idle_cells, method_table
from lowdata_cpt.analysis.verdicts import RULE, VERDICTS
from lowdata_cpt.core.io import sha256_file, write_text
from lowdata_cpt.core.provenance import read_records

CELL_FOLDER = "cells/{backbone}/{domain}/{method}/n{n}/s{seed}"
EXAMPLES_OF = ("neighbours", "segmentation", "depth")
TITLE = "Continued pretraining on 100 to 1000 images: does it help?"


def build_report(study_dir: Path, out: Path, names: Collection[str] | None = None) -> None:
    """Write the report of `study_dir` to `out`: one HTML file without outside links; figures open from beside it.

    Uses what is there of `scores.csv`, `outcomes/`, `curves.csv`, `cost.csv`, `claims.json`, `not_run.json`,
    `ledger.csv`, `figures/`, and the provenance of its artifacts. Without `scores.csv` it says that nothing was
    scored.

    Args:
        study_dir: results/<study>.
        out: the page to write.
        names: of the study's figures; others that lie there, of a configuration before, are left out. All if not given.

    Raises:
        UserError: a file is wrong.
    """
    files, made = StudyFiles(study_dir), read_records(study_dir)
    figures = _figures(study_dir, names)
    context: dict[str, Any] = {"title": TITLE, "study": study_dir.name, "answer": answer_of(files), "rule": RULE}
    context |= {"figures": figures, "opening": _opening(figures, own=files.own)}
    context |= {"absent": {domain_label(name): why for name, why in files.absent.items()}}
    context |= {"ledger": _ledger(study_dir / "ledger.csv"), "made": _shown(made)}
    context |= {"scored": (study_dir / "scores.csv").exists(), "models": "cells/**/export/*/model.safetensors"}
    if context["scored"]:
        context |= _of_scores(files, made)
    environment = Environment(
        loader=PackageLoader("lowdata_cpt.analysis.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"anchor": anchor, "caption": inline_markdown}
    write_text(out, environment.get_template("report.html.j2").render(context))


def anchor(*parts: object) -> str:
    """Return an id that is safe in HTML and in a link."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(str(part) for part in parts))


def inline_markdown(text: str) -> Markup:
    """Turn a caption's `**bold**` and `` `code` `` into HTML; everything else is escaped."""
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text.strip())), flags=re.S)
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", safe))


def cell_anchor(cell: Sequence[object]) -> str:
    """Return the id of a cell's row in the provenance table."""
    return anchor("cell", *cell)


def _number(value: Any, digits: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _of_scores(files: StudyFiles, made: dict[str, Any]) -> dict[str, Any]:
    test = held_out(files.scores)
    trained = test[test["n"] > 0]
    each = by_domain(files.scores, files.outcomes)
    each = each if each.empty else each[each["family"] != "trend"]
    domains = ", ".join(domain_label(name) for name in sorted(test["domain"].unique()))
    seeds = f"{sizes_text(test)} · {seeds_text(trained)}" if len(trained) else "nothing trained"
    return {
        "study": ", ".join(sorted(test["study"].unique())),
        "meta": f"{domains} · {seeds} · {count_cells(test)} cells",
        "reproduced": reproduced_line(files.claims),
        "domains": [_domain(files, part, key) for key, part in test.groupby(PLACE)],
        "claims": _claims(files),
        "counted": count_verdicts(files.claims) if files.claims else "",
        "tests": [_test(row) for row in records(each)],
        "compute": _compute(trained, files.devices),
        "cells": _cells(files.scores, made),
        "scores_sha256": sha256_file(files.folder / "scores.csv"),
    }


def _domain(files: StudyFiles, test: pd.DataFrame, key: Any) -> dict[str, Any]:
    """Return a domain's gains at its main n (method × headline metric), and all its scores (method and n × metric)."""
    backbone, domain = key
    gains = files.gains
    gains = gains if gains.empty else gains[(gains["backbone"] == backbone) & (gains["domain"] == domain)]
    metrics = [] if gains.empty else [name for name in HEADLINE if name in set(gains["metric"])]
    found = {(row["method"], row["metric"]): row for row in records(gains)}
    idle, rows = idle_cells(files.checks), []
    for method in [] if gains.empty else ordered(gains["method"]):
        own = [found.get((method, metric)) for metric in metrics]
        cells = [_gain_cell(row) if row else {"text": "–", "sure": False, "cell": ""} for row in own]
        acted_not = any(row and cell_of(row) in idle for row in own)
        rows.append({"label": style_of(method).label, "cells": cells, "idle": acted_not})
    header, lines, best = method_table(test, backbone, domain)
    scores = [
        {
            "head": line[:2],
            "cell": cell_anchor((backbone, domain, method, n)),
            "cells": [{"text": text, "sure": (i, j) in best} for j, text in enumerate(line[2:], start=2)],
        }
        for i, ((method, n), line) in enumerate(lines.items())
    ]
    shown = [f"{METRICS[name].label} ({METRICS[name].gain_unit})" for name in metrics]
    place = {"label": domain_label(domain), "backbone": backbone, "id": anchor("domain", backbone, domain)}
    n_text = "" if gains.empty else gains["n"].iloc[0]
    return {**place, "n": n_text, "metrics": shown, "rows": rows, "header": header, "scores": scores}


def _gain_cell(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": gain_text(row), "sure": bool(row["p_holm"] < 0.05), "cell": cell_anchor(cell_of(row))}


def _claims(files: StudyFiles) -> list[dict[str, Any]]:
    rows = []
    for result in sorted(files.claims, key=lambda one: VERDICTS.index(one.verdict)):
        span = "" if result.ci_low is None else f" [{signed(result.ci_low)}, {signed(result.ci_high)}]"
        numbers = {"paper": signed(result.paper_value), "measured": f"{signed(result.measured)}{span}"}
        rows.append({**result.model_dump(), **numbers, "mde": _number(result.mde)})
    return rows


def _test(row: dict[str, Any]) -> list[str]:
    labels = [domain_label(row["domain"]), style_of(row["method"]).label, style_of(row["reference"]).label]
    labels += [f"{METRICS[row['metric']].label} ({row['unit']})", str(row["n"]), f"{row['images_seen']:,}"]
    numbers = [_number(row["mde"]), *(p_text(row[name]) for name in ("p", "p_holm", "p_sign_flip"))]
    return [*labels, str(row["seeds"]), gain_text(row), row["interval_covers"] or "–", *numbers]


def _compute(trained: pd.DataFrame, devices: Mapping[Cell, str]) -> list[list[str]]:
    runs = at_end(trained).drop_duplicates([*CELL, "seed"])
    runs = runs.assign(device=[devices.get(cell_of(row), "–") for row in records(runs)])
    rows = []
    for method in ordered(runs["method"]):
        for device, part in runs[runs["method"] == method].groupby("device"):
            seconds = part["train_seconds"]
            speed = (part["images_seen"] / seconds).median() if (seconds > 0).all() else math.nan
            times = [_number(seconds.sum() / 3600), _number(seconds.median(), 0), _number(speed, 1)]
            rows.append([style_of(method).label, str(device), str(len(part)), f"{part['images_seen'].sum():,}", *times])
    return rows


def _ledger(path: Path) -> list[list[str]]:
    """Return what was spent on a cluster, failed, cancelled and requeued starts included."""
    rows = []
    for row in records(read_table(path, LEDGER_COLUMNS)) if path.exists() else []:
        lost = row["failed_gpu_hours"] + row["requeued_gpu_hours"] + row["cancelled_gpu_hours"]
        name = style_of(row["method"]).label if row["method"] else "–"
        counts = [str(int(row[state])) for state in ("starts", "requeued", "failed", "cancelled")]
        hours = [_number(value, 3) for value in (row["cpu_hours"], row["gpu_hours"], lost)]
        rows.append([row["rule"], name, *counts, *hours])
    return rows


def _figures(study_dir: Path, names: Collection[str] | None) -> list[dict[str, Any]]:
    """Return the drawn figures, main ones first, with thumbnails as far as the budget goes."""
    kinds = list(FIGURES)

    def order(path: Path) -> tuple[int, str]:
        kind = path.stem.partition("-")[0]
        return (kinds.index(kind) if kind in kinds else len(kinds), path.stem)

    drawn = (study_dir / "figures").glob("*.png")
    paths = sorted((path for path in drawn if names is None or path.stem in names), key=order)
    main = [path for path in paths if "-" not in path.stem]
    small = thumbnails(paths, wide=len(main))
    figures = []
    for path in paths:
        caption = path.with_suffix(".md")
        text = caption.read_text(encoding="utf-8") if caption.exists() else path.stem
        source = path.with_suffix(".csv")
        figures.append(
            {
                "name": path.stem,
                "main": path in main,
                "caption": text,
                "thumbnail": small.get(path),
                "file": f"{path.parent.name}/{path.name}",
                "source": f"{path.parent.name}/{source.name}" if source.exists() else "",
            }
        )
    return figures


def _opening(figures: list[dict[str, Any]], *, own: bool) -> list[dict[str, Any]]:
    """Return what stands beside the answer: of own images the curve along the run and examples before and after."""
    kinds = ("learning", "loss", *EXAMPLES_OF) if own else ("answer",)
    return [one for kind in kinds for one in figures if one["name"].partition("-")[0] == kind]


def _cells(scores: pd.DataFrame, made: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each cell with the artifacts of its seeds and the beginnings of their hashes."""
    artifacts: dict[str, list[str]] = {}
    for name, record in made.items():
        *folder, artifact = name.split("/", maxsplit=6)
        if folder[:1] == ["cells"]:
            artifacts.setdefault("/".join(folder), []).append(f"{artifact} {record['artifact']['sha256'][:8]}")
    rows = []
    for key, group in scores.groupby(CELL):
        row = dict(zip(CELL, key, strict=True))
        seeds = sorted(group["seed"].unique())
        held = {seed: artifacts.get(CELL_FOLDER.format(**row, seed=seed)) for seed in seeds}
        texts = [f"seed {seed}: {', '.join(found)}" for seed, found in held.items() if found]
        rows.append({**row, "id": cell_anchor(key), "seeds": ", ".join(map(str, seeds)), "made": texts})
    return rows


def _shown(made: dict[str, Any]) -> dict[str, str]:
    """Return how the study's tables came about, as text; cells and figures are hundreds, their records stay files."""
    return {
        name: json.dumps(_without_inputs(record), indent=1, sort_keys=True, ensure_ascii=False)
        for name, record in made.items()
        if "/" not in name
    }


def _without_inputs(record: dict[str, Any]) -> dict[str, Any]:
    """Replace a list of hundreds of inputs by its count: the record itself has it."""
    inputs = record["inputs"]
    return record | {"inputs": f"{len(inputs)} files"} if len(inputs) > 9 else record
