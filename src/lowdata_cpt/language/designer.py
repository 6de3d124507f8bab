"""The soft targets q = (1 − α)·onehot(y) + α·r over candidates C = {y} ∪ top-(K − 1), and φ, which designs r and α."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowdata_cpt.language import config


def candidates(logits: Tensor, true: Tensor, count: int) -> Tensor:
    """Return C: the true next token first, then the model's `count` − 1 likeliest others.

    Args:
        logits: [M, V], not differentiated.
        true: int64 [M].
        count: K; at most V.
    """
    others = logits.detach().scatter(-1, true[:, None], -torch.inf)
    return torch.cat([true[:, None], others.topk(min(count, logits.shape[-1]) - 1, dim=-1).indices], dim=-1)


def mix(designed: Tensor, alpha: Tensor) -> Tensor:
    """Return q [M, K] of r [M, K] and α [M]; column 0 is the true token."""
    true = F.one_hot(torch.zeros((), dtype=torch.long, device=designed.device), designed.shape[-1]).to(designed)
    return (1 - alpha)[:, None] * true + alpha[:, None] * designed


def soft_cross_entropy(logits: Tensor, chosen: Tensor, q: Tensor) -> Tensor:
    """Return the mean over M tokens of −Σ q log p, in float32 or above; q is zero outside C.

    Args:
        logits: [M, V].
        chosen: C, int64 [M, K].
        q: [M, K].
    """
    at_least = logits if logits.dtype == torch.float64 else logits.float()
    loss: Tensor = -(q * at_least.log_softmax(-1).gather(-1, chosen)).sum(-1).mean()
    return loss


def reference_values(slope: Tensor, alpha_max: float) -> tuple[Tensor, Tensor]:
    """Return V of next-token prediction's targets and of the uniform control's, of ∂V/∂q [M, K].

    V is linear in q, so that V = Σ q · ∂V/∂q for whatever targets: V > 0 alone does not show that φ is of use.
    """
    one_hot, uniform = slope[:, 0].sum(), slope.mean(-1).sum()
    return one_hot, (1 - alpha_max / 2) * one_hot + alpha_max / 2 * uniform


def entropy(q: Tensor) -> Tensor:
    """Return the mean entropy of q [M, K], in nats."""
    mean: Tensor = torch.special.entr(q).sum(-1).mean()
    return mean


class Designer(nn.Module):
    """φ: a small decoder-only transformer over the context; with the true next token's embedding it scores C and gates.

    Its numbers are fp32 whatever the learner's are.
    """

    def __init__(self, settings: config.Designer, vocabulary: int, window: int) -> None:
        """Draw its weights from torch's global generator."""
        super().__init__()
        from transformers import LlamaConfig, LlamaModel

        width = settings.hidden
        self.alpha_max = settings.alpha_max
        self.context: nn.Module = LlamaModel(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                num_key_value_heads=settings.heads,
                max_position_embeddings=max(512, 2 * window),
            )
        )
        self.join = nn.Linear(2 * width, width)
        self.score = nn.Linear(width, width)
        self.gate = nn.Linear(width, 1)
        # α starts at half of α_max everywhere, and r near uniform: before it is taught, φ is the uniform control.
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, ids: Tensor, positions: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return r [M, K] and α [M].

        Args:
            ids: contexts, int64 [B, L].
            positions: bool [B, L], the M positions whose next token is designed.
            chosen: C, int64 [M, K], the true next token first.
        """
        with torch.autocast(ids.device.type, enabled=False):
            embed = self.context.get_input_embeddings().weight  # type: ignore[operator]
            context = self.context(input_ids=ids, use_cache=False).last_hidden_state[positions]
            # Of layer-normed embeddings, whose size does not depend on how a vocabulary was drawn.
            looked_up = F.layer_norm(F.embedding(chosen, embed), embed.shape[-1:])
            joined = F.silu(self.join(torch.cat([context, looked_up[:, 0]], dim=-1)))
            scores = (looked_up @ self.score(joined)[:, :, None]).squeeze(-1) / embed.shape[-1] ** 0.5
            return scores.softmax(-1), self.alpha_max * torch.sigmoid(self.gate(joined)).squeeze(-1)
