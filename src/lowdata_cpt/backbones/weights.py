"""Where a backbone's weights come from, and how saved ones are opened again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from lowdata_cpt.backbones.adapters import attach
from lowdata_cpt.backbones.embedded import ensure_imgfocus
from lowdata_cpt.backbones.vit import ViT
from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, read_json, sha256_file, write_json
from lowdata_cpt.core.provenance import check, write_sidecar

STAND_IN_SEED = 1_000_003  # of `weights: random`; not a study's seed, so that the row `random` is another network
MODEL, FACTS, ADAPTER, ADAPTER_CONFIG = "model.safetensors", "model.json", "adapter.safetensors", "adapter.json"
BEHIND = ("norm.", "fc_norm.", "head")  # the blocks
EMBEDDED = {"imgfocus": ensure_imgfocus}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    with atomic_path(path) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)


def load_into(vit: ViT, path: Path, *, released: bool = False) -> None:
    """Load a timm state dict into `vit`, strictly; `released` weights are fitted first (`_fitted`).

    Raises:
        UserError: keys or shapes do not fit the model, or released weights are no finite numbers.
    """
    state = read_tensors(path)
    try:
        vit.model.load_state_dict(_fitted(vit, state, path) if released else state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: the weights do not fit timm model {vit.name!r}: {first}") from None


def _fitted(vit: ViT, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return weights without the classifier's head, their position grid resampled as timm does, in float32; say so.

    Raises:
        UserError: a tensor holds whole numbers, or values that are not finite.
    """
    model, said = vit.model, []
    own = model.state_dict()
    heads = sorted(name for name in state if name.startswith("head") and name not in own)
    if heads:
        said.append(f"{', '.join(heads)} of the classifier are left out")
    state = {name: value for name, value in state.items() if name not in heads}
    for name, value in state.items():
        if not value.is_floating_point():
            raise UserError(f"{path}: tensor {name!r} is of type {value.dtype}; expected floating-point weights")
        if not value.isfinite().all():
            raise UserError(f"{path}: tensor {name!r} holds values that are not finite; get the file again")
    if others := sorted({str(value.dtype) for value in state.values()} - {"torch.float32"}):
        said.append(f"{', '.join(others)} becomes float32")
    grid, prefix = state.get("pos_embed"), 0 if getattr(model, "no_embed_class", False) else vit.num_prefix_tokens
    if grid is not None and grid.ndim == 3 and "pos_embed" in own and grid.shape != own["pos_embed"].shape:
        side, size = math.isqrt(max(grid.shape[1] - prefix, 0)), model.patch_embed.grid_size
        if side and side**2 == grid.shape[1] - prefix and grid.shape[2] == vit.width:
            state["pos_embed"] = resample_abs_pos_embed(grid.float(), list(size), num_prefix_tokens=prefix)
            said.append(f"the position embedding's grid of {side} × {side} is resampled to {size[0]} × {size[1]}")
    if said:
        print(f"{path}: {'; '.join(said)}")
    return {name: value.float() for name, value in state.items()}


def obtain(model: str, weights: str, sha256: str | None, image_size: int, cache: Path) -> ViT:
    """Create the backbone with its released weights.

    Raises:
        UserError: the weights cannot be had here, are damaged, or do not fit the model.
    """
    kind, _, place = weights.partition(":")
    if kind == "timm":
        try:
            return ViT(model, pretrained=True, image_size=image_size)
        except UserError:
            raise
        except Exception as error:  # timm's hub client raises what its transport raises
            raise UserError(
                f"backbone {model!r}: timm's hub could not be reached or has no weights for it "
                f"({type(error).__name__}); use `weights: file:<safetensors>` or `embedded:…` on an offline machine"
            ) from None
    vit = ViT(model, image_size=image_size)
    if kind == "random":
        vit.randomise(STAND_IN_SEED)
        return vit
    if kind == "embedded":
        if place not in EMBEDDED:
            raise UserError(f"backbone weights {weights!r}: unknown package; there are {sorted(EMBEDDED)}")
        path = EMBEDDED[place](cache)
    else:
        path = Path(place).expanduser()
        if not path.exists():
            raise UserError(f"backbone weights {weights!r}: no such file; expected timm's state dict as safetensors")
    if sha256 is not None and (found := sha256_file(path)) != sha256:
        raise UserError(f"{path}: sha256 is {found}, but the config expects {sha256}")
    load_into(vit, path, released=True)
    return vit


def save_export(
    folder: Path, vit_name: str, backbone: dict[str, Tensor], adapter: dict[str, Tensor], config: Any
) -> None:
    """Write a model folder: model.safetensors (timm-loadable), model.json, and the adapter's two files if any."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / MODEL, backbone)
    write_json(folder / FACTS, {"timm_model": vit_name, "adapter": bool(adapter)})
    if adapter:
        write_tensors(folder / ADAPTER, adapter)
        write_json(folder / ADAPTER_CONFIG, config)


def record_export(folder: Path, **facts: Any) -> None:
    """Write the sidecar of a model folder's weights, with the hashes of what belongs to them; `facts` go into it."""
    beside = [path for name in (FACTS, ADAPTER, ADAPTER_CONFIG) if (path := folder / name).exists()]
    write_sidecar(folder / MODEL, beside=beside, **facts)


def check_export(folder: Path) -> tuple[str, bool]:
    """Hold a model folder to the hashes of its sidecar; return its timm model, and whether it has an adapter.

    Raises:
        UserError: the folder is incomplete or damaged.
    """
    model = folder / MODEL
    again = folder.parent.with_name("cost.json") if folder.parent.name == "export" else model
    for path in (check(model, again=again), folder / FACTS):
        if not path.exists():
            raise UserError(f"{path}: no such file; expected a model folder with {MODEL} and {FACTS}")
    facts = read_json(check(folder / FACTS, model, again=again))
    if not isinstance(facts, dict) or not isinstance(facts.get("timm_model"), str) or "adapter" not in facts:
        raise UserError(f"{folder / FACTS}: expected the keys timm_model and adapter")
    for name in (ADAPTER, ADAPTER_CONFIG) if facts["adapter"] else ():
        check(folder / name, model, again=again)
    return facts["timm_model"], bool(facts["adapter"])


def open_export(folder: Path, image_size: int) -> ViT:
    """Open a model folder as a frozen backbone in eval mode, with its adapter attached where it has one.

    Raises:
        UserError: the folder is incomplete or damaged, or its weights do not fit.
    """
    name, adapted = check_export(folder)
    vit = ViT(name, image_size=image_size)
    load_into(vit, folder / MODEL)
    if adapted:
        attach(vit, read_tensors(folder / ADAPTER), read_json(folder / ADAPTER_CONFIG))
    vit.requires_grad_(False)
    return vit.eval()


def shared_blocks(folders: Sequence[Path]) -> int:
    """Return how many leading blocks have equal weights in all model folders, as has what comes before them.

    0 for a single folder and for adapters, which sit in every block.

    Raises:
        UserError: a folder is incomplete or damaged.
    """
    adapted = [check_export(folder)[1] for folder in folders]
    if any(adapted) or len(folders) < 2:
        return 0
    states = (read_tensors(folder / MODEL) for folder in folders)
    first = next(states)
    stages = {name: stage for name in first if (stage := _stage(name)) is not None}
    shared = max(stages.values())
    for state in states:
        differing = (at for name, at in stages.items() if not torch.equal(first[name], state[name]))
        shared = min([shared, *(max(at - 1, 0) for at in differing)])
    return shared


def _stage(name: str) -> int | None:
    """Return 0 for a weight before the blocks, i + 1 for one of block i, None for one behind them."""
    if name.startswith(BEHIND):
        return None
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0
