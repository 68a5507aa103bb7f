"""The catalogue of passes: the files of the package `passes`, then entry points `codesign.passes`.

The file name is the pass name (`fold_batch_norm.py` is `fold-batch-norm`). A broken file breaks only itself.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import logging
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from codesign.errors import CodesignError, did_you_mean
from codesign.rewriting.graph_pass import Effect, GraphPass
from codesign.rewriting.options import options_of, value_text
from codesign.rewriting.wording import Paragraph, hanging, paragraphs

ENTRY_POINTS = "codesign.passes"
SHIPPED = "passes"
_WIDEST_SETTING = 28  # columns for `name = default`; a wider one pushes its own meaning to the right
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrokenPass:
    """A pass that cannot be loaded. where: its file, or its entry point."""

    name: str
    where: str
    reason: str


@dataclass(frozen=True)
class Catalogue:
    """All passes by name, and those that cannot be loaded, both in alphabetical order."""

    passes: dict[str, type[GraphPass]]
    broken: dict[str, BrokenPass]


@dataclass(frozen=True)
class _Source:
    """Where a pass comes from. load: answers a module or the class itself."""

    name: str
    where: str
    load: Callable[[], object]


class _BrokenError(Exception):
    """A pass that breaks the rules of the catalogue."""


@lru_cache(maxsize=8)
def catalogue(package: str = SHIPPED) -> Catalogue:
    """Every pass. package: the package that holds the shipped ones (tests use one of their own)."""
    passes: dict[str, type[GraphPass]] = {}
    broken: dict[str, BrokenPass] = {}
    for name, source in sorted((_installed() | _shipped(package)).items()):
        found = _loaded(source)
        if isinstance(found, BrokenPass):
            broken[name] = found
        else:
            passes[name] = found
    return Catalogue(passes, broken)


def pass_names(package: str = SHIPPED) -> tuple[str, ...]:
    """Names of all passes, broken ones included, without loading any."""
    return tuple(sorted(_installed() | _shipped(package)))


def find_pass(name: str, where: str = "--passes", package: str = SHIPPED) -> type[GraphPass]:
    """The pass of this name; only its own file is loaded.

    where: what errors point at. Raises CodesignError for an unknown name (with did-you-mean) and for a broken pass.
    """
    source = _shipped(package).get(name) or _installed().get(name)
    if source is None:
        known = dict.fromkeys(pass_names(package))
        hint = did_you_mean(name, known) or "`codesign passes list` shows all"
        raise CodesignError(where, f"no pass is called {name}", hint)
    found = _loaded(source)
    if isinstance(found, BrokenPass):
        raise CodesignError(where, f"the pass {name} cannot be loaded: {found.reason}", f"mend or remove {found.where}")
    return found


def shipped_package(package: str = SHIPPED) -> Path:
    """The folder of the package that holds the shipped passes.

    The name is a common one: raises CodesignError naming the file that hides the right package.
    """
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    if package != SHIPPED and places:
        return Path(places[0])
    right = Path(__file__).resolve().parents[2] / package
    if any(Path(place).resolve() == right for place in places):
        return right
    if spec is None:
        raise CodesignError(str(right), "the catalogue of passes is missing", "install codesign again")
    hiding = (spec.origin if spec.origin else None) or (places[0] if places else package)
    raise CodesignError(
        str(hiding), f"this hides codesign's own package {package}", "rename it, or start codesign from another folder"
    )


def _shipped(package: str) -> dict[str, _Source]:
    folder = shipped_package(package)
    modules = [info.name for info in pkgutil.iter_modules([str(folder)]) if not info.ispkg and info.name[0] != "_"]
    return {name: _shipped_source(package, folder, module) for module in modules if (name := module.replace("_", "-"))}


def _shipped_source(package: str, folder: Path, module: str) -> _Source:
    def load() -> object:
        return importlib.import_module(f"{package}.{module}")

    return _Source(module.replace("_", "-"), str(folder / f"{module}.py"), load)


def _installed() -> dict[str, _Source]:
    points = entry_points(group=ENTRY_POINTS)
    return {
        point.name: _Source(point.name, f"entry point {ENTRY_POINTS}: {point.value}", point.load) for point in points
    }


def _loaded(source: _Source) -> type[GraphPass] | BrokenPass:
    try:
        return _the_pass(source.name, source.load())
    except _BrokenError as error:
        return BrokenPass(source.name, source.where, str(error))
    except Exception as error:
        # A pass file is a stranger's program: whatever goes wrong in it is its own fault, and is told with its name.
        _LOG.debug("%s cannot be loaded", source.where, exc_info=True)
        return BrokenPass(source.name, source.where, f"{type(error).__name__}: {error}")


def _the_pass(name: str, loaded: object) -> type[GraphPass]:
    """The one pass in a module, or the class an entry point names, if it keeps the rules."""
    classes = [loaded] if inspect.isclass(loaded) else _own_classes(loaded)
    if len(classes) != 1 or not issubclass(classes[0], GraphPass):
        raise _BrokenError(f"it defines {len(classes)} passes, and must define exactly one")
    kind: type[GraphPass] = classes[0]
    if inspect.isabstract(kind):
        raise _BrokenError("it has no method run")
    if getattr(kind, "name", None) != name:
        raise _BrokenError(f"its name is {getattr(kind, 'name', None)!r}, and must be {name!r}")
    if not isinstance(getattr(kind, "effect", None), Effect):
        raise _BrokenError("it declares no effect")
    if "__dataclass_fields__" not in vars(kind) or not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise _BrokenError("it is not a frozen dataclass")
    if not _docstring(kind):
        raise _BrokenError("it has no docstring")
    try:
        options_of(kind)
    except TypeError as error:
        raise _BrokenError(str(error)) from error
    return kind


def _own_classes(module: object) -> list[type]:
    assert isinstance(module, ModuleType)
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, GraphPass) and value.__module__ == module.__name__
    ]


def _docstring(kind: type[GraphPass]) -> str:
    """The docstring somebody wrote (a dataclass without one is given its signature)."""
    text = inspect.cleandoc(kind.__doc__ or "")
    generated = dataclasses.is_dataclass(kind) and text.startswith(f"{kind.__name__}(")
    return "" if generated else text


def summary_of(kind: type[GraphPass]) -> str:
    """The first line of its docstring."""
    return _docstring(kind).splitlines()[0]


def paragraphs_of(kind: type[GraphPass]) -> tuple[Paragraph, ...]:
    """What its docstring says below the first line."""
    return paragraphs("\n".join(_docstring(kind).splitlines()[1:]))


def explain_pass(kind: type[GraphPass]) -> str:
    """For a terminal: what it does, picture, why exact; effect and options with defaults; source."""
    told = paragraphs_of(kind)
    body = [part.filled() for part in told if not part.is_source]
    sources = [part.filled() for part in told if part.is_source]
    return "\n\n".join([kind.name, hanging("", summary_of(kind)), *body, _effect_and_options(kind), *sources])


def _effect_and_options(kind: type[GraphPass]) -> str:
    """`Effect: EXACT`, below it `RESHAPES with mode=down`; then one option after the other, meanings aligned."""
    start = "Effect: "
    others = [f"{' ' * len(start)}{effect} with {choice}" for choice, effect in kind.effects.items()]
    options = options_of(kind)
    settings = [f"  {option.name} = {value_text(option.default)}" for option in options]
    width = min(max(map(len, settings), default=0), _WIDEST_SETTING) + 2
    lines = [
        hanging(f"{setting:{width}}" if len(setting) < width else f"{setting}  ", option.sentence)
        for setting, option in zip(settings, options, strict=True)
    ]
    return "\n".join([f"{start}{kind.effect}", *others, "Options:" if options else "Options: none", *lines])
