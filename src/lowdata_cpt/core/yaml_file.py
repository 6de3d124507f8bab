"""Reading YAML that a person wrote: bounded in every direction, and nothing reads otherwise than it looks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lowdata_cpt.core.errors import UserError

LARGEST_FILE = 2**20
DEEPEST = 30
MOST_VALUES = 100_000
MOST_DIGITS = 18


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses deep nesting and numbers that are not plain decimals."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEEPEST} deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_yaml_int(self, node: Any) -> int:
        text = str(node.value)
        if not re.fullmatch(rf"[-+]?(0|[1-9][0-9]{{0,{MOST_DIGITS - 1}}})", text.replace("_", "")):
            shown = text if len(text) <= MOST_DIGITS + 2 else f"{text[:8]}… ({len(text)} digits)"
            raise yaml.MarkedYAMLError(
                problem=f"{shown} is not a plain decimal number; expected one without leading zeros, of at most "
                f"{MOST_DIGITS} digits",
                problem_mark=node.start_mark,
            )
        return int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: Path) -> Any:
    """Read a YAML file (UTF-8, with or without byte order mark) into plain values.

    Raises:
        UserError: it cannot be read, is not YAML, gives a key twice, is too large or too deep, or has a number that is
            not what it looks like (`0100` is 64 in YAML, `1:30` is 90); one sentence with the line.
    """
    text = _text(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{path}: {line}{' '.join(said.split())[:300]}; expected YAML") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())[:300]})") from None


def _text(path: Path) -> str:
    """Return a file's text."""
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; expected a YAML file")
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path}: a link to {path.readlink()}, which does not exist; expected a YAML file")
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no regular file; expected a YAML file")
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: has {path.stat().st_size} bytes; expected a YAML file of at most {LARGEST_FILE}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a YAML file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:100]:
        raise UserError(f"{path}: is UTF-16, UTF-32 or no text; expected YAML in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8") from None


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for, its aliases written out; refuse keys that are given twice.

    Args:
        node: of the composed document, whose aliases are the same object.
        known: id -> count of the nodes that are counted; 0 for those that are being counted.
    """
    if id(node) in known:
        if known[id(node)] == 0:
            raise yaml.MarkedYAMLError(problem="a value that contains itself", problem_mark=node.start_mark)
        return known[id(node)]
    known[id(node)] = 0
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count(item, known) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key that is no word", problem_mark=key.start_mark)
            if key.value in first:
                before = first[key.value].start_mark.line + 1
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value[:60]!r} is given twice, first in line {before}",
                    problem_mark=key.start_mark,
                )
            first[key.value] = key
            total += _count(value, known)
    if total > MOST_VALUES:
        raise yaml.MarkedYAMLError(
            problem=f"more than {MOST_VALUES} values when aliases are written out", problem_mark=node.start_mark
        )
    known[id(node)] = total
    return total
