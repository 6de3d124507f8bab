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
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("resources.device is cuda, but torch sees no CUDA device; use auto or cpu")
    if name == "cuda":
        # fp32 means fp32 on every device: cuDNN would otherwise round convolutions (the patch embedding) to TF32 while
        # matrix products stay exact. Who wants speed says bf16.
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


def fits(size: int, device: torch.device) -> bool:
    """Say whether `size` bytes may lie on a device all along: half of what is free there; on the CPU always."""
    return device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] // 2
