"""Learning rate and weight decay as pure functions of the step: nothing to save, nothing to restore wrongly."""

from __future__ import annotations

import math

from lowdata_cpt.training.config import Optimiser, Schedule


def learning_rate(optimiser: Optimiser, schedule: Schedule, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of 0-based `step`.

    Linear warm-up (t / warm-up length, so the very first unit has rate 0 with `unit: epoch`, as in DIET-CP's code;
    (t + 1) / length with `unit: step`), then cosine to `final_lr`.
    """
    if schedule.unit == "epoch":
        now, total, offset = step // steps_per_epoch, math.ceil(steps / steps_per_epoch), 0
    else:
        now, total, offset = step, steps, 1
    warmup = int(schedule.warmup * total)
    if now < warmup:
        return optimiser.lr * (now + offset) / warmup
    cosine = 0.5 * (1 + math.cos(math.pi * (now - warmup) / max(1, total - warmup)))
    return schedule.final_lr + (optimiser.lr - schedule.final_lr) * cosine


def weight_decay(optimiser: Optimiser, step: int, steps: int) -> float:
    """Return the weight decay of 0-based `step`: constant, or a cosine from `weight_decay` to `weight_decay_end`."""
    if optimiser.weight_decay_end is None:
        return optimiser.weight_decay
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))
    return optimiser.weight_decay_end + (optimiser.weight_decay - optimiser.weight_decay_end) * cosine
