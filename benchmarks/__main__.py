"""Run the benchmarks and write `benchmarks/results.json` and the table of docs/benchmarks.md.

python -m benchmarks [--only FILE ...] [--repeats 5] [--small] [--table]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmarks.harness import compare
from benchmarks.page import markdown, show
from lowdata_cpt.core.io import read_json, write_json
from lowdata_cpt.core.provenance import processor

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results.json", HERE.parent / "docs" / "benchmarks.md"
FILES = ("evaluation", "logistic", "augmentation", "steps", "training", "milestones", "scaling", "workflow")


def rows_of(name: str, *, small: bool, repeats: int) -> Iterator[dict[str, Any]]:
    """Run one file's benchmarks, one after another."""
    module = importlib.import_module(f"benchmarks.{name}")
    for case in module.cases(small):
        # What is timed may print; the table is what is read.
        with contextlib.redirect_stdout(sys.stderr):
            row = compare(case, repeats)
        print(*cells_of(row), sep=" | ", flush=True)
        yield row | {"file": name}


def seconds(value: float) -> str:
    """Return a time for reading."""
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def cells_of(row: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    goal = "–" if row["goal"] is None else f"≥ {row['goal']:g}"
    met = "" if row["goal"] is None else (" ✓" if row["ratio"] >= row["goal"] else " ✗")
    spread = " – ".join(seconds(value) for value in row["ours_quartiles_s"])
    return [
        row["name"],
        row["reference"],
        f"{seconds(row['ours_s'])} ({spread})",
        seconds(row["reference_s"]),
        f"{row['ratio']:.2f}{met}",
        goal,
        str(row["repeats"]),
        row["parity"],
    ]


def write_page(rows: list[dict[str, Any]]) -> None:
    """Put the table between the page's markers."""
    head = ["what", "beside", "ours (quartiles)", "reference", "ratio", "goal", "repeats", "the same work"]
    show(PAGE, f"benchmarks/{RESULTS.name}", markdown(head, [cells_of(row) for row in rows]))


def main() -> None:
    """Run what is asked for; rows of other files stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FILES, default=FILES, metavar="FILE", help=", ".join(FILES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="the smallest sizes: does it run? Nothing is written")
    parser.add_argument("--table", action="store_true", help="only write the page's table anew")
    options = parser.parse_args()
    known: list[dict[str, Any]] = read_json(RESULTS) if RESULTS.exists() else []
    if options.table:
        return write_page(known)
    torch.set_num_threads(1)
    where = {"machine": f"{processor()}, torch {torch.__version__}, Python {platform.python_version()}"}
    with threadpool_limits(1):
        for name in options.only:
            for row in rows_of(name, small=options.small, repeats=options.repeats):
                if not options.small:  # at once: a run that is stopped keeps what it has
                    known = [old for old in known if old["name"] != row["name"]] + [row | where]
                    known.sort(key=lambda row: FILES.index(row["file"]))
                    write_json(RESULTS, known)
                    write_page(known)


if __name__ == "__main__":
    main()
