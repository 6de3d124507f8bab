from __future__ import annotations

import pytest
import torch

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.methods.mae.config import decoder_shape
from lowdata_cpt.methods.mae.modules import DecoderInput, sincos_positions, start_at_random
from lowdata_cpt.methods.mae.views import random_mask
from tests.methods.harness import make_backbone


def test_mask_splits_the_patches_and_is_reproducible() -> None:
    visible, masked = random_mask(3, 196, 0.75, torch.Generator().manual_seed(1))
    assert visible.shape == (3, 49)
    assert torch.equal(torch.cat([visible, masked], 1).sort(1).values, torch.arange(196).expand(3, -1))
    assert not torch.equal(visible[0], visible[1])
    assert torch.equal(visible, random_mask(3, 196, 0.75, torch.Generator().manual_seed(1)).visible)


def test_mask_keeps_at_least_one_patch_on_either_side() -> None:
    assert [i.shape[1] for i in random_mask(1, 2, 0.99)] == [1, 1]
    assert [i.shape[1] for i in random_mask(1, 4, 0.01)] == [3, 1]
    with pytest.raises(UserError, match="at least 2 patches"):
        random_mask(1, 1, 0.75)


def test_decoder_input_puts_visible_tokens_back_in_their_place() -> None:
    module = DecoderInput(4, 4)
    torch.nn.init.eye_(module.project.weight)
    tokens = torch.randn(1, 3, 4)  # class token, patches 5 and 2 of 6
    out = module(tokens, torch.tensor([[5, 2]]), 6)
    torch.testing.assert_close(out[:, [0, 6, 3]], tokens)
    for place in (1, 2, 4, 5):
        assert torch.equal(out[:, place], module.mask_token[:, 0])


def test_sincos_positions_tell_every_place_apart() -> None:
    positions = sincos_positions(5, 16)
    assert positions.shape == (25, 16)
    assert (torch.cdist(positions, positions) + torch.eye(25)).min() > 0.1
    # Half of the channels depend on the column alone, the other half on the row alone.
    assert torch.equal(positions[0, :8], positions[5, :8])
    assert torch.equal(positions[0, 8:], positions[1, 8:])


def test_random_start_has_fixed_positions_and_follows_the_seed() -> None:
    backbone = make_backbone("vit_tiny_patch16_224", 64)
    start_at_random(backbone, 5)
    once = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    torch.testing.assert_close(once["pos_embed"][0, 1:], sincos_positions(14, 192))
    start_at_random(backbone, 5)
    assert all(torch.equal(value, once[key]) for key, value in backbone.model.state_dict().items())
    start_at_random(backbone, 6)
    assert not torch.equal(backbone.model.blocks[0].attn.qkv.weight, once["blocks.0.attn.qkv.weight"])


def test_undividable_decoder_is_refused() -> None:
    with pytest.raises(UserError, match="decoder_width 100"):
        decoder_shape(192, 100, 3)
