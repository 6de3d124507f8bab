"""The machinery of the dense probes against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.probes import dense
from lowdata_cpt.probes.config import DenseConfig

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("grid", "side"), [((4, 4), (16, 16)), ((3, 5), (7, 20)), ((8, 8), (8, 8))])
def test_upsample_equals_bilinear_interpolation(grid: tuple[int, int], side: tuple[int, int]) -> None:
    z = torch.randn(2, *grid, 3, generator=generator())
    rows, columns = dense.upsampling(grid[0], side[0]), dense.upsampling(grid[1], side[1])
    expected = F.interpolate(z.permute(0, 3, 1, 2), size=side, mode="bilinear", align_corners=False)
    torch.testing.assert_close(dense.upsample(z, rows, columns), expected.permute(0, 2, 3, 1))


def test_heads_equal_batch_norm_and_a_1x1_convolution() -> None:
    heads = dense.Heads(6, 3, 2, 0.5, generator(), CPU)
    with torch.no_grad():
        heads.flat += torch.randn(heads.flat.shape, generator=generator(1))
    tokens = torch.randn(4, 5, 5, 6, generator=generator(2)) * 3 + 1
    norm, convolution = nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1)
    weight, bias, gamma, beta = heads.flat[1].detach().split([18, 3, 6, 6])
    with torch.no_grad():
        convolution.weight.copy_(weight.view(6, 3).T[..., None, None])
        convolution.bias.copy_(bias)
        norm.weight.copy_(gamma)
        norm.bias.copy_(beta)
    for training in (True, False):  # the second pass reads the running statistics of the first
        norm.train(training)
        expected = convolution(norm(tokens.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        ours = heads(tokens, training=training)
        assert ours.shape == (4, 5, 5, 2, 3)
        torch.testing.assert_close(ours[..., 1, :], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(heads(tokens, training=False, candidate=1)[..., 0, :], ours[..., 1, :])


def test_every_candidate_starts_from_the_same_head() -> None:
    heads = dense.Heads(6, 3, 4, 0.0, generator(), CPU)
    assert torch.equal(heads.flat, heads.flat[:1].expand_as(heads.flat))


def test_adamw_equals_torch_with_one_learning_rate_and_clip_per_row() -> None:
    start, lrs = torch.randn(2, 7, generator=generator()), (1e-3, 1e-1)
    ours = start.clone()
    optimiser = dense.AdamW(ours, lrs, weight_decay=0.05, clip=1.0)
    rows = [nn.Parameter(row.clone()) for row in start]
    references = [torch.optim.AdamW([row], lr=lr, weight_decay=0.05) for row, lr in zip(rows, lrs, strict=True)]
    draw = generator(1)
    for step in range(20):
        gradient = torch.randn(2, 7, generator=draw) * torch.tensor([[0.1], [10.0]])
        factor = dense.lr_factor(step, 20, 0.2)
        optimiser.step(gradient, factor)
        for row, reference, lr, g in zip(rows, references, lrs, gradient, strict=True):
            row.grad = g.clone()
            nn.utils.clip_grad_norm_([row], 1.0)
            reference.param_groups[0]["lr"] = lr * factor
            reference.step()
    torch.testing.assert_close(ours, torch.stack([row.detach() for row in rows]), rtol=1e-4, atol=1e-6)


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    factors = [dense.lr_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] < 0.001
    assert dense.lr_factor(0, 1, 0.0) == 1.0


def test_batches_are_whole_permutations_and_fit_any_size() -> None:
    drawn = torch.cat(list(dense.batches(5, 4, 10, generator()))).view(8, 5)
    assert drawn.sort(1).values.eq(torch.arange(5)).all()
    assert [len(b) for b in dense.batches(3, 8, 2, generator())] == [8, 8]


def toy(count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 2, 2, 3)).astype(np.float16), rng.normal(size=(count, 8, 8)).astype(np.float32)


def squared(maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (maps.squeeze(-1) - labels.unsqueeze(-1)).square().mean((0, 1, 2))


def test_a_candidate_does_not_depend_on_its_neighbours() -> None:
    patches, labels = toy()
    rest = {"steps": 5, "batch_size": 2}
    both = DenseConfig(lr_grid=(1e-3, 1e-2), **rest)
    alone = DenseConfig(lr_grid=(1e-2,), **rest)
    flats = [
        dense.train_heads(patches, labels, 1, squared, config, bias=0.0, seed=0, device=CPU).flat[-1]
        for config in (both, alone)
    ]
    torch.testing.assert_close(*flats)


def test_a_stride_reads_every_pixel_over_its_offsets_and_no_other() -> None:
    patches, labels = toy()
    labels = np.broadcast_to(np.arange(64, dtype=np.float32).reshape(8, 8), labels.shape).copy()
    seen: list[torch.Tensor] = []

    def loss(maps: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append(y[0])
        return squared(maps, y)

    config = DenseConfig(steps=60, batch_size=2, train_stride=4, lr_grid=(1e-3,))
    dense.train_heads(patches, labels, 1, loss, config, bias=0.0, seed=0, device=CPU)
    assert all(y.shape == (2, 2) and y[0, 1] - y[0, 0] == 4 and y[1, 0] - y[0, 0] == 32 for y in seen)
    assert len(torch.cat(seen).unique()) == 64


def test_strided_loss_is_the_full_loss_on_average() -> None:
    """The mean over all offsets of the strided outputs' loss equals the loss of all pixels."""
    z, labels = torch.randn(2, 4, 4, 1, generator=generator()), torch.randn(2, 16, 16, generator=generator(1))
    u = dense.upsampling(4, 16)
    full = (dense.upsample(z, u, u)[..., 0] - labels).square().mean()
    parts = [
        (dense.upsample(z, u[i::4], u[j::4])[..., 0] - labels[:, i::4, j::4]).square().mean()
        for i in range(4)
        for j in range(4)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), full)


def test_a_stride_larger_than_the_labels_is_an_error() -> None:
    patches, labels = toy()
    config = DenseConfig(steps=1, train_stride=9)
    with pytest.raises(UserError, match="train_stride 9 is larger than the labels' side of 8"):
        dense.train_heads(patches, labels, 1, squared, config, bias=0.0, seed=0, device=CPU)


def test_a_loss_that_is_not_finite_stops_the_probe() -> None:
    patches, labels = toy()
    with pytest.raises(UserError, match="not finite by step 99"):  # at the latest when it is looked at
        dense.train_heads(patches, labels * np.inf, 1, squared, DenseConfig(steps=150), bias=0.0, seed=0, device=CPU)
    with pytest.raises(UserError, match="not finite by step 1;"):
        dense.train_heads(patches, labels * np.inf, 1, squared, DenseConfig(steps=2), bias=0.0, seed=0, device=CPU)


@pytest.mark.parametrize("seed", range(4))
def test_strided_outputs_lie_at_the_pixels_of_their_labels(seed: int) -> None:
    """Labels that are the first head's own full-resolution output leave no error at any offset."""
    patches, _ = toy()
    heads = dense.Heads(3, 1, 1, 0.0, generator(seed), CPU)
    u = dense.upsampling(2, 8)
    with torch.no_grad():
        maps = dense.upsample(heads(torch.from_numpy(patches).float(), training=True).flatten(3), u, u)
    losses: list[float] = []

    def loss(maps: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        losses.append(squared(maps, y).item())
        return squared(maps, y)

    config = DenseConfig(steps=3, batch_size=4, train_stride=4, lr_grid=(1e-9,))
    dense.train_heads(patches, maps[..., 0].numpy(), 1, loss, config, bias=0.0, seed=seed, device=CPU)
    assert max(losses) < 1e-9
    assert maps.var() > 1e-6
