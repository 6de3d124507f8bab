"""What a language model is scored by: exact match of the final number, answer NLL, and NLL of held-out prose."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from lowdata_cpt.language.data import Splits
from lowdata_cpt.language.models import logits_of
from lowdata_cpt.language.tokens import Tokens, Windows, split

METRICS = {"pass_at_1": True, "answer_nll": False, "prose_nll": False}
"""Metric -> whether higher is better. Pass@1 is a fraction, the others are nats per token."""
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def final_number(text: str) -> str | None:
    """Return the normalised number that an answer ends in: the first after `####` if there is one, else the last."""
    marked = NUMBER.findall(text.partition("####")[2])
    found = marked[:1] or NUMBER.findall(text)[-1:]
    if not found:
        return None
    number = found[0].replace(",", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    digits = digits.lstrip("0") or "0"
    return f"{sign if digits != '0' else ''}{'0' if digits.startswith('.') else ''}{digits}"


@torch.no_grad()
def answers(model: Any, tokens: Tokens, prompts: tuple[str, ...], new_tokens: int, batch_size: int) -> list[str]:
    """Return greedy answers, in batches that are padded on the left, with a cache of keys and values."""
    device, said = next(model.parameters()).device, []
    for start in range(0, len(prompts), batch_size):
        asked = [[*tokens.bos, *tokens.encode(prompt)] for prompt in prompts[start : start + batch_size]]
        width = max(map(len, asked))
        ids = torch.tensor([[tokens.pad] * (width - len(one)) + one for one in asked], device=device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in asked], device=device)
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=tokens.eos,
            pad_token_id=tokens.pad,
        )
        for row in out[:, width:].tolist():
            said.append(tokens.decode(row[: row.index(tokens.eos)] if tokens.eos in row else row))
    return said


@torch.no_grad()
def nll(model: nn.Module, windows: Windows, batch_size: int) -> NDArray[np.float64]:
    """Return the mean NLL of each row's targets, in nats per token: [N]."""
    device, found = next(model.parameters()).device, []
    for start in range(0, len(windows), batch_size):
        ids, target = split(torch.from_numpy(np.array(windows[start : start + batch_size])).long().to(device))
        losses = F.cross_entropy(
            logits_of(model, ids[:, :-1]).float().transpose(1, 2), ids[:, 1:], reduction="none"
        ).double()
        weight = target[:, 1:].double()
        found.append(((losses * weight).sum(1) / weight.sum(1).clamp_min(1)).cpu().numpy())
    return np.concatenate(found)


def evaluate(
    model: nn.Module, tokens: Tokens, splits: Splits, new_tokens: int, batch_size: int
) -> tuple[dict[str, float], dict[str, NDArray[Any]], list[str]]:
    """Return a model's metrics, its outcome on each problem or window (the metric is their mean), and its answers."""
    model.eval()
    said = answers(model, tokens, splits.prompts, new_tokens, batch_size)
    right = [final_number(one) == final_number(true) for one, true in zip(said, splits.answers, strict=True)]
    outcomes: dict[str, NDArray[Any]] = {
        "pass_at_1": np.array(right),
        "answer_nll": nll(model, splits.problems, batch_size).astype(np.float32),
        "prose_nll": nll(model, splits.prose, max(1, batch_size // 4)).astype(np.float32),
    }
    return {name: float(outcomes[name].mean(dtype=np.float64)) for name in METRICS}, outcomes, said
