"""Every learner and arm of a language study for two steps on tiny fixtures, on the CPU, by the workflow's own steps."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.dev.scale_down import fixtures_in, try_each
from lowdata_cpt.language import text
from lowdata_cpt.language.config import Hub, LanguageStudy, Source, validate
from lowdata_cpt.language.plan import (
    Cell,
    Paths,
    base_of,
    base_params,
    cells,
    continue_params,
    data_params,
    evaluate_params,
)

REDUCED = (
    "random weights of the same architecture, hidden 32, 3 layers, over bytes; windows of 128; generated problems in "
    "the sets' layout; 2 steps; the designer hidden 16, 1 layer, 8 candidates; bf16 stays"
)


def architecture(name: str) -> str:
    """Return the architecture of a hub name: Qwen1.5's and Qwen2.5's is qwen2."""
    return "qwen2" if name.rpartition("/")[2].lower().startswith("qwen") else "llama"


def fixture(source: Source, root: Path, kinds: tuple[str, ...], name: str, count: int) -> None:
    """Write generated problems in the layout of a set of the hub, as JSON lines."""
    folder = root / source.name.rpartition("/")[2]
    path = (folder / source.files.replace("*", "00000")).with_suffix(".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = [text.problems(kind, 0, name, frozenset()) for kind in kinds]
    rows = [next(drawn[i % len(drawn)]) for i in range(count)]
    path.write_text("".join(json.dumps({source.question: p.question, source.answer: p.answer}) + "\n" for p in rows))


def reduced(study: LanguageStudy) -> LanguageStudy:
    """Return the study with every learner and arm, and little of everything else."""
    raw: dict[str, Any] = study.model_dump(mode="json", exclude={"resources"})
    raw |= {"study": "scale_down", "seeds": [study.seeds[0]], "feedback": 16, "keep_models": True}
    raw["evaluation"] |= {"problems": 4, "prose_windows": 2, "new_tokens": 4, "batch_size": 2}
    raw["designer"] |= {
        "hidden": 16,
        "heads": 2,
        "layers": 1,
        "candidates": 8,
        "every": 1,
        "burn_in": 0,
        "value_batch": 1,
        "feedback_batch": 2,
    }
    for source in ("stream", "feedback", "test"):
        if study.data.kind == "hub":
            raw["data"][source]["files"] = str(Path(raw["data"][source]["files"]).with_suffix(".jsonl"))
    if study.data.kind == "generated":
        raw["data"] |= {"pretraining_tokens": 4000, "stream_tokens": 4000}
    small = {"steps": 2, "epochs": None, "batch_size": 4, "milestones": 2}
    for learner in raw["learners"].values():
        model = learner["model"]
        kind = architecture(model["name"]) if model["kind"] == "hub" else model["architecture"]
        learner["model"] = {
            "kind": "bytes",
            "architecture": kind,
            "hidden": 32,
            "layers": 3,
            "heads": 2,
            "intermediate": 64,
        }
        learner["window"] = 128
        learner["training"] |= small | {"accumulation": min(2, learner["training"]["accumulation"])}
        learner["pretraining"] = (learner["pretraining"] or {}) | small | {"accumulation": 1}
    return validate(raw, "the study scaled down")


def run(study: LanguageStudy, only: str | None = None) -> None:
    """Run every cell type (those whose name contains `only`) and print a line for each.

    Raises:
        UserError: some failed, or none has such a name.
    """
    from lowdata_cpt.language import jobs

    small = reduced(study)
    chosen = [cell for cell in cells(small) if only is None or only in cell.name]
    if not chosen:
        raise UserError(f"study {study.study!r}: no cell type to try with {only!r} in its name")
    print(f"reduced: {REDUCED}")
    paths = Paths("results/scale_down")

    def run_cell(cell: Cell) -> None:
        jobs.continue_cell(continue_params(small, cell), cell, paths, device="cpu")
        jobs.evaluate_cell(evaluate_params(small, cell), cell, paths, device="cpu")

    with tempfile.TemporaryDirectory() as folder, fixtures_in(Path(folder)):
        if isinstance(small.data, Hub):
            fixture(small.data.stream, Path("data"), ("gain", "total", "earn"), "stream", 64)
            fixture(small.data.feedback, Path("data"), ("change",), "feedback", 24)
            fixture(small.data.test, Path("data"), ("left",), "test", 8)
        for learner in dict.fromkeys(cell.learner for cell in chosen):
            jobs.make_data(data_params(small, learner), learner, paths)
            jobs.make_base(base_params(small, learner), learner, paths, device="cpu", checkpoint_seconds=300.0)
            start = base_of(learner)
            jobs.evaluate_cell(evaluate_params(small, start), start, paths, device="cpu")
        try_each((cell.name, "", partial(run_cell, cell)) for cell in chosen)
