"""The interface between a method and the one training loop: five hooks, none of them a loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lowdata_cpt.backbones.vit import ViT

Views = dict[str, Tensor]


@dataclass(frozen=True)
class Feedback:
    """Labelled images of the *train* split for methods that ask for them; never a val or test image.

    Attributes:
        images: uint8 [M, H, W, 3].
        segmentation: uint8 [M, H, W] class ids, or None where the domain has none.
        depth: float32 [M, H, W] metres (0 = not measured), or None.
        classes: number of segmentation classes.
        ignore_index: label that does not count.
        depth_range: valid metres.
        sha256: content hash of each image, so that the test split can be kept out by assertion.
    """

    images: NDArray[np.uint8]
    segmentation: NDArray[np.uint8] | None
    depth: NDArray[np.float32] | None
    classes: int
    ignore_index: int
    depth_range: tuple[float, float]
    sha256: tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """What a learner may know about its run when it is built.

    Attributes:
        n_images: N, the number of unlabelled images.
        image_size: side S of the training views in pixels.
        mean, std: normalisation of the pretraining data (the backbone's own), per channel.
        domain_mean, domain_std: the same of the N unlabelled images.
        steps, steps_per_epoch, batch_size: length of the run; the last batch of an epoch may be smaller.
        seed: the run's seed. All weights a learner adds are drawn from the global generator, which the loop
            has seeded with it before building.
        device: where the run happens.
        feedback: see `Feedback`.
    """

    n_images: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    domain_mean: tuple[float, ...]
    domain_std: tuple[float, ...]
    steps: int
    steps_per_epoch: int
    batch_size: int
    seed: int
    device: torch.device
    feedback: Feedback | None = None


@dataclass(frozen=True)
class Progress:
    """Where the run stands: 0-based `step` of `steps`, 0-based `epoch` of `epochs`."""

    step: int
    steps: int
    epoch: int
    epochs: int

    @property
    def fraction(self) -> float:
        """Fraction of the run that is done, in [0, 1)."""
        return self.step / self.steps


@dataclass(frozen=True)
class Export:
    """What a method leaves behind.

    Attributes:
        backbone: state dict that timm opens (see `ViT.timm_state`).
        adapter: further tensors that cannot be folded into the backbone (GLARE), saved as adapter.safetensors.
        adapter_config: what the loader needs to rebuild the adapter.
    """

    backbone: dict[str, Tensor]
    adapter: dict[str, Tensor] = field(default_factory=dict)
    adapter_config: dict[str, Any] = field(default_factory=dict)


class Learner(nn.Module, ABC):
    """A method at work. Subclasses hold the backbone and everything else they train as submodules.

    Rules the loop relies on: parameters that are not trained have `requires_grad = False`; all randomness comes
    from the generator handed to `views` or from torch's global generator, both of which the loop seeds from
    (seed, step), so that a resumed run is bit-equal; everything that changes is a parameter, a buffer, or in an
    optimiser returned by `own_optimisers`.
    """

    compilable: ClassVar[bool] = True
    """Whether torch.compile may be applied to the blocks; False where a method differentiates twice through them."""

    @abstractmethod
    def __init__(self, backbone: ViT, config: Any, context: Context) -> None:
        """Build heads, teachers and adapters, and freeze what is frozen."""
        super().__init__()

    @abstractmethod
    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """Return the batched, augmented and normalised views of images [B, 3, H, W] in [0, 1]."""

    @abstractmethod
    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss (scalar) and its named parts; `index` [B] is each image's place in the subset, 0..N-1."""

    def after_step(self, progress: Progress) -> None:
        """Update what is not trained by gradient (EMA teacher, centre), after the optimiser's step."""

    @abstractmethod
    def export(self) -> Export:
        """Return the trained backbone on the CPU."""

    def own_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Return optimisers the method steps itself (V-pretraining's designer), to be checkpointed with the run."""
        return {}
