"""Where tensors live. Apart from the backbones, so that a probe need not import timm to know."""

from __future__ import annotations

import torch

from lowdata_cpt.core.errors import UserError


def pick_device(name: str) -> torch.device:
    """Resolve `auto | cpu | cuda`.

    Raises:
        UserError: cuda is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("resources.device is cuda, but torch sees no CUDA device; use auto or cpu")
    return torch.device(name)
