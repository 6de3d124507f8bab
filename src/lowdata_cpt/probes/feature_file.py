"""The feature cache: one safetensors file for all probes of a domain. Torch-free.

Tensors: `<set>/cls` float32 [M, D]; `<set>/patches` float16 [M, h, w, D] for sets with dense labels;
`<set>/cls_augmented` float32 [M, D] where an augmented bank was asked for. One metadata entry holds `Facts`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.strict import Strict
from lowdata_cpt.data.store import Store

METADATA_KEY = "features"
"""One entry with JSON in it: safetensors writes several entries in an order that changes from run to run."""


class Facts(Strict):
    """Where a feature file comes from: the store's content, the backbone's name and geometry."""

    domain: str
    content_sha256: str
    backbone: str
    image_size: int
    grid: int
    width: int


def read(path: Path, store: Store, set_name: str, kind: str) -> NDArray[Any]:
    """Return the features of one image set: [M, D] for cls and cls_augmented, [M, h, w, D] for patches.

    Raises:
        UserError: the file is missing or damaged, is of another store or grid, or lacks these features.
    """
    try:
        with safe_open(path, framework="numpy") as stream:
            facts = Facts.model_validate_json((stream.metadata() or {}).get(METADATA_KEY, ""))
            key = f"{set_name}/{kind}"
            value: NDArray[Any] | None = stream.get_tensor(key) if key in stream.keys() else None  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such feature file") from None
    except (SafetensorError, ValidationError, OSError):
        raise UserError(f"{path}: not a feature file of this version; run the features step again") from None
    if facts.content_sha256 != store.meta.content_sha256:
        raise UserError(
            f"{path}: features of other images (domain {facts.domain!r}, content {facts.content_sha256[:12]}); "
            f"expected {store.meta.domain!r}, content {store.meta.content_sha256[:12]}"
        )
    if value is None:
        hint = "; set `features.augmented_bank: true`" if kind == "cls_augmented" else ""
        raise UserError(f"{path}: has no {key!r}{hint}")
    count = len(store.rows(set_name))
    expected = (count, facts.grid, facts.grid, facts.width) if kind == "patches" else (count, facts.width)
    if value.shape != expected:
        raise UserError(f"{path}: {key!r} has shape {list(value.shape)}; expected {list(expected)}")
    return value
