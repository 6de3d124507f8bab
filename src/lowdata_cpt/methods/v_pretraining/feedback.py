"""Downstream feedback: labelled images in two disjoint parts, and the linear heads that turn labels into losses.

L_down = α_seg CE(seg(P), labels) + α_dep mean |dep(P) − depth| over valid pixels; P: patch tokens after the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.core.device import fits
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.training import sampling
from lowdata_cpt.training.learner import Feedback
from lowdata_cpt.vision.augment import send

Part = Literal["train", "meta"]


class Batch(NamedTuple):
    """Images [B, 3, S, S] in [0, 1]; class ids [B, S, S] or None; metres [B, S, S], 0 where not valid, or None."""

    images: Tensor
    segmentation: Tensor | None
    depth: Tensor | None


def split_feedback(sha256: Sequence[str], train: float, meta: float, seed: int) -> dict[Part, list[int]]:
    """Split images into disjoint parts of the given fractions; copies of one image stay on one side.

    Raises:
        UserError: there are fewer than two different images.
    """
    different = sorted(set(sha256))
    count = len(different)
    if count < 2:
        raise UserError(
            f"v_pretraining: {count} different feedback image(s); expected at least 2 labelled train images"
        )
    order = torch.randperm(count, generator=sampling.generator(seed, "feedback split")).tolist()
    n_meta = min(max(1, round(meta * count)), count - 1)
    n_train = min(max(1, round(train * count)), count - n_meta)
    hashes: dict[Part, set[str]] = {
        "meta": {different[i] for i in order[:n_meta]},
        "train": {different[i] for i in order[n_meta : n_meta + n_train]},
    }
    parts: dict[Part, list[int]] = {
        part: [i for i, h in enumerate(sha256) if h in chosen] for part, chosen in hashes.items()
    }
    assert not {sha256[i] for i in parts["train"]} & {sha256[i] for i in parts["meta"]}
    return parts


class FeedbackPool:
    """The labelled images at the training size, split once."""

    def __init__(self, feedback: Feedback, size: int, train: float, meta: float, seed: int) -> None:
        """Resize images (antialiased) and labels (nearest) to S = `size` and split them.

        Raises:
            UserError: no labels of either task, too few images, or a class id outside 0..classes − 1.
        """
        if feedback.segmentation is None and feedback.depth is None:
            raise UserError("v_pretraining: the domain has neither segmentation nor depth labels; expected one of them")
        self.parts = split_feedback(feedback.sha256, train, meta, seed)
        self.classes, self.ignore_index = feedback.classes, feedback.ignore_index
        images = torch.from_numpy(np.ascontiguousarray(feedback.images)).permute(0, 3, 1, 2)
        if images.shape[-2:] != (size, size):
            resized = [
                F.interpolate(x[None].float(), (size, size), mode="bilinear", antialias=True).round() for x in images
            ]
            images = torch.cat(resized).clamp(0, 255).to(torch.uint8)
        self.images, self.device = images, images.device
        self.segmentation = None if feedback.segmentation is None else _labels(feedback.segmentation, size)
        self.depth = None if feedback.depth is None else _labels(feedback.depth, size)
        if self.segmentation is not None:
            known = (self.segmentation < self.classes) | (self.segmentation == self.ignore_index)
            if not known.all():
                raise UserError(
                    f"v_pretraining: feedback segmentation has class {int(self.segmentation[~known][0])}; "
                    f"expected 0..{self.classes - 1} or {self.ignore_index}"
                )
        if self.depth is not None:
            low, high = feedback.depth_range
            valid = self.depth.isfinite() & (self.depth >= low) & (self.depth <= high) & (self.depth > 0)
            self.depth = torch.where(valid, self.depth, 0.0)

    def median_depth(self) -> float:
        """Return the median of the valid depths of the train part in metres; 1 where nothing is valid."""
        assert self.depth is not None
        depth = self.depth[self.parts["train"]]
        valid = depth[depth > 0]
        return float(valid.median()) if len(valid) else 1.0

    def _move(self, device: torch.device) -> None:
        """Let images and labels lie on a device, all of them or none, instead of being copied at every draw."""
        wanted = [t for t in (self.images, self.segmentation, self.depth) if t is not None]
        if fits(sum(t.nbytes for t in wanted), device):
            self.images = self.images.to(device)
            self.segmentation = None if self.segmentation is None else self.segmentation.to(device)
            self.depth = None if self.depth is None else self.depth.to(device)
        self.device = device

    def draw(self, part: Part, count: int, generator: torch.Generator, like: Tensor) -> Batch:
        """Draw at most `count` different images of a part, on the device and in the dtype of `like`."""
        if self.device != like.device:
            self._move(like.device)
        members = torch.tensor(self.parts[part])
        chosen = send(members[torch.randperm(len(members), generator=generator)[:count]], self.images.device)
        images = self.images[chosen].to(like.device).to(like.dtype).div_(255)
        segmentation = None if self.segmentation is None else self.segmentation[chosen].to(like.device).long()
        depth = None if self.depth is None else self.depth[chosen].to(like.device).to(like.dtype)
        return Batch(images, segmentation, depth)


def _labels(labels: np.ndarray, size: int) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(labels))
    if tensor.shape[-2:] == (size, size):
        return tensor
    return F.interpolate(tensor[:, None].float(), (size, size), mode="nearest-exact")[:, 0].to(tensor.dtype)


class FeedbackHeads(nn.Module):
    """One linear layer per task on patch tokens, bilinearly upsampled to the labels."""

    def __init__(self, width: int, pool: FeedbackPool) -> None:
        super().__init__()
        self.ignore_index = pool.ignore_index
        self.tasks = nn.ModuleDict()
        if pool.segmentation is not None:
            self.tasks["segmentation"] = nn.Linear(width, pool.classes)
        if pool.depth is not None:
            head = nn.Linear(width, 1)
            median = torch.tensor(pool.median_depth())
            # softplus⁻¹(median) = median + log(1 − exp(−median))
            nn.init.constant_(head.bias, float(median + torch.log(-torch.expm1(-median))))
            self.tasks["depth"] = head

    def losses(self, patches: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return each task's loss for patch tokens [B, N, D]: cross-entropy, and L1 in metres on valid pixels.

        A batch without any valid pixel gives 0.
        """
        losses = {}
        if "segmentation" in self.tasks:
            assert batch.segmentation is not None
            logits = self.predict("segmentation", patches, batch.segmentation.shape[-1])
            total = F.cross_entropy(logits, batch.segmentation, ignore_index=self.ignore_index, reduction="sum")
            losses["segmentation"] = total / (batch.segmentation != self.ignore_index).sum().clamp_min(1)
        if "depth" in self.tasks:
            assert batch.depth is not None
            metres = F.softplus(self.predict("depth", patches, batch.depth.shape[-1])[:, 0])
            valid = batch.depth > 0
            losses["depth"] = ((metres - batch.depth).abs() * valid).sum() / valid.sum().clamp_min(1)
        return losses

    def predict(self, task: str, patches: Tensor, size: int) -> Tensor:
        """Return the head's output [B, C, size, size] for patch tokens [B, N, D] of a square grid."""
        grid = round(patches.shape[1] ** 0.5)
        out = self.tasks[task](patches).transpose(1, 2).unflatten(2, (grid, grid))
        return F.interpolate(out, (size, size), mode="bilinear", align_corners=False)
