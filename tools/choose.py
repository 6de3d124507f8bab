"""Choose among a study's variants on the validation split: `python tools/choose.py results/tuning`.

Variants are methods named <method>_<variant>. Each is scored by its mean relative gain over `base` on validation, over
kNN accuracy, linear accuracy, mIoU and RMSE; the table goes to <folder>/choice.csv with the best of each method marked.
Test rows are dropped before anything is computed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from lowdata_cpt.analysis.style import parent_of
from lowdata_cpt.analysis.table import HEADLINE, METRICS
from lowdata_cpt.io import write_text


def main(folder: Path) -> None:
    """Write and print the choice."""
    scores = pd.read_csv(folder / "scores.csv")
    rows = scores[(scores["split"] == "val") & scores["metric"].isin(HEADLINE)]
    wide = rows.pivot_table(index="method", columns="metric", values="value")[list(HEADLINE)]
    sign = pd.Series({name: 1 if METRICS[name].higher else -1 for name in HEADLINE})
    table = (100 * sign * (wide / wide.loc["base"] - 1)).drop(index="base").round(2).add_suffix("_gain_percent")
    table.insert(0, "mean_gain_percent", table.mean(axis=1).round(2))
    parents = table.index.map(parent_of)
    best = table["mean_gain_percent"].groupby(parents).transform("max")
    table.insert(0, "chosen", table["mean_gain_percent"] == best)
    table.insert(0, "parent", parents)
    table = table.sort_values(["parent", "mean_gain_percent"], ascending=[True, False])
    write_text(folder / "choice.csv", table.to_csv(lineterminator="\n"))
    print(table.to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
