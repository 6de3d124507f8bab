"""Which images step k sees, and the random streams of step k, as pure functions of (seed, k).

A run that resumes at step k therefore needs no saved generator: it draws the very numbers it would have drawn.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def stream(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the named random stream of a run."""
    text = ":".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator for the named random stream of a run."""
    return torch.Generator().manual_seed(stream(seed, *names))


def batch_index(seed: int, step: int, n_images: int, batch_size: int) -> Tensor:
    """Return the images of 0-based `step`: int64 [B]; each epoch is a new permutation, its last batch may be small."""
    steps_per_epoch = -(-n_images // batch_size)
    epoch, within = divmod(step, steps_per_epoch)
    order = torch.randperm(n_images, generator=generator(seed, "epoch", epoch))
    return order[within * batch_size : (within + 1) * batch_size]
