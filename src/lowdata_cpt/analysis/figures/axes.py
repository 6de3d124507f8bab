"""What several figures share: panels of a place and metric, logarithmic axes, compact numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lowdata_cpt.analysis.style import domain_label
from lowdata_cpt.analysis.table import HEADLINE, METRICS, records

Panel = tuple[str, str, str]


def panels_of(table: pd.DataFrame) -> list[Panel]:
    """Return the (backbone, domain, headline metric) of a table, in the order in which figures show them."""
    found = table.loc[table["metric"].isin(HEADLINE), ["backbone", "domain", "metric"]].drop_duplicates()
    keys = [(str(row["backbone"]), str(row["domain"]), str(row["metric"])) for row in records(found)]
    return sorted(keys, key=lambda key: (key[0], domain_label(key[1]), HEADLINE.index(key[2])))


def rows_of(table: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Return the rows of a panel."""
    backbone, domain, metric = panel
    return table[(table["backbone"] == backbone) & (table["domain"] == domain) & (table["metric"] == metric)]


def title_of(panel: Panel, several: bool, unit: str) -> str:
    """Return a panel's title: place, metric and unit; the backbone where there are several."""
    backbone, domain, metric = panel
    return f"{domain_label(domain)}{f' · {backbone}' if several else ''}\n{METRICS[metric].short} ({unit})"


def compact(value: float, decimals: int = 2) -> str:
    """Format a count: 12800 → 12.8k, 3.55e6 → 3.55M; with that many decimals at most where one digit leads."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.{1 + decimals if value < 10 * size else 3}g}{suffix}"
    return f"{value:.3g}"


def log_axis(axis: Axes, ticks: Iterable[float], zero: float | None = None) -> None:
    """Make x logarithmic with these ticks (those that would overlap are left out); `zero` is the place of a 0."""
    axis.set_xscale("log")
    shown: list[float] = []
    for tick in sorted(set(ticks)):
        if not shown or tick / shown[-1] > 1.7:
            shown.append(tick)
    axis.xaxis.set_major_locator(FixedLocator([*([] if zero is None else [zero]), *shown]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if zero and np.isclose(x, zero) else compact(x, 1)))
