"""Assemble the report of one study: the answer, claims, figures, scores, cost, and where each number comes from."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.analysis.claims import Result, count_verdicts, signed
from lowdata_cpt.analysis.commands import read_absent, read_results
from lowdata_cpt.analysis.report.page import anchor, escape, inline_markdown, page, picture, table
from lowdata_cpt.analysis.style import domain_label, domain_labels, ordered, style_of
from lowdata_cpt.analysis.summary import (
    LIMITS,
    cell_statistics,
    count_cells,
    on_fewer_domains,
    seeds_text,
    sizes_text,
    summary,
)
from lowdata_cpt.analysis.table import (
    HEADLINE,
    LEDGER_COLUMNS,
    METRICS,
    UNTRAINED,
    held_out,
    read_scores,
    read_table,
    records,
)
from lowdata_cpt.analysis.tables import domain_table, gain_text, headline
from lowdata_cpt.analysis.verdicts import RULE
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file, write_text
from lowdata_cpt.core.provenance import SUFFIX

CELL_FOLDER = "cells/{backbone}/{domain}/{method}/n{n}/s{seed}"
FIRST = ("gain_by_n", "gain_summary", "gain_over_control", "ablations", "claims", "improvement", "tradeoff", "cost")


def build_report(study_dir: Path, out: Path) -> None:
    """Write the report of `study_dir` to `out`, one self-contained HTML file without outside links.

    Uses `scores.csv` (required), and where present `claims.json`, `not_run.json`, `ledger.csv`, `figures/*.png` with
    their captions and source tables, and the provenance sidecars `*.prov.json`.

    Raises:
        UserError: `scores.csv` is missing or wrong, or a JSON file is not what it should be.
    """
    scores = read_scores(study_dir / "scores.csv")
    study = ", ".join(sorted(scores["study"].unique()))
    path = study_dir / "claims.json"
    results = read_results(path) if path.exists() else None
    sidecars = _sidecars(study_dir)
    test = held_out(scores)
    domains = ", ".join(domain_label(name) for name in sorted(test["domain"].unique()))
    seeds = seeds_text(test[test["n"] > 0]) if (test["n"] > 0).any() else "no trained cell"
    lead = (
        f'<p class="meta">Study <code>{escape(study)}</code> · {escape(domains)} · {escape(sizes_text(test))} · '
        f"{escape(seeds)} · {count_cells(test)} cells · {len(test)} test scores</p>"
    )
    pooled = summary(scores)
    sections = [("answer", "The answer", _answer(scores, pooled, results) + _not_run(read_absent(study_dir)))]
    if results is not None:
        sections.append(("claims", "The papers' claims", _claims(results)))
    sections += [
        ("figures", "Figures", _figures(study_dir / "figures", sidecars)),
        ("tests", "Tests", _tests(pooled)),
        ("scores", "Scores", _scores(scores)),
        ("compute", "Compute", _compute(scores) + _ledger(study_dir / "ledger.csv")),
        ("provenance", "Provenance", _provenance(study_dir, scores, sidecars)),
    ]
    title = "Continued pretraining on 100 to 1000 images: does it help?"
    write_text(out, page(title, sections, lead))


def _number(value: Any, digits: int = 3) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _cell_anchor(row: dict[str, Any]) -> str:
    return anchor("cell", row["backbone"], row["domain"], row["method"], row["n"])


def _answer(scores: pd.DataFrame, pooled: pd.DataFrame, results: list[Result] | None) -> str:
    if pooled.empty:
        return "<p>Nothing was trained in this study: the table holds untrained backbones only.</p>"
    lines = []
    against = pooled.assign(fewer=on_fewer_domains(pooled))[pooled["family"] == "base"]
    for metric in [name for name in HEADLINE if name in set(against["metric"])]:
        part = records(against[against["metric"] == metric].sort_values("mean", ascending=False))
        words = []
        for row in part:
            where = f" ({domain_labels(row['over'])} only)" if row["fewer"] else ""
            text = escape(f"{style_of(str(row['method'])).label} {gain_text(row)}{where}")
            words.append(f"<strong>{text}</strong>" if row["p_holm"] < 0.05 else text)
        unit = METRICS[metric].gain_unit
        lines.append(f"<li><em>{escape(METRICS[metric].label)}</em> ({unit}): {'; '.join(words)}</li>")
    text = (
        '<div class="answer"><p>Gain over the untouched backbone, mean over domains, sizes and seeds of the test split '
        "(positive is better, also for depth error)"
    )
    if against["ci_low"].notna().any():
        text += (
            ", with its 95 % interval. <strong>Bold</strong>: the paired test stays below .05 after Holm's correction "
            "over all methods and headline metrics."
        )
    else:
        text += ". One seed: no interval and no test can be given, so none of this is certain."
    text += f"</p><ul>{''.join(lines)}</ul>"
    if results is not None:
        text += f'<p>{escape(count_verdicts(results))} (<a href="#claims">each of them</a>).</p>'
    smallest = against.loc[against["mde"].notna(), "mde"]
    if len(smallest):
        text += (
            '<p class="note">With these seeds one test at .05, before correction, finds a pooled effect with 80 % '
            f"power from {smallest.min():.2f} to {smallest.max():.2f} points or % upwards, depending on method and "
            f"metric. {LIMITS}</p>"
        )
    return text + "</div>" + _domains(scores) + _headline(scores)


def _domains(scores: pd.DataFrame) -> str:
    header, rows = domain_table(scores)
    note = '<p class="note">Gain over the untouched backbone, mean over sizes and seeds, before any correction.</p>'
    cells = [("", [escape(cell) for cell in row]) for row in rows]
    return "<h3>Each domain</h3>" + note + table(header, cells, numbers=range(2, len(header)))


def _not_run(absent: dict[str, str]) -> str:
    if not absent:
        return ""
    lines = "".join(f"<li><code>{escape(name)}</code>: {escape(reason)}</li>" for name, reason in absent.items())
    return f"<h3>Not run</h3><p>Data that was not on the machine:</p><ul>{lines}</ul>"


def _headline(scores: pd.DataFrame) -> str:
    wide = headline(scores)
    methods = [str(name) for name in wide.columns[4:]]
    rows = []
    for record in records(wide):
        metric = METRICS[str(record["metric"])]
        known = [record[name] for name in methods if math.isfinite(record[name])]
        best = (max if metric.higher else min)(known)
        cells = [escape(domain_label(str(record["domain"]))), escape(record["backbone"])]
        cells += [escape(f"{metric.label} {'↑' if metric.higher else '↓'}"), str(record["n"])]
        for name in methods:
            n = 0 if name in UNTRAINED else record["n"]
            link = _cell_anchor({**record, "method": name, "n": n})
            text = _number(record[name])
            text = f"<strong>{text}</strong>" if record[name] == best else text
            cells.append(f'<a href="#{link}">{text}</a>' if math.isfinite(record[name]) else text)
        rows.append(("", cells))
    header = ["domain", "backbone", "metric", "n", *[style_of(name).label for name in methods]]
    note = '<p class="note">Mean over seeds at the largest n of each domain; every number leads to its cell.</p>'
    return "<h3>Headline table</h3>" + note + table(header, rows, numbers=range(3, len(header)))


def _claims(results: list[Result]) -> str:
    rows = []
    for result in sorted(results, key=lambda r: r.verdict == "not run"):
        values = [signed(value) for value in (result.paper_value, result.measured, result.ci_low, result.ci_high)]
        tolerance = "direction only" if result.tolerance is None else f"{result.tolerance:.2f}"
        kind = result.verdict.replace(" ", "-")
        reason = f"<br><small>{escape(result.reason)}</small>" if result.reason else ""
        cells = [
            f"<code>{escape(result.id)}</code>",
            escape(result.statement),
            escape(result.source),
            *values,
            tolerance,
        ]
        cells.append(f'<span class="{kind}">{result.verdict}</span>{reason}')
        rows.append((anchor("claim", result.id), [*cells, escape(result.cells or "–")]))
    header = ["id", "statement", "source", "paper", "measured", "CI low", "CI high", "tolerance", "verdict", "cells"]
    paragraphs = "".join(f"<p>{inline_markdown(part)}</p>" for part in RULE.split("\n\n"))
    return (
        "<p>Effects are method − reference in points (% for RMSE), positive = better.</p>"
        + _filter("claims-table", "filter claims, e.g. glare miou")
        + table(header, rows, numbers=(3, 4, 5, 6), name="claims-table")
        + f"<details><summary>The verdict rule</summary>{paragraphs}</details>"
    )


def _filter(name: str, hint: str) -> str:
    return f'<input type="search" data-table="{name}" placeholder="{escape(hint)}" aria-label="{escape(hint)}">'


def _figures(folder: Path, sidecars: dict[str, Any]) -> str:
    files = sorted(
        folder.glob("*.png"),
        key=lambda path: (FIRST.index(path.stem) if path.stem in FIRST else len(FIRST), path.stem),
    )
    if not files:
        return "<p>No figure has been drawn for this study.</p>"
    parts = []
    for path in files:
        caption, source = path.with_suffix(".md"), path.with_suffix(".csv")
        text = inline_markdown(caption.read_text(encoding="utf-8")) if caption.exists() else escape(path.stem)
        links = []
        if source.exists():
            links.append(f"source table <code>{escape(source.name)}</code> ({sha256_file(source)[:12]})")
        key = f"{folder.name}/{path.name}{SUFFIX}"
        if key in sidecars:
            links.append(f'<a href="#{anchor("sidecar", key)}">provenance</a>')
        parts.append(picture(path, text, " · ".join(links)))
    return "\n".join(parts)


def _tests(pooled: pd.DataFrame) -> str:
    rows = []
    for row in records(pooled):
        names = [style_of(str(row["method"])).label, style_of(str(row["reference"])).label]
        cells = [escape(name) for name in [*names, METRICS[str(row["metric"])].label, row["unit"]]]
        cells += [escape(domain_labels(row["over"]))]
        cells += [signed(float(row["mean"]), 2) if math.isfinite(row["mean"]) else "–"]
        cells += [_number(row[name], 2) for name in ("ci_low", "ci_high", "mde")]
        cells += [_number(row[name], 4) for name in ("p", "p_holm", "p_sign_flip")]
        rows.append(("", [*cells, str(row["clusters"]), "yes" if row["equal_images"] else "<strong>no</strong>"]))
    if not rows:
        return "<p>Nothing was trained.</p>"
    header = ["method", "against", "metric", "unit", "domains", "mean gain", "CI low", "CI high", "detectable"]
    header += ["p", "p Holm", "p sign-flip", "paired seeds", "equal images"]
    return (
        "<p>Gains pooled over domains and sizes, paired by seed: Student interval and test stratified by domain, Holm "
        "over all methods and headline metrics against the same kind of reference, the exact sign-flip "
        "test over seeds beside it, and the effect that 80 % power would detect. A p without assumptions cannot fall "
        "below 2/2<sup>seeds</sup>.</p>"
        + _filter("tests-table", "filter tests, e.g. glare dino")
        + table(header, rows, numbers=range(5, 13), name="tests-table")
    )


def _scores(scores: pd.DataFrame) -> str:
    cells = cell_statistics(scores)
    place = {name: index for index, name in enumerate(ordered(cells["method"]))}
    cells = cells.assign(order=cells["method"].map(place))
    cells = cells.sort_values(["backbone", "domain", "task", "metric", "order", "n"], kind="stable")
    rows = []
    for row in records(cells):
        metric = METRICS[str(row["metric"])]
        link = f'<a href="#{_cell_anchor(row)}">{_number(row["mean"], 4)}</a>'
        gain, span = "–", "–"
        if row["gain"] is not None and math.isfinite(row["gain"]):
            gain = f"{signed(float(row['shown_gain']), 2)} {metric.gain_unit}"
            if math.isfinite(row["shown_low"]):
                span = f"[{signed(float(row['shown_low']), 2)}, {signed(float(row['shown_high']), 2)}]"
        cellsout = [escape(row["backbone"]), escape(row["domain"]), escape(style_of(str(row["method"])).label)]
        cellsout += [str(row["n"]), escape(f"{metric.label} {'↑' if metric.higher else '↓'}"), link]
        cellsout += [_number(row["sd"], 4), str(row["seeds"]), gain, span]
        rows.append(("", cellsout))
    header = ["backbone", "domain", "method", "n", "metric", "mean", "sd", "seeds", "gain over base", "95 % CI"]
    return (
        "<p>Every cell of the test split: mean and standard deviation over seeds; gain paired by seed, positive = "
        "better. A mean leads to its cell's provenance.</p>"
        + _filter("scores-table", "filter scores, e.g. nyuv2 rmse")
        + table(header, rows, numbers=(3, 5, 6, 7, 8, 9), name="scores-table")
    )


def _compute(scores: pd.DataFrame) -> str:
    runs = scores.loc[scores["n"] > 0].drop_duplicates(["backbone", "domain", "method", "n", "seed"])
    if runs.empty:
        return "<p>Nothing was trained.</p>"
    rows = []
    for method in ordered(runs["method"]):
        part = runs[runs["method"] == method]
        seconds = part["train_seconds"]
        images = part["images_seen"].sum()
        speed = (part["images_seen"] / seconds).median() if (seconds > 0).all() else math.nan
        cells = [escape(style_of(method).label), str(len(part)), f"{images:,}".replace(",", " ")]
        rows.append(("", [*cells, _number(seconds.sum() / 3600, 2), _number(seconds.median(), 1), _number(speed, 1)]))
    total = runs["train_seconds"].sum() / 3600
    rows.append(("", ["<strong>all</strong>", str(len(runs)), "", f"<strong>{_number(total, 2)}</strong>", "", ""]))
    header = ["method", "runs", "images seen", "training hours", "seconds a run (median)", "images a second (median)"]
    return "<p>Wall-clock of the training stage only.</p>" + table(header, rows, numbers=(1, 2, 3, 4, 5))


def _ledger(path: Path) -> str:
    """Return what was spent on a cluster, failed, cancelled and requeued starts included."""
    if not path.exists():
        return ""
    spent = read_table(path, LEDGER_COLUMNS)
    rows = []
    for row in records(spent):
        lost = row["failed_gpu_hours"] + row["requeued_gpu_hours"] + row["cancelled_gpu_hours"]
        name = escape(style_of(row["method"]).label) if isinstance(row["method"], str) and row["method"] else "–"
        counts = [str(int(row[state])) for state in ("starts", "requeued", "failed", "cancelled")]
        hours = [_number(row[name], 3) for name in ("cpu_hours", "gpu_hours")]
        rows.append(("", [escape(row["rule"]), name, *counts, *hours, _number(lost, 3)]))
    sums = [str(int(spent[state].sum())) for state in ("starts", "requeued", "failed", "cancelled")]
    sums += [_number(float(spent[name].sum()), 3) for name in ("cpu_hours", "gpu_hours")]
    rows.append(("", ["<strong>all</strong>", "", *sums, ""]))
    header = ["rule", "method", "starts", "requeued", "failed", "cancelled", "CPU-hours", "GPU-hours", "of them lost"]
    return (
        "<h3>Ledger of the cluster</h3><p>Every start of every SLURM job, whatever became of it; a job of several "
        "steps is counted under its first.</p>" + table(header, rows, numbers=range(2, 9))
    )


def _sidecars(study_dir: Path) -> dict[str, Any]:
    return {path.relative_to(study_dir).as_posix(): read_json(path) for path in sorted(study_dir.rglob(f"*{SUFFIX}"))}


def _artifacts(sidecars: dict[str, Any]) -> dict[str, list[str]]:
    """Return what each folder `cells/<backbone>/<domain>/<method>/n<n>/s<seed>` holds, by its sidecars.

    Raises:
        UserError: a sidecar there does not name its artifact's hash.
    """
    found: dict[str, list[str]] = {}
    for name, content in sidecars.items():
        *folder, artifact = name.removesuffix(SUFFIX).split("/", maxsplit=6)
        if folder[:1] == ["cells"]:
            try:
                digest = str(content["artifact"]["sha256"])[:8]
            except (KeyError, TypeError):
                raise UserError(f"{name}: not a sidecar, expected artifact.sha256") from None
            found.setdefault("/".join(folder), []).append(f"{escape(artifact)} {digest}")
    return found


def _provenance(study_dir: Path, scores: pd.DataFrame, sidecars: dict[str, Any]) -> str:
    digest = sha256_file(study_dir / "scores.csv")
    parts = [f"<p>All numbers come from <code>scores.csv</code>, sha256 <code>{digest}</code>."]
    own = "scores.csv" + SUFFIX
    if own in sidecars:
        parts.append(f' <a href="#{anchor("sidecar", own)}">How it was made</a>.')
    parts.append("</p><h3>Cells</h3>")
    artifacts, rows = _artifacts(sidecars), []
    keys = ["backbone", "domain", "method", "n"]
    for key, group in scores.groupby(keys):
        row = dict(zip(keys, key, strict=True))
        seeds = sorted(group["seed"].unique())
        held = {seed: artifacts.get(CELL_FOLDER.format(**row, seed=seed)) for seed in seeds}
        made = [f"seed {seed}: {', '.join(texts)}" for seed, texts in held.items() if texts]
        if not made and own in sidecars:
            made.append(f'<a href="#{anchor("sidecar", own)}">scores.csv</a>')
        cells = [*(escape(row[name]) for name in keys), ", ".join(map(str, seeds))]
        rows.append((_cell_anchor(row), [*cells, " · ".join(made) or "no sidecar beside the table"]))
    parts.append(
        "<p>Of each artifact the beginning of its sha256. Command, code, inputs and environment are in the sidecar "
        "beside it: "
        f"<code>{escape(CELL_FOLDER)}/&lt;artifact&gt;{SUFFIX}</code>.</p>"
    )
    parts.append(table([*keys, "seeds", "artifacts"], rows, numbers=(3,)))
    # The cells' own would be thousands: they stay files.
    sidecars = {name: content for name, content in sidecars.items() if not name.startswith("cells/")}
    if sidecars:
        parts.append("<h3>Sidecars</h3>")
    common = sidecars.get(own)
    for name, content in sidecars.items():
        if name != own and common is not None:
            same = {key for key in ("code", "environment", "inputs") if content.get(key) == common.get(key)}
            content = {key: f"as in {own}" if key in same else value for key, value in content.items()}
        if isinstance(content.get("inputs"), list):
            content = content | {"inputs": [f"{one['path']} {one['sha256'][:16]}" for one in content["inputs"]]}
        text = html.escape(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False), quote=False)
        parts.append(
            f'<details id="{anchor("sidecar", name)}"><summary><code>{escape(name)}</code></summary>'
            f"<pre>{text}</pre></details>"
        )
    return "".join(parts)
