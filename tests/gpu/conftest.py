from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def cuda() -> Iterator[torch.device]:
    """Skip without a card; fp32 is exact, as in the workflow's jobs."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device("cuda")
    torch.backends.cudnn.allow_tf32 = before
