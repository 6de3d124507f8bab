"""What decides the last bit of a result beside code and data: thread count and deterministic kernels."""

from __future__ import annotations

import os


def deterministic(threads: int) -> None:
    """Fix both for this process; before anything else of torch runs."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory that it has not written: filling it first would be a kernel per allocation.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
