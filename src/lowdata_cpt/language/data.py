"""The splits of a language study: pretraining mixture, shifted stream, feedback, held-out problems and prose.

No problem of the feedback or of the test is in the pretraining or the stream, whatever its wording; of generated ones
none of their kind with the same last step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lowdata_cpt.core.errors import UserError
from lowdata_cpt.core.io import read_json, sha256_file, write_array, write_json
from lowdata_cpt.core.paths import data_root
from lowdata_cpt.core.provenance import check, write_sidecar
from lowdata_cpt.language import text
from lowdata_cpt.language.config import Generated, Hub, Learner, Source
from lowdata_cpt.language.tokens import Tokens, Windows, document, pack, pad, tokens_of

MANIFEST = "manifest.json"
ARRAYS = ("stream", "pretraining", "feedback", "prose", "problems")


@dataclass(frozen=True)
class Splits:
    """What a learner is trained on, taught by and scored with.

    Attributes:
        stream: int32 [N, window + 1], as `tokens` stores it.
        pretraining: the same of the start; None for released models.
        feedback: int32 [M, L], solved problems of the target kind.
        prose: int32 [P, window + 1], held out.
        problems: int32 [T, L], held-out problems with their solutions.
        prompts, answers: of the same problems: what is given, and the number at the end.
        groups: of the same problems: those of one number end in the same step; empty where each is its own.
    """

    stream: Windows
    pretraining: Windows | None
    feedback: Windows
    prose: Windows
    problems: Windows
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    groups: tuple[int, ...] = ()


def mixture(data: Generated, shares: dict[str, float], name: str, tokens: Tokens, without: frozenset[tuple[int, ...]],
            prose: list[str]) -> Iterator[list[int]]:  # fmt: skip
    """Yield documents of a mixture without end; a share is one of tokens.

    Whichever part is most behind its share comes next, so that the mixture is the same wherever it is cut.
    """
    kept = {
        kind: text.problems(kind, data.seed, name, without if kind == data.target else frozenset())
        for kind in text.KINDS
    }
    draw = text.generator(data.seed, f"{name}:prose")
    given = dict.fromkeys((kind for kind, share in shares.items() if share), 0)
    while True:
        kind = min(given, key=lambda one: given[one] / shares[one])
        if kind == "prose":
            one = document(tokens, "", prose[int(draw.random() * len(prose))], all_targets=True)
        else:
            drawn = next(kept[kind])
            assert kind != data.target or drawn.numbers not in without, "a held-out problem is in the stream"
            one = document(tokens, drawn.prompt, drawn.completion)
        given[kind] += len(one)
        yield one


def generated(data: Generated, learner: Learner, feedback: int, test: int, prose_windows: int) -> Splits:
    """Return the splits of generated text."""
    tokens = tokens_of(learner.model)
    (tested, taught), without = text.held_out(data.target, (test, feedback), data.seed)
    assert len({one.numbers for one in (*tested, *taught)} & without) == test + feedback, "a problem is held out twice"
    shown, prose = text.paragraphs()
    _, groups = np.unique([text.last_step(one.kind, one.numbers) for one in tested], return_inverse=True)
    padding = tokens.pad if learner.whole else None
    packed = {
        name: pack(mixture(data, shares, name, tokens, without, shown), learner.window, least, padding)
        for name, shares, least in (
            ("stream", data.stream, data.stream_tokens),
            ("pretraining", data.pretraining, data.pretraining_tokens),
        )
    }

    def solved(held: list[text.Problem]) -> Windows:
        return pad([document(tokens, one.prompt, one.completion) for one in held], tokens, learner.window)

    return Splits(
        stream=packed["stream"],
        pretraining=packed["pretraining"],
        feedback=solved(taught),
        prose=_prose(prose, tokens, learner.window)[:prose_windows],
        problems=solved(tested),
        prompts=tuple(one.prompt for one in tested),
        answers=tuple(one.answer for one in tested),
        groups=tuple(groups.tolist()),
    )


def _prose(paragraphs: list[str], tokens: Tokens, window: int) -> Windows:
    return pack((document(tokens, "", one, all_targets=True) for one in paragraphs), window, 0)


def normalised(question: str) -> str:
    """Return what makes a question of the hub the same as another: its letters and digits."""
    return re.sub(r"[^a-z0-9]", "", question.lower())


def files_of(source: Source) -> list[Path]:
    """Return the local files of a set of the hub.

    Raises:
        UserError: there are none; it says what to put where.
    """
    folder = data_root() / source.name.rpartition("/")[2]
    if found := sorted(folder.glob(source.files)):
        return found
    raise UserError(
        f"{folder / source.files}: no such file; expected the hub's {source.name} there "
        f"(`hf download --repo-type dataset {source.name} --local-dir {folder}`; $LOWDATA_DATA names the folder above)"
    )


def read_source(source: Source) -> Any:
    """Return a set of the hub from its local files, as `datasets` reads them.

    Raises:
        UserError: they are missing, not readable, or without the named columns.
    """
    from datasets import Dataset  # type: ignore[import-untyped]

    files = files_of(source)
    read = Dataset.from_parquet if files[0].suffix == ".parquet" else Dataset.from_json
    try:
        found = read([str(file) for file in files])
    except Exception as error:  # datasets raises errors of its own, of pyarrow's and of fsspec's
        raise UserError(
            f"{files[0]}: not readable ({str(error).splitlines()[0]}); expected parquet or JSON lines"
        ) from None
    if lacking := {source.question, source.answer} - set(found.column_names):
        raise UserError(f"{files[0]}: has no column {sorted(lacking)}; it has {found.column_names}")
    return found.select_columns([source.question, source.answer])


def _solved(source: Source, row: dict[str, str]) -> tuple[str, str]:
    return f"Question: {row[source.question].strip()}\nAnswer:", f" {row[source.answer].strip()}"


def of_hub(data: Hub, learner: Learner, feedback: int, test: int, prose_windows: int) -> Splits:
    """Return the splits of sets of the hub; prose is the package's, and a start of random weights sees the stream."""
    tokens = tokens_of(learner.model)
    held: dict[str, list[dict[str, str]]] = {}
    for name, source, count in (("feedback", data.feedback, feedback), ("test", data.test, test)):
        rows = read_source(source)
        if name == "feedback" and len(rows) < count:
            raise UserError(f"feedback is {count}; expected at most the {len(rows)} rows of {source.name}")
        draw = text.generator(data.seed, name)
        order = sorted((draw.random(), i) for i in range(len(rows)))
        held[name] = [rows[i] for _, i in order[:count]]
    without = {
        normalised(row[source.question])
        for name, source in (("feedback", data.feedback), ("test", data.test))
        for row in held[name]
    }
    both = {normalised(row[data.feedback.question]) for row in held["feedback"]} & {
        normalised(row[data.test.question]) for row in held["test"]
    }
    held["feedback"] = [row for row in held["feedback"] if normalised(row[data.feedback.question]) not in both]
    stream = (
        document(tokens, *_solved(data.stream, row))
        for row in read_source(data.stream)
        if normalised(row[data.stream.question]) not in without
    )
    windows = pack(stream, learner.window, 0, tokens.pad if learner.whole else None)
    problems = [_solved(data.test, row) for row in held["test"]]
    return Splits(
        stream=windows,
        pretraining=windows if learner.pretraining else None,
        feedback=pad(
            [document(tokens, *_solved(data.feedback, row)) for row in held["feedback"]], tokens, learner.window
        ),
        prose=_prose(text.paragraphs()[1], tokens, learner.window)[:prose_windows],
        problems=pad([document(tokens, *one) for one in problems], tokens, learner.window),
        prompts=tuple(prompt for prompt, _ in problems),
        answers=tuple(answer for _, answer in problems),
    )


def make(data: Generated | Hub, learner: Learner, feedback: int, test: int, prose_windows: int) -> Splits:
    """Return the splits of a learner."""
    maker: Any = generated if isinstance(data, Generated) else of_hub
    splits: Splits = maker(data, learner, feedback, test, prose_windows)
    return splits


def write(splits: Splits, folder: Path, params: Any) -> None:
    """Write the splits' arrays, and manifest.json with their hashes, sizes and the test's prompts."""
    files = {name: getattr(splits, name) for name in ARRAYS if getattr(splits, name) is not None}
    for name, array in files.items():
        write_array(folder / f"{name}.npy", array)
    content = {
        "sha256": {name: sha256_file(folder / f"{name}.npy") for name in files},
        "shape": {name: list(array.shape) for name, array in files.items()},
        "prompts": splits.prompts,
        "answers": splits.answers,
        "groups": splits.groups,
        "prose": {"package": "mujoco-core", "licence": "Apache-2.0", "sha256": text.PROSE_SHA256},
    }
    write_json(folder / MANIFEST, content)
    write_sidecar(folder / MANIFEST, config=params, beside=[folder / f"{name}.npy" for name in files])


def read(folder: Path) -> Splits:
    """Read splits; each file is held to the hash that it was written with.

    Raises:
        UserError: one is missing or damaged.
    """
    manifest = check(folder / MANIFEST)
    content = read_json(manifest)
    found: dict[str, Any] = dict.fromkeys(ARRAYS)
    found |= {name: tuple(content[name]) for name in ("prompts", "answers", "groups")}
    for name in content["sha256"]:
        found[name] = np.load(check(folder / f"{name}.npy", manifest), mmap_mode="r", allow_pickle=False)
    return Splits(**found)
