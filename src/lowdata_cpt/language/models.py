"""Causal language models as transformers knows them: built, opened, adapted and saved as safetensors."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import atomic_path
from lowdata_cpt.core.provenance import check, write_sidecar
from lowdata_cpt.language.config import ByteModel, HubModel, LoRA
from lowdata_cpt.language.tokens import ByteTokens, from_hub

MODEL = "model.safetensors"


def build(model: ByteModel, window: int) -> nn.Module:
    """Return a model of random weights, drawn from torch's global generator."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        model.architecture,
        vocab_size=ByteTokens.size,
        hidden_size=model.hidden,
        intermediate_size=model.intermediate,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.heads,
        max_position_embeddings=max(512, 2 * window),
        tie_word_embeddings=True,
        bos_token_id=ByteTokens.bos[0],
        eos_token_id=ByteTokens.eos,
        pad_token_id=ByteTokens.pad,
    )
    built: nn.Module = AutoModelForCausalLM.from_config(config)
    return built


def released(model: HubModel) -> nn.Module:
    """Return a released model in fp32.

    Raises:
        UserError: it cannot be had.
    """
    from transformers import AutoModelForCausalLM

    opened: nn.Module = from_hub(AutoModelForCausalLM, model, dtype=torch.float32, use_safetensors=True)
    return opened


def open_model(folder: Path) -> nn.Module:
    """Open a saved model in fp32.

    Raises:
        UserError: it is missing or damaged.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if not (folder / MODEL).is_file():
        raise UserError(f"{folder}: no model; expected {MODEL} and config.json")
    check(folder / MODEL)
    logging.disable_progress_bar()
    opened: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return opened


def whole(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights on the CPU, adapters folded in and tied weights once, as transformers names them."""
    merged: Any = model
    if hasattr(model, "merge_and_unload"):
        # Of a copy: merging and unmerging again would move the frozen weights by a rounding.
        merged = copy.deepcopy(merged).merge_and_unload()
    tied = {"lm_head.weight"} if merged.config.tie_word_embeddings else set()
    return {name: w.detach().cpu().contiguous() for name, w in merged.state_dict().items() if name not in tied}


def save_model(weights: dict[str, Tensor], settings: Any, folder: Path, **facts: Any) -> None:
    """Save weights with the `config` of their model as a folder that transformers opens, with a sidecar."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings.save_pretrained(folder)
    with atomic_path(folder / MODEL) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    write_sidecar(folder / MODEL, beside=[folder / "config.json"], **facts)


def adapt(model: nn.Module, lora: LoRA | None) -> nn.Module:
    """Freeze a model behind LoRA adapters, drawn from torch's global generator; without LoRA all of it is trained."""
    if lora is None:
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), bias="none",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        adapted: nn.Module = get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(
            f"lora.targets: {list(lora.targets)} do not fit the model ({str(error).splitlines()[0]})"
        ) from None
    return adapted


def vocabulary_of(model: Any) -> int:
    """Return how many ids a model knows."""
    return int(model.get_input_embeddings().num_embeddings)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Return the transformer layers of a model, adapted or not."""
    found = next((m for name, m in model.named_modules() if name.rpartition(".")[2] == "layers"), None)
    assert isinstance(found, nn.ModuleList), f"{type(model).__name__} has no list of layers"
    return found


def last_parameters(model: nn.Module, count: int) -> list[nn.Parameter]:
    """Return S: what is trained of the last `count` layers."""
    return [p for block in list(blocks_of(model))[-count:] for p in block.parameters() if p.requires_grad]


def logits_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Return the logits [B, L, V] of windows of ids [B, L], each attending to what comes before."""
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits
