"""The jobs of a language study that compute with tensors: splits, start, continued pretraining, scores."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowdata_cpt.core.device import pick_device
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import identity, read_arrays, read_json, sha256_file, write_arrays, write_json, writing
from lowdata_cpt.core.provenance import check, sidecar_path, write_sidecar
from lowdata_cpt.language import config, data
from lowdata_cpt.language.models import MODEL, open_model, released, save_model, whole
from lowdata_cpt.language.plan import Cell, Paths, base_of
from lowdata_cpt.language.tokens import tokens_of


def make_data(params: dict[str, Any], learner: str, paths: Paths) -> None:
    """Write a learner's splits."""
    of = params["data"]
    settings = (config.Generated if of["kind"] == "generated" else config.Hub).model_validate(of)
    # Its training is not known here, and no split depends on it.
    who = config.Learner.model_validate(params["learner"] | {"training": {"steps": 1}})
    splits = data.make(settings, who, params["feedback"], params["problems"], params["prose_windows"])
    data.write(splits, paths.data(learner), params)


def _train(run: Any, target: Path, window: int, facts: dict[str, Any], start: bool = False) -> None:
    """Run to the end, and write the models of the milestones, log.csv and cost.json to a cell's folder.

    A learner's start is called t0: from there tokens are counted anew.
    """

    def export(windows: int) -> None:
        weights, name = run.learner.export().backbone, f"t{0 if start else windows * window}"
        save_model(weights, run.learner.model.config, run.folder / "export" / name, **facts)

    result = run.train(export)
    shutil.rmtree(target / "export", ignore_errors=True)
    for model in sorted((run.folder / "export").iterdir()):
        check(model / MODEL)
    with writing(target / "export"):
        shutil.copytree(run.folder / "export", target / "export")
    cost = result.cost()
    cost = {
        "tokens_seen": cost.pop("images_seen") * window,
        "milestones": {str(int(seen) * window): seconds for seen, seconds in cost.pop("milestones").items()},
        "parameters": sum(p.numel() for p in run.learner.model.parameters()),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        **cost,
    }
    log = result.log.rename(columns={"images_seen": "tokens_seen"})
    log["tokens_seen"] *= window
    _write_cost(target, log, cost, facts)
    shutil.rmtree(run.folder.parent, ignore_errors=True)


def _write_cost(target: Path, log: Any, cost: dict[str, Any], facts: dict[str, Any]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    log.to_csv(target / "log.csv", index=False)
    write_json(target / "cost.json", cost)
    hashes = {path.parent.name: sha256_file(path) for path in sorted(target.glob(f"export/*/{MODEL}"))}
    write_sidecar(target / "cost.json", beside=[target / "log.csv"], weights_sha256=hashes, cost=cost, **facts)


def make_base(params: dict[str, Any], learner: str, paths: Paths, *, device: str, checkpoint_seconds: float) -> None:
    """Make a learner's start: pretrain a model of random weights, or fetch a released one.

    Raises:
        InterruptedRunError: a signal asked to stop; the same command resumes.
        UserError: an input is missing or damaged, or the hub cannot be reached.
    """
    import pandas as pd

    target, where = paths.cell(base_of(learner)), pick_device(device)
    if params["model"]["kind"] == "hub":
        model: Any = released(config.HubModel.model_validate(params["model"]))
        save_model(whole(model), model.config, paths.base(learner), config=params)
        cost = {"tokens_seen": 0, "milestones": {"0": 0.0}, "parameters": sum(p.numel() for p in model.parameters())}
        log = pd.DataFrame(columns=["step", "tokens_seen", "part", "value"])
        _write_cost(target, log, cost | {"train_seconds": 0.0, "steps": 0, "device": "cpu"}, {"config": params})
        return
    from lowdata_cpt.language import runs

    manifest = paths.data(learner) / data.MANIFEST
    splits = data.read(paths.data(learner))
    key = identity({"params": params, "inputs": [sha256_file(manifest)]})
    run = runs.pretraining(params, splits, where, paths.checkpoints(base_of(learner)) / key[:12], key)
    run.checkpoint_seconds = checkpoint_seconds
    _train(run, target, int(params["window"]), {"config": params, "inputs": [manifest]}, start=True)


def continue_cell(
    params: dict[str, Any], cell: Cell, paths: Paths, *, device: str = "auto", checkpoint_seconds: float = 300.0
) -> None:
    """Continue a learner by an arm, exported at each milestone.

    Raises:
        InterruptedRunError: a signal asked to stop; the same command resumes.
        UserError: an input is missing or damaged, or the loss is not finite.
    """
    from lowdata_cpt.language import runs

    where, manifest = pick_device(device), paths.data(cell.learner) / data.MANIFEST
    start = paths.base(cell.learner) / MODEL
    splits, model = data.read(paths.data(cell.learner)), open_model(start.parent)
    key = identity({"params": params, "inputs": [sha256_file(manifest), sha256_file(start)]})
    run = runs.continued(params, model, splits, where, paths.checkpoints(cell) / key[:12], key)
    run.checkpoint_seconds = checkpoint_seconds
    window = int(params["learner"]["window"])
    _train(run, paths.cell(cell), window, {"config": params, "inputs": [manifest, start]})


def evaluate_cell(params: dict[str, Any], cell: Cell, paths: Paths, *, device: str = "auto") -> None:
    """Score every milestone of a cell: evaluation.json, and outcomes.npz: t<tokens seen>/<metric>, groups.

    A killed evaluation resumes at the milestone that it was at.

    Raises:
        UserError: a model or split is missing or damaged.
    """
    from lowdata_cpt.language import evaluation

    where, target = pick_device(device), paths.cell(cell)
    models = sorted((target / "export").glob("t*"), key=lambda folder: int(folder.name[1:]))
    if not models:
        raise UserError(f"{target / 'export'}: no model; `snakemake --cores 1 {target / 'cost.json'}` makes it")
    splits, of = data.read(paths.data(cell.learner)), params["model"]
    manifest = paths.data(cell.learner) / data.MANIFEST
    known = (config.ByteModel if of["kind"] == "bytes" else config.HubModel).model_validate(of)
    tokens, settings = tokens_of(known), config.Evaluation.model_validate(params["evaluation"])
    milestones: dict[str, Any] = {}
    outcomes: dict[str, Any] = {"groups": np.array(splits.groups, dtype=np.int32)}
    work = paths.work / "evaluation" / cell.name
    for folder in models:
        inputs = [sha256_file(folder / MODEL), sha256_file(manifest)]
        part = work / f"{folder.name}-{identity({'params': params, 'inputs': inputs})[:12]}"
        if not sidecar_path(part / "metrics.json").exists():
            model = open_model(folder).to(where)
            metrics, found, said = evaluation.evaluate(model, tokens, splits, settings.new_tokens, settings.batch_size)
            write_arrays(part / "outcomes.npz", found)
            write_json(part / "metrics.json", {"metrics": metrics, "examples": said[:8]})
            write_sidecar(part / "metrics.json", beside=[part / "outcomes.npz"])
        milestones[folder.name[1:]] = read_json(check(part / "metrics.json"))
        arrays = read_arrays(check(part / "outcomes.npz", part / "metrics.json"))
        outcomes |= {f"{folder.name}/{name}": array for name, array in arrays.items()}
    write_arrays(target / "outcomes.npz", outcomes)
    write_json(target / "evaluation.json", {"milestones": milestones})
    made: list[str | Path] = [manifest, *(folder / MODEL for folder in models)]
    write_sidecar(target / "evaluation.json", inputs=made, config=params, beside=[target / "outcomes.npz"])
    shutil.rmtree(work, ignore_errors=True)
