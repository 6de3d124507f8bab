"""The last stages: one tidy table of scores, the training curves, the costs and the qualitative examples. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from lowdata_cpt.analysis.table import COLUMNS, SELECTED_COLUMNS, STEP_COLUMNS
from lowdata_cpt.core.io import atomic_path, read_json, write_text
from lowdata_cpt.core.provenance import write_sidecar
from lowdata_cpt.data.store import Store, Task
from lowdata_cpt.jobs.inputs import open_store
from lowdata_cpt.probes.metrics import floors as trivial_scores
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import PROBE_OF_TASK, Cell, cells, probes_of, shown_cells
from lowdata_cpt.study.load import validate

CURVE_STEPS = 300


def _write_table(target: Path, frame: pd.DataFrame, inputs: list[Path]) -> None:
    write_text(target, frame.to_csv(index=False, lineterminator="\n"))
    write_sidecar(target, inputs=list(inputs), rows=len(frame))


def read_study(path: Path) -> Study:
    """Read a resolved configuration."""
    return validate(read_json(path) | {"resources": {}}, str(path))


def _probes(study: Study, domain: str) -> tuple[str, ...]:
    """Return a domain's probes by its manifest where there is one: the raw images need not be here any more."""
    manifest = Path("results", study.study, "data", domain, "manifest.json")
    if not manifest.exists():
        return probes_of(study, domain)
    labelled = read_json(manifest)["tasks"]
    return tuple(probe for task, probe in PROBE_OF_TASK.items() if task in labelled)


def _selection(selected: dict[str, Any]) -> dict[str, Any]:
    """Return what a probe chose on validation, and where in its grid: at an end, the grid may be too short."""
    setting = "lr" if "lr" in selected else "c"
    (scores,) = (value for name, value in selected.items() if name.startswith("val_"))
    grid = sorted(float(candidate) for candidate in scores)
    ends = {grid[0]: "lowest", grid[-1]: "highest"} if len(grid) > 1 else {}
    return {"setting": setting, "chosen": selected[setting], "place": ends.get(float(selected[setting]), "inner")}


def _curve(log: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Return a run's log with a row a step and a column a part; of a long run every k-th step.

    Values are text of six digits: an empty field is a part that the run does not have, `nan` a value that was none.
    """
    log = log[log["step"] % (log["step"].max() // CURVE_STEPS + 1) == 0]
    text = log.assign(**cell._asdict(), value=log["value"].map("{:.6g}".format))
    wide = text.pivot(index=list(STEP_COLUMNS), columns="part", values="value")
    return wide.reset_index()


def scores(study_file: Path, target: Path) -> None:
    """Write scores.csv (one row a metric), cost.csv, curves.csv and selected.csv of every cell into folder `target`.

    Of a long run at most `CURVE_STEPS` steps go to curves.csv, with six digits: git keeps it, and the run's log.csv has
    all. Other values are written with repr precision, so equal scores give equal bytes.
    """
    study = read_study(study_file)
    probes = {domain: _probes(study, domain) for domain in study.domains}
    score_rows: list[dict[str, Any]] = []
    cost_rows: list[dict[str, Any]] = []
    selected: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    inputs: list[Path] = []
    costs: list[Path] = []
    logs: list[Path] = []
    for cell in cells(study):
        key: dict[str, Any] = cell._asdict()
        trained = cell.model.folder(study.study)
        costs.append(trained / "cost.json")
        cost = read_json(costs[-1])
        cost_rows.append(key | cost)
        log = pd.read_csv(trained / "log.csv")
        if len(log):
            logs.append(trained / "log.csv")
            curves.append(_curve(log, cell))
        spent = {"images_seen": cost["images_seen"], "train_seconds": cost["train_seconds"]}
        for probe in probes[cell.domain]:
            path = cell.folder(study.study) / f"{probe}.json"
            inputs.append(path)
            result = read_json(path)
            selected.append(key | {"task": probe} | _selection(result["selected"]))
            for split, metrics in sorted(result["metrics"].items()):
                for metric, value in sorted(metrics.items()):
                    row = {"task": probe, "metric": metric, "split": split, "value": value}
                    score_rows.append({"study": study.study} | key | row | spent)
    _write_table(target / "scores.csv", pd.DataFrame(score_rows, columns=COLUMNS), inputs)
    _write_table(target / "selected.csv", pd.DataFrame(selected, columns=SELECTED_COLUMNS), inputs)
    _write_table(target / "cost.csv", pd.DataFrame(cost_rows), costs)
    steps = pd.concat([pd.DataFrame(columns=STEP_COLUMNS), *curves])
    _write_table(target / "curves.csv", steps, logs)


def floors(manifests: list[Path], target: Path) -> None:
    """Write the test metrics of predictors that never look at an image: domain, task, metric, value.

    A manifest's folder is named after its domain.
    """
    rows = [
        {
            "domain": path.parent.name,
            "task": PROBE_OF_TASK[cast(Task, task)],
            "metric": name,
            "value": round(value, 4),
        }
        for path in manifests
        for task, metrics in trivial_scores(open_store(path)).items()
        for name, value in metrics.items()
    ]
    _write_table(target, pd.DataFrame(rows, columns=["domain", "task", "metric", "value"]), manifests)


def differences(first: Path, second: Path) -> str | None:
    """Say how two score tables differ, None when they are equal but for `train_seconds`, which is a measurement."""
    tables = [pd.read_csv(path, dtype=str).drop(columns="train_seconds", errors="ignore") for path in (first, second)]
    if list(tables[0].columns) != list(tables[1].columns) or len(tables[0]) != len(tables[1]):
        return f"{first} and {second} have other columns or rows: {tables[0].shape} and {tables[1].shape}"
    unequal = (tables[0] != tables[1]).any(axis=1)
    if not unequal.any():
        return None
    row = int(unequal.to_numpy().argmax())
    return f"{int(unequal.sum())} rows differ, the first is row {row + 2}: {' '.join(tables[0].iloc[row])}"


def _neighbours(study: Study, store: Store, shown: dict[str, Cell]) -> dict[str, np.ndarray]:
    """Return some test images, their nearest train images by each method's features, and whether the class agrees."""
    info = store.meta.tasks["classification"]
    train, test = info.sets["train"], info.sets["test"]
    arrays: dict[str, np.ndarray] = {}
    for method, cell in shown.items():
        found = read_json(cell.folder(study.study) / "linear.json")["neighbours"]
        rows, near = np.array(found["rows"], dtype=int), np.array(found["train_rows"], dtype=int)
        if not len(rows):
            return {}
        arrays["neighbours_query"] = np.asarray(store.images(test)[rows])
        arrays[f"neighbours_{method}"] = np.asarray(store.images(train)[near.ravel()]).reshape(
            *near.shape, *arrays["neighbours_query"].shape[1:]
        )
        same = np.asarray(store.labels(train))[near] == np.asarray(store.labels(test))[rows][:, None]
        arrays[f"neighbours_{method}_same"] = same
    return {"image": arrays["neighbours_query"]} | arrays if arrays else {}


def qualitative(study_file: Path, backbone: str, domain: str, manifest: Path, target: Path) -> None:
    """Write images, truth and each method's predictions of the first test images, and neighbours, to one .npz.

    Shown are the first seed and the largest n.
    """
    study, store = read_study(study_file), open_store(manifest)
    shown = {c.method: c for c in shown_cells(study, backbone, domain)}
    arrays: dict[str, np.ndarray] = {}
    dense: tuple[Task, ...] = ("segmentation", "depth")
    for task in dense:
        info = store.meta.tasks.get(task)
        if info is None:
            continue
        test, examples = info.sets["test"], study.probes.examples
        arrays["image"] = np.asarray(store.images(test)[:examples])
        truth = store.segmentation(test) if task == "segmentation" else store.depth(test)
        arrays[f"{task}_truth"] = np.asarray(truth[:examples])
        if task == "segmentation":
            arrays["segmentation_classes"] = np.array(info.classes)
            arrays["segmentation_ignore"] = np.array(info.ignore_index)
        for method, cell in shown.items():
            predicted = cell.folder(study.study) / f"{PROBE_OF_TASK[task]}.npy"
            arrays[f"{task}_{method}"] = np.load(predicted, allow_pickle=False)
    if "classification" in store.meta.tasks:
        arrays = _neighbours(study, store, shown) | arrays
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
