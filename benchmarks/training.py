"""DIET-CP from uint8 images to updated weights: our loop, a plain timm loop, and stable-pretraining's (Lightning)."""

from __future__ import annotations

import copy
import importlib.util
import logging
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.augmentation import colours, crop, to_unit
from benchmarks.harness import Case
from benchmarks.subjects import configured, make, one_epoch, pixels
from lowdata_cpt.methods.diet_cp.learner import DietCPLearner

STEPS = 2


class Images(Dataset[dict[str, Tensor]]):
    """Images with their index as label, augmented one by one."""

    def __init__(self, raw: Tensor, size: int, learner: DietCPLearner) -> None:
        self.raw = raw
        steps = crop(size, (0.08, 1.0), v2.InterpolationMode.BILINEAR) + colours((0.4, 0.4, 0.4, 0.2), 0.3) + to_unit()
        self.transform = v2.Compose([*steps, v2.Normalize(learner.mean, learner.std)])

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.transform(self.raw[i]), "index": torch.tensor(i)}


class Plain(nn.Module):
    """timm's model with DIET's head; what is not trained has no gradients, as a script would set it."""

    def __init__(self, learner: DietCPLearner) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(learner.backbone.model)
        self.head = copy.deepcopy(learner.head)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of a batch."""
        logits = self.head(F.normalize(self.backbone(batch["image"]), dim=1))
        return F.cross_entropy(logits, batch["index"], label_smoothing=0.2)


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return what is trained."""
    return [p for p in module.parameters() if p.requires_grad]


def plain_loop(model: Plain, loader: DataLoader[Any]) -> int:
    """Train one epoch; return the images seen."""
    optimiser, seen = torch.optim.AdamW(trained(model), lr=1e-4, weight_decay=0.05, fused=True), 0
    for batch in loader:
        optimiser.zero_grad(set_to_none=True)
        model.loss(batch).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        seen += len(batch["image"])
    return seen


def lightning_loop(model: Plain, loader: DataLoader[Any], folder: str) -> int:
    """Train one epoch with stable-pretraining's module and Lightning's trainer, loggers and checkpoints off."""
    import lightning
    import stable_pretraining

    seen = []

    def forward(module: Any, batch: dict[str, Tensor], stage: str) -> dict[str, Tensor]:
        seen.append(len(batch["image"]))
        return {"loss": module.plain.loss(batch)}

    module = stable_pretraining.Module(
        forward=forward,
        plain=model,
        optim={"optimizer": {"type": "AdamW", "lr": 1e-4, "weight_decay": 0.05}, "scheduler": "ConstantLR"},
    )
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, loader)
    return sum(seen)


def cases(small: bool) -> Iterator[Case]:
    """Yield a row per loop that is installed."""
    model, size, batch = ("vit_tiny_patch16_224", 32, 2) if small else ("vit_small_patch16_224", 96, 8)
    count = STEPS * batch
    config, raw = configured("diet_cp", head_only=0.0), pixels(count, size)
    with tempfile.TemporaryDirectory() as folder:
        learner = make(config, model, size, batch, n_images=count)
        assert isinstance(learner, DietCPLearner)
        plain = Plain(learner)
        loader = DataLoader(
            Images(torch.from_numpy(raw).permute(0, 3, 1, 2).contiguous(), size, learner), batch, shuffle=True
        )
        run = one_epoch(learner, raw, config, batch, folder)

        def ours() -> int:
            return sum(run.take_step(step)[0] for step in range(run.steps))

        def parity(a: int, b: int) -> str:
            assert a == b == count
            # The schedules differ, so the weights are not compared: the same images, parameters and number of steps.
            numbers = [sum(p.numel() for p in trained(module)) for module in (learner, plain)]
            assert numbers[0] == numbers[1], f"{numbers[0]} and {numbers[1]} parameters are trained"
            return f"{count} images, {numbers[0]} trained parameters on either side"

        yield Case(
            "DIET-CP end to end beside a plain timm loop",
            "timm, torchvision v2 in a DataLoader, AdamW",
            1.5,
            ours,
            lambda: plain_loop(plain, loader),
            parity,
        )
        if importlib.util.find_spec("stable_pretraining"):
            logging.disable(logging.WARNING)
            yield Case(
                "DIET-CP end to end beside stable-pretraining's loop",
                "its Module in Lightning's Trainer, the same data",
                1.5,
                ours,
                lambda: lightning_loop(plain, loader, folder),
                parity,
            )
