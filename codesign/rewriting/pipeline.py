"""Pipelines: named orders of passes, from `passes/pipelines/NAME.yaml`, a YAML file, or the text of `--passes`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from codesign.errors import CodesignError, Problem, did_you_mean
from codesign.rewriting.catalogue import SHIPPED, catalogue, explain_pass, find_pass, pass_names, shipped_package
from codesign.rewriting.graph_pass import Effect, GraphPass
from codesign.rewriting.options import configure, text_of
from codesign.yaml_reader import YamlDocument, YamlPath, YamlValue, parse_yaml, read_yaml

DEFAULT = "default"
_KEYS = {"passes": list, "description": str}
_ITEM = re.compile(r"(?P<name>[^{}=\s]+)\s*(\{(?P<options>[^{}]*)\})?")


@dataclass(frozen=True)
class Pipeline:
    """Passes with their options, in the order they run."""

    name: str
    passes: tuple[GraphPass, ...]
    description: str = ""

    def __str__(self) -> str:
        """As `--passes` takes it, options resolved: `fold-batch-norm,fix-resolution{size=128}`."""
        return ",".join(text_of(configured) for configured in self.passes)


def pipeline_names(package: str = SHIPPED) -> tuple[str, ...]:
    """Names of the shipped pipelines."""
    return tuple(sorted(path.stem for path in (shipped_package(package) / "pipelines").glob("*.yaml")))


def find_pipeline(name: str, where: str = "--passes", package: str = SHIPPED) -> Pipeline:
    """A shipped pipeline. Raises CodesignError for an unknown name, with did-you-mean."""
    if name not in pipeline_names(package):
        known = dict.fromkeys(pipeline_names(package))
        hint = did_you_mean(name, known) or f"pipelines: {', '.join(known)}"
        raise CodesignError(where, f"no pipeline is called {name}", hint)
    return read_pipeline(shipped_package(package) / "pipelines" / f"{name}.yaml", package)


def default_pipeline(name: str, where: str, package: str = SHIPPED) -> Pipeline:
    """The pipeline a machine names for when the user names none: a shipped one of exact passes.

    where: of the name in the machine's file. Raises CodesignError for an unknown name, with did-you-mean, and for a
    pipeline with passes that change the numbers or the network: those run when the user asks for them.
    """
    pipeline = find_pipeline(name, where, package)
    others = [f"{text_of(step)} ({step.effect_here})" for step in pipeline.passes if step.effect_here != Effect.EXACT]
    if others:
        problem = f"{name} runs {', '.join(others)}; what runs unasked holds EXACT passes only"
        raise CodesignError(where, problem, f"name another pipeline, and ask for this one with --passes {name}")
    return pipeline


def read_pipeline(path: Path, package: str = SHIPPED) -> Pipeline:
    """A pipeline from a YAML file: `passes:`, a list of names or `name: {option: value}`; `description:` if wanted.

    Raises CodesignError with `file:line:column` and all problems at once.
    """
    document = read_yaml(path)
    data = document.data
    if not isinstance(data, dict):
        raise CodesignError(document.where(), "a pipeline is a mapping with the key passes")
    problems = [
        Problem(document.where((key,)), f"unknown key {key}", did_you_mean(key, _KEYS) or f"keys: {', '.join(_KEYS)}")
        for key in data
        if key not in _KEYS
    ]
    entries, description = data.get("passes"), data.get("description", "")
    if not isinstance(entries, list):
        problems.append(Problem(document.where(("passes",)), "passes must be a list of passes", "an empty one is []"))
        entries = []
    if not isinstance(description, str):
        problems.append(Problem(document.where(("description",)), "description must be text"))
    passes: list[GraphPass] = []
    for index, entry in enumerate(entries):
        try:
            passes.append(_entry(document, ("passes", index), entry, package))
        except CodesignError as error:
            problems.extend(error.problems)
    if problems:
        raise CodesignError.of(problems)
    return Pipeline(path.stem, tuple(passes), str(description))


def _entry(document: YamlDocument, path: YamlPath, entry: YamlValue, package: str) -> GraphPass:
    match entry:
        case str():
            return configure(find_pass(entry, document.where(path), package), {}, lambda _: document.where(path))
        case dict() if len(entry) == 1:
            [(name, options)] = entry.items()
            kind = find_pass(name, document.where((*path, name)), package)
            if isinstance(options, dict):
                return configure(kind, options, lambda option: document.where((*path, name, option)))
            raise CodesignError(
                document.where((*path, name)), f"{name}: options must be a mapping such as {{size: 128}}"
            )
        case _:
            raise CodesignError(document.where(path), "a pass is its name, or `name: {option: value}`")


def resolve_pipeline(text: str, where: str = "--passes", package: str = SHIPPED) -> Pipeline:
    """The pipeline `--passes TEXT` means.

    TEXT: the name of a pipeline, a path ending in .yaml, or a comma-separated list of passes with options and of
    pipelines, such as `fix-resolution{size=128},default`. Raises CodesignError with all problems at once.
    """
    if text.endswith((".yaml", ".yml")):
        return read_pipeline(Path(text), package)
    if text in pipeline_names(package):
        return find_pipeline(text, where, package)
    passes: list[GraphPass] = []
    problems: list[Problem] = []
    for item in _items(text):
        try:
            passes.extend(_item(item, where, package))
        except CodesignError as error:
            problems.extend(error.problems)
    if problems:
        raise CodesignError.of(problems)
    return Pipeline(text, tuple(passes))


def _items(text: str) -> list[str]:
    """Split at the commas outside braces."""
    return [item.strip() for item in re.split(r",(?![^{]*\})", text)]


def _item(item: str, where: str, package: str) -> tuple[GraphPass, ...]:
    if not item:
        raise CodesignError(where, "a name is missing", "the pipeline `none` runs no pass")
    match = _ITEM.fullmatch(item)
    if match is None:
        raise CodesignError(where, f"cannot read {item}", "write name or name{option=value,option=value}")
    name, options = match["name"], match["options"]
    if options is None and name in pipeline_names(package):
        return find_pipeline(name, where, package).passes
    known = dict.fromkeys((*pass_names(package), *pipeline_names(package)))
    if name not in known:
        hint = did_you_mean(name, known) or "`codesign passes list` shows all"
        raise CodesignError(where, f"no pass or pipeline is called {name}", hint)
    if options is not None and name not in pass_names(package):
        raise CodesignError(where, f"{name} is a pipeline and takes no options", "name the pass that takes them")
    return (configure(find_pass(name, where, package), _given(name, options or "", where), lambda _: where),)


def _given(name: str, text: str, where: str) -> dict[str, YamlValue]:
    """Options as written between braces; values follow the rules of YAML."""
    given: dict[str, YamlValue] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not option or not value:
            raise CodesignError(where, f"{name}: cannot read the option {part}", "write option=value")
        if option in given:
            raise CodesignError(where, f"{name}: {option} is given twice", "remove one of the two")
        given[option] = parse_yaml(value.encode(), where).data
    return given


def explain(name: str, package: str = SHIPPED) -> str:
    """What a pass or a pipeline does, for people: picture, effect, options; or the pipeline's passes in order."""
    if name in pipeline_names(package):
        pipeline = find_pipeline(name, package=package)
        steps = [f"  {text_of(step)}  {step.effect_here}" for step in pipeline.passes] or ["  (no pass)"]
        return "\n".join([f"{name}\n", pipeline.description, "\nRuns, in this order:", *steps])
    known = dict.fromkeys((*pass_names(package), *pipeline_names(package)))
    if name not in known:
        hint = did_you_mean(name, known) or "`codesign passes list` shows all"
        raise CodesignError(name, "no pass or pipeline is called so", hint)
    return explain_pass(find_pass(name, name, package))


__all__ = [
    "DEFAULT",
    "Pipeline",
    "catalogue",
    "default_pipeline",
    "explain",
    "find_pipeline",
    "pipeline_names",
    "read_pipeline",
    "resolve_pipeline",
]
