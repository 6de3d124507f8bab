"""Under bfloat16 autocast the losses and targets that the methods promise in float32 are computed in float32."""

from __future__ import annotations

import torch

from lowdata_cpt.methods.dino.loss import dino_loss
from lowdata_cpt.methods.glare.regions import CrossAttention
from lowdata_cpt.methods.tec.loss import relation_target


def test_dino_loss_is_not_rounded() -> None:
    logits, targets = torch.randn(3, 4, 64), torch.rand(2, 4, 64).softmax(-1)
    expected = dino_loss(logits, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dino_loss(logits, targets), expected)


def test_region_attention_multiplies_in_float32() -> None:
    attention = CrossAttention(32)
    z, patches = torch.randn(2, 3, 32).bfloat16().float(), torch.randn(2, 9, 32).bfloat16().float()
    expected = attention.weights(z, patches)  # the projections are the identity, and so exact in either type
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(attention.weights(z, patches), expected, atol=1e-6, rtol=1e-5)


def test_relation_targets_are_not_rounded() -> None:
    q, k = torch.randn(2, 2, 10, 16), torch.randn(2, 2, 10, 16)
    expected, chosen = relation_target(q, k, 1, True, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found, same = relation_target(q, k, 1, True, 4)
    assert torch.equal(found, expected)
    assert torch.equal(same, chosen)
