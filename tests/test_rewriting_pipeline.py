"""Pipelines from YAML and from `--passes`: what they mean, and every error word for word."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codesign.errors import CodesignError
from codesign.rewriting.catalogue import catalogue
from codesign.rewriting.pipeline import explain, find_pipeline, read_pipeline, resolve_pipeline
from tests.test_rewriting import GOOD


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A catalogue with one pass that has an option of every type."""
    package = tmp_path / "good_passes"
    (package / "pipelines").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "good_one.py").write_text(GOOD.replace("NAME", "good-one"))
    (package / "pipelines" / "usual.yaml").write_text("passes: [good-one, good-one: {count: 4}]\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "good_passes"
    for name in [name for name in sys.modules if name.split(".")[0] == "good_passes"]:
        del sys.modules[name]
    catalogue.cache_clear()


def text(count: int = 3, factor: object = 0.5, fast: str = "false", mode: str = "up", title: str = "nothing") -> str:
    return f"good-one{{count={count},factor={factor},fast={fast},mode={mode},title={title}}}"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("good-one", text()),
        ("good-one{}", text()),
        ("good-one{count=5}", text(count=5)),
        (" good-one { count = -5 , fast = true } ", text(count=-5, fast="true")),
        ("good-one{factor=1e-3,mode=down,title='a b'}", text(factor=0.001, mode="down", title="a b")),
        ("good-one{factor=2}", text(factor=2)),
        ("usual", f"{text()},{text(count=4)}"),
        ("good-one{mode=down},usual", f"{text(mode='down')},{text()},{text(count=4)}"),
    ],
)
def test_what_a_text_means(other: str, given: str, meant: str) -> None:
    pipeline = resolve_pipeline(given, package=other)
    assert str(pipeline) == meant
    assert resolve_pipeline(str(pipeline), package=other).passes == pipeline.passes


BAD_TEXTS = {
    "god-one": "--passes: no pass or pipeline is called god-one\n  hint: did you mean good-one?",
    "usuall": "--passes: no pass or pipeline is called usuall\n  hint: did you mean usual?",
    "quantize": "--passes: no pass or pipeline is called quantize\n  hint: `codesign passes list` shows all",
    "": "--passes: a name is missing\n  hint: the pipeline `none` runs no pass",
    "good-one,": "--passes: a name is missing\n  hint: the pipeline `none` runs no pass",
    "good-one{count=5": "--passes: cannot read good-one{count=5\n  hint: write name or name{option=value,option=value}",
    "good-one{count}": "--passes: good-one: cannot read the option count\n  hint: write option=value",
    "good-one{count=}": "--passes: good-one: cannot read the option count=\n  hint: write option=value",
    "good-one{cuont=5}": "--passes: good-one has no option cuont\n  hint: did you mean count?",
    "good-one{zzz=5}": ("--passes: good-one has no option zzz\n  hint: its options: count, factor, fast, mode, title"),
    "good-one{count=big}": "--passes: good-one: count must be an integer, not 'big'\n  hint: how many",
    "good-one{count=1.5}": "--passes: good-one: count must be an integer, not 1.5\n  hint: how many",
    "good-one{count=true}": "--passes: good-one: count must be an integer, not true\n  hint: how many",
    "good-one{factor=x}": "--passes: good-one: factor must be a number, not 'x'\n  hint: how much",
    "good-one{fast=1}": "--passes: good-one: fast must be true or false, not 1\n  hint: whether to hurry",
    "good-one{mode=left}": "--passes: good-one: mode must be one of up, down, not 'left'\n  hint: which way",
    "good-one{title=5}": "--passes: good-one: title must be text, not 5\n  hint: what to call it",
    "good-one{count=1,count=2}": "--passes: good-one: count is given twice\n  hint: remove one of the two",
    "usual{count=1}": ("--passes: usual is a pipeline and takes no options\n  hint: name the pass that takes them"),
    "god-one,good-one{count=x,fast=x}": (
        "--passes: no pass or pipeline is called god-one\n  hint: did you mean good-one?\n"
        "--passes: good-one: count must be an integer, not 'x'\n  hint: how many\n"
        "--passes: good-one: fast must be true or false, not 'x'\n  hint: whether to hurry"
    ),
}


@pytest.mark.parametrize("given", BAD_TEXTS)
def test_bad_texts(other: str, given: str) -> None:
    with pytest.raises(CodesignError) as error:
        resolve_pipeline(given, package=other)
    assert str(error.value) == BAD_TEXTS[given]
    assert error.value.exit_code == 2


BAD_FILES = {
    "passes: [god-one]": "FILE:1:10: no pass is called god-one\n  hint: did you mean good-one?",
    "passes:\n  - good-one: {cuont: 5}": "FILE:2:16: good-one has no option cuont\n  hint: did you mean count?",
    "passes:\n  - good-one:\n      count: big": (
        "FILE:3:7: good-one: count must be an integer, not 'big'\n  hint: how many"
    ),
    "passes:\n  - good-one: {count: [1]}": "FILE:2:16: good-one: count must be an integer, not [1]\n  hint: how many",
    "passes:\n  - good-one: {count: null}": (
        "FILE:2:16: good-one: count must be an integer, not nothing\n  hint: how many"
    ),
    "passes: []\npasses: []": ("FILE:2:1: passes: duplicate key, first given at 1:1\n  hint: remove one of the two"),
    "passes:\n  - good-one: {count: 1, count: 2}": (
        "FILE:2:26: passes.0.good-one.count: duplicate key, first given at 2:16\n  hint: remove one of the two"
    ),
    "pases: [good-one]": (
        "FILE:1:1: unknown key pases\n  hint: did you mean passes?\n"
        "FILE:1:1: passes must be a list of passes\n  hint: an empty one is []"
    ),
    "passes: good-one": "FILE:1:1: passes must be a list of passes\n  hint: an empty one is []",
    "passes: []\ndescription: [a]": "FILE:2:1: description must be text",
    "- good-one": "FILE:1:1: a pipeline is a mapping with the key passes",
    "passes:\n  - good-one: 5": "FILE:2:5: good-one: options must be a mapping such as {size: 128}",
    "passes:\n  - 5\n  - god-one": (
        "FILE:2:5: a pass is its name, or `name: {option: value}`\n"
        "FILE:3:5: no pass is called god-one\n  hint: did you mean good-one?"
    ),
}


@pytest.mark.parametrize("content", BAD_FILES)
def test_bad_files(other: str, tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(CodesignError) as error:
        resolve_pipeline(str(path), package=other)
    assert str(error.value) == BAD_FILES[content].replace("FILE", str(path))


def test_a_file_of_ones_own(other: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("description: Mine.\npasses:\n  - good-one: {fast: true}\n")
    pipeline = read_pipeline(path, other)
    assert (pipeline.name, pipeline.description, str(pipeline)) == ("mine", "Mine.", text(fast="true"))


def test_a_missing_file() -> None:
    with pytest.raises(CodesignError) as error:
        resolve_pipeline("nowhere/mine.yaml")
    assert str(error.value) == "nowhere/mine.yaml: there is no such file"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("defualt", "--passes: no pipeline is called defualt\n  hint: did you mean default?"),
        ("xyz", "--passes: no pipeline is called xyz\n  hint: pipelines: default, hardware-friendly, none"),
    ],
)
def test_unknown_pipelines(name: str, message: str) -> None:
    with pytest.raises(CodesignError) as error:
        find_pipeline(name)
    assert str(error.value) == message


def test_explaining_the_unknown() -> None:
    with pytest.raises(CodesignError) as error:
        explain("fold-batchnorm")
    assert str(error.value) == "fold-batchnorm: no pass or pipeline is called so\n  hint: did you mean fold-batch-norm?"


def test_explaining_a_pipeline() -> None:
    assert explain("hardware-friendly").splitlines()[4:8] == [
        "Runs, in this order:",
        "  fix-resolution{size=0}  RESHAPES",
        "  remove-no-ops  EXACT",
        "  fold-padding  EXACT",
    ]
