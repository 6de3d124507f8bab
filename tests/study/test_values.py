"""Settings that make no sense: each is refused before anything is computed, with its key."""

from __future__ import annotations

import copy
import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from pydantic import BaseModel

from lowdata_cpt.backbones.flops import geometry
from lowdata_cpt.core.errors import LONGEST, UserError
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.study.config import Study
from lowdata_cpt.study.load import load, validate

INF, NAN = math.inf, math.nan
STUDY: dict[str, Any] = {
    "study": "senseless",
    "backbones": {"tiny": {"model": "vit_tiny_patch16_224", "weights": "random", "image_size": 64}},
    "domains": {
        "tabletop": {"sizes": [10], "pool": 20},
        "camvid": {"sizes": [4], "max_images": 50},
        "imagefolder": {"root": "mine", "sizes": [2]},
    },
    "methods": {name: {} for name in ("base", "diet_cp", "glare", "tec", "mae", "dino", "v_pretraining")},
    "grid": [{"domains": ["imagefolder"], "methods": ["base"]}, {"domains": ["tabletop", "camvid"]}],
    "training": {"epochs": 1},
}
LR = {"optimiser": {"lr": 1e-4}}

SENSELESS: list[tuple[str, Any]] = [
    *[("methods.dino.optimiser.lr", value) for value in (INF, NAN, 1e30, 0, -1e-3, True, "fast")],
    *[("methods.glare.optimiser.clip", value) for value in (INF, NAN, 1e30, 0, -1, True)],
    *[("methods.mae.optimiser.weight_decay", value) for value in (INF, NAN, 1e30, -0.1)],
    ("methods.glare.optimiser.weight_decay_end", INF),
    *[("methods.tec.optimiser.betas", value) for value in ([NAN, 0.9], [-1, 0.9], [0.9, 1.5], [0.9, 1], [0.9], 0.9)],
    *[("methods.dino.schedule.warmup", value) for value in (1, 1.5, NAN, -0.1)],
    *[("methods.dino.schedule.final_lr", value) for value in (1.0, INF)],
    *[("methods.tec.crop_scale", value) for value in ([1.0, 0.2], [0.2, 1.5], [0, 1], [-0.2, 1], [NAN, 1])],
    *[("methods.dino.global_scale", value) for value in ([1.0, 0.25], [0.25, 2.0])],
    ("methods.v_pretraining.local_scale", [0.25, 0.05]),
    *[("methods.diet_cp.trained_blocks", value) for value in (99, 13, 0, True)],
    *[("methods.v_pretraining.last_blocks", value) for value in (99, 13)],
    ("methods.tec.target_blocks", 13),
    *[("methods.diet_cp.label_smoothing", value) for value in (1, NAN)],
    ("methods.diet_cp.head_only", 1.5),
    ("methods.dino.prototypes", 10**15),
    ("methods.dino.head_hidden", 10**15),
    ("methods.dino.local_crops", 10**9),
    ("methods.dino.student_temperature", INF),
    ("methods.dino.ema", 1.1),
    ("methods.glare.rank", 1000),
    ("methods.glare.regions", 10**9),
    ("methods.glare.region_sides", [4, 2]),
    ("methods.glare.region_sides", [99, 99]),
    ("methods.glare.blur_kernel", 4),
    ("methods.glare.weight_global", INF),
    ("methods.mae.mask_ratio", 1.0),
    ("methods.mae.decoder_width", 50),
    ("methods.tec.relation_queries", 17),
    ("methods.tec", {"feature_weight": 0, "relation_weight": 0}),
    ("methods.v_pretraining.designer_lr", 1e30),
    ("methods.v_pretraining.every", 10**15),
    ("methods.v_pretraining.keep", NAN),
    *[("training.batch_size", value) for value in (1e15, 10**15, 0, -3, 2.5, True, "many")],
    ("training.accumulation", 33),
    *[("training.epochs", value) for value in (10**15, 0, True)],
    ("training.max_steps", 10**15),
    *[("training.milestones", value) for value in ([3, 2], [-1], [10**15], [True])],
    ("training.precision", "fp8"),
    ("methods.mae.training", {"accumulation": 99}),
    ("methods.mae.training", {"batch_size": 1e15}),
    *[("seeds", value) for value in ([True], [-1], [0, 0], [2**40], [], [1.5])],
    *[("resources.threads", value) for value in (10**9, 0, True)],
    ("resources.gpu", 10**6),
    ("resources.mem_mb", 10**15),
    ("resources.runtime", 10**15),
    ("resources.checkpoint_seconds", INF),
    *[("backbones.tiny.image_size", value) for value in (70, 0, -16, 10**9, True)],
    *[("backbones.tiny.model", value) for value in ("vit_smal_patch16_224", "resnet18", "beit_base_patch16_224")],
    *[("backbones.tiny.model", value) for value in ("vit_small_patch16_18x2_224", "vit_tiny_patch16_224.moon", "")],
    *[("backbones.tiny.weights", value) for value in ("embedded:moon", "embedded:imgfocus", "hub")],
    *[("probes.image_sizes", value) for value in ({"camvid": 70}, {"camvid": True}, {"moon": 64}, {"camvid": 10**9})],
    ("probes.features.batch_size", 10**15),
    *[("probes.depth.lr_grid", value) for value in ([INF], [1e30], [0.1, 0.01], [], [True])],
    ("probes.segmentation.clip", INF),
    ("probes.segmentation.steps", 10**15),
    ("probes.linear.k", True),
    ("probes.linear.c_grid", [1e300]),
    *[("domains.tabletop.sizes", value) for value in ([21], [0], [10, 10], [True], [10**15])],
    *[("domains.camvid.sizes", value) for value in ([51], [-4])],
    *[("domains.tabletop.pool", value) for value in (10**9, 10**15, True)],
    *[("domains.camvid.resolution", value) for value in (10**6, 8, True)],
    *[("domains.camvid.val_fraction", value) for value in (NAN, 0.9)],
    ("domains.camvid.max_quarantined", 1.5),
    *[
        ("grid", [{"methods": ["base"]}, {key: value}])
        for key, value in (
            ("seeds", [0, 0]),
            ("methods", ["base", "base"]),
            ("sizes", [2, 2]),
            ("domains", ["camvid", "camvid"]),
            ("backbones", ["tiny", "tiny"]),
            ("methods", ["base"]),
        )
    ],
    *[("domains.imagefolder.masks", {"classes": given}) for given in ({"a": 1.5, "b": 1}, 3, {"a": [1, 2], "b": 1})],
    ("study", "x" * 100_000),
    ("study", True),
]
"""Key and value; the message names the key, or the part of the study whose values contradict each other."""


def with_value(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(STUDY)
    *parents, last = path.split(".")
    inner = config
    for key in parents:
        inner = inner.setdefault(key, {})
    inner[last] = value
    if path.endswith((".clip", ".betas", ".weight_decay", ".weight_decay_end")) and "methods" in path:
        inner.setdefault("lr", 1e-4)
    return config


def names_of(path: str) -> list[str]:
    """Return the words of which one has to be in a message: the key, or for a block its first setting."""
    return [path.split(".")[-1], *(["feature_weight"] if path == "methods.tec" else [])]


def test_the_study_itself_is_valid() -> None:
    assert validate(STUDY).study == "senseless"
    for path, most in (("domains.camvid.sizes", 50), ("domains.tabletop.sizes", 20)):
        assert validate(with_value(path, [most])).domains[path.split(".")[1]].sizes == (most,)
    assert len(SENSELESS) >= 81


@pytest.mark.parametrize(("path", "value"), SENSELESS, ids=[f"{p}={str(v)[:40]}" for p, v in SENSELESS])
def test_a_senseless_setting_is_refused_by_its_key(path: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        validate(with_value(path, value))
    message = str(error.value)
    assert "1 error(s)" in message or message.count("\n") == 2, message
    assert any(name in message for name in names_of(path)), message
    assert len(message.encode()) <= LONGEST


@pytest.mark.parametrize("given", [{"a": 1.5, "b": 1}, 3, [1, "b"]])
def test_a_value_of_no_kind_is_one_line_without_the_kinds_that_were_tried(given: Any) -> None:
    with pytest.raises(UserError) as error:
        validate(with_value("domains.imagefolder.masks", {"classes": given}))
    assert str(error.value).startswith("config: 1 error(s)\n  domains.imagefolder.masks.classes")
    assert not any(part in str(error.value) for part in ("constrained", "dict[", "tuple["))


def test_all_are_said_at_once_each_on_a_line() -> None:
    config = with_value("methods.dino.optimiser.lr", INF)
    for path, value in (("training.batch_size", 1e15), ("resources.threads", 10**9), ("seeds", [True])):
        config |= {path.split(".")[0]: with_value(path, value)[path.split(".")[0]]}
    config["backbones"]["tiny"]["image_size"] = 70
    with pytest.raises(UserError) as error:
        validate(config)
    lines = str(error.value).splitlines()
    assert lines[0] == "config: 5 error(s)"
    for line, key in zip(
        sorted(lines[1:]), ("backbones.tiny.image_size", "methods.dino", "resources", "seeds", "training"), strict=True
    ):
        assert line.strip().startswith(key), line


def numeric_fields() -> Iterator[tuple[type[BaseModel], str, Any, type]]:
    """Yield every field of every configuration model that holds numbers, and the kind of number."""
    seen, waiting = set(), [Study]
    while waiting:
        model = waiting.pop()
        if model in seen:
            continue
        seen.add(model)
        for name, field in model.model_fields.items():
            plain = list(plain_types(field.annotation))
            waiting += [kind for kind in plain if isinstance(kind, type) and issubclass(kind, Strict)]
            for kind in (int, float):
                if kind in plain and bool not in plain:
                    yield model, name, field.annotation, kind


def plain_types(annotation: Any) -> Iterator[Any]:
    arguments = () if typing.get_origin(annotation) is typing.Literal else typing.get_args(annotation)
    if not arguments:
        yield annotation
    for part in arguments:
        yield from plain_types(part)


def shaped(annotation: Any, value: Any) -> Any:
    """Return a value of the shape that a field has: itself, in a list, or in a mapping."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return shaped(arguments[0], value)
    if origin in (typing.Union, types.UnionType):
        return shaped(next(part for part in arguments if part is not type(None)), value)
    if origin is tuple:
        return [value] * (1 if arguments[-1] is Ellipsis else len(arguments))
    return {"camvid": value} if origin is dict else value


FIELDS = list(numeric_fields())


@pytest.mark.parametrize(
    ("model", "name", "annotation", "kind"), FIELDS, ids=[f"{model.__name__}.{name}" for model, name, *_ in FIELDS]
)
def test_every_number_of_every_model_is_bounded_and_no_switch(
    model: type[BaseModel], name: str, annotation: Any, kind: type
) -> None:
    """A new field cannot forget it: walked from `Study`, through methods, probes and domains."""
    for value in (INF, -INF, NAN, True, False, 1e30, -1e30, 10**15):
        with pytest.raises(ValueError, match=rf"(?m)^{name}(\.|$)"):
            model.model_validate({name: shaped(annotation, value)})


def test_the_walk_finds_them_all() -> None:
    found = {f"{model.__name__}.{name}" for model, name, *_ in FIELDS}
    assert len(found) > 120
    assert {"Optimiser.betas", "Training.milestones", "Config.c_grid", "Tabletop.pool", "Block.sizes"} <= found


@pytest.mark.parametrize(
    "model", ["vit_small_patch14_dinov2.lvd142m", "vit_small_patch16_dinov3", "test_vit", "deit_tiny_patch16_224",
              "eva02_tiny_patch14_224", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_siglip_224", "test_vit2"]
)  # fmt: skip
def test_shapes_read_from_timms_sources_are_those_of_its_models(model: str) -> None:
    with torch.device("meta"):
        vit = timm.create_model(model, num_classes=0, dynamic_img_size=True)
    real = (vit.embed_dim, len(vit.blocks), vit.patch_embed.patch_size[0], vit.num_prefix_tokens)
    assert tuple(geometry(model)) == real


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("resnet18", "resnet18 is a ResNet"),
        ("beit_base_patch16_224", "is a Beit"),
        ("cait_xxs24_224", "is a Cait"),
        ("vit_small_patch16_18x2_224", "parallel blocks"),
        ("vit_smal_patch14_dinov2", "did you mean vit_small_patch14_dinov2?"),
        ("vit_small_patch14_dinov2.lvd142", "has lvd142m"),
    ],
)
def test_a_model_that_is_no_plain_vit_is_named(model: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        geometry(model)
    assert expected in str(error.value)


# The file itself

PLAIN = yaml.safe_dump(STUDY)
BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
FILES: list[tuple[str, bytes, str]] = [
    ("key twice", b"study: one\ntraining: {}\nstudy: two\n", "line 3: key 'study' is given twice, first in line 1"),
    ("inner key twice", b"training: {epochs: 1, epochs: 2}\n", "line 1: key 'epochs' is given twice"),
    ("merge key twice", b"a: &a {x: 1}\nb: {<<: *a, <<: *a}\n", "line 2: key '<<' is given twice"),
    ("octal", b"resolution: 0100\n", "line 1: 0100 is not a plain decimal number"),
    ("hexadecimal", b"resolution: 0x40\n", "0x40 is not a plain decimal number"),
    ("base sixty", b"resolution: 1:30\n", "1:30 is not a plain decimal number"),
    ("long integer", b"seeds: [" + b"9" * 5000 + b"]\n", "99999999… (5000 digits)"),
    ("deep list", b"a: " + b"[" * 10_000 + b"]" * 10_000 + b"\n", "nested more than 30 deep"),
    ("deep mapping", b"a: " + b"{a: " * 10_000 + b"1" + b"}" * 10_000 + b"\n", "nested more than 30 deep"),
    ("alias bomb", BOMB.encode(), "more than 100000 values when aliases are written out"),
    ("circle", b"a: &a [*a]\n", "a value that contains itself"),
    ("unknown alias", b"a: *b\n", "undefined alias"),
    ("list as key", b"[1, 2]: 3\n", "a key that is no word"),
    ("UTF-16", PLAIN.encode("utf-16"), "UTF-16"),
    ("UTF-16 without mark", PLAIN.encode("utf-16-le"), "UTF-16"),
    ("latin-1", b"study: a\n# caf\xe9\n", "line 2: byte 0xe9 is not UTF-8"),
    ("binary", bytes(range(256)), "is UTF-16, UTF-32 or no text"),
    ("control character", b"study: a\x07\n", "not valid YAML"),
    ("tab", b"training:\n\tepochs: 1\n", "line 2"),
    ("open bracket", b"a: [1\n", "line 2"),
    ("two documents", b"study: a\n---\nstudy: b\n", "line 2"),
    ("python object", b"study: !!python/object/apply:os.system [ls]\n", "line 1"),
    ("large", b"# " + b"x" * 2**20 + b"\n", "at most 1048576"),
    ("empty", b"", "expected a mapping of keys"),
    ("list", b"- a\n", "expected a mapping of keys"),
    ("words", b"just words\n", "expected a mapping of keys"),
    ("long key", b"x" * 1000 + b": 1\n", "unknown key"),
    ("long value", b"study: " + b"x" * 100_000 + b"\n", "at most"),
    ("many unknown keys", "".join(f"key{i}: 1\n" for i in range(2000)).encode(), "more"),
    ("key that is a number", b"1: 2\n", "1: Keys should be strings"),
]


@pytest.mark.parametrize(("content", "expected"), [row[1:] for row in FILES], ids=[row[0] for row in FILES])
def test_a_file_that_cannot_be_meant_is_refused_in_short(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load(path)
    message = str(error.value)
    assert expected in message
    assert "study.yaml" in message
    assert len(message.encode()) <= LONGEST


def test_places_that_are_no_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    for path, expected in (
        (tmp_path, "is a folder"),
        (tmp_path / "dangling", "a link to nowhere, which does not exist"),
        (tmp_path / "absent", "no such file"),
        (Path("/dev/null"), "is no regular file"),
    ):
        with pytest.raises(UserError) as error:
            load(path)
        assert expected in str(error.value)


def test_a_byte_order_mark_and_an_exponent_without_a_point_are_read(tmp_path: Path) -> None:
    text = PLAIN.replace("diet_cp: {}", "diet_cp: {optimiser: {lr: 1e-4}}")
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8-sig")
    assert load(tmp_path / "study.yaml").methods["diet_cp"].optimiser.lr == 1e-4
