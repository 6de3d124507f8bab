from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lowdata_cpt.core.determinism import deterministic_kernels


@pytest.fixture(autouse=True)
def cuda() -> Iterator[torch.device]:
    """Skip without a card; fp32 is exact and kernels are deterministic, as in the workflow's jobs."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with deterministic_kernels():
        yield torch.device("cuda")
    torch.backends.cudnn.allow_tf32 = before
