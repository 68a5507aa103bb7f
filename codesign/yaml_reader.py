"""YAML files as plain data that remembers where everything stood, for errors such as `ecnn.yaml:7:3: ...`.

Stricter than YAML: no aliases, no tags, no duplicate keys, one document, at most 1 MiB and 64 levels. Plain scalars
follow YAML 1.2 (`1e3` is a number; `yes`, `on` and dates are text); every key is text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import yaml

from codesign.errors import CodesignError, Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 64

YamlValue: TypeAlias = "None | bool | int | float | str | list[YamlValue] | dict[str, YamlValue]"
YamlPath: TypeAlias = tuple[str | int, ...]

_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,40}(_[0-9]{1,40}){0,10}", re.ASCII)
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


@dataclass(frozen=True)
class YamlDocument:
    """Plain data and the line and column (from 1) of every key and list item in it.

    text: the file as it stands (without a byte order mark). sha256: of the file's bytes, in hexadecimal.
    """

    name: str
    data: YamlValue
    positions: Mapping[YamlPath, tuple[int, int]]
    text: str
    sha256: str

    def position(self, path: YamlPath) -> tuple[int, int]:
        """(line, column) of the key or list item at `path`, or of the nearest thing around it that exists."""
        while path not in self.positions and path:
            path = path[:-1]
        return self.positions.get(path, (1, 1))

    def where(self, path: YamlPath = ()) -> str:
        """`file:line:column` of `path`, as errors print it."""
        line, column = self.position(path)
        return f"{self.name}:{line}:{column}"


def read_yaml(path: Path) -> YamlDocument:
    """The one document of a file. Raises CodesignError naming `path` as given, with line and column."""
    name = str(path)
    if os.path.isdir(path):
        raise CodesignError(name, "this is a folder, not a YAML file")
    if not os.path.exists(path):
        raise CodesignError(name, "there is no such file")
    if not os.path.isfile(path):
        raise CodesignError(name, "this is not a regular file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CodesignError(name, f"cannot be read: {error.strerror}") from error
    return parse_yaml(content, name)


def parse_yaml(content: bytes, name: str) -> YamlDocument:
    """The one document in `content`; `name` is what errors call the file. Raises CodesignError."""
    text = _decoded(content, name)
    builder = _Builder(name)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except _Refused as refused:
        raise CodesignError(_where(name, refused.mark), refused.problem, refused.hint) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(name, error) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        where = f"{name}:{before.count(chr(10)) + 1}:{error.position - before.rfind(chr(10))}"
        raise CodesignError(where, f"the character U+{ord(text[error.position]):04X} is not allowed in YAML") from None
    if root is None:
        raise CodesignError(name, "the file is empty")
    data = builder.value(root, ())
    if builder.problems:
        raise CodesignError.of(builder.problems)
    return YamlDocument(name, data, builder.positions, text, sha256(content).hexdigest())


def _decoded(content: bytes, name: str) -> str:
    if len(content) > MAX_BYTES:
        raise CodesignError(name, "the file is larger than 1 MiB", "is it a YAML file at all?")
    if b"\0" in content:
        raise CodesignError(name, "this is a binary file, not YAML text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise CodesignError(
            f"{name}:{line}:{column}", f"byte 0x{content[error.start]:02x} is not UTF-8", "save the file as UTF-8"
        ) from None


class _Refused(Exception):
    def __init__(self, mark: yaml.Mark, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.mark, self.problem, self.hint = mark, problem, hint


class _Loader(yaml.SafeLoader):
    """SafeLoader that only composes nodes, and refuses what a description never needs and an attacker does."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(mark, f"aliases are not allowed: *{event.anchor}", "write the value out")
        if getattr(event, "tag", None) is not None:
            raise _Refused(mark, f"tags are not allowed: {_short(event.tag)}", "write the plain value")
        if self._depth >= MAX_DEPTH:
            raise _Refused(mark, f"nested more than {MAX_DEPTH} levels deep", "")
        self._depth += 1
        try:
            return super().compose_node(parent, index)  # type: ignore[arg-type]
        finally:
            self._depth -= 1


class _Builder:
    """Turns nodes into plain data, noting positions and every duplicate or non-text key on the way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.positions: dict[YamlPath, tuple[int, int]] = {}
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, path: YamlPath) -> YamlValue:
        """Data of one node; the position of `path` is noted unless its key already did."""
        self.positions.setdefault(path, _position(node.start_mark))
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path)
            case yaml.SequenceNode():
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            case yaml.ScalarNode(style=None):
                return _scalar(node.value)
            case _:
                return str(node.value)

    def _mapping(self, node: yaml.MappingNode, path: YamlPath) -> YamlValue:
        data: dict[str, YamlValue] = {}
        for key_node, value_node in node.value:
            here = _where(self.name, key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(here, "a key must be plain text, not a list or a mapping"))
                continue
            key: str = key_node.value
            if key in data:
                line, column = self.positions[*path, key]
                dotted = ".".join(map(str, (*path, key)))
                self.problems.append(
                    Problem(here, f"{dotted}: duplicate key, first given at {line}:{column}", "remove one of the two")
                )
                continue
            self.positions[*path, key] = _position(key_node.start_mark)
            data[key] = self.value(value_node, (*path, key))
        return data


def _scalar(text: str) -> None | bool | int | float | str:
    """A plain scalar by YAML 1.2's core rules; `.inf` and `.nan` stay text, digits may be grouped by underscores."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    return float(text) if _FLOAT.fullmatch(text) else text


def _syntax_error(name: str, error: yaml.MarkedYAMLError) -> CodesignError:
    mark = error.problem_mark or error.context_mark
    hint = ""
    problem = f"not valid YAML: {error.problem or error.context}"
    if error.problem and "'\\t'" in error.problem:
        hint = "indent with spaces, not tabs"
    elif error.problem == "could not find expected ':'" and error.context_mark:
        mark, hint = error.context_mark, "a line of a mapping reads `key: value`"
        problem = "not valid YAML: no ':' after this key"
    elif error.problem and error.problem.startswith("but "):
        problem = f"not valid YAML: {error.context}, {error.problem}"
    elif error.context and error.context_mark and error.context_mark is not mark:
        line, column = _position(error.context_mark)
        hint = f"{error.context} that begins at {line}:{column}"
    return CodesignError(_where(name, mark) if mark else name, problem, hint)


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _position(mark: yaml.Mark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _where(name: str, mark: yaml.Mark) -> str:
    line, column = _position(mark)
    return f"{name}:{line}:{column}"
