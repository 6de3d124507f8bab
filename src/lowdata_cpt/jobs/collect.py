"""From the cells to the study's tables: scores, costs, curves, choices, per-image outcomes, examples. No torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lowdata_cpt.analysis.outcomes import GROUPS, TRUTH
from lowdata_cpt.analysis.stopping import chosen_milestones
from lowdata_cpt.analysis.style import step_zeros
from lowdata_cpt.analysis.table import COLUMNS, SELECTED_COLUMNS, STEP_COLUMNS, read_text, records
from lowdata_cpt.core.io import read_arrays, read_json, write_arrays, write_json
from lowdata_cpt.core.provenance import check, of_study, sidecar_path, write_sidecar
from lowdata_cpt.core.stable import write_table
from lowdata_cpt.data.domain import Domain
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes.metrics import trivial_scores
from lowdata_cpt.probes.registry import probes_of_tasks
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell, cells, shown_cells
from lowdata_cpt.study.job_params import dump, study_params
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

CURVE_STEPS = 300


def read_study(path: Path) -> Study:
    """Read a resolved configuration."""
    return validate(read_json(of_study(path)), str(path))


def collect(study: Study, not_run: dict[str, str], paths: Paths, target: Path | None = None) -> None:
    """Gather every cell of `study` into scores.csv, selected.csv, cost.csv, curves.csv and outcomes/ of `target`.

    Beside them it writes study.json, the resolved configuration, and not_run.json: what was left out, and why.

    scores.csv has a row per metric and milestone, in repr precision, so equal scores give equal bytes. Of a long run at
    most `CURVE_STEPS` steps go to curves.csv, with six digits: git keeps it, and the run's log.csv has all.

    Images without labels have costs and curves only; where no domain has labels, there is no scores.csv.
    """
    target = target or paths.root
    scores: list[dict[str, Any]] = []
    selected: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    labelled = {name for name, domain in study.domains.items() if domain.tasks()}
    sources: dict[str, list[Path]] = {"evaluation.json": [], "cost.json": [], "log.csv": []}
    for cell in cells(study):
        key, trained = cell._asdict(), paths.cell(cell.trained)
        files = {name: trained / name for name in ("cost.json", "log.csv")}
        if cell.domain in labelled:
            files["evaluation.json"] = paths.cell(cell) / "evaluation.json"
        for name, path in files.items():
            sources[name].append(path)
        cost = _cost(paths, cell)
        costs.append(key | {name: value for name, value in cost.items() if name != "milestones"})
        log = pd.read_csv(check(files["log.csv"], files["cost.json"]))
        if len(log):
            curves.append(_curve(log, cell))
        evaluated = read_json(check(files["evaluation.json"]))["milestones"] if cell.domain in labelled else {}
        for images, probes in evaluated.items():
            spent = {"images_seen": int(images), "train_seconds": cost["milestones"][images]}
            scores += [{"study": study.study} | key | row | spent for row in _score_rows(probes)]
            if int(images) == cost["images_seen"]:
                selected += [
                    key | {"task": name} | _selection(found["selected"])
                    for name, found in probes.items()
                    if found["selected"]
                ]
    table = pd.DataFrame(scores, columns=COLUMNS)
    tables = {
        "scores.csv": (table, sources["evaluation.json"]),
        "selected.csv": (pd.DataFrame(selected, columns=SELECTED_COLUMNS), sources["evaluation.json"]),
        "cost.csv": (pd.DataFrame(costs), sources["cost.json"]),
        "curves.csv": (pd.concat([pd.DataFrame(columns=STEP_COLUMNS), *curves]), sources["log.csv"]),
    }
    outcomes = _gather_outcomes(study, paths, target / "outcomes", table) if labelled else []
    # From here on every cell has been read: one that is damaged leaves what was collected before.
    write_json(target / "study.json", json.loads(dump(study_params(study))))
    write_json(target / "not_run.json", not_run)
    for name, (frame, inputs) in tables.items():
        of_all = [target / "study.json", target / "not_run.json", *outcomes] if name == "scores.csv" else []
        if labelled or name in ("cost.csv", "curves.csv"):
            _write_table(target / name, frame, inputs, of_all)
        else:
            # Of a time when there were labels; study.json would be held against it.
            for path in (target / name, sidecar_path(target / name)):
                path.unlink(missing_ok=True)
    if not labelled:
        shutil.rmtree(target / "outcomes", ignore_errors=True)


def _cost(paths: Paths, cell: Cell) -> dict[str, Any]:
    """Return the cost of a cell's training."""
    cost: dict[str, Any] = read_json(check(paths.cell(cell.trained) / "cost.json"))
    return cost


def _score_rows(probes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return task, metric, split and value of one milestone's probes."""
    return [
        {"task": name, "metric": metric, "split": split, "value": value}
        for name, found in probes.items()
        for split, metrics in sorted(found["metrics"].items())
        for metric, value in sorted(metrics.items())
    ]


def _selection(selected: dict[str, Any]) -> dict[str, Any]:
    """Return what a probe chose on validation, and where in its grid: at an end, the grid may be too short."""
    setting = "lr" if "lr" in selected else "c"
    (scores,) = (value for name, value in selected.items() if name.startswith("val_"))
    grid = sorted(float(candidate) for candidate in scores)
    ends = {grid[0]: "lowest", grid[-1]: "highest"} if len(grid) > 1 else {}
    return {"setting": setting, "chosen": selected[setting], "place": ends.get(float(selected[setting]), "inner")}


def _curve(log: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Return a run's log with a row per step and a column per part; of a long run every k-th step.

    Values are text of six digits: an empty field is a part that the run does not have, `nan` a value that was none.
    """
    log = log[log["step"] % (log["step"].max() // CURVE_STEPS + 1) == 0]
    text = log.assign(**cell._asdict(), value=log["value"].map("{:.6g}".format))
    wide = text.pivot(index=list(STEP_COLUMNS), columns="part", values="value")
    return wide.reset_index()


def _write_table(target: Path, frame: pd.DataFrame, inputs: list[Path], beside: Sequence[Path] = ()) -> None:
    write_table(target, frame)
    write_sidecar(target, inputs=inputs, beside=beside, rows=len(frame))


def _gather_outcomes(study: Study, paths: Paths, target: Path, scores: pd.DataFrame) -> list[Path]:
    """Write outcomes/<backbone>-<domain>.npz: each cell's outcome on each test image, the truth, and groups if any.

    Classes at every milestone; counts and errors of dense maps, which are a hundred times larger, at the end of a run
    and where validation would stop it.
    """
    before = step_zeros({name: of.model_dump() for name, of in study.methods.items()})
    stops = {
        (
            Cell(row["backbone"], row["domain"], row["method"], row["n"], row["seed"]),
            f"i{row['images_seen']}",
            row["task"],
        )
        for row in records(chosen_milestones(scores, before))
    }
    gathered: dict[str, dict[str, np.ndarray]] = {}
    for cell in cells(study):
        domain = study.domains[cell.domain]
        if not domain.tasks():
            continue
        file = f"{cell.backbone}-{cell.domain}"
        if file not in gathered:
            gathered[file] = _truth(domain, Store.open(paths.manifest(cell.domain)))
        end = f"i{_cost(paths, cell)['images_seen']}"
        for name, array in read_arrays(check(paths.cell(cell) / "outcomes.npz")).items():
            milestone, probe, _ = name.split("/")
            if milestone == end or probe == "linear" or (cell, milestone, probe) in stops:
                gathered[file][f"{cell.method}/n{cell.n}/s{cell.seed}/{name}"] = array
    for name, arrays in gathered.items():
        write_arrays(target / f"{name}.npz", arrays)
    return [target / f"{name}.npz" for name in gathered]


def _truth(domain: Domain, store: Store) -> dict[str, np.ndarray]:
    """Return the classes of a domain's test images, and each probe's groups of them, where it has these."""
    found: dict[str, np.ndarray] = {}
    for task in domain.tasks():
        groups = domain.groups(store, task)
        found |= {f"{GROUPS}{probe}": groups for probe in probes_of_tasks((task,)) if groups is not None}
    if "classification" in domain.tasks():
        found[TRUTH] = np.asarray(store.labels(store.task("classification").sets["test"])).astype(np.int16)
    return found


def trivial_baselines(manifests: list[Path], target: Path) -> None:
    """Write the test metrics of predictors that never look at an image: domain, task, metric, value.

    A manifest's folder is named after its domain.
    """
    rows = [
        {
            "domain": path.parent.name,
            "task": probe,
            "metric": name,
            "value": round(value, 4),
        }
        for path in manifests
        for task, metrics in trivial_scores(Store.open(path)).items()
        for probe in probes_of_tasks((task,))
        for name, value in metrics.items()
    ]
    _write_table(target, pd.DataFrame(rows, columns=["domain", "task", "metric", "value"]), manifests)


def differences(first: Path, second: Path) -> str | None:
    """Say how two score tables differ, None when they are equal but for `train_seconds`, which is a measurement."""
    tables = [read_text(path).drop(columns="train_seconds", errors="ignore") for path in (first, second)]
    if list(tables[0].columns) != list(tables[1].columns) or len(tables[0]) != len(tables[1]):
        return f"{first} and {second} have other columns or rows: {tables[0].shape} and {tables[1].shape}"
    unequal = (tables[0] != tables[1]).any(axis=1)
    if not unequal.any():
        return None
    row = int(unequal.to_numpy().argmax())
    return f"{int(unequal.sum())} rows differ, the first is row {row + 2}: {' '.join(tables[0].iloc[row])}"


def examples(paths: Paths, backbone: str, domain: str, target: Path) -> None:
    """Write images, truth and each method's predictions of the first test images, and neighbours, to one .npz.

    Shown are the first seed and the largest n, at the run's end.
    """
    study, store = read_study(paths.of_study("study.json")), Store.open(paths.manifest(domain))
    arrays: dict[str, np.ndarray] = {}
    predicted = {c.method: _examples_of(paths, c) for c in shown_cells(study, backbone, domain)}
    for task, info in store.meta.tasks.items():
        test, shown = info.sets["test"], study.probes.examples
        if task == "classification":
            arrays |= _neighbours(store, {method: found for method, found in predicted.items() if found})
            continue
        arrays["image"] = np.asarray(store.images(test)[:shown])
        truth = store.segmentation(test) if task == "segmentation" else store.depth(test)
        arrays[f"{task}_truth"] = np.asarray(truth[:shown])
        if task == "segmentation":
            arrays["segmentation_classes"] = np.array(info.classes)
            arrays["segmentation_ignore"] = np.array(info.ignore_index)
        arrays |= {f"{task}_{method}": found[f"{task}/predicted"] for method, found in predicted.items()}
    write_arrays(target, arrays)


def _examples_of(paths: Paths, cell: Cell) -> dict[str, np.ndarray]:
    """Return the examples of a cell's end, by `<probe>/<name>`."""
    end, folder = f"i{_cost(paths, cell)['images_seen']}/", paths.cell(cell)
    stored = read_arrays(check(folder / "examples.npz", folder / "evaluation.json"))
    return {name.removeprefix(end): array for name, array in stored.items() if name.startswith(end)}


def _neighbours(store: Store, predicted: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return some test images, their nearest train images by each method's features, and whether the class agrees."""
    info = store.meta.tasks["classification"]
    train, test = info.sets["train"], info.sets["test"]
    arrays: dict[str, np.ndarray] = {}
    for method, found in predicted.items():
        rows, near = found["linear/rows"], found["linear/train_rows"]
        if not len(rows):
            return {}
        query = np.asarray(store.images(test)[rows])
        arrays["neighbours_query"] = query
        arrays[f"neighbours_{method}"] = np.asarray(store.images(train)[near.ravel()]).reshape(
            *near.shape, *query.shape[1:]
        )
        arrays[f"neighbours_{method}_same"] = (
            np.asarray(store.labels(train))[near] == np.asarray(store.labels(test))[rows][:, None]
        )
    return {"image": arrays["neighbours_query"]} | arrays if arrays else {}
