"""The test scores as one small JSON file, for `dvc metrics show` and `dvc metrics diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lowdata_cpt.analysis.table import at_end, held_out, read_scores
from lowdata_cpt.core.io import write_json


def write_metrics(scores: Path, target: Path) -> Path:
    """Write backbone -> domain -> method -> n -> task.metric -> mean over seeds on the test split, at the end of runs.

    Raises:
        UserError: as `read_scores`.
    """
    test = at_end(held_out(read_scores(scores)))
    levels = ["backbone", "domain", "method", "n", "task", "metric"]
    means: dict[str, Any] = {}
    for key, value in test.groupby(levels, sort=True)["value"].mean().items():
        assert isinstance(key, tuple), "one key of every level"
        backbone, domain, method, n, task, metric = key
        inner = means.setdefault(backbone, {}).setdefault(domain, {}).setdefault(method, {}).setdefault(f"n{n}", {})
        inner[f"{task}.{metric}"] = round(float(value), 6)
    write_json(target, means)
    return target
