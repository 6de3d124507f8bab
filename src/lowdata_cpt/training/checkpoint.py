"""One file that holds a run's whole state, replaced atomically: safetensors, with a JSON header, never pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path, write_json

Optimisers = dict[str, torch.optim.Optimizer]


def save(folder: Path, identity: str, step: int, learner: nn.Module, optimisers: Optimisers, log: str = "") -> None:
    """Write `state.safetensors` (state before `step` is taken) and `progress.json` into `folder`.

    The header keeps the hash of all numbers, and `log`, the hash of the log that belongs to them.
    """
    tensors: dict[str, Tensor] = {f"learner/{key}": value for key, value in learner.state_dict().items()}
    for name, optimiser in optimisers.items():
        for i, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser/{name}/{i}/{key}"] = torch.as_tensor(value)
    # safetensors refuses tensors that share memory: a shared module (GLARE's frozen backbone) is stored once a name.
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    with atomic_path(folder / "state.safetensors") as temporary:
        header = {"identity": identity, "step": step, "log": log}
        save_file(tensors, temporary, metadata={"run": json.dumps(header), "sha256": _digest(header, tensors)})
    write_json(folder / "progress.json", {"step": step, "identity": identity})


def _digest(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of a header and of names, types, shapes and numbers."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load(folder: Path, identity: str, learner: nn.Module, optimisers: Optimisers) -> tuple[int, str]:
    """Restore a run in place; return the step to go on with, and the hash of its log: (0, "") without a state.

    Raises:
        UserError: the state belongs to another run, is damaged, or cannot be read.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        return 0, ""
    try:
        with safe_open(path, framework="pt") as stored:
            said = stored.metadata()
            header: dict[str, Any] = json.loads(said["run"])
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 - not a dict
        if said["sha256"] != _digest(header, tensors):
            raise ValueError("it is not as it was saved")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a readable training state ({error}); delete it to start this run again") from None
    if header["identity"] != identity:
        raise UserError(
            f"{path}: is the state of another run ({header['identity'][:12]}, expected {identity[:12]}); "
            "delete the folder to start this run from the beginning"
        )
    learner.load_state_dict({k.removeprefix("learner/"): v for k, v in tensors.items() if k.startswith("learner/")})
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser/{name}/"):
                _, _, i, field = key.split("/")
                state.setdefault(int(i), {})[field] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(header["step"]), str(header["log"])
