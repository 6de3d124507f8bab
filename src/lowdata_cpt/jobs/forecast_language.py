"""What a language study will cost before it is run, as `forecast` says it of the others. No torch, no data needed.

A pass forward over a token takes 2 P operations for P weights, the backward pass to the activations as many again, and
that to the weights as many. Attention between tokens is left out: at these windows it is a few per cent.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json
from lowdata_cpt.jobs.forecast import Assumptions, Forecast
from lowdata_cpt.language.config import ByteModel, Designer, Generated, HubModel, LanguageStudy, Learner, Length
from lowdata_cpt.language.data import MANIFEST
from lowdata_cpt.language.plan import Paths, cells
from lowdata_cpt.language.results import DESIGNED
from lowdata_cpt.language.tokens import ByteTokens, model_folder

BLOCKS = 24
"""Blocks of a released model, for the share of them that V is taken on: Qwen2.5-0.5B and Qwen1.5-0.5B have 24."""
PROBLEM = 200
"""Tokens of a solved problem, where none is counted yet."""
STREAM = 400_000_000
"""Tokens of a stream of the hub, where none is counted yet: some 860,000 solutions of NuminaMath-CoT."""


def weights_of(model: ByteModel | HubModel) -> float:
    """Return the number of a model's weights.

    Raises:
        UserError: neither its name nor local files say it.
    """
    if isinstance(model, ByteModel):
        block = 4 * model.hidden**2 + 3 * model.hidden * model.intermediate + 2 * model.hidden
        return float(model.layers * block + (ByteTokens.size + 1) * model.hidden)
    if said := re.search(r"(\d+(?:\.\d+)?)([BM])(?![a-z])", model.name.rpartition("/")[2]):
        return float(said[1]) * {"B": 1e9, "M": 1e6}[said[2]]
    files = list(model_folder(model).glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{model.name}: its name has no size such as 0.5B; expected its files in {model_folder(model)} to forecast"
        )
    return sum(file.stat().st_size for file in files) / 2  # released in half precision


def _counted(manifest: Path) -> dict[str, tuple[int, int]]:
    """Return windows and tokens of each split, empty before they are made."""
    if not manifest.exists():
        return {}
    try:
        shape = {name: (int(one[0]), int(one[1])) for name, one in read_json(manifest)["shape"].items()}
        return {"problems": shape["problems"], **shape}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{manifest}: damaged, expected the splits' shapes; delete it, and the run makes them again"
        ) from None


def windows_of(study: LanguageStudy, learner: Learner, shape: dict[str, tuple[int, int]], name: str) -> int:
    """Return how many windows a learner's stream (or pretraining) has, counted or estimated."""
    if name in shape:
        return shape[name][0]
    tokens = getattr(study.data, f"{name}_tokens") if isinstance(study.data, Generated) else STREAM
    return max(1, math.ceil(tokens / learner.window))


def step_operations(
    of: Learner, arm: str, designer: Designer, length: Length, problem: int, fp32_slowdown: float = 1.0
) -> float:
    """Return the operations of one optimiser step of an arm, those of fp32 counted as often as they are slower.

    Args:
        of: the learner.
        arm: its arm.
        designer: φ's settings.
        length: batch and accumulation.
        problem: tokens of a solved problem.
        fp32_slowdown: how many times slower than those of bf16 they are; φ and V are always fp32.
    """
    weights, tokens = weights_of(of.model), length.batch_size * of.window
    slow = fp32_slowdown if length.precision == "fp32" else 1.0
    own = slow * (4 if of.lora else 6) * weights * tokens
    if arm not in DESIGNED:
        return own
    phi = (16 * designer.layers + 3) * designer.hidden**2
    looked_up = 2 * phi + 2 * designer.candidates * designer.hidden
    share = designer.last_layers / (of.model.layers if isinstance(of.model, ByteModel) else BLOCKS)
    # V: candidates, then a graph that is walked back twice through S, and φ with its gradient; the feedback: its
    # gradient on S, and L_down once more after the step.
    value = min(designer.value_batch, length.batch_size // length.accumulation) * of.window
    taught = value * ((4 + 12 * share) * weights + 6 * phi)
    taught += designer.feedback_batch * problem * (4 + 4 * share) * weights
    return own + fp32_slowdown * (looked_up * tokens + taught / designer.every)


def evaluation_seconds(study: LanguageStudy, of: Learner, problem: int, assumptions: Assumptions) -> float:
    """Return the seconds that one milestone takes: greedy answers, then NLLs of answers and prose."""
    weights, asked = weights_of(of.model), study.evaluation
    rate = assumptions.tflops * 1e12 / assumptions.fp32_slowdown
    batch = min(asked.batch_size, asked.problems)
    # A token of a batch takes its operations, or the time to read every weight, whichever is longer.
    token = max(2 * weights * batch / rate, 4 * weights / (assumptions.gbytes * 1e9))
    read = 2 * asked.problems * problem + asked.prose_windows * of.window
    return math.ceil(asked.problems / batch) * asked.new_tokens * token + 2 * weights * read / rate


def forecast(study: LanguageStudy, paths: Paths, assumptions: Assumptions) -> Forecast:
    """Forecast a language study that has not run; whatever is done already is counted too.

    Raises:
        UserError: the size of a released model is not known.
    """
    found, start = Forecast(study.study, study.resources.gpu), assumptions.startup
    found.disk = dict.fromkeys(("starts", "windows of tokens", "models kept", "at work, one cell"), 0.0)
    for name, of in study.learners.items():
        shape = _counted(paths.data(name) / MANIFEST)
        problem = shape["problems"][1] if shape else min(PROBLEM, of.window)
        weights, own = weights_of(of.model), [cell for cell in cells(study) if cell.learner == name]
        scoring = evaluation_seconds(study, of, problem, assumptions)

        def seconds(length: Length, arm: str, windows: int, of: Learner = of, problem: int = problem) -> float:
            work = step_operations(of, arm, study.designer, length, problem, assumptions.fp32_slowdown)
            return assumptions.startup + work * length.training(windows).steps(windows) / (assumptions.tflops * 1e12)

        found.add("language_data", start)
        if of.pretraining:
            seen = windows_of(study, of, shape, "pretraining")
            found.add("language_base", seconds(of.pretraining, "next_token", seen))
        else:
            found.add("language_base", start + 60.0)
        windows = windows_of(study, of, shape, "stream")
        for cell in own:
            found.add("language_continue", seconds(of.training, cell.arm, windows))
        for milestones in (1, *(of.training.milestones for _ in own)):
            found.add("language_evaluate", start + milestones * scoring)
        kept = 4.0 * weights * of.training.milestones
        found.disk["starts"] += 4.0 * weights
        found.disk["windows of tokens"] += 4.0 * (of.window + 1) * windows
        found.disk["models kept"] += kept * len(own) if study.keep_models else 0.0
        found.disk["at work, one cell"] = max(found.disk["at work, one cell"], kept + 12.0 * weights)
    if not isinstance(study.data, Generated):
        found.notes.append(
            f"streams, where their windows are not counted yet, of {STREAM:,} tokens; problems of {PROBLEM}"
        )
    for rule in ("language_collect", "language_report"):
        found.add(rule, start)
    found.add("all", 0.0)
    return found
