from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from lowdata_cpt.core.determinism import deterministic_kernels, resampling_backward


@pytest.mark.parametrize(("old", "new"), [((16, 16), (7, 7)), ((7, 7), (10, 10)), ((5, 8), (9, 3)), ((4, 4), (4, 4))])
def test_the_deterministic_gradient_of_resampling_is_pytorchs(old: tuple[int, int], new: tuple[int, int]) -> None:
    grid = torch.randn(2, 6, *old, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 6, *new, dtype=torch.float64)
    interpolate(grid, new, mode="bicubic", antialias=True).backward(upstream)
    torch.testing.assert_close(resampling_backward(upstream, new, grid.shape, False), grid.grad, atol=1e-6, rtol=1e-6)


def test_so_it_is_of_a_factor_and_under_autocast() -> None:
    grid = torch.randn(1, 3, 6, 5, requires_grad=True)
    options = {"scale_factor": (1.5, 0.7), "mode": "bicubic", "antialias": True}
    found = interpolate(grid, **options)  # type: ignore[arg-type]
    upstream = torch.randn_like(found)
    found.backward(upstream)
    with torch.autocast("cpu", torch.bfloat16):
        ours = resampling_backward(upstream, found.shape[2:], grid.shape, False, 1.5, 0.7)
    torch.testing.assert_close(ours, grid.grad, atol=1e-5, rtol=1e-5)


def test_another_process_gets_its_kernels_back() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        torch.use_deterministic_algorithms(False)
        with deterministic_kernels():
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
