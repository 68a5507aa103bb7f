"""What pydantic finds wrong with a YAML document, said in the file's own terms: position, dotted path, what, hint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from codesign.errors import Problem, did_you_mean, nearest
from codesign.hardware.units import number_for
from codesign.yaml_reader import YamlDocument, YamlPath

_SHOWN_CHARACTERS = 40


def problems_of(error: ValidationError, document: YamlDocument, model: type[BaseModel]) -> tuple[Problem, ...]:
    """Every problem once, in the order of the file. `model` is the class the document was validated against."""
    details = error.errors(include_url=False)
    paths = [_path(detail) for detail in details]
    missing = {path for detail, path in zip(details, paths, strict=True) if detail["type"] == "missing"}
    found: list[tuple[YamlPath, str, str]] = []
    renamed: set[YamlPath] = set()
    for detail, path in zip(details, paths, strict=True):
        if detail["type"] == "extra_forbidden":
            meant = _meant(path, [name for *parent, name in missing if tuple(parent) == path[:-1]], model)
            renamed.add((*path[:-1], meant))
            found.append((path, "unknown key", _rename_hint(path, meant, model)))
        elif detail["type"] == "inconsistent_profile":
            found.extend((inner, problem, "") for inner, problem in detail["ctx"]["problems"])
        elif detail["type"] == "too_short" and any(_below(other, path) for other in paths):
            continue  # pydantic counts only the good entries; the bad ones are reported themselves
        elif detail["type"] != "missing":
            found.append((path, *_wording(detail, path)))
    for path in missing - renamed:
        found.append((path, "missing key", f"it needs {_listed(_required(path[:-1], model))}"))
    found.sort(key=lambda entry: (document.position(entry[0]), entry[0] in missing, tuple(map(str, entry[0]))))
    return tuple(Problem(document.where(path), f"{dotted(path)}: {what}", hint) for path, what, hint in found)


def dotted(path: YamlPath) -> str:
    """`memories.sram.size_bytes`; list items as `axes.rows.unrolls[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _path(detail: ErrorDetails) -> YamlPath:
    return tuple(part for part in detail["loc"] if part != "[key]")


def _below(path: YamlPath, parent: YamlPath) -> bool:
    return len(path) > len(parent) and path[: len(parent)] == parent


def _meant(path: YamlPath, missing: Sequence[str | int], model: type[BaseModel]) -> str:
    """The key an unknown one stands for: a missing key that begins with it, else the nearest allowed one."""
    name = str(path[-1])
    wanted = sorted(str(key) for key in missing)
    for candidates in (wanted, sorted(_section(path[:-1], model).model_fields)):
        for key in candidates:
            if key.startswith(f"{name}_"):
                return key
        close = nearest(name, candidates)
        if close:
            return close
    return ""


def _rename_hint(path: YamlPath, meant: str, model: type[BaseModel]) -> str:
    if meant.startswith(f"{path[-1]}_"):
        return f"did you mean {meant}? units stand in names"
    if meant:
        return f"did you mean {meant}?"
    return f"allowed here: {_listed(list(_section(path[:-1], model).model_fields))}"


def _section(path: YamlPath, model: type[BaseModel]) -> type[BaseModel]:
    """The model that describes the mapping at `path`."""
    annotation: Any = model
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[str(part)].annotation
        else:
            annotation = get_args(annotation)[-1]
        choices = [choice for choice in get_args(annotation) if choice is not NoneType]
        if NoneType in get_args(annotation) and len(choices) == 1:
            annotation = choices[0]
    section: type[BaseModel] = annotation
    return section


def _required(path: YamlPath, model: type[BaseModel]) -> list[str]:
    return [name for name, field in _section(path, model).model_fields.items() if field.is_required()]


def _wording(detail: ErrorDetails, path: YamlPath) -> tuple[str, str]:
    """(what, hint) of one pydantic error."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    value = detail["input"]
    shown = _shown(value)
    match detail["type"]:
        case "int_type" | "int_parsing" | "int_from_float":
            return f"must be a whole number, not {shown}", _number_hint(path, value)
        case "float_type" | "float_parsing":
            return f"must be a number, not {shown}", _number_hint(path, value)
        case "greater_than":
            return f"must be above {context['gt']:g}, not {shown}", ""
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}, not {shown}", ""
        case "less_than_equal":
            return f"must be at most {context['le']:g}, not {shown}", ""
        case "bool_type":
            words = {"yes": "write true", "on": "write true", "no": "write false", "off": "write false"}
            return f"must be true or false, not {shown}", words.get(str(value).lower(), "")
        case "string_type":
            return f"must be text, not {shown}", "put it in quotes" if isinstance(value, bool | int | float) else ""
        case "string_pattern_mismatch":
            return f"{shown} is no name", "lower case letters, digits and _, beginning with a letter"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters, not {len(value)}", ""
        case "too_short":
            least, has = context["min_length"], context["actual_length"]
            return ("must not be empty" if least == 1 else f"must have at least {least} entries, not {has}"), ""
        case "enum":
            return f"{shown} is not known here", _choice_hint(str(value), str(context["expected"]))
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"must be a mapping, not {shown}", ""
        case "tuple_type" | "list_type":
            return f"must be a list, not {shown}", f"write [{value}]" if isinstance(value, str | int | float) else ""
        case "value_error":
            return str(context["error"]), ""
        case _:
            return detail["msg"], ""


def _choice_hint(value: str, expected: str) -> str:
    known = expected.replace(" or ", ", ").replace("'", "").split(", ")
    return did_you_mean(value, known) or f"known: {_listed(known)}"


def _number_hint(path: YamlPath, value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if not isinstance(value, str):
        return ""
    field = next((part for part in reversed(path) if isinstance(part, str)), "")
    number = number_for(field, value)
    return "units stand in names, the value is a plain number" if number is None else f"write {number}"


def _shown(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
