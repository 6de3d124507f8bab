"""GLARE: L = w_g L_global + w_r L_regional + w_l L_local, each −Σ p_t log p_s, through adapters in a frozen ViT.

Global: CLS against the other view's CLS. Regional: a region, retrieved from the other view by cross-attention,
against the teacher's view of that region. Local: blurred and cross-view patches against the teacher's clean ones.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lowdata_cpt.backbones.adapters import AdapterHooks, adapter_config, make_adapters
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.dino.loss import Centre, dino_loss, soft_cross_entropy, teacher_temperature
from lowdata_cpt.methods.dino.modules import DINOHead, cosine, ema_update
from lowdata_cpt.methods.glare.config import GLARE
from lowdata_cpt.methods.glare.loss import local_pairs, mean_of_parts
from lowdata_cpt.methods.glare.regions import CrossAttention, cls_attention, region_means, sample_regions
from lowdata_cpt.methods.glare.views import two_views
from lowdata_cpt.training.learner import Context, Export, Learner, Progress, Views
from lowdata_cpt.vision.augment import send


class Encoded(NamedTuple):
    """What one pass leaves: CLS [2, B, D], patches [2, B, N, D], and the teacher's CLS attention [2B, H, N]."""

    cls: Tensor
    patches: Tensor
    attention: Tensor | None


class GLARELearner(Learner):
    """Trains adapters, heads and the cross-attention; the backbone stays as released.

    Base and momentum encoder share the frozen backbone and differ in their adapters (`AdapterHooks.using`).
    """

    def __init__(self, backbone: ViT, config: GLARE, context: Context) -> None:
        super().__init__(backbone, config, context)
        self.config, self.context = config, context
        self.backbone = backbone.requires_grad_(False)
        heads = {
            term: DINOHead(
                backbone.width, config.prototypes, hidden=config.head_hidden, bottleneck=config.head_bottleneck
            )
            for term in config.weights
        }
        adapters = make_adapters(backbone, config.rank, config.adapter_scale)
        self.student = nn.ModuleDict({"adapters": adapters, **heads})
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.centres = nn.ModuleDict(
            {term: Centre(config.prototypes, config.centre_momentum, config.centre_start) for term in heads}
        )
        self.cross_attention = CrossAttention(backbone.width) if "regional" in heads else None
        self.hooks = AdapterHooks(backbone, adapters)
        self.teacher_logits: dict[str, list[Tensor]] = {term: [] for term in heads}

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        """Two views and where they lie in the image (see `two_views`)."""
        grid = self.backbone.grid(self.context.image_size)
        return two_views(images, generator, self.context, self.config, grid)

    def encode(self, views: Tensor, attention: bool = False) -> Encoded:
        """Run views [2, B, 3, S, S] through the backbone with the active adapters, in one pass."""
        vit, shape = self.backbone, views.shape[:2]
        tokens, rope = vit.embed(views.flatten(0, 1))
        for i in range(vit.depth - 1):
            tokens = vit.run_block(i, tokens, rope)
        weights = cls_attention(vit, tokens, rope) if attention else None
        features = vit.finish(vit.run_block(vit.depth - 1, tokens, rope))
        return Encoded(
            features.cls.view(*shape, -1), features.patches.view(*shape, *features.patches.shape[1:]), weights
        )

    def step(self, views: Views, index: Tensor, progress: Progress) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted loss and its terms; one teacher pass (no graph) and one student pass over both views."""
        config = self.config
        tau = teacher_temperature(
            config.teacher_temperature_start,
            config.teacher_temperature,
            config.teacher_temperature_warmup,
            progress.fraction,
        )
        teacher_adapters = self.teacher["adapters"]
        assert isinstance(teacher_adapters, nn.ModuleList)
        with torch.no_grad(), self.hooks.using(teacher_adapters):
            teacher = self.encode(views["clean"], attention="regional" in config.weights)
        student = self.encode(views.get("blurred", views["clean"]))
        parts: dict[str, Tensor] = {}
        if "global" in config.weights:
            parts["global"] = dino_loss(
                self.student["global"](student.cls),
                self.target("global", teacher.cls, tau),
                config.student_temperature,
            )
        if "regional" in config.weights:
            parts["regional"] = self.regional(student, teacher, tau)
        if "local" in config.weights:
            parts["local"] = self.local(student, teacher, views, tau)
        loss = torch.stack([weight * parts[term] for term, weight in config.weights.items()]).sum()
        return loss, {term: part.detach() for term, part in parts.items()}

    @torch.no_grad()
    def target(self, term: str, features: Tensor, temperature: float) -> Tensor:
        """Return the teacher's p_t [..., K] of features [..., D]; its logits wait for the centre's update."""
        logits = self.teacher[term](features)
        self.teacher_logits[term].append(logits.flatten(0, -2))
        centre = self.centres[term]
        assert isinstance(centre, Centre)
        centre.begin(logits)
        return centre.probabilities(logits, temperature)

    def regional(self, student: Encoded, teacher: Encoded, temperature: float) -> Tensor:
        """L_regional: head(CA(z, Z of the other view)) must predict the teacher's mean of the region."""
        config = self.config
        assert teacher.attention is not None
        assert self.cross_attention is not None
        regions = sample_regions(teacher.attention, config.regions, config.region_top, config.region_sides)
        z = region_means(student.patches.flatten(0, 1), regions)
        counterpart = self.cross_attention(z, student.patches.flip(0).flatten(0, 1))
        target = self.target("regional", region_means(teacher.patches.flatten(0, 1), regions), temperature)
        logits = self.student["regional"](counterpart)
        return soft_cross_entropy(logits, target, config.student_temperature).mean()

    def local(self, student: Encoded, teacher: Encoded, views: Views, temperature: float) -> Tensor:
        """L_local: mean of blurred patch → its clean self, and patch → the patch at its place in the other view."""
        width, blurred = student.patches.shape[-1], views["chosen"]
        # Paired on the CPU: how many there are is then known without asking the device.
        source, goal = (send(place, student.patches.device) for place in local_pairs(blurred, views["match"]))
        target = self.target("local", teacher.patches.reshape(-1, width)[goal], temperature)
        logits = self.student["local"](student.patches.reshape(-1, width)[source])
        losses = soft_cross_entropy(logits, target, self.config.student_temperature)
        return mean_of_parts(losses, int(blurred.sum()))

    def after_step(self, progress: Progress) -> None:
        """Update the centres with this step's teacher logits, then the teacher's adapters and heads."""
        for term, logits in self.teacher_logits.items():
            centre = self.centres[term]
            assert isinstance(centre, Centre)
            centre.update(torch.cat(logits))
            logits.clear()
        ema_update(self.teacher, self.student, cosine(self.config.ema, self.config.ema_end, progress.fraction))

    def export(self) -> Export:
        """Return the untouched backbone and the base or momentum encoder's adapters; `attach` puts them together."""
        encoder = self.student if self.config.export == "student" else self.teacher
        tensors = {k: v.detach().cpu().contiguous() for k, v in encoder["adapters"].state_dict().items()}
        facts = adapter_config(self.backbone, self.config.rank, self.config.adapter_scale)
        return Export(self.backbone.timm_state(), tensors, facts)
