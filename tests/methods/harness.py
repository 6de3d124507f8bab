"""Small learners on synthetic images, stepped without the training loop, for the methods' own tests."""

from __future__ import annotations

import torch
from torch import Tensor

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.base import MethodConfig
from lowdata_cpt.training.learner import Context, Feedback, Learner, Progress

# Each kind of ViT that every method must bear, with a small input for it.
BACKBONES = {
    "registers": ("vit_small_patch14_reg4_dinov2", 56),
    "rope": ("vit_small_patch16_dinov3", 64),
    "plain": ("vit_tiny_patch16_224", 64),
    "mae": ("vit_base_patch16_224.mae", 64),
}


def make_backbone(name: str, image_size: int, seed: int = 0) -> ViT:
    torch.manual_seed(seed)
    backbone = ViT(name, image_size=image_size)
    if name.startswith("vit_") and hasattr(backbone.model, "rope") and backbone.model.rope is not None:
        # DINOv3-type layer scale starts at 1e-5, which hides every block; released weights have it near one.
        for block in backbone.blocks:
            for gamma in ("gamma_1", "gamma_2"):
                if getattr(block, gamma, None) is not None:
                    torch.nn.init.constant_(getattr(block, gamma), 0.5)
    return backbone


def make_context(
    backbone: ViT, n_images: int, steps: int, batch_size: int, feedback: Feedback | None = None
) -> Context:
    return Context(
        n_images=n_images,
        image_size=backbone.image_size,
        mean=backbone.mean,
        std=backbone.std,
        domain_mean=(0.5, 0.5, 0.5),
        domain_std=(0.25, 0.25, 0.25),
        steps=steps,
        steps_per_epoch=-(-n_images // batch_size),
        batch_size=batch_size,
        seed=0,
        device=torch.device("cpu"),
        feedback=feedback,
    )


def make_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Smooth coloured blobs on gradients: [count, 3, size, size] in [0, 1], no two alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)


def make_learner(
    config: MethodConfig,
    backbone: ViT,
    *,
    n_images: int = 8,
    steps: int = 10,
    batch_size: int = 4,
    feedback: Feedback | None = None,
) -> Learner:
    torch.manual_seed(0)
    return config.learner()(backbone, config, make_context(backbone, n_images, steps, batch_size, feedback))


def run_steps(
    learner: Learner, config: MethodConfig, images: Tensor, count: int, *, steps: int = 10, batch: int = 4
) -> list[float]:
    """Take `count` AdamW steps at the config's peak rate and return the losses."""
    parameters = [p for p in learner.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=config.optimiser.lr, weight_decay=config.optimiser.weight_decay)
    losses, per_epoch = [], -(-len(images) // batch)
    for step in range(count):
        torch.manual_seed(1000 + step)
        generator = torch.Generator().manual_seed(step)
        index = torch.arange(step * batch, (step + 1) * batch) % len(images)
        progress = Progress(step, steps, step // per_epoch, max(1, steps // per_epoch))
        optimiser.zero_grad(set_to_none=True)
        loss, _ = learner.step(learner.views(images[index], generator), index, progress)
        loss.backward()
        optimiser.step()
        learner.after_step(progress)
        losses.append(float(loss))
    return losses
