from __future__ import annotations

import math

import pytest
import timm
import torch

from lowdata_cpt.backbones.attention import attention_logits
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.methods.mae.modules import sincos_positions
from lowdata_cpt.methods.tec.config import TEC
from lowdata_cpt.methods.tec.learner import TECLearner
from lowdata_cpt.methods.tec.loss import base_targets, feature_loss, normalise_feature, relation_loss
from lowdata_cpt.methods.tec.modules import EncoderAdapter
from lowdata_cpt.training.learner import Progress
from tests.methods.harness import BACKBONES, make_backbone, make_context, make_images, make_learner, run_steps

PROGRESS = Progress(0, 10, 0, 5)
SMALL = TEC(optimiser={"lr": 1e-4})
NO_CLS = ("vit_wee_patch16_reg1_gap_256", 64)


def tec_learner(kind: str = "plain", config: TEC = SMALL) -> TECLearner:
    learner = make_learner(config, make_backbone(*(NO_CLS if kind == "no class token" else BACKBONES[kind])))
    assert isinstance(learner, TECLearner)
    return learner


@pytest.mark.parametrize("kind", [*BACKBONES, "no class token"])
def test_three_steps_and_export(kind: str) -> None:
    name, size = NO_CLS if kind == "no class token" else BACKBONES[kind]
    learner = tec_learner(kind)
    base = {key: value.clone() for key, value in learner.base.model.state_dict().items()}
    losses = run_steps(learner, SMALL, make_images(8, size + 10), 3)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert all(torch.equal(value, base[key]) for key, value in learner.base.model.state_dict().items())
    fresh = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    fresh.load_state_dict(learner.export().backbone)
    changed = {key for key, value in fresh.state_dict().items() if not torch.equal(value, base[key])}
    assert any(key.startswith("blocks.") for key in changed)
    assert ("cls_token" in changed) == learner.backbone.has_cls
    assert "pos_embed" not in changed
    x = torch.randn(2, 3, size, size)
    learner.eval()
    with torch.no_grad():
        # `fc_norm`: the final norm of a model that norms behind its pooling, and nothing in the others.
        tokens = fresh.eval().fc_norm(fresh.forward_features(x))
        # The trained module with every patch visible, in grid order.
        every = torch.arange(learner.backbone.grid() ** 2).expand(2, -1)
        expected = learner.backbone(x, every)
    torch.testing.assert_close(tokens[:, learner.backbone.num_prefix_tokens :], expected.patches, atol=1e-5, rtol=0)
    if learner.backbone.has_cls:
        torch.testing.assert_close(tokens[:, 0], expected.cls, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "millions"), [("vit_base_patch16_224.mae", 118.34), ("vit_large_patch16_224.mae", 405.20)]
)
def test_trained_parameters_are_those_of_the_source(name: str, millions: float) -> None:
    with torch.device("meta"):
        backbone = ViT(name)
        learner = TECLearner(backbone, TEC(), make_context(backbone, 8, 10, 4))
    trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    assert round(trained / 1e6, 2) == millions


def test_losses_at_random_init() -> None:
    backbone = make_backbone("vit_tiny_patch16_224", 224)
    learner = make_learner(TEC(init="random"), backbone)
    views = learner.views(make_images(4, 224), torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, parts = learner.step(views, torch.arange(4), PROGRESS)
    assert abs(parts["relation"] - math.log(196)) < 0.1
    assert 1.5 < parts["feature"] < 2.2


def test_base_start_equals_the_base() -> None:
    learner = tec_learner("registers").eval()
    x = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(learner.backbone(x).patches, learner.base(x).patches, atol=1e-5, rtol=0)
    assert learner.export().backbone.keys() == learner.base.model.state_dict().keys()


def test_random_start_leaves_the_base_alone() -> None:
    learner = tec_learner("plain", TEC(init="random"))
    trained = learner.backbone.model.state_dict()
    assert not torch.equal(trained["blocks.0.attn.qkv.weight"], learner.base.blocks[0].attn.qkv.weight)
    torch.testing.assert_close(trained["pos_embed"][0, 1:], sincos_positions(14, 192))
    backbone = make_backbone(*BACKBONES["plain"])
    assert torch.equal(learner.base.blocks[0].attn.qkv.weight, backbone.blocks[0].attn.qkv.weight)


def test_feature_target_is_normalised_per_channel_over_the_tokens() -> None:
    feature = torch.randn(2, 9, 5) * torch.arange(1, 6) + 3
    normalised = normalise_feature(feature)
    column = feature[1, :, 4]
    expected = (column - column.mean()) / (column.var(unbiased=True) + 1e-6).sqrt()
    torch.testing.assert_close(normalised[1, :, 4], expected)
    torch.testing.assert_close(normalised.mean(1), torch.zeros(2, 5), atol=1e-5, rtol=0)


def test_feature_loss_is_on_masked_tokens_only() -> None:
    prediction, target = torch.randn(2, 9, 5), torch.randn(2, 9, 5)
    masked = torch.tensor([[0, 3, 4], [8, 1, 2]])
    loss = feature_loss(prediction, target, masked)
    by_hand = (prediction - normalise_feature(target)) ** 2
    rows = torch.arange(2)[:, None]
    torch.testing.assert_close(loss, by_hand[rows, masked].mean())
    visible = torch.tensor([[1, 2, 5, 6, 7, 8], [0, 3, 4, 5, 6, 7]])
    changed = prediction.clone()
    changed[rows, visible] += 7
    assert torch.equal(feature_loss(changed, target, masked), loss)
    changed[0, 3] += 1
    assert not torch.equal(feature_loss(changed, target, masked), loss)


def test_relation_loss_has_its_temperature_on_the_teacher_only() -> None:
    prediction, target = torch.randn(2, 3, 4, 9), torch.randn(2, 3, 4, 9)
    by_hand = -((target / 1.8).softmax(-1) * prediction.softmax(-1).log()).sum(-1).mean()
    torch.testing.assert_close(relation_loss(prediction, target, 1.8), by_hand)
    uniform = relation_loss(torch.zeros(2, 3, 4, 196), torch.randn(2, 3, 4, 196), 1.0)
    torch.testing.assert_close(uniform, torch.tensor(math.log(196)))


@pytest.mark.parametrize("kind", ["registers", "rope"])
def test_targets_are_the_last_two_blocks_and_the_top_rows_of_the_last_attention(kind: str) -> None:
    name, size = BACKBONES[kind]
    base = make_backbone(name, size).eval()
    prefix = base.num_prefix_tokens
    assert prefix > 1
    x = torch.randn(2, 3, size, size)
    target = base_targets(base, x, queries=3, blocks=2)
    with torch.no_grad():
        tokens, rope = base.embed(x)
        outputs = base.run_blocks(tokens, rope)
        torch.testing.assert_close(target.feature, (outputs[-1] + outputs[-2])[:, prefix:] / 2)
        logits = attention_logits(base, -1, outputs[-2], rope)
    chosen = logits[:, :, 0, prefix:].mean(1).topk(3).indices
    assert torch.equal(target.queries, chosen)
    for image in range(2):
        rows = torch.cat([torch.tensor([0]), chosen[image] + prefix])
        torch.testing.assert_close(target.relation[image], logits[image][:, rows][:, :, prefix:], atol=1e-4, rtol=1e-4)


def test_student_answers_the_queries_the_teacher_chose() -> None:
    learner = tec_learner().eval()
    views = learner.views(make_images(3, 64), torch.Generator().manual_seed(0))
    target = base_targets(learner.base, views["x"], learner.queries, 2)
    with torch.no_grad():
        tokens = learner.condition(views["x"], views["visible"])
        every = learner.decoder.relation(tokens, views["visible"], torch.arange(16).expand(3, -1))
        answer = learner.decoder.relation(tokens, views["visible"], target.queries)
    assert answer.shape == target.relation.shape == (3, 3, 10, 16)
    for image in range(3):
        rows = torch.cat([torch.tensor([0]), 1 + target.queries[image]])
        torch.testing.assert_close(answer[image], every[image][:, rows])
    # The scale is that of the full width, not of one head.
    assert learner.decoder.scale == 192**-0.5


@pytest.mark.parametrize("kind", ["registers", "rope", "plain", "no class token"])
def test_every_trained_parameter_gets_a_gradient(kind: str) -> None:
    learner = tec_learner(kind)
    views = learner.views(make_images(4, 70), torch.Generator().manual_seed(0))
    learner.step(views, torch.arange(4), PROGRESS)[0].backward()
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name
    frozen = {name for name, p in learner.backbone.model.named_parameters() if not p.requires_grad}
    assert all(name.startswith(("pos_embed", "fc_norm", "rope")) for name in frozen), frozen


def test_student_sees_visible_patches_only() -> None:
    learner = tec_learner("rope").eval()
    views = learner.views(make_images(2, 64), torch.Generator().manual_seed(0))
    x, hidden = views["x"].clone(), int(views["masked"][0, 0])
    row, column = divmod(hidden, 4)
    x[0, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 9
    with torch.no_grad():
        clean = learner.condition(views["x"], views["visible"])
        assert torch.equal(learner.condition(x, views["visible"]), clean)
    before = base_targets(learner.base, views["x"], 3, 2).feature
    assert not torch.equal(base_targets(learner.base, x, 3, 2).feature[0], before[0])


@pytest.mark.parametrize(("depth", "sizes"), [(12, [3, 3, 3, 3]), (14, [4, 4, 3, 3]), (2, [2]), (5, [5])])
def test_groups_cover_every_block_once(depth: int, sizes: list[int]) -> None:
    adapter = EncoderAdapter(8, depth, 16)
    assert [size // 8 for size in adapter.sizes] == sizes
    assert adapter([torch.randn(2, 3, 8) for _ in range(depth)]).shape == (2, 3, 8)


def test_encoder_adapter_by_its_equation() -> None:
    adapter = EncoderAdapter(8, 6, 16)
    outputs = [torch.randn(2, 3, 8) for _ in range(6)]
    z = torch.nn.functional.layer_norm(torch.cat(outputs, -1), (48,))
    total = torch.zeros(2, 3, 8)
    for group in range(2):
        fused = adapter.fuse[group](z[..., 24 * group : 24 * group + 24])
        total += fused + adapter.mlps[group](fused)
    torch.testing.assert_close(adapter(outputs), torch.nn.functional.layer_norm(total, (8,)))


def test_losses_fall_on_a_small_set_and_the_base_stays_in_evaluation_mode() -> None:
    config = TEC(optimiser={"lr": 1e-3})
    learner = tec_learner("plain", config)
    learner.train()
    assert learner.backbone.training
    assert not learner.base.training
    losses = run_steps(learner, config, make_images(4, 64), 15)
    assert losses[-1] < 0.9 * losses[0]


def test_two_by_two_grids_and_bf16_do_not_crash() -> None:
    backbone = make_backbone("vit_tiny_patch16_224", 32)
    config = TEC(relation_queries=15)
    learner = TECLearner(backbone, config, make_context(backbone, 4, 4, 2))
    views = learner.views(make_images(2, 32), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = learner.step(views, torch.arange(2), PROGRESS)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss.dtype == torch.float32


def test_recipe_follows_the_kind_of_base() -> None:
    assert TEC().resolve_relation("vit_base_patch16_224.mae", 768) == (15, 1.8)
    assert TEC().resolve_relation("vit_large_patch16_224.mae", 1024) == (15, 1.4)
    assert TEC().resolve_relation("vit_small_patch14_dinov2", 384) == (9, 1.0)
    assert TEC(relation_queries=4, temperature=0.5).resolve_relation("vit_base_patch16_224.mae", 768) == (4, 0.5)
    # 1.5e-4 · 4096 / 256
    assert TEC().optimiser.lr == pytest.approx(1.5e-4 * 4096 / 256)
