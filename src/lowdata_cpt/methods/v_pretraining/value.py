"""The value of a view and its gradient: how much an SSL step on this view lowers the downstream loss, to first order.

V = ⟨g_down, g_pre⟩ over the parameters S, g_pre = ∇_S L_pre. Both functions return V and ∂V/∂x for the tensors x
through which the designer reaches L_pre (what enters the first block of S, and the teacher's output), so that the
second derivative never leaves S and the head: from x back to φ an ordinary backward pass does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Loss = Callable[..., Tensor]


class Value(NamedTuple):
    """V (scalar) and its gradient with respect to each input; `norm` is ‖g_pre‖, None where it is not computed."""

    value: Tensor
    gradients: tuple[Tensor, ...]
    norm: Tensor | None


@contextmanager
def only_trainable(module: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let gradients reach `parameters` alone inside the block; the flags are put back after it."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    try:
        module.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Return the inner product of two lists of tensors of equal shapes."""
    return torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum()


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of a list of tensors taken as one vector."""
    length: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))
    return length


def _leaves(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [x.detach().requires_grad_(x.requires_grad) for x in inputs]


def _gradients(output: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return ∂output/∂leaf, zero for leaves that do not reach φ."""
    wanted = [x for x in leaves if x.requires_grad]
    found = iter(torch.autograd.grad(output, wanted, allow_unused=True) if wanted else ())
    return tuple(_or_zero(next(found), x) if x.requires_grad else torch.zeros_like(x) for x in leaves)


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def double_backward(
    loss: Loss, inputs: Sequence[Tensor], parameters: Sequence[Tensor], g_down: Sequence[Tensor]
) -> Value:
    """Differentiate V = ⟨g_down, ∇_S loss(*inputs)⟩ exactly, by a backward pass through the backward pass.

    The fused attention kernels have no second derivative, hence the math kernel.
    """
    leaves = _leaves(inputs)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        g_pre = torch.autograd.grad(loss(*leaves), parameters, create_graph=True)
        value = dot(g_down, g_pre)
        gradients = _gradients(value, leaves)
    return Value(value.detach(), gradients, norm([g.detach() for g in g_pre]))


def finite_difference(
    loss: Loss, inputs: Sequence[Tensor], parameters: Sequence[Tensor], g_down: Sequence[Tensor], step: float
) -> Value:
    """Differentiate V by central differences: ∂V/∂x = [∂L/∂x(S + ε g_down) − ∂L/∂x(S − ε g_down)] / 2ε.

    First derivatives only, so any attention kernel serves. ε = step / ‖g_down‖ moves S by a length of `step`;
    S is put back bit for bit.
    """
    # On the device, in the precision of a Python number: asking for its value would wait.
    epsilon = step / norm(g_down).clamp_min(torch.finfo(g_down[0].dtype).tiny).double()
    saved = [p.detach().clone() for p in parameters]
    losses: list[Tensor] = []
    sides: list[tuple[Tensor, ...]] = []
    # Only ∂L/∂x is wanted; without the flags nothing is kept for weight gradients.
    flags = [p.requires_grad for p in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for parameter, start, direction in zip(parameters, saved, g_down, strict=True):
                    parameter.copy_(start + sign * epsilon * direction)
            leaves = _leaves(inputs)
            with torch.enable_grad():
                out = loss(*leaves)
                sides.append(_gradients(out, leaves))
            losses.append(out.detach())
    finally:
        with torch.no_grad():
            for parameter, start, flag in zip(parameters, saved, flags, strict=True):
                parameter.copy_(start)
                parameter.requires_grad_(flag)
    gradients = tuple((plus - minus) / (2 * epsilon) for plus, minus in zip(*sides, strict=True))
    return Value((losses[0] - losses[1]) / (2 * epsilon).to(losses[0].dtype), gradients, None)
