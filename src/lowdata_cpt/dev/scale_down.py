"""Try every distinct cell type of a study for two steps on tiny fixtures, so that nothing is first tried on a cluster.

A cell type is a method entry on an architecture, an architecture on a domain's tasks, or a method entry on a task.
The stages that run are the workflow's own. What is smaller than in the study is what `REDUCED` says.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.paths import DATA_ROOT
from lowdata_cpt.dev.fixtures import MAKERS
from lowdata_cpt.jobs.chain import run_cell
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.grid import Cell, cells, probes_of
from lowdata_cpt.study.load import validate
from lowdata_cpt.study.paths import Paths

REDUCED = (
    "random weights; large and base ViTs by the small one of their family where timm has it; 4×4 patches to train on "
    "(5×5 to probe where the study has another probe size); fixtures of a few images at 64 px; 4 images, 2 steps; "
    "heads of 64 prototypes; fp32 on the CPU"
)
GRID, PROBE_GRID, RESOLUTION, IMAGES = 4, 5, 64, 4
SMALLER: dict[str, Any] = {
    "prototypes": 64,
    "head_hidden": 64,
    "local_crops": 1,
    "value_batch": 2,
    "feedback_batch": 2,
    "every": 1,
    "head_warmup": 0,
    "designer_channels": 4,
}


def architecture(model: str) -> str:
    """Return the smallest model of the same family and pretraining that timm has (imports timm)."""
    import timm

    known = set(timm.list_pretrained()) | set(timm.list_models())
    for size in ("small", "base"):
        for other in ("giant", "huge", "large", "base"):
            smaller = model.replace(f"_{other}_", f"_{size}_")
            if smaller != model and smaller in known:
                return smaller
    return model


def kind_of(study: Study, domain: str) -> str:
    """Return a domain's kind: domains of one kind are read by the same code."""
    return str(study.domains[domain].model_dump()["kind"])


def distinct(study: Study) -> list[Cell]:
    """Return the fewest cells found greedily that cover every cell type; first seed and smallest n of each.

    Rendered domains have no fixture and are left out.
    """
    small = {name: architecture(backbone.model) for name, backbone in study.backbones.items()}
    smallest: dict[frozenset[tuple[str, ...]], Cell] = {}
    for cell in cells(study):
        kind = kind_of(study, cell.domain)
        if kind in MAKERS:
            model, probes = small[cell.backbone], probes_of(study, cell.domain)
            types: set[tuple[str, ...]] = {("method", cell.method, model)}
            types |= {("task", cell.method, probe) for probe in probes}
            types |= {("domain", model, kind, probe) for probe in probes}
            smallest.setdefault(frozenset(types), cell)
    chosen, missing = [], set().union(*smallest)
    while missing:
        most = max(smallest, key=lambda found: len(found & missing))
        missing -= most
        chosen.append(smallest[most])
    return sorted(chosen, key=lambda cell: (cell.domain, cell.backbone))


def reduced(study: Study, chosen: list[Cell]) -> Study:
    """Return the study cut down to `chosen`: the same entries, small images, two steps, random weights."""
    from lowdata_cpt.backbones.flops import geometry

    raw = study.model_dump(mode="json", exclude={"grid", "resources"})
    raw["study"], raw["seeds"], raw["keep_models"] = "scale_down", [study.seeds[0]], True
    names = {kind: list(dict.fromkeys(getattr(c, kind) for c in chosen)) for kind in ("backbone", "domain", "method")}
    names["method"] = list(dict.fromkeys(["base", *names["method"]]))
    raw["grid"] = [
        {"backbones": [c.backbone], "domains": [c.domain], "methods": list({"base": 0, c.method: 0})} for c in chosen
    ]
    for backbone in names["backbone"]:
        model = architecture(raw["backbones"][backbone]["model"])
        side = GRID * geometry(model).patch
        raw["backbones"][backbone] = {"model": model, "weights": "random", "image_size": side}
    for kind in ("backbone", "domain", "method"):
        raw[f"{kind}s"] = {name: raw[f"{kind}s"][name] for name in names[kind]}
    for name, domain in raw["domains"].items():
        domain |= {"root": name, "resolution": RESOLUTION, "sizes": [IMAGES]}
        domain |= dict.fromkeys(("max_images", "val_images", "test_images"))
        if domain["kind"] == "medmnist":
            domain |= {"flag": "pathmnist", "pixels": 28}
    for name, method in raw["methods"].items():
        method |= {key: value for key, value in SMALLER.items() if key in method}
        if method["training"]:
            method["training"] = _two_steps(study.training_of(name).model_dump(mode="json"))
    raw["training"] = _two_steps(raw["training"])
    probes = raw["probes"]
    probes["image_sizes"] = {
        name: PROBE_GRID * _patch(raw, name, chosen) for name in raw["domains"] if name in probes["image_sizes"]
    }
    probes["linear"] |= {"c_grid": probes["linear"]["c_grid"][:1], "max_iter": 50}
    for task in ("segmentation", "depth"):
        probes[task] |= {"steps": 2, "batch_size": 2, "train_stride": min(2, probes[task]["train_stride"])}
    return validate(raw, "the study scaled down")


def _two_steps(training: dict[str, Any]) -> dict[str, Any]:
    """Return the same kind of run with two epochs of one batch, so that phases that end by epoch are passed too."""
    accumulation = min(2, training["accumulation"])
    short = {"images_seen": None, "epochs": 2, "milestones": [], "batch_size": IMAGES, "accumulation": accumulation}
    return training | short | {"precision": "fp32", "compile": False}


def _patch(raw: dict[str, Any], domain: str, chosen: list[Cell]) -> int:
    """Return a patch side that divides the probe images of every backbone on a domain (they share one size)."""
    sides = {raw["backbones"][c.backbone]["image_size"] // GRID for c in chosen if c.domain == domain}
    if len(sides) > 1:
        raise UserError(
            f"probes.image_sizes.{domain}: its backbones have patches of {sorted(sides)} pixels, expected one size"
        )
    return int(sides.pop())


@contextlib.contextmanager
def fixtures_in(folder: Path) -> Iterator[None]:
    """Work in `folder`, with the fixtures in its data/."""
    before = os.environ.get(DATA_ROOT)
    os.environ[DATA_ROOT] = "data"
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.pop(DATA_ROOT)
        if before is not None:
            os.environ[DATA_ROOT] = before


def run(study: Study, *, only: str | None = None) -> None:
    """Run every distinct cell type (those whose name contains `only`) and print a line for each.

    Raises:
        UserError: some failed; the message names them.
    """
    chosen = [cell for cell in distinct(study) if only is None or only in "/".join(map(str, cell))]
    if not chosen:
        raise UserError(f"study {study.study!r}: no cell type to try{f' with {only!r} in its name' if only else ''}")
    small = reduced(study, chosen)
    rendered = [name for name in study.domains if kind_of(study, name) not in MAKERS]
    print(f"reduced: {REDUCED}", *(f"left out: {name} is rendered, it has no fixture" for name in rendered), sep="\n")
    with tempfile.TemporaryDirectory() as folder, fixtures_in(Path(folder)):
        small_cells = [cell._replace(n=IMAGES if cell.n else 0, seed=study.seeds[0]) for cell in chosen]
        try_each(
            (
                f"{cell.backbone}/{cell.domain}/{cell.method}",
                f" ({small.backbones[cell.backbone].model}; {','.join(probes_of(small, cell.domain))})",
                partial(_run, small, cell),
            )
            for cell in small_cells
        )


def try_each(cells: Iterable[tuple[str, str, Callable[[], None]]]) -> None:
    """Run each cell's work, given with its name and a remark, and print a line for it.

    Raises:
        UserError: some failed; the message names them.
    """
    tried, failed = 0, {}
    for name, remark, work in cells:
        started, tried = time.monotonic(), tried + 1
        try:
            work()
        except Exception as error:  # every cell is tried, whatever the first one dies of
            failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        verdict = f"FAILED {failed[name]}" if name in failed else "ok"
        print(f"{time.monotonic() - started:6.1f} s  {name}{remark}: {verdict}", flush=True)
    if failed:
        raise UserError(f"{len(failed)} of {tried} cell types failed: {', '.join(failed)}")
    print(f"all {tried} cell types ran")


def _run(study: Study, cell: Cell) -> None:
    """Run one cell through the workflow's own steps, on the fixture of its domain."""
    raw = Path("data", cell.domain)
    if not raw.exists():
        MAKERS[kind_of(study, cell.domain)](raw)
    run_cell(study, cell, Paths(Path("results", study.study)), device="cpu")
