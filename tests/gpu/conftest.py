from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lowdata_cpt.core.determinism import deterministic


@pytest.fixture(autouse=True)
def cuda() -> Iterator[torch.device]:
    """Skip without a card; fp32 is exact and kernels are deterministic, as in the workflow's jobs."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.backends.cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.backends.cudnn.allow_tf32 = False
    deterministic(threads=2)
    yield torch.device("cuda")
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.use_deterministic_algorithms(before[1])
    torch.set_num_threads(before[2])
