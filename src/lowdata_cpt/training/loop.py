"""The one training loop. It knows nothing of any method but the five hooks of `methods.learner.Learner`."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.training import checkpoint, sampling, schedule
from lowdata_cpt.training.config import Optimiser, Recipe, Training
from lowdata_cpt.training.learner import Learner, Progress
from lowdata_cpt.training.log import ProgressLine, StepLog
from lowdata_cpt.vision.augment import send
from lowdata_cpt.vision.images import to_float

EXIT_INTERRUPTED = 75
STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class InterruptedRunError(Exception):
    """The run was asked to stop and has saved its state; started again, it resumes from there."""


@dataclass(frozen=True)
class Result:
    """What a finished run cost and how it went; `milestones` is images seen -> seconds of training until then."""

    steps: int
    images_seen: int
    seconds: float
    trainable_parameters: int
    log: pd.DataFrame
    milestones: dict[int, float]

    def cost(self) -> dict[str, Any]:
        """Return all but the log, as cost.json holds it."""
        return {
            "images_seen": self.images_seen,
            "train_seconds": round(self.seconds, 3),
            "steps": self.steps,
            "trainable_parameters": self.trainable_parameters,
            "milestones": {str(images): round(seconds, 3) for images, seconds in self.milestones.items()},
        }


def parameter_groups(learner: Learner, optimiser: Optimiser) -> list[dict[str, object]]:
    """Split trained parameters into decayed and not decayed (vectors: norms, biases, layer scales), in fixed order.

    Parameters of the method's own optimisers are left to them.
    """
    own = {id(p) for o in learner.own_optimisers().values() for group in o.param_groups for p in group["params"]}
    trained = [p for p in learner.parameters() if p.requires_grad and id(p) not in own]
    decayed = [p for p in trained if optimiser.decay_norm_and_bias or p.ndim > 1]
    ids = {id(p) for p in decayed}
    rest = [p for p in trained if id(p) not in ids]
    return [{"params": group, "decay": decay} for group, decay in ((decayed, True), (rest, False)) if group]


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGUSR2 (SLURM's warning), SIGTERM and SIGINT (a person's Ctrl-C) instead of dying from them.

    Python gives signals to its main thread alone: a run in another one is not asked to stop.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.signal(number, lambda number, _: received.append(number)) for number in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_finite(parts: dict[str, float], norm: float, step: int, folder: Path) -> None:
    if not (math.isfinite(parts["loss"]) and math.isfinite(norm)):
        what, parts = ("gradient" if math.isfinite(parts["loss"]) else "loss"), parts | {"gradient_norm": norm}
        values = ", ".join(f"{name} = {value:.4g}" for name, value in parts.items())
        raise UserError(
            f"the {what} is not finite at step {step} ({values}); the last good state is kept in "
            f"{folder}. Lower the learning rate or use precision fp32"
        )


class Run:
    """One cell's training: learner, optimisers and where its state lives."""

    def __init__(
        self,
        learner: Learner,
        images: NDArray[Any],
        method: Recipe,
        training: Training,
        *,
        seed: int,
        device: torch.device,
        folder: Path,
        identity: str,
        checkpoint_seconds: float = 300.0,
        label: str = "",
        prepare: Callable[[Tensor], Tensor] = to_float,
        unit: str = "images",
    ) -> None:
        """Prepare a run over `images` uint8 [N, H, W, 3]; `folder` keeps its checkpoint under `identity`.

        Of a pool of anything else, `prepare` makes of its rows what the learner's `views` takes, and `unit` is what
        the progress line calls them.
        """
        self.learner, self.images, self.method, self.training = learner.to(device), images, method, training
        # At most a few thousand images: they lie on the device once, instead of being copied there at every step.
        self.pool = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self.seed, self.device, self.folder, self.identity = seed, device, folder, identity
        self.checkpoint_seconds, self.label, self.prepare, self.unit = checkpoint_seconds, label, prepare, unit
        self.epochs, self.steps_per_epoch = training.length(len(images))
        self.steps = training.steps(len(images))
        groups = parameter_groups(learner, method.optimiser)
        self.optimiser = torch.optim.AdamW(groups, lr=method.optimiser.lr, betas=method.optimiser.betas, fused=True)
        self.optimisers = {"main": self.optimiser, **learner.own_optimisers()}

    def take_step(self, step: int) -> tuple[int, dict[str, float]]:
        """Take one optimiser step; return images used and the loss parts."""
        progress = Progress(step, self.steps, step // self.steps_per_epoch, self.epochs)
        rate = schedule.learning_rate(
            self.method.optimiser, self.method.schedule, step, self.steps, self.steps_per_epoch
        )
        decay = schedule.weight_decay(self.method.optimiser, step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"], group["weight_decay"] = rate, decay if group["decay"] else 0.0
        torch.manual_seed(sampling.stream(self.seed, "global", step))
        views_generator = sampling.generator(self.seed, "views", step)
        index = sampling.batch_index(self.seed, step, len(self.images), self.training.batch_size)
        self.optimiser.zero_grad(set_to_none=True)
        shares: list[float] = []
        logged: list[Tensor] = []
        for micro in index.chunk(self.training.accumulation):
            place = send(micro, self.device)
            views = self.learner.views(self.prepare(self.pool[place]), views_generator)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
                loss, parts = self.learner.step(views, place, progress)
            shares.append(len(micro) / len(index))
            (loss * shares[-1]).backward()  # type: ignore[no-untyped-call]
            logged.append(torch.stack([value.detach().float() for value in (loss, *parts.values())]))
        clip, parameters = self.method.optimiser.clip, [p for g in self.optimiser.param_groups for p in g["params"]]
        if clip is not None:
            norm = nn.utils.clip_grad_norm_(parameters, clip)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        # One look at the device per step, before the weights change: what is logged, and whether it is finite.
        rows = torch.stack([*logged, norm.float().expand_as(logged[0])]).tolist()
        sums = {
            name: sum((share * row[i] for share, row in zip(shares, rows, strict=False)), 0.0)
            for i, name in enumerate(("loss", *parts))
        }
        _check_finite(sums, rows[-1][0], step, self.folder)
        if clip is not None:
            sums["gradient_norm"] = rows[-1][0]
        self.optimiser.step()
        self.learner.after_step(progress)
        return len(index), sums | {"lr": rate}

    def _save(self, step: int, log: StepLog) -> None:
        checkpoint.save(self.folder, self.identity, step, self.learner, self.optimisers, log.flush())

    def train(self, at_milestone: Callable[[int], None] = lambda images_seen: None) -> Result:
        """Run to the end, resuming from the checkpoint in the run's folder if there is one.

        Args:
            at_milestone: called with the images seen at each milestone of `training`, the end included, before the
                checkpoint that follows it (0: before the first step): a run killed in between calls it again for the
                same weights.

        Raises:
            InterruptedRunError: a signal asked to stop; the state is saved.
            UserError: the loss is not finite (the state before that step is saved, unless it is tainted itself); or
                the state or the log to go on from is damaged.
        """
        self.learner.train()
        start, written = checkpoint.load(self.folder, self.identity, self.learner, self.optimisers)
        log = StepLog(self.folder, start, written)
        line = ProgressLine(self.label, self.steps, start, self.unit)
        started = saved = time.monotonic()
        milestones = self.training.milestone_steps(len(self.images))
        if start == 0 and 0 in milestones:
            at_milestone(0)
        if self.training.compile:
            compile_blocks(self.learner)
        with stop_requests() as signals:
            for step in range(start, self.steps):
                if signals or time.monotonic() - saved >= self.checkpoint_seconds:
                    self._save(step, log)
                    saved = time.monotonic()
                if signals:
                    raise InterruptedRunError(
                        f"{self.label}: stopped by signal {signals[0]} before step {step}; state saved"
                    )
                try:
                    batch, parts = self.take_step(step)
                except UserError:
                    if all(v.isfinite().all() for v in self.learner.state_dict().values() if v.is_floating_point()):
                        self._save(step, log)
                    raise
                seen = self.training.images_after(step + 1, len(self.images))
                log.write(step, seen, log.seconds_before + time.monotonic() - started, parts)
                line.update(step, batch, parts)
                if step + 1 in milestones:
                    at_milestone(seen)
                    self._save(step + 1, log)
                    saved = time.monotonic()
        seconds = log.seconds_before + (time.monotonic() - started)
        trained = sum(p.numel() for p in self.learner.parameters() if p.requires_grad)
        spent = {0: 0.0} if 0 in milestones else {}
        spent |= {row["images_seen"]: row["seconds"] for row in log.rows() if row["step"] + 1 in milestones}
        return Result(
            self.steps, self.training.images_after(self.steps, len(self.images)), seconds, trained, log.frame(), spent
        )


def compile_blocks(learner: Learner) -> None:
    """Compile the transformer blocks in place (state-dict names stay as they are).

    Raises:
        UserError: the method differentiates twice through its blocks, which compiled blocks cannot.
    """
    if not learner.compilable:
        raise UserError(
            f"training.compile: {type(learner).__name__} needs double backward; set `compile: false` for it"
        )
    for module in learner.modules():
        blocks = getattr(module, "blocks", None)
        if isinstance(blocks, nn.ModuleList | nn.Sequential):
            for block in blocks:
                block.compile()
