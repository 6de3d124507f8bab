"""The parts of DINO (arXiv 2104.14294) that several methods share: crops, head, centre, cross-entropy, EMA teacher."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.vision import augment


class DINOHead(nn.Module):
    """Projection head: MLP, l2-normalised bottleneck, last layer with rows of unit length and no bias (section 3.1).

    Args:
        width: D, width of the features.
        prototypes: K, number of outputs.
        hidden: width of the MLP's hidden layers.
        bottleneck: width of the l2-normalised layer before the prototypes.
        layers: number of linear layers of the MLP.
    """

    def __init__(
        self, width: int, prototypes: int, *, hidden: int = 2048, bottleneck: int = 256, layers: int = 3
    ) -> None:
        super().__init__()
        widths = [width, *[hidden] * (layers - 1), bottleneck]
        modules: list[nn.Module] = []
        for i, (inside, outside) in enumerate(pairwise(widths)):
            linear = nn.Linear(inside, outside)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            modules += [linear] if i == layers - 1 else [linear, nn.GELU()]
        self.mlp = nn.Sequential(*modules)
        self.last = nn.Linear(bottleneck, prototypes, bias=False)

    def forward(self, x: Tensor, freeze_last: bool = False) -> Tensor:
        """Map features [..., D] to logits [..., K]; `freeze_last` keeps gradients from the prototypes."""
        x = F.normalize(self.mlp(x), dim=-1, eps=1e-6)
        weight = self.last.weight.detach() if freeze_last else self.last.weight
        return F.linear(x, F.normalize(weight, dim=1))


class Centre(nn.Module):
    """Running mean c [K] of the teacher's logits: c ← m c + (1 − m) mean (equation 4).

    Args:
        prototypes: K.
        momentum: m.
        start: "zero", as in DINO's code, or "first_batch": the mean of the first logits. From zero, the logits' common
            part is the strongest signal until the centre has caught up (tens of steps), and a short run ends there.
    """

    centre: Tensor
    started: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9, start: Literal["zero", "first_batch"] = "zero") -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(prototypes))
        self.register_buffer("started", torch.tensor(start == "zero"))

    def begin(self, teacher_logits: Tensor) -> None:
        """Set the centre to the mean of the first logits [..., K], where it is to start there; later: nothing."""
        if not self.started:
            self._move(teacher_logits, 1.0)
            self.started.fill_(True)

    def update(self, teacher_logits: Tensor) -> None:
        """Move towards the mean of logits [..., K] of all processes; no logits anywhere leave the centre as it is."""
        self._move(teacher_logits, 1 - self.momentum)

    @torch.no_grad()
    def _move(self, teacher_logits: Tensor, share: float) -> None:
        flat = teacher_logits.float().reshape(-1, teacher_logits.shape[-1])
        total = torch.cat([flat.sum(0), flat.new_tensor([float(len(flat))])])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        if total[-1] > 0:
            self.centre.lerp_(total[:-1] / total[-1], share)

    @torch.no_grad()
    def probabilities(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return p_t = softmax((g_t − c)/τ_t) of logits [..., K] in float32, without gradient."""
        return F.softmax((teacher_logits.float() - self.centre) / temperature, dim=-1)


def soft_cross_entropy(student_logits: Tensor, teacher_probs: Tensor, temperature: float = 0.1) -> Tensor:
    """Return −Σ_k p_t log softmax(g_s/τ_s) per row: [..., K], [..., K] -> [...], in float32."""
    return -(teacher_probs * F.log_softmax(student_logits.float() / temperature, dim=-1)).sum(-1)


def dino_loss(
    student_logits: Tensor, teacher_probs: Tensor, temperature: float = 0.1, *, same_view: bool = False
) -> Tensor:
    """Return the mean of −Σ p_t log p_s over pairs of views and images (equation 2 and algorithm 1).

    Args:
        student_logits: [Vs, B, K]; the first Vt views are the teacher's, in the same order.
        teacher_probs: [Vt, B, K], without gradient (see `Centre.probabilities`).
        temperature: τ_s of the student.
        same_view: keep the pairs in which student and teacher see the same view.
    """
    log_student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    with torch.autocast(student_logits.device.type, enabled=False):  # einsum would round the sums to bfloat16
        pairs = -torch.einsum("tbk,sbk->ts", teacher_probs, log_student) / student_logits.shape[1]
    counted = torch.ones_like(pairs, dtype=torch.bool)
    if not same_view:
        counted.fill_diagonal_(False)
    return pairs[counted].mean()


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set every parameter θ' of the teacher to m θ' + (1 − m) θ, and copy the buffers."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
    for theirs, ours in zip(teacher.buffers(), student.buffers(), strict=True):
        theirs.copy_(ours)


def cosine(start: float, end: float, fraction: float) -> float:
    """Return the value at `fraction` of a half cosine from `start` to `end`: EMA momentum (DINO: .996 to 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, fraction))) / 2


def teacher_temperature(start: float, end: float, warmup: float, fraction: float) -> float:
    """Return τ_t at `fraction` of the run: linear from `start` to `end` over the first `warmup`, then constant."""
    return end if fraction >= warmup else start + (end - start) * fraction / warmup


def local_crop_size(image_size: int, patch_size: int, reference: int = 96) -> int:
    """Return DINO's local crop side, `reference` px at 224, scaled with the image and rounded to whole patches."""
    return max(1, round(reference * image_size / 224 / patch_size)) * patch_size


class Crops(NamedTuple):
    """Views of a batch and where they come from; images are in [0, 1], not yet normalised.

    Attributes:
        globals: two tensors [B, 3, S, S].
        locals: `n_local` tensors [B, 3, s, s].
        boxes: [2 + n_local, B, 4] top, left, height, width of each view in pixels of the given images.
        flips: bool [2 + n_local, B], whether a view is mirrored left to right after cropping.
    """

    globals: list[Tensor]
    locals: list[Tensor]
    boxes: Tensor
    flips: Tensor


def dino_colours(x: Tensor, generator: torch.Generator, blur: float, solarize: float) -> Tensor:
    """Jitter (.4, .4, .2, .1) with p .8, grayscale .2, blur and solarize with the given probabilities."""
    x = augment.color_jitter(x, generator, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
    x = augment.random_grayscale(x, generator, p=0.2)
    if blur > 0:
        x = augment.random_blur(x, generator, p=blur)
    return augment.random_solarize(x, generator, p=solarize) if solarize > 0 else x


def multi_crop(
    images: Tensor,
    generator: torch.Generator,
    image_size: int,
    local_size: int = 0,
    n_local: int = 0,
    *,
    global_scale: tuple[float, float] = (0.25, 1.0),
    local_scale: tuple[float, float] = (0.05, 0.25),
) -> Crops:
    """Cut two global and `n_local` local views with DINO's augmentation (blur 1, .1, .5; solarize 0, .2, 0).

    Args:
        images: [B, 3, H, W] in [0, 1].
        generator: CPU generator of all the random numbers.
        image_size: S, side of the global views in pixels.
        local_size: side of the local views, a multiple of the patch size (see `local_crop_size`).
        n_local: number of local views.
        global_scale, local_scale: area of a crop as a fraction of the image.
    """
    views, boxes, flips = [], [], []
    for i in range(2 + n_local):
        size, scale = (image_size, global_scale) if i < 2 else (local_size, local_scale)
        boxes.append(augment.random_boxes(len(images), images.shape[-2], images.shape[-1], generator, scale))
        flips.append(augment.random_flips(len(images), generator))
        view = augment.crop_resize(images, boxes[-1], size, flips[-1], mode="bicubic")
        blur, solarize = ((1.0, 0.0), (0.1, 0.2), (0.5, 0.0))[min(i, 2)]
        views.append(dino_colours(view, generator, blur, solarize))
    return Crops(views[:2], views[2:], torch.stack(boxes), torch.stack(flips))
