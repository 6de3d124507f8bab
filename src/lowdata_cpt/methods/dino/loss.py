"""DINO's loss (arXiv 2104.14294; shared with GLARE and V-pretraining): a centred teacher's cross-entropy."""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.vision.augment import send


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
        self.has_started = start == "zero"  # the buffer's value, known without asking the device
        self.register_load_state_dict_post_hook(_read_started)  # type: ignore[no-untyped-call]

    def begin(self, teacher_logits: Tensor) -> None:
        """Set the centre to the mean of the first logits [..., K], where it is to start there; later: nothing."""
        if not self.has_started:
            self._move(teacher_logits, 1.0)
            self.started.fill_(True)
            self.has_started = True

    def update(self, teacher_logits: Tensor) -> None:
        """Move towards the mean of logits [..., K] of all processes; no logits anywhere leave the centre as it is."""
        self._move(teacher_logits, 1 - self.momentum)

    @torch.no_grad()
    def _move(self, teacher_logits: Tensor, weight: float) -> None:
        flat = teacher_logits.float().reshape(-1, teacher_logits.shape[-1])
        total = torch.cat([flat.sum(0), flat.new_full((1,), float(len(flat)))])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        # Without a branch on the count, which lies on the device: no logits anywhere are no move.
        mean = torch.where(total[-1] > 0, total[:-1] / total[-1], self.centre)
        self.centre.lerp_(mean, weight)

    @torch.no_grad()
    def probabilities(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return p_t = softmax((g_t − c)/τ_t) of logits [..., K] in float32, without gradient."""
        return F.softmax((teacher_logits.float() - self.centre) / temperature, dim=-1)


def _read_started(centre: nn.Module, _: object) -> None:
    """Take over whether a loaded centre has started."""
    assert isinstance(centre, Centre)
    centre.has_started = bool(centre.started)


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
    if same_view:
        return pairs.mean()
    # Indices made on the host: a mask on the device would have to be counted there first.
    counted = [t * pairs.shape[1] + s for t in range(pairs.shape[0]) for s in range(pairs.shape[1]) if s != t]
    return pairs.flatten()[send(torch.tensor(counted), pairs.device)].mean()


def teacher_temperature(start: float, end: float, warmup: float, fraction: float) -> float:
    """Return τ_t at `fraction` of the run: linear from `start` to `end` over the first `warmup`, then constant."""
    return end if fraction >= warmup else start + (end - start) * fraction / warmup
