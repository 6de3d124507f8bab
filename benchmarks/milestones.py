"""Evaluation of a run's milestones: one process with shared frozen blocks, against one a probe and milestone.

python -m benchmarks.milestones FOLDER [MILESTONE PROBE]        what the processes of this benchmark run
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tests.methods.harness import make_backbone

from benchmarks.evaluation import settings
from benchmarks.harness import Case
from benchmarks.subjects import labelled_store
from lowdata_cpt.backbones import weights
from lowdata_cpt.data.store import Store
from lowdata_cpt.probes.evaluate import evaluate
from lowdata_cpt.probes.features import SharedBlocks
from lowdata_cpt.probes.registry import PROBES

CPU = torch.device("cpu")
TRAIN = 16


def scores(folder: Path, models: list[Path], probes: list[str], size: int) -> dict[str, Any]:
    """Return the test scores of models, evaluated one after another in this process."""
    store, plain = Store(folder / "store"), settings(TRAIN)
    plain = {key: value for key, value in plain.items() if key not in PROBES or key in probes}
    shared = SharedBlocks(weights.shared_blocks(models))
    found: dict[str, Any] = {}
    for model in models:
        vit = weights.open_export(model, size)
        results = evaluate(vit, store, plain, seed=0, device=CPU, precision="fp32", shared=shared)
        found[model.name] = {name: result.metrics["test"] for name, result in results.items()}
    return found


def process(folder: Path, size: int, *which: str) -> dict[str, Any]:
    """Return the scores that a process of its own finds."""
    command = [sys.executable, "-m", "benchmarks.milestones", str(folder), str(size), *which]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def one_by_one(folder: Path, size: int, milestones: int) -> dict[str, Any]:
    """Return the same scores from one process a probe and milestone."""
    found: dict[str, Any] = {}
    for i in range(milestones):
        for probe in PROBES:
            for name, of in process(folder, size, f"i{i}", probe).items():
                found.setdefault(name, {}).update(of)
    return found


def exports(folder: Path, model: str, size: int, milestones: int, trained: int = 2) -> None:
    """Write models that differ in their last blocks, as DIET-CP's milestones do."""
    vit = make_backbone(model, size)
    for i in range(milestones):
        with torch.no_grad():
            for parameter in (p for block in list(vit.blocks)[-trained:] for p in block.parameters()):
                parameter.add_(1e-3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
        weights.save_export(folder / "export" / f"i{i}", model, vit.timm_state(), {}, {})


def cases(small: bool) -> Iterator[Case]:
    """Yield the row."""
    model, size, milestones = ("vit_tiny_patch16_224", 32, 2) if small else ("vit_small_patch16_224", 64, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labelled_store(folder / "store", size, {"train": TRAIN, "val": 8, "test": 8})
        exports(folder, model, size, milestones)

        def parity(ours: dict[str, Any], other: dict[str, Any]) -> str:
            assert ours == other, "scores differ"
            return "all test scores equal"

        yield Case(
            f"evaluation of {milestones} milestones",
            "one process a probe and milestone",
            3.0,
            lambda: process(folder, size),
            lambda: one_by_one(folder, size, milestones),
            parity,
        )


if __name__ == "__main__":
    place, side, *chosen = sys.argv[1:]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    every = sorted(Path(place, "export").iterdir())
    these = [Path(place, "export", chosen[0])] if chosen else every
    print(json.dumps(scores(Path(place), these, chosen[1:] or list(PROBES), int(side))))
