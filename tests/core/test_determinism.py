from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from lowdata_cpt.core.determinism import resampling_backward


@pytest.mark.parametrize(("old", "new"), [((16, 16), (7, 7)), ((7, 7), (10, 10)), ((5, 8), (9, 3)), ((4, 4), (4, 4))])
def test_the_deterministic_gradient_of_resampling_is_pytorchs(old: tuple[int, int], new: tuple[int, int]) -> None:
    grid = torch.randn(2, 6, *old, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 6, *new, dtype=torch.float64)
    interpolate(grid, new, mode="bicubic", antialias=True).backward(upstream)
    torch.testing.assert_close(resampling_backward(upstream, new, grid.shape, False), grid.grad, atol=1e-6, rtol=1e-6)


def test_a_factor_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="expected a size"):
        resampling_backward(torch.zeros(1, 1, 2, 2), (2, 2), (1, 1, 4, 4), False, 0.5, 0.5)
