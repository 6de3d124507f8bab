"""Linear heads with batch norm on patch tokens, one for each learning rate, trained side by side.

A head is batch norm over channels, then a 1×1 convolution, then bilinear upsampling to the labels' pixels (the
linear head of DINOv2-style dense evaluation; V-pretraining, 2601.22108). All candidates see the same batches from
the same start, so the normalised tokens are computed once and the heads are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lowdata_cpt.core.device import fits
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.data.store import Store, Task, TaskInfo
from lowdata_cpt.probes.config import DenseConfig
from lowdata_cpt.probes.result import FeatureSet, ProbeResult
from lowdata_cpt.vision.augment import send

INIT_STD = 0.01
BN_MOMENTUM = 0.1
BETAS, EPS = (0.9, 0.999), 1e-8
EVAL_BATCH = 16
CHECK_EVERY = 100
SEED_STRIDE = 1_000_003  # between the seeds of heads whose predictions are pooled: no cell's seed is another's head

Loss = Callable[[Tensor, Tensor], Tensor]
"""(raw head outputs [B, h, w, L, C], labels [B, h, w]) -> losses [L], each the mean over valid pixels."""


def upsampling(size_in: int, size_out: int) -> Tensor:
    """Return the matrix [size_out, size_in] of bilinear interpolation along one axis (half-pixel centres)."""
    return F.interpolate(torch.eye(size_in)[None], size=size_out, mode="linear", align_corners=False)[0].T.contiguous()


def upsample(z: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate maps [B, h, w, K] at pixels given by interpolation matrices [s, h] and [t, w]: [B, s, t, K]."""
    batch, h, w, k = z.shape
    upsampled = torch.matmul(rows, z.reshape(batch, h, w * k))
    return torch.matmul(columns, upsampled.view(batch, len(rows), w, k))


class Heads:
    """L candidate heads of C outputs on tokens of width D; their weights are the rows of one matrix."""

    def __init__(
        self, width: int, outputs: int, candidates: int, bias: float, generator: torch.Generator, device: torch.device
    ) -> None:
        """Draw one head (weights N(0, 0.01²), outputs starting at `bias`) and give every candidate a copy."""
        self.shapes = {"weight": (width, outputs), "bias": (outputs,), "gamma": (width,), "beta": (width,)}
        start = (
            torch.randn(width * outputs, generator=generator) * INIT_STD,
            torch.full((outputs,), bias),
            torch.ones(width),
            torch.zeros(width),
        )
        self.flat = torch.cat(start).repeat(candidates, 1).to(device).requires_grad_()
        self.mean, self.var = torch.zeros(width, device=device), torch.ones(width, device=device)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weights [L, D, C] and biases [L, C] with batch norm's scale and shift folded in."""
        parts = torch.split(self.flat, [math.prod(shape) for shape in self.shapes.values()], dim=1)
        weight, bias, gamma, beta = (
            part.view(-1, *shape) for part, shape in zip(parts, self.shapes.values(), strict=True)
        )
        return gamma.unsqueeze(-1) * weight, bias + torch.einsum("ld,ldc->lc", beta, weight)

    def __call__(self, tokens: Tensor, *, training: bool, candidate: int | None = None) -> Tensor:
        """Map tokens [B, h, w, D] to raw outputs [B, h, w, L, C], or [B, h, w, 1, C] of one candidate."""
        width = tokens.shape[-1]
        x = F.batch_norm(tokens.reshape(-1, width), self.mean, self.var, training=training, momentum=BN_MOMENTUM)
        weight, bias = self.folded()
        if candidate is not None:
            weight, bias = weight[candidate : candidate + 1], bias[candidate : candidate + 1]
        out = torch.addmm(bias.flatten(), x, weight.permute(1, 0, 2).reshape(width, -1))
        return out.view(*tokens.shape[:-1], *bias.shape)


class AdamW:
    """AdamW (decoupled decay) on the rows of one matrix: each row has its own learning rate and gradient clip."""

    def __init__(self, flat: Tensor, lrs: tuple[float, ...], weight_decay: float, clip: float) -> None:
        self.flat, self.weight_decay, self.clip, self.t = flat, weight_decay, clip, 0
        self.lrs = torch.tensor(lrs, device=flat.device).unsqueeze(1)
        self.first, self.second = torch.zeros_like(flat), torch.zeros_like(flat)

    @torch.no_grad()
    def step(self, gradient: Tensor, factor: float) -> None:
        """Update with `gradient` [L, P] at learning rates `factor` times the peaks."""
        self.t += 1
        norm = gradient.norm(dim=1, keepdim=True)
        gradient = gradient * (self.clip / norm.clamp_min(self.clip))
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        rate = self.lrs * factor
        root = self.second.sqrt().div_(math.sqrt(1 - BETAS[1] ** self.t)).add_(EPS)
        self.flat.mul_(1 - rate * self.weight_decay)
        self.flat.sub_(rate * (self.first / (1 - BETAS[0] ** self.t)) / root)


def lr_factor(step: int, steps: int, warmup: float) -> float:
    """Return the share of the peak learning rate at 0-based `step`: linear warm-up, then cosine to zero."""
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def batches(count: int, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `steps` batches of `size` indices from a stream of seeded permutations of range(count)."""
    stream = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(stream) < size:
            stream = torch.cat([stream, torch.randperm(count, generator=generator)])
        yield stream[:size]
        stream = stream[size:]


def resident(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor, on `device` where half of its free memory holds it."""
    tensor = torch.from_numpy(array)
    return tensor.to(device) if fits(tensor.nbytes, device) else tensor


def drawn(kept: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Return rows of a tensor on `device`, wherever it lies, without waiting for the device."""
    if kept.device.type == device.type:
        return kept[send(index, kept.device)]
    return send(kept[index], device)


def train_heads(
    patches: NDArray[np.float16],
    labels: NDArray[Any],
    outputs: int,
    loss: Loss,
    config: DenseConfig,
    *,
    bias: float,
    seed: int,
    device: torch.device,
) -> Heads:
    """Train one head per learning rate of the grid on patches [N, h, w, D] and labels [N, H, W].

    With `train_stride` s > 1 the logits are interpolated only at every s-th pixel of each axis, from an offset drawn
    per step: the expected gradient is that of the full-resolution loss.

    Raises:
        UserError: `train_stride` is larger than the labels, or a loss is not finite.
    """
    side = min(labels.shape[1:])
    if config.train_stride > side:
        raise UserError(f"train_stride {config.train_stride} is larger than the labels' side of {side} pixels")
    generator = torch.Generator().manual_seed(seed)
    heads = Heads(patches.shape[-1], outputs, len(config.lr_grid), bias, generator, device)
    optimiser = AdamW(heads.flat, config.lr_grid, config.weight_decay, config.clip)
    tokens, targets = resident(patches, device), resident(labels, device)
    rows, columns = (upsampling(a, b).to(device) for a, b in zip(patches.shape[1:3], labels.shape[1:], strict=True))
    s = config.train_stride
    for step, index in enumerate(batches(len(patches), config.batch_size, config.steps, generator)):
        top, left = torch.randint(s, (2,), generator=generator).tolist()
        x = drawn(tokens, index, device).float()
        y = drawn(targets[:, top::s, left::s], index, device)
        z = heads(x, training=True)
        maps = upsample(z.flatten(3), rows[top::s], columns[left::s]).view(len(x), *y.shape[1:], *z.shape[3:])
        losses = loss(maps, y)
        # Looked at now and then, as a look waits for the device: what is not finite once stays so.
        looked_at = step % CHECK_EVERY == CHECK_EVERY - 1 or step == config.steps - 1
        if looked_at and not torch.isfinite(losses).all():
            raise UserError(f"the dense probe's loss is not finite by step {step}; lower lr_grid {config.lr_grid}")
        (gradient,) = torch.autograd.grad(losses.sum(), heads.flat)
        optimiser.step(gradient, lr_factor(step, config.steps, config.warmup))
    heads.flat.requires_grad_(False)
    return heads


@torch.inference_mode()
def predict(
    heads: Heads, patches: NDArray[np.float16], size: tuple[int, int], candidate: int, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice of images, raw outputs [B, H, W, C] at `size`) of one candidate, on `device`."""
    rows, columns = (upsampling(a, b).to(device) for a, b in zip(patches.shape[1:3], size, strict=True))
    for start in range(0, len(patches), EVAL_BATCH):
        x = torch.from_numpy(patches[start : start + EVAL_BATCH]).to(device).float()
        yield (
            slice(start, start + len(x)),
            upsample(heads(x, training=False, candidate=candidate)[..., 0, :], rows, columns),
        )


class DenseTask(Protocol):
    """What a task has to say: labels, where heads start, loss, and the outcome of a prediction on each image.

    Attributes:
        name: of the task.
        info: its sets, classes and ranges.
        outputs: channels of a head.
        metric, higher: what a learning rate is chosen by on validation.
    """

    name: Task
    info: TaskInfo
    store: Store
    outputs: int
    metric: str
    higher: bool

    def labels(self, name: str, *, counted: bool) -> NDArray[Any]: ...  # noqa: D102
    def bias(self, train: NDArray[Any]) -> float: ...  # noqa: D102
    def loss(self, maps: Tensor, labels: Tensor) -> Tensor: ...  # noqa: D102
    def predicted(self, maps: Tensor) -> NDArray[Any]: ...  # noqa: D102
    def outcomes(self, truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[Any]: ...  # noqa: D102
    def pool(self, outcomes: list[NDArray[Any]]) -> dict[str, NDArray[Any]]: ...  # noqa: D102
    def metrics(self, pooled: dict[str, NDArray[Any]]) -> dict[str, float]: ...  # noqa: D102
    def counts(self, test: NDArray[Any]) -> dict[str, int]: ...  # noqa: D102


def evaluate(
    task: DenseTask,
    heads: list[Heads],
    patches: NDArray[np.float16],
    truth: NDArray[Any],
    candidate: int,
    device: torch.device,
) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Return one candidate's outcomes at the labels' full resolution, pooled over heads, and the first head's maps."""
    maps: list[NDArray[Any]] = []
    for head in heads:
        predicted = np.empty_like(truth)
        for part, raw in predict(head, patches, truth.shape[1:], candidate, device):
            predicted[part] = task.predicted(raw)
        maps.append(predicted)
    return task.pool([task.outcomes(truth, predicted) for predicted in maps]), maps[0]


def run(
    task: DenseTask, features: FeatureSet, config: DenseConfig, *, seed: int, device: torch.device, examples: int
) -> ProbeResult:
    """Train heads of every learning rate, choose one on validation, and read the test split once.

    With `probe_seeds` above one, heads from several seeds are trained and what they predict is pooled.

    Returns:
        `outcomes` of the test images as the task says, `examples`: `predicted` maps of the first test images.
    """
    sets = task.info.sets
    truth = {split: task.labels(name, counted=split != "train") for split, name in sets.items() if split != "test"}
    bias = task.bias(truth["train"])
    seeds = [seed + SEED_STRIDE * i for i in range(config.probe_seeds)]
    heads = [
        train_heads(
            features.patches[sets["train"]],
            truth["train"],
            task.outputs,
            task.loss,
            config,
            bias=bias,
            seed=one,
            device=device,
        )
        for one in seeds
    ]
    val = [
        task.metrics(evaluate(task, heads, features.patches[sets["val"]], truth["val"], i, device)[0])
        for i in range(len(config.lr_grid))
    ]
    scores = [metrics[task.metric] for metrics in val]
    best = int(np.argmax(scores) if task.higher else np.argmin(scores))
    test = task.labels(sets["test"], counted=True)
    outcomes, predicted = evaluate(task, heads, features.patches[sets["test"]], test, best, device)
    candidates = {repr(lr): score for lr, score in zip(config.lr_grid, scores, strict=True)}
    counts = {split: len(maps) for split, maps in truth.items()} | {"test": len(test)}
    return ProbeResult(
        metrics={"val": val[best], "test": task.metrics(outcomes)},
        selected={"lr": config.lr_grid[best], f"val_{task.metric}": candidates},
        counts=counts | task.counts(test),
        outcomes=outcomes,
        examples={"predicted": predicted[:examples]},
    )
