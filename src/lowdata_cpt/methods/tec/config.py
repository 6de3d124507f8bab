"""TEC's recipe and its rows of the deviations ledger."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lowdata_cpt.methods.base import Deviation, MethodConfig
from lowdata_cpt.training.config import Optimiser, Schedule


class TEC(MethodConfig):
    """Target-enhanced conditional pretraining (TEC, arXiv 2210.11016; the authors' code).

    lr = 1.5e-4 · batch / 256; the default is that of batch 4096. Warm-up is 40 of 300 epochs.
    """

    learner_path: ClassVar[str | None] = "lowdata_cpt.methods.tec.learner:TECLearner"
    deviations: ClassVar[tuple[Deviation, ...]] = (
        Deviation(
            "start of the student",
            "random, Xavier weights and fixed sine-cosine positions",
            "init: base starts at the base's weights and keeps its position embedding frozen; init: random is the "
            "source's (layer scales keep timm's initial value)",
            "100 to 1000 images cannot train a ViT from scratch",
        ),
        Deviation(
            "input adapter at step 0",
            "class token = MLP(class token), random weights",
            "init: base sets the MLP's last bias so that MLP(class token) equals the base's class token",
            "the student starts at the base exactly; the MLP itself is the source's, without residual",
        ),
        Deviation(
            "number of relation queries and teacher temperature",
            "15 and 1.8 (MAE ViT-B), 15 and 1.4 (MAE ViT-L), 9 and 1.0 (iBOT ViT-B)",
            "null takes the MAE values for bases with `mae` in their name (1.4 from width 1024), else iBOT's",
            "DINOv2, DINOv3 and the other bases are nearer to iBOT than to MAE",
        ),
        Deviation(
            "relation queries on small grids",
            "15 or 9 of 196 patches",
            "all N patches where there are fewer than asked for",
            "low-resolution inputs",
        ),
        Deviation(
            "groups of the encoder-side adapter",
            "G = L / 3 groups of 3 consecutive blocks, L divisible by 3",
            "G = max(1, L // 3); where L is not divisible, the first L mod G groups take one block more",
            "ViTs of other depths must be borne",
        ),
        Deviation(
            "decoder width",
            "512 (ViT-B) and 768 (ViT-L), 16 heads",
            "the same there; narrower backbones get 2/3 of their width in steps of 64, 32 channels a head",
            "a decoder wider than the encoder would do its work",
        ),
        Deviation(
            "register tokens",
            "not stated: bases and students have none",
            "registers pass the encoders and are left out of adapter, decoder, feature and relation targets",
            "targets are class and patch tokens only",
        ),
        Deviation(
            "bases without class token",
            "not stated",
            "no input adapter; the queries are the top-k patches by the mean over heads and patch queries, no CLS row",
            "any timm ViT must be borne",
        ),
        Deviation(
            "rotary position embedding",
            "not stated: absolute positions",
            "visible patches keep the rotation of their own place; relation targets are taken after the rotation",
            "these are the logits the base's attention uses",
        ),
        Deviation(
            "learning rate",
            "1.5e-4 · batch / 256 at batch 4096",
            "the same rule at paper scale; 1e-5 in the CPU studies (the rule: 1.9e-5 at batch 32)",
            "chosen on validation scenes that no other study sees (results/tuning)",
        ),
        Deviation(
            "length of the run",
            "100, 300 or 800 epochs of ImageNet-1k",
            "a fixed number of images seen, the same for every method; 13.3 % warm-up (40 of 300 epochs)",
            "methods are compared at equal images seen",
        ),
        Deviation(
            "pixel normalisation",
            "ImageNet mean and standard deviation",
            "the base's own pretraining mean and standard deviation",
            "CLIP-type backbones have others",
        ),
        Deviation(
            "class token of a randomly initialised start",
            "normal, standard deviation .02",
            "timm's initialiser (1e-6 for most ViTs)",
            "one random initialisation serves all methods",
        ),
        Deviation(
            "image resampling",
            "PIL bicubic with antialiasing",
            "bicubic sampling of the decoded cache, first shrunk by a whole factor where every crop of the batch is "
            "that "
            "much larger than the training size",
            "augmentation runs batched on tensors",
        ),
        Deviation(
            "evaluation",
            "fine-tuning on ImageNet-1k and ADE20K",
            "probes on the frozen exported student",
            "the study compares features at low data",
        ),
    )

    method: Literal["tec"] = "tec"
    optimiser: Optimiser = Optimiser(lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05)
    schedule: Schedule = Schedule(unit="step", warmup=40 / 300, final_lr=0.0)
    init: Literal["base", "random"] = Field(default="base", description="Where the student starts.")
    mask_ratio: float = Field(default=0.75, gt=0, lt=1, description="Fraction of the patches hidden from the student.")
    target_blocks: int = Field(default=2, ge=1, description="Number of last blocks whose mean output is the target.")
    relation_queries: int | None = Field(
        default=None, ge=1, description="Patches whose relations are predicted, beside CLS. Null: 15 MAE, else 9."
    )
    temperature: float | None = Field(
        default=None, gt=0, description="Of the teacher's relation. Null: 1.8 MAE (1.4 from width 1024), else 1.0."
    )
    feature_weight: float = Field(default=1.0, ge=0)
    relation_weight: float = Field(default=1.0, ge=0)
    decoder_depth: int = Field(default=2, ge=1)
    decoder_width: int | None = Field(default=None, ge=4, description="Null: scaled with the backbone's width.")
    decoder_heads: int | None = Field(default=None, ge=1, description="Null: 16, fewer in narrow decoders.")
    crop_scale: tuple[float, float] = Field(default=(0.2, 1.0), description="Area of the random resized crop.")

    def resolve_relation(self, base: str, width: int) -> tuple[int, float]:
        """Return the number of query patches and the teacher's temperature for a base of that name and width."""
        mae = "mae" in base.lower()
        queries = self.relation_queries or (15 if mae else 9)
        usual = (1.4 if width >= 1024 else 1.8) if mae else 1.0
        return queries, self.temperature or usual
