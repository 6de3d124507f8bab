"""From text to token windows. A token that is no target of the loss is stored as −1 − id, so one array holds both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.paths import data_root
from lowdata_cpt.language.config import ByteModel, HubModel

Windows = NDArray[np.int32]


class Tokens(Protocol):
    """A tokenizer; `bos` is what a document begins with."""

    bos: tuple[int, ...]
    eos: int
    pad: int
    size: int

    def encode(self, text: str) -> list[int]:
        """Return a text's ids, without specials."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; specials are left out."""


class ByteTokens:
    """UTF-8 bytes: ids 0–255, then begin, end and padding."""

    bos: tuple[int, ...] = (256,)
    eos, pad, size = 257, 258, 259

    def encode(self, text: str) -> list[int]:
        """Return the text's bytes."""
        return list(text.encode())

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text; bytes that are no UTF-8 are replaced."""
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class HubTokens:
    """The tokenizer of a released model."""

    def __init__(self, model: HubModel) -> None:
        """Open it.

        Raises:
            UserError: it is neither in the local folder nor to be had from the hub.
        """
        from transformers import AutoTokenizer

        self.tokenizer: Any = from_hub(AutoTokenizer, model)
        self.eos = int(self.tokenizer.eos_token_id)
        self.pad = self.eos if self.tokenizer.pad_token_id is None else int(self.tokenizer.pad_token_id)
        self.bos: tuple[int, ...] = () if self.tokenizer.bos_token_id is None else (int(self.tokenizer.bos_token_id),)
        self.size = len(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Return a text's ids."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def model_folder(model: HubModel) -> Path:
    """Return the local folder of a released model."""
    return data_root() / "models" / model.name.rpartition("/")[2]


def from_hub(kind: Any, model: HubModel, **options: Any) -> Any:
    """Open what transformers keeps under a hub name, from the local folder where there is one.

    Raises:
        UserError: it cannot be had.
    """
    folder = model_folder(model)
    try:
        return kind.from_pretrained(
            *((folder,) if folder.is_dir() else (model.name,)), revision=model.revision, **options
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{model.name}: cannot be opened ({str(error).splitlines()[0]}); expected its files in {folder} "
            f"(`hf download {model.name} --revision {model.revision} --local-dir {folder}`) or a hub that answers"
        ) from None


def tokens_of(model: ByteModel | HubModel) -> Tokens:
    """Return the tokenizer of a model."""
    return ByteTokens() if isinstance(model, ByteModel) else HubTokens(model)


def split(stored: Any) -> tuple[Any, Any]:
    """Return ids and whether each is a target, of an array or tensor as it is stored."""
    target = stored >= 0
    return abs(stored) - 1 * ~target, target


def document(tokens: Tokens, prompt: str, completion: str, *, all_targets: bool = False) -> list[int]:
    """Return one document as it is stored; targets are the completion and the end, or all but the begin."""
    asked, said = tokens.encode(prompt), [*tokens.encode(completion), tokens.eos]
    return [*(-1 - i for i in tokens.bos), *(asked if all_targets else (-1 - i for i in asked)), *said]


def pack(documents: Iterable[list[int]], window: int, least: int = 1, padding: int | None = None) -> Windows:
    """Lay documents end to end and cut them into windows, int32 [N, window + 1], which share a token with the next.

    Args:
        documents: as `document` returns them.
        window: number of positions that predict.
        least: tokens after which no further document is taken; 0 takes all.
        padding: id that fills a window whose next document fits in one, but not in what is left; None cuts it.

    Raises:
        UserError: there is less than one window.
    """
    rows: list[Windows] = []
    waiting: list[int] = []
    seen = 0
    for one in documents:
        if padding is not None and len(one) <= window < len(waiting) + len(one) - 1:
            waiting += [-1 - padding] * (window + 1 - len(waiting))
            rows.append(np.array(waiting, dtype=np.int32))
            waiting = waiting[window:]
        waiting += one
        whole = (len(waiting) - 1) // window
        rows += [np.array(waiting[i * window : (i + 1) * window + 1], dtype=np.int32) for i in range(whole)]
        waiting, seen = waiting[whole * window :], seen + len(one)
        if least and seen >= least:
            break
    if not rows:
        raise UserError(f"window is {window} tokens, but the documents have {seen} together; expected a shorter window")
    return np.stack(rows)


def pad(documents: list[list[int]], tokens: Tokens, longest: int) -> Windows:
    """Return documents side by side, cut at `longest` tokens and filled with padding that is no target.

    Raises:
        UserError: of one no target is left.
    """
    width = min(longest, max(map(len, documents)))
    filled = np.full((len(documents), width), -1 - tokens.pad, dtype=np.int32)
    for row, one in zip(filled, documents, strict=True):
        row[: min(width, len(one))] = one[:width]
        if not (row >= 0).any():
            raise UserError(
                f"window is {longest} tokens, but a problem's answer begins later; expected a longer window"
            )
    return filled
