"""What decides the last bit of a result beside code and data: thread count and deterministic kernels."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def deterministic(threads: int) -> None:
    """Fix both for this process; before anything else of torch runs."""
    import torch

    _ask_for_kernels()
    torch.set_num_threads(threads)


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Ask for deterministic kernels in somebody else's process, and give back what was asked for before."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    _ask_for_kernels()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def _ask_for_kernels() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it has not written: filling it first would be a kernel per allocation.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    _cuda_kernels()


@functools.cache
def _cuda_kernels() -> Any:
    """Put a deterministic kernel where PyTorch has none; return what keeps it there as long as the process lives."""
    from torch.library import Library

    library = Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    library.impl("_upsample_bicubic2d_aa_backward", resampling_backward, "CUDA")  # type: ignore[no-untyped-call]
    return library


def resampling_backward(
    gradient: Tensor,
    output_size: Sequence[int],
    input_size: Sequence[int],
    align_corners: bool,
    scale_height: float | None = None,
    scale_width: float | None = None,
) -> Tensor:
    """Return the gradient of antialiased bicubic resampling, as timm resamples position embeddings.

    PyTorch's kernel on CUDA adds up in any order, so that a run that is resumed would end in other bits. The resampling
    is linear along each axis, hence two matrix products.

    Args:
        gradient: [B, C, *output_size].
        output_size: height and width of what was resampled to.
        input_size: B, C, height and width of what was resampled.
        align_corners, scale_height, scale_width: as `torch.nn.functional.interpolate` hands them on.

    Returns:
        [B, C, height, width].
    """
    import torch

    kind = align_corners, gradient.device, gradient.dtype
    axes = zip(input_size[2:], output_size, (scale_height, scale_width), strict=True)
    rows, columns = (_resampling(old, new, scale, *kind) for old, new, scale in axes)
    # A backward pass may be called under autocast, whose products are rounded to bfloat16.
    with torch.autocast(gradient.device.type, enabled=False):
        return rows.T @ gradient @ columns


@functools.cache
def _resampling(
    old: int, new: int, scale: float | None, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the matrix [new, old] that resamples one axis; kept, since a copy to a device waits for it."""
    import torch

    unit = torch.eye(old, dtype=torch.float64, device="cpu")[None, None]
    found: Tensor = torch.ops.aten._upsample_bicubic2d_aa(unit, (new, old), align_corners, scale, None)
    return found[0, 0].to(device, dtype)
