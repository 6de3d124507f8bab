"""What a language model is scored by: exact match of the final number; accuracy and NLL of answers and prose."""

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

METRICS = ("pass_at_1", "answer_accuracy", "prose_accuracy", "answer_nll", "prose_nll")
"""Pass@1 and the accuracies, of target tokens given those before them, are fractions; NLLs are nats per token."""
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
def scored(model: nn.Module, windows: Windows, batch_size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return of each row's targets the share that is the model's likeliest token, and the mean NLL in nats: [N] each.

    NLL alone is no measure of ability here: a fixed α flattens the distribution, which costs NLL by itself.
    """
    device, found = next(model.parameters()).device, []
    for start in range(0, len(windows), batch_size):
        ids, target = split(torch.from_numpy(np.array(windows[start : start + batch_size])).long().to(device))
        logits, true = logits_of(model, ids[:, :-1]).float(), ids[:, 1:]
        losses = F.cross_entropy(logits.transpose(1, 2), true, reduction="none")
        both, weight = torch.stack([logits.argmax(-1) == true, losses]).double(), target[:, 1:].double()
        found.append(((both * weight).sum(-1) / weight.sum(-1).clamp_min(1)).float().cpu().numpy())
    right, nll = np.concatenate(found, axis=1)
    return right, nll


def evaluate(
    model: nn.Module, tokens: Tokens, splits: Splits, new_tokens: int, batch_size: int
) -> tuple[dict[str, float], dict[str, NDArray[Any]], list[str]]:
    """Return a model's metrics, its outcome on each problem or window (the metric is their mean), and its answers."""
    model.eval()
    said = answers(model, tokens, splits.prompts, new_tokens, batch_size)
    right = [final_number(one) == final_number(true) for one, true in zip(said, splits.answers, strict=True)]
    outcomes: dict[str, NDArray[Any]] = {"pass_at_1": np.array(right)}
    for name, windows, batch in (("answer", splits.problems, batch_size), ("prose", splits.prose, batch_size // 4)):
        outcomes[f"{name}_accuracy"], outcomes[f"{name}_nll"] = scored(model, windows, max(1, batch))
    return {name: float(outcomes[name].mean(dtype=np.float64)) for name in METRICS}, outcomes, said
