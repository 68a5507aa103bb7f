"""Strict reading of a mapping file's plain data: what is wrong is noted with its place, and reading goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from codesign.errors import CodesignError, Problem, did_you_mean, nearest
from codesign.hardware.profile import HardwareProfile
from codesign.yaml_reader import YamlDocument, YamlPath, YamlValue


@dataclass
class FileReading:
    """One file for one machine. layers: who was named so far, by what kind of entry (`a mapping`) and where."""

    document: YamlDocument
    profile: HardwareProfile
    found: list[tuple[YamlPath, Problem]] = field(default_factory=list)
    layers: dict[str, tuple[str, YamlPath]] = field(default_factory=dict)

    def refuse(self, path: YamlPath, problem: str, hint: str = "") -> None:
        """Note a problem at a place."""
        self.found.append((path, Problem(self.document.where(path), problem, hint)))

    def finish(self) -> None:
        """Raises CodesignError with every problem noted, in the file's order."""
        if self.found:
            ranked = sorted(self.found, key=lambda item: self.document.position(item[0]))
            raise CodesignError.of(problem for _, problem in ranked)

    def layer_names(self, path: YamlPath, value: YamlValue, kind: str) -> tuple[str, ...]:
        """Names of layers nobody named before. kind: what they get here, `a mapping`."""
        names = []
        listed = self.items(path, value, "a list of layers' names")
        if listed == [] and isinstance(value, list):
            self.refuse(path, "layers: at least one name is needed")
        for index, name in enumerate(listed):
            here = (*path, index)
            if not isinstance(name, str):
                self.refuse(here, f"layers: a name must be text, not {shown(name)}", "put it in quotes")
            elif name in self.layers:
                before, first = self.layers[name]
                problem = f"layers: {name} has {before} already, at {self.document.where(first)}"
                self.refuse(here, problem, "remove one of the two")
            else:
                self.layers[name] = kind, here
                names.append(name)
        return tuple(names)

    def engine(self, path: YamlPath, value: YamlValue) -> str | None:
        """The name of an engine of the machine; None where it is none."""
        known = self.profile.engines
        if isinstance(value, str) and value in known:
            return value
        self.refuse(path, f"{self.profile.name} has no engine {shown(value)}", hint_for(value, known))
        return None

    def items(self, path: YamlPath, value: YamlValue, what: str) -> list[YamlValue]:
        """A list; an empty one where it is none."""
        if isinstance(value, list):
            return value
        self.refuse(
            path, f"{path[-1]} must be {what}, not {shown(value)}", f"write [{value}]" if isinstance(value, str) else ""
        )
        return []

    def section(
        self, path: YamlPath, value: YamlValue, known: tuple[str, ...], needed: tuple[str, ...]
    ) -> dict[str, YamlValue]:
        """A mapping with the known keys alone."""
        if not isinstance(value, dict):
            what = "an entry" if path else "a mapping file"
            self.refuse(path, f"{what} is a mapping with the keys {', '.join(needed or known)}, not {shown(value)}")
            return {}
        unknown = [key for key in value if key not in known]
        for key in unknown:
            self.refuse((*path, key), f"{key}: unknown key", hint_for(key, known))
        meant = {nearest(key, known) for key in unknown}
        for key in needed:
            if key not in value and key not in meant:
                self.refuse(path, f"{key}: missing key")
        return value


def hint_for(name: YamlValue, known: Iterable[str]) -> str:
    """The name that was meant, or all there are."""
    names = [str(each) for each in known]
    return (did_you_mean(name, names) if isinstance(name, str) else "") or f"known: {', '.join(names)}"


def shown(value: YamlValue) -> str:
    """A value in a message, cut short."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
