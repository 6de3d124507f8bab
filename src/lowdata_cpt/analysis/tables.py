"""The Markdown tables: the answer per domain, every gain behind it, absolute scores, verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.analysis.claims import Result, p_text, reproduced_line, signed, verdicts_markdown
from lowdata_cpt.analysis.measure import CELL
from lowdata_cpt.analysis.outcomes import Outcomes
from lowdata_cpt.analysis.preconditions import Cell, cell_of
from lowdata_cpt.analysis.stopping import stopped_gain
from lowdata_cpt.analysis.style import BEFORE_OF, domain_label, ordered, style_of, without_variants
from lowdata_cpt.analysis.summary import (
    LIMITS,
    by_domain,
    cell_statistics,
    count_cells,
    covers_text,
    main_sizes,
    seeds_text,
)
from lowdata_cpt.analysis.table import HEADLINE, METRICS, at_end, held_out, records
from lowdata_cpt.core.io import write_text

Row = list[str]
IDLE = "°"
ACTED_NOT = (
    "by its own log the method did not act: its loss stays at the level of a predictor that ignores the image (of "
    "V-pretraining: its value is above zero no more often than chance)."
)
IDLE_TEXT = f"{IDLE}: {ACTED_NOT} The number says nothing about the method (statistics/preconditions.csv)."
FAMILIES = ("base", "before", "control", "parent")


def markdown(header: Row, rows: list[Row], left: int) -> str:
    """Return a Markdown table whose first `left` columns are flush left, the others flush right."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * left + "---:|" * (len(header) - left)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def gain_text(row: dict[str, Any]) -> str:
    """Return a row of `by_domain` or `summary` as `+1.23 [+0.45, +2.01]`; without an interval where there is none."""
    text = signed(float(row["mean"]))
    if math.isfinite(row["ci_low"]):
        text += f" [{signed(float(row['ci_low']))}, {signed(float(row['ci_high']))}]"
    return text


def idle_cells(checks: pd.DataFrame | None) -> set[Cell]:
    """Return the (backbone, domain, method, n) whose method did not act, by `check_preconditions`."""
    if checks is None or checks.empty:
        return set()
    idle = checks[~checks["acted"].astype(bool)]
    return set(zip(idle["backbone"], idle["domain"], idle["method"], idle["n"], strict=True))


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return str(row["backbone"]), str(row["domain"]), str(row["metric"])


def _order(place: tuple[str, str, str]) -> tuple[str, str, int]:
    backbone, domain, metric = place
    return backbone, domain_label(domain), HEADLINE.index(metric)


def _order_of(row: dict[str, Any]) -> tuple[str, str, int]:
    return _order(_place(row))


def domain_table(table: pd.DataFrame, checks: pd.DataFrame | None = None) -> tuple[Row, list[Row]]:
    """Return header and rows (domain × headline metric) of each method's gain over base: rows of `by_domain`.

    Bold: significant after Holm's correction over the table; `IDLE` marks a method that did not act.
    """
    idle, several = idle_cells(checks), table["backbone"].nunique() > 1
    methods = ordered(table["method"])
    gains = {(*_place(row), str(row["method"])): row for row in records(table)}
    rows = []
    for backbone, domain, metric in sorted({_place(row) for row in records(table)}, key=_order):
        found = [gains.get((backbone, domain, metric, method)) for method in methods]
        n = next(int(row["n"]) for row in found if row)
        cells = []
        for row in found:
            text = gain_text(row) if row else "–"
            text = f"**{text}**" if row and row["p_holm"] < 0.05 else text
            cells.append(text + IDLE * bool(row and cell_of(row) in idle))
        name = domain_label(domain) + (f" ({backbone})" if several else "")
        rows.append([name, str(n), f"{METRICS[metric].label} ({METRICS[metric].gain_unit})", *cells])
    return ["Domain", "n", "Metric", *(style_of(name).label for name in methods)], rows


def answer_markdown(
    scores: pd.DataFrame,
    outcomes: Outcomes | None = None,
    checks: pd.DataFrame | None = None,
    results: Sequence[Result] = (),
) -> str:
    """Return `domain_table` at each domain's main n as Markdown, under a line on what was reproduced of the papers.

    Empty where nothing was trained.
    """
    table = by_domain(without_variants(main_sizes(scores)), outcomes)
    if table.empty:
        return ""
    table = table[table["family"] == "base"]
    header, rows = domain_table(table, checks)
    test = main_sizes(held_out(scores))
    trained = without_variants(test[test["n"] > 0])
    seen = trained.groupby("method")["images_seen"].max()
    lengths = ", ".join(f"{style_of(name).label} {seen[name]:,}" for name in ordered(seen.index))
    known = bool(table["ci_low"].notna().any())
    caption = (
        "Gain over the untouched backbone on each domain's test split, in points (depth RMSE in %), positive is "
        f"better{'; [95 % interval]; bold: significant after Holm correction over this table' * known}. "
        f"{seeds_text(trained)}, {count_cells(test)} cells, each method at the end of its run (images seen, at most: "
        f"{lengths}). {covers_text(table)} {LIMITS}"
    )
    if any(IDLE in cell for row in rows for cell in row):
        caption += f" {IDLE_TEXT}"
    line = reproduced_line(list(results))
    return (f"{line}\n\n" if line else "") + f"{caption}\n\n{markdown(header, rows, left=3)}"


def domain_markdown(scores: pd.DataFrame, outcomes: Outcomes | None = None, checks: pd.DataFrame | None = None) -> str:
    """Return every gain of the study, a row each, with what can be told from it. Empty where nothing was trained."""
    idle, table = idle_cells(checks), records(by_domain(scores, outcomes))
    rows = [row for row in table if row["family"] in FAMILIES]
    lines = []
    for row in sorted(rows, key=_order_of):
        metric = METRICS[str(row["metric"])]
        cells = [domain_label(row["domain"]), f"{metric.label} ({metric.gain_unit})", style_of(row["method"]).label]
        cells += [style_of(row["reference"]).label, str(row["n"]), f"{row['images_seen']:,}", str(row["seeds"])]
        cells += [gain_text(row) + IDLE * (cell_of(row) in idle), row["interval_covers"] or "–"]
        detectable = "–" if math.isnan(row["mde"]) else f"{row['mde']:.2f}"
        lines.append([*cells, detectable, p_text(row["p"]), p_text(row["p_sign_flip"])])
    if not lines:
        return ""
    header = ["Domain", "Metric", "Method", "Against", "n", "Images seen", "Seeds", "Gain [95 %]", "Interval covers"]
    header += ["Detectable", "p", "p sign-flip"]
    caption = (
        "Gain on each domain's test split, positive is better, before any correction. Against a trained reference: at "
        "equal images seen. Detectable: the smallest true gain that such a test finds with 80 % power at .05, "
        "two-sided. The sign-flip test over seeds is exact: with five seeds its p is at least .0625, with three .25. "
        f"{IDLE_TEXT}"
    )
    return f"{caption}\n\n{markdown(header, lines, left=4)}"


def stopping_markdown(
    scores: pd.DataFrame,
    outcomes: Outcomes | None = None,
    checks: pd.DataFrame | None = None,
    before: Mapping[str, str] = BEFORE_OF,
) -> str:
    """Return the gain of runs stopped by validation beside that at their ends. Empty where nothing was trained."""
    stopped, idle = stopped_gain(scores, outcomes, before), idle_cells(checks)
    ends = cell_statistics(scores, outcomes).set_index(CELL)
    lines = []
    for row in sorted(records(stopped), key=_order_of):
        metric, end = METRICS[str(row["metric"])], ends.loc[tuple(row[name] for name in CELL)]
        at_end = {"mean": end["shown_gain"], "ci_low": end["shown_low"], "ci_high": end["shown_high"]}
        cells = [domain_label(row["domain"]), str(row["n"]), f"{metric.label} ({metric.gain_unit})"]
        mark = IDLE * ((row["backbone"], row["domain"], row["method"], row["n"]) in idle)
        cells += [style_of(row["method"]).label, gain_text(at_end) + mark, gain_text(row) + mark]
        cells.append(f"{row['images_seen']:,.0f}")
        lines.append([*cells, f"{row['at_start']} of {row['seeds']}"])
    if not lines:
        return ""
    header = ["Domain", "n", "Metric", "Method", "At the end [95 %]", "Stopped by validation [95 %]"]
    caption = (
        "Gain over the untouched backbone on the test split, positive is better: at the end of each run, and at the "
        "milestone that scores best on the validation split, chosen per run and metric, step zero included. Images "
        "seen: the median over seeds of where a run was stopped; the last column counts the seeds that stay at step "
        f"zero. {covers_text(stopped)} {IDLE_TEXT} {LIMITS}"
    )
    return f"{caption}\n\n{markdown([*header, 'Images seen', 'At step zero'], lines, left=4)}"


def headline(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the absolute scores: mean over seeds at the main n of each domain, at the end of each run.

    Returns:
        One row per (backbone, domain, metric, n), one column a method in the fixed order (variants left out); NaN where
        a method was not run.
    """
    test = main_sizes(_ends(scores))
    test = without_variants(test[test["metric"].isin(list(HEADLINE))])
    test["n"] = test.groupby(["backbone", "domain"])["n"].transform("max")
    table = test.pivot_table(index=["backbone", "domain", "metric", "n"], columns="method", values="value")
    place = {name: index for index, name in enumerate(HEADLINE)}
    table = table[ordered(table.columns)].reset_index()
    table = table.sort_values(
        ["backbone", "domain", "metric"],
        key=lambda column: column.map(place) if column.name == "metric" else column,
        kind="stable",
    )
    table.columns.name = None
    return table.reset_index(drop=True)


def _score(value: float, metric: str) -> str:
    """Return a score as it is printed: points for a fraction, the unit's value otherwise."""
    return f"{100 * value:.1f}" if METRICS[metric].bounded else f"{value:.3f}"


def headline_markdown(scores: pd.DataFrame, checks: pd.DataFrame | None = None) -> str:
    """Return `headline` as a Markdown table in points (metres for RMSE), the best of each row in bold.

    `IDLE` marks a method that did not act; it is never the best.
    """
    table, idle = headline(scores), idle_cells(checks)
    methods = [str(name) for name in table.columns[4:]]
    several = table["backbone"].nunique() > 1
    header = ["Domain", "Metric", "n", *[style_of(name).label for name in methods]]
    rows = []
    for record in records(table):
        metric = METRICS[str(record["metric"])]
        values = {name: float(record[name]) for name in methods}
        silent = {name for name in methods if (record["backbone"], record["domain"], name, record["n"]) in idle}
        best = _best([value for name, value in values.items() if name not in silent], metric.higher)
        cells = []
        for name, value in values.items():
            text = "–" if math.isnan(value) else _score(value, metric.name) + IDLE * (name in silent)
            cells.append(f"**{text}**" if value == best and name not in silent else text)
        place = domain_label(str(record["domain"])) + (f" ({record['backbone']})" if several else "")
        arrow = "↑" if metric.higher else "↓"
        rows.append([place, f"{metric.label} ({metric.unit or 'points'}) {arrow}", str(record["n"]), *cells])
    marked = any(IDLE in cell for row in rows for cell in row)
    return markdown(header, rows, left=2) + f"\n\n{IDLE_TEXT}" * marked


def _best(values: list[float], higher: bool) -> float:
    known = [value for value in values if not math.isnan(value)]
    return (max if higher else min)(known) if known else math.nan


def method_table(
    scores: pd.DataFrame, backbone: str, domain: str
) -> tuple[Row, dict[tuple[str, int], Row], set[tuple[int, int]]]:
    """Return header, rows by (method, n) and the best (row, column) of one domain: mean ± sd over seeds, test split.

    In points, metres for RMSE. Best is taken per metric over all rows; ties share it.
    """
    cells = cell_statistics(scores)
    cells = cells[(cells["backbone"] == backbone) & (cells["domain"] == domain)]
    metrics = [name for name in METRICS if name in set(cells["metric"])]
    values = {
        (str(r["method"]), int(r["n"]), str(r["metric"])): (float(r["mean"]), float(r["sd"])) for r in records(cells)
    }
    lines = [(m, n) for m in ordered(cells["method"]) for n in sorted(cells.loc[cells["method"] == m, "n"].unique())]
    header = ["Method", "n", *[METRICS[name].label + (" ↑" if METRICS[name].higher else " ↓") for name in metrics]]
    rows = {}
    for m, n in lines:
        rows[m, n] = row = [style_of(m).label, "–" if n == 0 else str(n)]
        for metric in metrics:
            mean, sd = values.get((m, n, metric), (math.nan, math.nan))
            spread = "" if math.isnan(sd) else f" ± {_score(sd, metric)}"
            row.append("–" if math.isnan(mean) else f"{_score(mean, metric)}{spread}")
    best = set()
    for column, metric in enumerate(metrics, start=2):
        shown = [float(row[column].split()[0]) if row[column] != "–" else math.nan for row in rows.values()]
        top = _best(shown, METRICS[metric].higher)
        best |= {(index, column) for index, value in enumerate(shown) if value == top}
    return header, rows, best


def write_tables(
    scores: pd.DataFrame,
    out: Path,
    outcomes: Outcomes | None = None,
    checks: pd.DataFrame | None = None,
    results: Sequence[Result] = (),
    before: Mapping[str, str] = BEFORE_OF,
) -> list[Path]:
    """Write `answer`, `domains`, `stopping`, `headline`, `verdicts` and each domain's scores; `headline.csv` too.

    Args:
        scores: the tidy table.
        out: folder to write to.
        outcomes: with them, intervals cover test images too.
        checks: rows of `check_preconditions`, which mark the methods that did not act.
        results: judged claims, for the line above the answer and `verdicts.md`.
        before: each method's step zero.

    Returns:
        The paths.
    """
    texts = {
        "answer.md": answer_markdown(scores, outcomes, checks, results),
        "domains.md": domain_markdown(scores, outcomes, checks),
        "stopping.md": stopping_markdown(scores, outcomes, checks, before),
        "headline.md": headline_markdown(scores, checks),
        "headline.csv": headline(scores).to_csv(index=False, float_format="%.6g", lineterminator="\n"),
    }
    if results:
        texts["verdicts.md"] = verdicts_markdown(list(results)) + "\n"
    for (backbone, domain), part in _ends(scores).groupby(["backbone", "domain"]):
        header, rows, best = method_table(scores, str(backbone), str(domain))
        bold = [
            [f"**{cell}**" if (i, j) in best else cell for j, cell in enumerate(row)]
            for i, row in enumerate(rows.values())
        ]
        caption = (
            f"{domain_label(str(domain))}, {backbone}: test split, in points (RMSE in metres), "
            f"{'mean ± standard deviation over ' * (part['seed'].nunique() > 1)}{seeds_text(part)}. "
            "Best value of each metric in bold; n is the number of unlabelled pretraining images."
        )
        texts[f"scores-{backbone}-{domain}.md"] = f"{caption}\n\n{markdown(header, bold, left=1)}"
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def _ends(scores: pd.DataFrame) -> pd.DataFrame:
    return at_end(held_out(scores))
