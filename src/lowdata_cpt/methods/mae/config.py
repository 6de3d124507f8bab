"""The recipe of the pixel-target control and its rows of the deviations ledger."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.methods.base import Deviation, MethodConfig
from lowdata_cpt.training.config import Optimiser, Schedule


class MAE(MethodConfig):
    """Masked autoencoding continued from the base's weights (MAE, arXiv 2111.06377).

    lr = 1.5e-4 · batch / 256; the default is that of batch 4096. Warm-up is 40 of 300 epochs.
    """

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.mae.learner:MAELearner"
    deviations: ClassVar[tuple[Deviation, ...]] = (
        Deviation(
            "start of the encoder",
            "random",
            "the base's released weights; position embedding kept frozen at the base's instead of sine-cosine",
            "the control must start where TEC starts; 100 to 1000 images cannot train a ViT from scratch",
        ),
        Deviation(
            "decoder",
            "8 blocks, 512 wide, 16 heads",
            "2 blocks; 512 wide for ViT-B, 768 for ViT-L, else 2/3 of the backbone's width with 32 channels a head",
            "the same decoder as TEC's, so that the two differ in target and adapter only",
        ),
        Deviation(
            "schedule",
            "40 warm-up epochs of 800 (1600)",
            "13.3 % warm-up, TEC's 40 of 300 epochs",
            "the same optimiser and schedule as the method it controls",
        ),
        Deviation(
            "learning rate",
            "1.5e-4 · batch / 256 at batch 4096",
            "the same rule at paper scale; 1e-5 in the CPU studies (the rule: 1.9e-5 at batch 32)",
            "chosen on validation scenes that no other study sees (results/tuning)",
        ),
        Deviation(
            "length of the run",
            "800 to 1600 epochs of ImageNet-1k",
            "a fixed number of images seen, the same for every method",
            "methods are compared at equal images seen",
        ),
        Deviation(
            "register tokens, no class token",
            "not stated: MAE's ViT has a class token and no registers",
            "registers pass the encoder and are left out of the decoder; without a class token only patches enter it",
            "any timm ViT must be borne",
        ),
        Deviation(
            "rotary position embedding",
            "not stated: absolute positions",
            "visible patches keep the rotation of their own place in the grid",
            "the encoder must know where a visible patch lies",
        ),
        Deviation(
            "pixel normalisation",
            "ImageNet mean and standard deviation",
            "the backbone's own pretraining mean and standard deviation",
            "CLIP-type backbones have others",
        ),
        Deviation(
            "image resampling",
            "PIL bicubic with antialiasing",
            "bicubic sampling of the decoded cache, first shrunk by a whole factor where every crop of the batch is "
            "that "
            "much larger than the training size",
            "augmentation runs batched on tensors",
        ),
    )

    method: Literal["mae"] = "mae"
    optimiser: Optimiser = Optimiser(lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule: Schedule = Schedule(unit="step", warmup=40 / 300, final_lr=0.0)
    mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="Fraction of the patches hidden from the encoder.")
    decoder_depth: int = Field(default=2, ge=1)
    decoder_width: int | None = Field(default=None, ge=4, description="Null: scaled with the backbone's width.")
    decoder_heads: int | None = Field(default=None, ge=1, description="Null: 16, fewer in narrow decoders.")
    crop_scale: tuple[float, float] = Field(default=(0.2, 1.0), description="Area of the random resized crop.")
