"""LaTeX and Markdown tables, and the headline table of the README and the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lowdata_cpt.analysis.claims import signed
from lowdata_cpt.analysis.style import domain_label, domain_labels, is_variant, ordered, style_of
from lowdata_cpt.analysis.summary import (
    LIMITS,
    by_domain,
    cell_statistics,
    count_cells,
    on_fewer_domains,
    seeds_text,
    sizes_text,
    summary,
)
from lowdata_cpt.analysis.table import HEADLINE, METRICS, UNTRAINED, held_out, records
from lowdata_cpt.core.io import write_text

Row = list[str]
ESCAPES = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "−": "$-$", "δ": r"$\delta$", "–": "--"}


def headline(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the headline table: mean over seeds at the largest n of each domain.

    Returns:
        One row a (backbone, domain, metric, n), one column a method in the fixed order (variants left out); NaN where
        a method was not run.
    """
    test = held_out(scores)
    test = test[test["metric"].isin(list(HEADLINE)) & ~test["method"].map(is_variant).astype(bool)]
    largest = test.groupby(["backbone", "domain"])["n"].transform("max")
    test = test[(test["n"] == largest) | test["method"].isin(list(UNTRAINED))].assign(n=largest)
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


def headline_markdown(scores: pd.DataFrame) -> str:
    """Return `headline` as a Markdown table, the best trained or untrained backbone of each row in bold."""
    table = headline(scores)
    methods = [str(name) for name in table.columns[4:]]
    several = table["backbone"].nunique() > 1
    header = ["domain", "metric", "n", *[style_of(name).label for name in methods]]
    rows = []
    for record in records(table):
        metric = METRICS[str(record["metric"])]
        values = [float(record[name]) for name in methods]
        best = _best(values, metric.higher)
        cells = ["–" if math.isnan(v) else f"**{v:.3f}**" if v == best else f"{v:.3f}" for v in values]
        place = domain_label(str(record["domain"])) + (f" ({record['backbone']})" if several else "")
        arrow = "↑" if metric.higher else "↓"
        rows.append(
            [place, f"{metric.label}{f' ({metric.unit})' if metric.unit else ''} {arrow}", str(record["n"]), *cells]
        )
    return _markdown(header, rows, left=2)


def gain_text(row: dict[str, Any]) -> str:
    """Return a row of `summary` as `+1.23 [+0.45, +2.01]`; without the interval where one seed gives none."""
    text = signed(float(row["mean"]), 2)
    if math.isfinite(row["ci_low"]):
        text += f" [{signed(float(row['ci_low']), 2)}, {signed(float(row['ci_high']), 2)}]"
    return text


def answer_markdown(scores: pd.DataFrame) -> str:
    """Return the gain over the untouched backbone, one row a method, one column a headline metric, as Markdown.

    A gain is the mean over domains, sizes and seeds with its 95 % interval, as in `summary`; bold where Holm's
    correction leaves it significant. The last row names each column's domains; a method that ran on fewer of
    them names its own. Empty where nothing was trained.
    """
    pooled = summary(scores)
    if pooled.empty:
        return ""
    pooled["fewer"] = on_fewer_domains(pooled)
    against = {(str(row["method"]), str(row["metric"])): row for row in records(pooled[pooled["family"] == "base"])}
    metrics = [name for name in HEADLINE if any(metric == name for _, metric in against)]
    methods = [name for name in ordered({method for method, _ in against}) if not is_variant(name)]
    rows = []
    for method in methods:
        cells = []
        for metric in metrics:
            row = against.get((method, metric))
            text = gain_text(row) if row else "–"
            text = f"**{text}**" if row and row["p_holm"] < 0.05 else text
            cells.append(f"{text} ({domain_labels(row['over'])} only)" if row and row["fewer"] else text)
        rows.append([style_of(method).label, *cells])
    widest = {metric: row["over"] for (_, metric), row in against.items() if not row["fewer"]}
    rows.append(["*mean over*", *(domain_labels(widest[metric]) for metric in metrics)])
    test = held_out(scores)
    trained = test[test["n"] > 0]
    header = ["Method", *(f"{METRICS[name].label} ({METRICS[name].gain_unit})" for name in metrics)]
    several = trained["seed"].nunique() > 1
    sure = "[95 % CI], bold: p < .05 after Holm's correction" if several else "so without an interval"
    caption = (
        f"Gain over the untouched backbone on the test split (positive is better, also for depth error), mean over "
        f"domains, {sizes_text(test)} and {seeds_text(trained)}, {sure}. {count_cells(test)} cells."
        f"{f' {LIMITS}' if several else ''}"
    )
    return f"{caption}\n\n{_markdown(header, rows, left=1)}"


def domain_table(scores: pd.DataFrame) -> tuple[Row, list[Row]]:
    """Return header and rows (domain × headline metric) of each method's gain over base, as `by_domain` has it."""
    table = by_domain(scores)
    if table.empty:
        return [], []
    gains = {
        (str(r["domain"]), str(r["metric"]), str(r["method"])): r for r in records(table[table["family"] == "base"])
    }
    methods = [name for name in ordered({method for *_, method in gains}) if not is_variant(name)]
    rows = []
    for domain in sorted({domain for domain, *_ in gains}, key=domain_label):
        for metric in (name for name in HEADLINE if any(key[:2] == (domain, name) for key in gains)):
            found = [gains.get((domain, metric, method)) for method in methods]
            cells = [gain_text(row) if row else "–" for row in found]
            rows.append([domain_label(domain), f"{METRICS[metric].label} ({METRICS[metric].gain_unit})", *cells])
    return ["Domain", "Metric", *(style_of(name).label for name in methods)], rows


def domain_markdown(scores: pd.DataFrame) -> str:
    """Return `domain_table` as Markdown with its caption. Empty where nothing was trained."""
    header, rows = domain_table(scores)
    if not rows:
        return ""
    trained = scores[scores["n"] > 0]
    several = trained["seed"].nunique() > 1
    caption = (
        f"Gain over the untouched backbone on each domain's test split (positive is better, also for depth error), "
        f"mean over its sizes and {seeds_text(trained)}{', [95 % CI], before correction' if several else ''}."
    )
    return f"{caption}\n\n{_markdown(header, rows, left=2)}"


def _best(values: list[float], higher: bool) -> float:
    known = [value for value in values if not math.isnan(value)]
    return (max if higher else min)(known) if known else math.nan


def method_table(
    scores: pd.DataFrame, backbone: str, domain: str
) -> tuple[Row, list[Row], dict[tuple[int, int], bool]]:
    """Return header, rows (method × n) and the best cells of one domain: mean ± sd over seeds, test split.

    Best is taken per metric over all rows; ties share it.
    """
    cells = cell_statistics(scores)
    cells = cells[(cells["backbone"] == backbone) & (cells["domain"] == domain)]
    metrics = [name for name in METRICS if name in set(cells["metric"])]
    values = {
        (str(r["method"]), int(r["n"]), str(r["metric"])): (float(r["mean"]), float(r["sd"])) for r in records(cells)
    }
    lines = [(m, n) for m in ordered(cells["method"]) for n in sorted(cells.loc[cells["method"] == m, "n"].unique())]
    header = ["Method", "n", *[METRICS[name].label + (" ↑" if METRICS[name].higher else " ↓") for name in metrics]]
    rows: list[Row] = []
    best: dict[tuple[int, int], bool] = {}
    for column, metric in enumerate(metrics):
        known = [round(values[m, n, metric][0], 3) for m, n in lines if (m, n, metric) in values]
        top = _best(known, METRICS[metric].higher)
        for index, (m, n) in enumerate(lines):
            best[index, column + 2] = (m, n, metric) in values and round(values[m, n, metric][0], 3) == top
    for m, n in lines:
        row = [style_of(m).label, "–" if n == 0 else str(n)]
        for metric in metrics:
            mean, sd = values.get((m, n, metric), (math.nan, math.nan))
            row.append("–" if math.isnan(mean) else f"{mean:.3f}" + ("" if math.isnan(sd) else f" ± {sd:.3f}"))
        rows.append(row)
    return header, rows, best


def _markdown(header: Row, rows: list[Row], left: int) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * left + "---:|" * (len(header) - left)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _bold(rows: list[Row], best: dict[tuple[int, int], bool], mark: Callable[[str], str]) -> list[Row]:
    return [[mark(cell) if best.get((i, j)) else cell for j, cell in enumerate(row)] for i, row in enumerate(rows)]


def latex_escape(text: str) -> str:
    """Escape what LaTeX reads as commands in a table cell."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _latex(header: Row, rows: list[Row], best: dict[tuple[int, int], bool], caption: str, label: str) -> str:
    head = [latex_escape(name).replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") for name in header]
    body = _bold([[latex_escape(cell) for cell in row] for row in rows], best, lambda cell: rf"\textbf{{{cell}}}")
    lines = [
        "% needs the packages booktabs and graphicx",
        r"\begin{table}",
        r"\centering",
        r"\small",
        rf"\caption{{{latex_escape(caption)}}}",
        rf"\label{{{label}}}",
    ]
    lines.append(r"\resizebox{\textwidth}{!}{%")
    lines += [rf"\begin{{tabular}}{{lr{'c' * (len(header) - 2)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    previous = None
    for row in body:
        name, rest = row[0], row[1:]
        lines.append(" & ".join([name if name != previous else "", *rest]) + r" \\")
        previous = name
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def write_tables(scores: pd.DataFrame, out: Path) -> list[Path]:
    """Write `answer`, `domains` and `headline` as `.md`, `headline.csv`, and each domain's scores as `.tex` and `.md`.

    Returns:
        The paths.
    """
    test = held_out(scores)
    paths = [out / "headline.md", out / "headline.csv", out / "answer.md", out / "domains.md"]
    write_text(paths[0], headline_markdown(scores))
    write_text(paths[1], headline(scores).to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_text(paths[2], answer_markdown(scores))
    write_text(paths[3], domain_markdown(scores))
    for (backbone, domain), part in test.groupby(["backbone", "domain"]):
        header, rows, best = method_table(scores, str(backbone), str(domain))
        several = part["seed"].nunique() > 1
        caption = (
            f"{domain_label(str(domain))}, {backbone}: test split, {'mean ± standard deviation over ' * several}"
            f"{seeds_text(part)}. "
            "Best value of each metric in bold; n is the number of unlabelled pretraining images."
        )
        stem = f"scores-{backbone}-{domain}"
        write_text(out / f"{stem}.tex", _latex(header, rows, best, caption, f"tab:{backbone}-{domain}"))
        bold = _bold(rows, best, lambda cell: f"**{cell}**")
        write_text(out / f"{stem}.md", f"{caption}\n\n{_markdown(header, bold, left=1)}")
        paths += [out / f"{stem}.tex", out / f"{stem}.md"]
    return paths
