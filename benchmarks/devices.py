"""The same cells on two devices: how far their scores are apart, and how far those of other seeds are.

    python -m benchmarks.devices OTHER [--study results/embedded]

OTHER is a study's folder whose `cells/` were computed elsewhere. Writes `benchmarks/devices.json` and the table of
docs/reviewers.md; `--table` only the latter. Headline metrics on the test images, at every milestone after the start.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.page import markdown, show
from lowdata_cpt.analysis.table import HEADLINE, METRICS, UNTRAINED, records
from lowdata_cpt.core.io import read_json, write_json
from lowdata_cpt.core.provenance import sidecar_path
from lowdata_cpt.study.grid import parse_cell

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "devices.json", ROOT / "docs" / "reviewers.md"
CELL = ["backbone", "domain", "method", "n", "seed"]
KEY = [*CELL, "images_seen", "metric"]


def scores_of(folder: Path) -> pd.DataFrame:
    """Return the headline scores of every evaluated cell below `folder`."""
    rows = []
    for path in sorted(folder.glob("cells/*/*/*/*/*/evaluation.json")):
        cell = parse_cell(path.parent.relative_to(folder / "cells").as_posix())._asdict()
        for images, probes in read_json(path)["milestones"].items():
            for found in probes.values():
                test = found["metrics"]["test"]
                rows += [
                    cell | {"images_seen": int(images), "metric": metric, "value": test[metric]}
                    for metric in HEADLINE
                    if metric in test
                ]
    return pd.DataFrame(rows, columns=[*KEY, "value"])


def compare(first: pd.DataFrame, second: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row per method and metric: the cells in both, their largest and mean difference, the spread of seeds.

    In points, of an error in per cent of the first value.
    """
    spread = first.groupby([name for name in KEY if name != "seed"])["value"].std().rename("sd").reset_index()
    both = first.merge(second, on=KEY, suffixes=("", "_other")).merge(spread)
    trained = ~both["method"].isin(UNTRAINED)
    both = both[(both["images_seen"] > 0) | ~trained]
    relative = both["metric"].map(lambda name: METRICS[name].relative)
    unit = 100 / both["value"].where(relative, 1.0)
    both["apart"] = unit * (both["value_other"] - both["value"]).abs()
    both["seeds"] = unit * both["sd"]
    return [
        {
            "method": method,
            "metric": metric,
            "cells": len(part[CELL].drop_duplicates()),
            "scores": len(part),
            "mean": round(float(part["apart"].mean()), 2),
            "largest": round(float(part["apart"].max()), 2),
            "between_seeds": round(float(part["seeds"].mean()), 2),
        }
        for (method, metric), part in both.groupby(["method", "metric"])
    ]


def losses(first: Path, second: Path) -> list[dict[str, Any]]:
    """Return a row per method: how far the loss is apart at the first and at the last step, relative, at most."""
    rows = []
    for path in sorted(second.glob("cells/*/*/*/*/*/log.csv")):
        name = path.relative_to(second)
        if parse_cell(name.parent.relative_to("cells").as_posix()).n and (first / name).exists():
            own, other = (
                log[log["part"] == "loss"].set_index("step")["value"]
                for log in (pd.read_csv(folder / name) for folder in (first, second))
            )
            apart = (other / own - 1).abs().dropna()  # at the steps of both
            rows.append({"method": name.parts[3], "first": apart.iloc[0], "last": apart.iloc[-1]})
    if not rows:
        return []
    largest = (
        pd.DataFrame(rows).groupby("method").agg(cells=("first", "size"), first=("first", "max"), last=("last", "max"))
    )
    return [
        {
            "method": method,
            "cells": int(row["cells"]),
            "first": float(f"{row['first']:.1e}"),
            "last": float(f"{row['last']:.1e}"),
        }
        for method, row in largest.iterrows()
    ]


def environment_of(folder: Path, like: pd.DataFrame) -> dict[str, str]:
    """Return device and torch of the cells of `folder` that `like` names too."""
    found: dict[str, set[str]] = {"device": set(), "torch": set()}
    for path in sorted(folder.glob("cells/*/*/*/*/*/cost.json")):
        cell = parse_cell(path.parent.relative_to(folder / "cells").as_posix())
        if cell.n and (like[CELL] == list(cell)).all(axis=1).any():
            found["device"].add(read_json(path)["device"])
            found["torch"].add(read_json(sidecar_path(path))["environment"]["packages"]["torch"])
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def write_page(found: dict[str, Any]) -> None:
    """Put the rows of `benchmarks/devices.json` between the page's markers."""
    head = ["method", "metric", "cells", "scores", "mean difference", "largest", "sd between seeds"]
    rows = [
        [row["method"], METRICS[row["metric"]].label]
        + [f"{row[name]:g}" for name in ("cells", "scores", "mean", "largest", "between_seeds")]
        for row in found["rows"]
    ]
    first, second = (f"{found[name]['device']} with torch {found[name]['torch']}" for name in ("first", "second"))
    steps = [[row["method"], *(f"{row[name]:g}" for name in ("cells", "first", "last"))] for row in found["losses"]]
    tables = [markdown(head, rows), markdown(["method", "cells", "loss, first step", "last step"], steps)]
    text = "\n\nRelative difference of the training loss, at most:\n\n".join(tables)
    show(PAGE, f"benchmarks/{RESULTS.name}", f"{first}, against {second}; in points, of an error in %:\n\n{text}")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Compare, write and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--study", type=Path, default=ROOT / "results" / "embedded")
    parser.add_argument("--table", action="store_true", help="only write the page's table anew")
    options = parser.parse_args(arguments)
    if not options.table:
        if options.other is None:
            parser.error("OTHER is missing; expected a study's folder, computed elsewhere")
        first, second = scores_of(options.study), scores_of(options.other)
        if first.empty or second.empty or first.merge(second, on=KEY).empty:
            parser.error(f"no cell is in both {options.study} and {options.other}; expected cells/…/evaluation.json")
        write_json(
            RESULTS,
            {
                "first": environment_of(options.study, second),
                "second": environment_of(options.other, second),
                "rows": compare(first, second),
                "losses": losses(options.study, options.other),
            },
        )
    found = read_json(RESULTS)
    write_page(found)
    for row in records(pd.DataFrame(found["rows"])):
        print(*row.values())
    return list(found["rows"])


if __name__ == "__main__":
    main()
