from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.glare.regions import CrossAttention, cls_attention, grow, region_means, sample_regions
from lowdata_cpt.methods.glare.views import blur_patches, draw_patches, match_patches
from lowdata_cpt.vision import augment
from tests.methods.harness import BACKBONES, make_backbone

CELL = 16


def cell_images(count: int, cells: int) -> Tensor:
    """Images of cells x cells squares of 16 px, each with a texture of its own that mirroring does not change."""
    generator = torch.Generator().manual_seed(3)
    texture = torch.rand(count, 3, cells * CELL, cells, CELL // 2, generator=generator)
    return torch.cat([texture, texture.flip(-1)], dim=-1).flatten(3)


@torch.no_grad()
def transparent_vit() -> ViT:
    """A ViT whose patch tokens are the normalised patch embedding: what a token says is what its patch shows."""
    vit = make_backbone("vit_tiny_patch16_224", 64)
    vit.model.pos_embed.zero_()
    for block in vit.blocks:
        for linear in (block.attn.proj, block.mlp.fc2):
            linear.weight.zero_()
            linear.bias.zero_()
    return vit


# ---- patches ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [1, 2, 4, 7])
def test_patches_are_matched_by_the_geometry_of_the_crops(grid: int) -> None:
    """Views of a picture of coordinates: matched patches show the same place, unmatched ones are not in the other."""
    count, height, width, size = 64, 90, 120, grid * 14
    generator = torch.Generator().manual_seed(grid)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = torch.stack([y, x]).expand(count, 2, height, width)
    boxes = torch.stack([augment.random_boxes(count, height, width, generator, (0.15, 0.6)) for _ in range(2)])
    flips = torch.stack([augment.random_flips(count, generator) for _ in range(2)])
    views = [augment.crop_resize(image, boxes[v], size, flips[v]) for v in range(2)]
    places = torch.stack([F.avg_pool2d(view, 14).flatten(2).transpose(1, 2) for view in views])  # [2, B, N, 2]
    match = match_patches(boxes, flips, grid)
    assert match.shape == (2, count, grid**2)
    assert match.max() < grid**2
    assert (match >= 0).any()
    assert (match < 0).any()
    for v in range(2):
        other = places[1 - v].gather(1, match[v].clamp_min(0).unsqueeze(-1).expand(-1, -1, 2))
        top, left, tall, wide = boxes[1 - v].unbind(1)
        half_cell = torch.stack([tall, wide], dim=1).unsqueeze(1) / grid / 2
        found = (match[v] >= 0).unsqueeze(-1)
        assert (((places[v] - other).abs() <= half_cell + 0.6) | ~found).all()
        low, high = torch.stack([top, left], 1).unsqueeze(1), torch.stack([top + tall, left + wide], 1).unsqueeze(1)
        well_inside = ((places[v] > low + 0.6) & (places[v] < high - 0.6)).all(-1)
        assert not (well_inside & (match[v] < 0)).any()
        well_outside = ((places[v] < low - 0.6) | (places[v] > high + 0.6)).any(-1)
        assert not (well_outside & (match[v] >= 0)).any()


def test_equal_crops_match_each_patch_to_itself_and_a_flip_to_its_mirror() -> None:
    boxes = torch.tensor([[3.0, 5.0, 40.0, 60.0]]).expand(2, 1, 4)
    same = match_patches(boxes, torch.tensor([[False], [False]]), 4)
    assert torch.equal(same, torch.arange(16).expand(2, 1, 16))
    mirrored = match_patches(boxes, torch.tensor([[True], [False]]), 4)
    assert torch.equal(mirrored, torch.arange(16).view(4, 4).flip(1).flatten().expand(2, 1, 16))


def test_crops_apart_match_nothing() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 30.0, 30.0]], [[0.0, 30.0, 30.0, 30.0]]])
    assert (match_patches(boxes, torch.zeros(2, 1, dtype=torch.bool), 4) == -1).all()


def test_blur_touches_the_chosen_patches_only() -> None:
    images = torch.rand(3, 3, 56, 56)
    chosen = draw_patches((3,), 16, 0.3, torch.Generator().manual_seed(0))
    assert chosen.sum(1).tolist() == [5, 5, 5]
    blurred = blur_patches(images, chosen)
    mask = chosen.view(3, 1, 4, 4).repeat_interleave(14, 2).repeat_interleave(14, 3).expand_as(images)
    assert torch.equal(blurred[~mask], images[~mask])
    assert (blurred[mask] != images[mask]).all()
    row, column = divmod(int(chosen[0].nonzero()[0]), 4)
    y, x = row * 14 + 5, column * 14 + 6
    torch.testing.assert_close(blurred[0, 1, y, x], images[0, 1, y - 2 : y + 3, x - 2 : x + 3].mean())


def test_at_least_one_patch_is_drawn() -> None:
    assert draw_patches((2, 3), 1, 0.3, torch.Generator()).all()


# ---- regions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [1, 2, 3, 4, 8])
def test_regions_are_blocks_of_allowed_sides(grid: int) -> None:
    torch.manual_seed(grid)
    attention = torch.rand(5, 3, grid**2).softmax(-1)
    regions = sample_regions(attention, 8, 0.3, (2, 4))
    assert regions.shape == (5, 8, grid**2)
    for region in regions.flatten(0, 1).view(-1, grid, grid):
        rows, columns = region.any(1).nonzero()[:, 0], region.any(0).nonzero()[:, 0]
        tall, wide = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert min(2, grid) <= tall <= min(4, grid)
        assert min(2, grid) <= wide <= min(4, grid)
        assert region.sum() == tall * wide


def test_a_region_grows_around_its_seed_to_where_the_attention_is() -> None:
    """Against brute force over all blocks of that size that hold the seed."""
    grid, generator = 6, torch.Generator().manual_seed(0)
    attention = torch.rand(4, grid**2, generator=generator)
    seed = torch.randint(grid**2, (4, 5), generator=generator)
    tall, wide = torch.randint(1, 5, (2, 4, 5), generator=generator)
    regions = grow(attention, seed, tall, wide, 4)
    for b in range(4):
        for r in range(5):
            h, w, best, block = int(tall[b, r]), int(wide[b, r]), -1.0, None
            for top in range(grid - h + 1):
                for left in range(grid - w + 1):
                    mask = torch.zeros(grid, grid, dtype=torch.bool)
                    mask[top : top + h, left : left + w] = True
                    total = float(attention[b].double()[mask.flatten()].sum())
                    if mask.flatten()[seed[b, r]] and total > best:
                        best, block = total, mask.flatten()
            assert torch.equal(regions[b, r], block)


def test_seeds_lie_where_one_head_looks() -> None:
    """Each head looks at one corner: every region of an image then touches the same corner, and images differ."""
    torch.manual_seed(0)
    attention = torch.full((32, 2, 64), 1e-4)
    attention[:, 0, [0, 1, 8, 9]] = 0.2
    attention[:, 1, [54, 55, 62, 63]] = 0.2
    regions = sample_regions(attention, 4, 4 / 64, (2, 2))
    first, last = regions[:, :, [0, 1, 8, 9]].all(-1), regions[:, :, [54, 55, 62, 63]].all(-1)
    assert (first.all(1) | last.all(1)).all()
    assert first.any()
    assert last.any()


def test_region_means() -> None:
    patches = torch.randn(2, 9, 5)
    regions = torch.zeros(2, 3, 9, dtype=torch.bool)
    regions[:, :, [1, 2, 4, 5]] = True
    torch.testing.assert_close(region_means(patches, regions)[1, 2], patches[1, [1, 2, 4, 5]].mean(0))


def test_cross_attention_is_its_equation() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(8)
    for linear in (attention.query, attention.key, attention.value):
        torch.nn.init.normal_(linear.weight)
    z, patches = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    q, k, v = (linear.weight.T for linear in (attention.query, attention.key, attention.value))
    expected = ((z @ q) @ (patches @ k).transpose(1, 2) * 8**-0.5).softmax(-1) @ (patches @ v)
    torch.testing.assert_close(attention(z, patches), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("flip", [False, True])
def test_a_region_finds_its_place_in_the_other_view(flip: bool) -> None:
    """Crops at known places of textured cells: the region's attention picks the patches that the geometry names."""
    vit, images = transparent_vit(), cell_images(6, 8)
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0], [16.0, 32.0, 64.0, 64.0]])[:, None].expand(2, 6, 4)
    flips = torch.tensor([[False], [flip]]).expand(2, 6)
    views = [vit.normalise(augment.crop_resize(images, boxes[v], 64, flips[v])) for v in range(2)]
    patches = [vit(view).patches for view in views]
    match = match_patches(boxes, flips, 4)
    region = torch.zeros(6, 1, 16, dtype=torch.bool)
    region[..., [6, 7, 10, 11]] = True  # rows 1-2, columns 2-3 of view 0 lie in view 1
    expected = match[0][:, [6, 7, 10, 11]]
    assert (expected >= 0).all()
    weights = CrossAttention(vit.width).weights(region_means(patches[0], region), patches[1])
    found = weights[:, 0].topk(4).indices
    assert torch.equal(found.sort().values, expected.sort().values)
    assert weights[:, 0].gather(1, expected).sum(1).min() > 0.75  # by chance: 4 of 16 patches, .25


@torch.no_grad()
@pytest.mark.parametrize("kind", ["registers", "rope", "plain"])
def test_cls_attention_is_what_the_last_block_uses(kind: str) -> None:
    """Against the queries and keys that timm's own attention multiplies."""
    name, size = BACKBONES[kind]
    vit = make_backbone(name, size)
    tokens, rope = vit.embed(torch.randn(2, 3, size, size))
    tokens = vit.run_blocks(tokens, rope, last=vit.depth - 1)[-1]
    attention = cls_attention(vit, tokens, rope)
    patches = vit.grid() ** 2
    assert attention.shape == (2, vit.num_heads, patches)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, vit.num_heads))
    seen: list[Tensor] = []
    original = F.scaled_dot_product_attention

    def watch(q: Tensor, k: Tensor, v: Tensor, **rest: object) -> Tensor:
        seen.append((q[:, :, :1] @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)[:, :, 0, vit.num_prefix_tokens :])
        return original(q, k, v, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", watch)
        vit.run_block(vit.depth - 1, tokens, rope)
    torch.testing.assert_close(attention, seen[0].softmax(-1), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_models_without_a_class_token_ask_with_their_patches() -> None:
    vit = make_backbone("vit_base_patch16_siglip_224", 32)
    assert not vit.has_cls
    tokens, rope = vit.embed(torch.randn(2, 3, 32, 32))
    attention = cls_attention(vit, tokens, rope)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, vit.num_heads))
