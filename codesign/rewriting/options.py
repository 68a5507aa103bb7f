"""Options of passes: what they are, and values from YAML or the command line checked against their types."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from codesign.errors import CodesignError, Problem, did_you_mean
from codesign.rewriting.graph_pass import GraphPass
from codesign.yaml_reader import YamlValue

_PLAIN_TEXT = re.compile(r"[A-Za-z/_]")  # YAML reads what begins otherwise as a number, or not at all
_WORDS = ("true", "false", "null", "yes", "no", "on", "off")
_TYPE_NAMES: dict[type, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a mapping",
    NoneType: "nothing",
}


@dataclass(frozen=True)
class Option:
    """A field of a pass. kind: int, float, bool, str, or a Literal of texts."""

    name: str
    kind: Any
    default: int | float | bool | str
    meaning: str

    @property
    def kind_name(self) -> str:
        """What a value must be, in words."""
        if get_origin(self.kind) is Literal:
            return "one of " + ", ".join(get_args(self.kind))
        return _TYPE_NAMES[self.kind]

    @property
    def sentence(self) -> str:
        """What it means and what it may be: `rows of a block (an integer)`."""
        return f"{self.meaning} ({self.kind_name})"

    def accepts(self, value: YamlValue) -> bool:
        """Whether a value read from YAML has the right type (an integer is a number too; true is no integer)."""
        if get_origin(self.kind) is Literal:
            return value in get_args(self.kind)
        if self.kind is float:
            return type(value) in (int, float)
        return type(value) is self.kind


def options_of(kind: type[GraphPass]) -> tuple[Option, ...]:
    """The options of a pass, in order. Raises TypeError when one is not `Annotated[type, text]` with a default."""
    assert dataclasses.is_dataclass(kind)
    hints = get_type_hints(kind, include_extras=True)
    return tuple(_option(field, hints[field.name]) for field in dataclasses.fields(kind))


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    known = getattr(hint, "__origin__", None)
    meaning = getattr(hint, "__metadata__", (None,))[0]
    if not isinstance(meaning, str) or (known not in (int, float, bool, str) and get_origin(known) is not Literal):
        raise TypeError(f"option {field.name}: its type must be Annotated[int | float | bool | str | Literal, text]")
    if field.default is dataclasses.MISSING:
        raise TypeError(f"option {field.name}: it needs a default")
    return Option(field.name, known, field.default, meaning)


def variants_of(kind: type[GraphPass]) -> tuple[GraphPass, ...]:
    """The pass with its default options, and once more for every other value a choice among a few can take."""
    changes: list[dict[str, Any]] = [{}]
    for option in options_of(kind):
        values = get_args(option.kind) if get_origin(option.kind) is Literal else ()
        values = (False, True) if option.kind is bool else values
        changes += [{option.name: value} for value in values if value != option.default]
    return tuple(kind(**change) for change in changes)


def configure(kind: type[GraphPass], given: Mapping[str, YamlValue], where: Callable[[str], str]) -> GraphPass:
    """A pass with the options given, or CodesignError with all problems; `where(option)` says where one was given."""
    options = {option.name: option for option in options_of(kind)}
    problems = [
        Problem(where(name), *problem)
        for name, value in given.items()
        if (problem := _problem(kind, options, name, value)) is not None
    ]
    if problems:
        raise CodesignError.of(problems)
    try:
        return kind(**given)
    except ValueError as error:
        raise CodesignError(where(next(iter(given), "")), f"{kind.name}: {error}") from error


def _problem(
    kind: type[GraphPass], options: Mapping[str, Option], name: str, value: YamlValue
) -> tuple[str, str] | None:
    if name not in options:
        return f"{kind.name} has no option {name}", did_you_mean(name, options) or _all_options(options)
    if not options[name].accepts(value):
        shown = repr(value) if isinstance(value, str) else value_text(value)
        return f"{kind.name}: {name} must be {options[name].kind_name}, not {shown}", options[name].meaning
    return None


def _all_options(options: Mapping[str, Option]) -> str:
    return f"its options: {', '.join(options)}" if options else "it has no options"


def text_of(configured: GraphPass) -> str:
    """A pass with its options as `--passes` takes it: `fix-resolution{size=128}`."""
    options = [
        f"{option.name}={value_text(getattr(configured, option.name))}" for option in options_of(type(configured))
    ]
    return configured.name + (f"{{{','.join(options)}}}" if options else "")


def short_text_of(configured: GraphPass) -> str:
    """The same with those options alone that are not at their default: `fix-resolution`."""
    given = [(option, getattr(configured, option.name)) for option in options_of(type(configured))]
    options = [f"{option.name}={value_text(value)}" for option, value in given if value != option.default]
    return configured.name + (f"{{{','.join(options)}}}" if options else "")


def value_text(value: object) -> str:
    """A value as YAML writes it, `nothing` for a missing one."""
    if isinstance(value, str) and not (_PLAIN_TEXT.match(value) and value not in _WORDS):
        return f"'{value}'"
    return str(value).lower() if isinstance(value, bool) else "nothing" if value is None else str(value)
