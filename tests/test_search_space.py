"""Spaces of candidates: what a YAML file makes, and every way it can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from codesign.errors import CodesignError
from codesign.networks.catalogue import Catalogue
from codesign.search.candidate import Candidate
from codesign.search.space import Space, read_space


def scalable(width: float, depth: float, resolution: int = 64, classes: int = 10, channels: int = 3) -> None:
    """A generator with a resolution."""


def plain(width: float = 1.0, activation: str = "relu", classes: int = 10, channels: int = 3) -> None:
    """A generator without one."""


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of two generators, so that no torch is needed."""
    generators = {"scalable": scalable, "plain": plain}
    monkeypatch.setattr("codesign.networks.catalogue.catalogue", lambda: Catalogue(generators=generators))  # type: ignore[arg-type]
    monkeypatch.setattr("codesign.search.space_checks.catalogue", lambda: Catalogue(generators=generators))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def space(text: str) -> Space:
    Path("space.yaml").write_text(text, encoding="utf-8")
    return read_space(Path("space.yaml"))


def refusal(text: str) -> str:
    with pytest.raises(CodesignError) as refused:
        space(text)
    return str(refused.value)


def arguments(candidate: Candidate) -> Mapping[str, object]:
    return dict(candidate.arguments)


# What a file makes -----------------------------------------------------------------------------------------------


def test_every_combination_is_a_candidate() -> None:
    made = space("generator: scalable\ncoefficients: {width: [1.0, 0.5], depth: [1.0], resolution: [32, 24]}\n")
    candidates = made.candidates(channels=1)
    assert [one.name for one in candidates] == [
        "width1.0_depth1.0_resolution32",
        "width1.0_depth1.0_resolution24",
        "width0.5_depth1.0_resolution32",
        "width0.5_depth1.0_resolution24",
    ]
    assert candidates[1] == Candidate(
        "width1.0_depth1.0_resolution24",
        "scalable",
        (("depth", 1.0), ("resolution", 24), ("width", 1.0)),
        (1, 24, 24),
    )


def test_arguments_are_the_same_for_all() -> None:
    made = space("generator: scalable\narguments: {depth: 0.7, resolution: 48}\ncoefficients: {width: [1, 0.5]}\n")
    first, second = made.candidates(3)
    assert (first.name, first.image) == ("width1", (3, 48, 48))
    assert arguments(second) == {"width": 0.5, "depth": 0.7, "resolution": 48}


def test_an_image_for_generators_without_resolution() -> None:
    made = space("generator: plain\nimage: 40\ncandidates:\n- {activation: relu}\n- {activation: silu, width: 0.5}\n")
    first, second = made.candidates(1)
    assert (first.name, first.image) == ("activation-relu", (1, 40, 40))
    assert second.name == "activation-silu_width0.5"
    assert arguments(first) == {"activation": "relu"}


def test_a_resolution_nobody_gives_is_the_generators() -> None:
    made = space("generator: scalable\narguments: {depth: 1.0}\ncoefficients: {width: [1.0, 0.5]}\n")
    assert {one.image for one in made.candidates(1)} == {(1, 64, 64)}
    assert arguments(made.candidates(1)[0])["resolution"] == 64


def test_the_rule_of_the_paper_makes_its_64_candidates() -> None:
    made = space("generator: scalable\nscaled_down: {resolution: 224}\n").candidates(3)
    assert len(made) == len({one.name for one in made}) == 64
    assert {one.image[1] for one in made} == {224, 203, 172, 132}
    assert {arguments(one)["depth"] for one in made} == {1.0, 0.7, 0.6, 0.5}


def test_long_names_are_cut_and_stay_different() -> None:
    words = ", ".join(f"{letter * 64}" for letter in "ab")
    made = space(
        f"generator: plain\nimage: 8\narguments: {{}}\ncoefficients: {{activation: [{words}], width: [1, 2]}}\n"
    )
    names = [one.name for one in made.candidates(1)]
    assert len(set(names)) == 4 and max(map(len, names)) <= 150


def test_layout_and_comments_do_not_change_the_hash() -> None:
    one = space("generator: plain\nimage: 8\ncoefficients: {width: [1, 2]}\n")
    other = space("# two\nimage: 8\ngenerator: plain\ncoefficients:\n  width:\n  - 1\n  - 2\n")
    assert one.sha256 == other.sha256
    assert one.sha256 != space("generator: plain\nimage: 8\ncoefficients: {width: [1, 3]}\n").sha256


# What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]\n", "space.yaml:1:1: must be a mapping with generator, coefficients, ..."),
        (
            "generator: scalabel\ncoefficients: {width: [1, 2]}\n",
            "space.yaml:1:1: generator: no generator is called scalabel\n  hint: did you mean scalable?",
        ),
        (
            "generator: os.system\ncoefficients: {width: [1, 2]}\n",
            'space.yaml:1:1: generator: "os.system" is no name\n'
            "  hint: lower case letters, digits and _, beginning with a letter",
        ),
        (
            "generator: plain\nimage: 8\ncoefficient: {width: [1, 2]}\n",
            "space.yaml:3:1: coefficient: unknown key\n  hint: did you mean coefficients?",
        ),
        ("generator: plain\nimage: 8\n", "space.yaml:1:1: needs one of coefficients, candidates and scaled_down"),
        (
            "generator: plain\nimage: 8\ncoefficients: {width: [1, 1.0]}\n",
            "space.yaml:3:16: coefficients.width: a value is listed twice",
        ),
        (
            "generator: plain\nimage: 8\ncoefficients: {width: []}\n",
            "space.yaml:3:16: coefficients.width: must not be empty",
        ),
        (
            "generator: plain\nimage: 8\ncoefficients: {width: [1]}\n",
            "space.yaml:3:1: coefficients: makes 1 candidates; a space has 2 to 4096",
        ),
        (
            "generator: plain\nimage: 8\ncoefficients: {width: [1, 2], widht: [1, 2]}\n",
            "space.yaml:3:31: coefficients.widht: plain has no such argument\n  hint: did you mean width?",
        ),
        (
            "generator: plain\nimage: 8\narguments: {classes: 5}\ncoefficients: {width: [1, 2]}\n",
            "space.yaml:3:13: arguments.classes: comes from the data\n  hint: remove it",
        ),
        (
            "generator: plain\nimage: 8\narguments: {width: 5}\ncoefficients: {width: [1, 2]}\n",
            "space.yaml:4:16: coefficients.width: stands under arguments too\n  hint: remove one of the two",
        ),
        (
            "generator: plain\nimage: 8\ncandidates: [{width: 1}, {width: 2}, {width: 1}]\n",
            "space.yaml:3:38: candidates[2]: is the same as candidates[0]\n  hint: remove one of the two",
        ),
        (
            "generator: plain\nimage: 8\ncandidates: [{width: 1}, {width: 2}]\ncoefficients: {width: [1, 2]}\n",
            "space.yaml:1:1: needs one of coefficients, candidates and scaled_down",
        ),
        (
            "generator: scalable\ncoefficients: {width: [1, 2]}\n",
            "space.yaml:1:1: needs depth, an argument of scalable",
        ),
        (
            "generator: plain\ncoefficients: {width: [1, 2]}\n",
            "space.yaml:1:1: needs image, the side of the input in pixels: plain takes no resolution",
        ),
        (
            "generator: scalable\nimage: 8\narguments: {depth: 1}\ncoefficients: {width: [1, 2]}\n",
            "space.yaml:2:1: image: scalable takes its image from resolution\n  hint: give resolution instead",
        ),
        (
            "generator: scalable\narguments: {depth: 1}\ncoefficients: {width: [1, 2], resolution: [32, 4]}\n",
            "space.yaml:3:31: coefficients.resolution: must be whole numbers from 8 to 1024",
        ),
        (
            "generator: plain\nimage: 8\ncoefficients: {width: [1, 1e9]}\n",
            "space.yaml:3:27: coefficients.width[1]: must be between -4096 and 4096, not 1000000000.0",
        ),
        (
            "generator: plain\nimage: 8\ncoefficients: {width: [1, ../x]}\n",
            "space.yaml:3:27: coefficients.width[1]: must be a number, true, false or one word",
        ),
        (
            "generator: plain\nimage: 4000\ncoefficients: {width: [1, 2]}\n",
            "space.yaml:2:1: image: must be at most 1024, not 4000",
        ),
        (
            "generator: !!python/object/apply:os.getcwd []\n",
            "space.yaml:1:12: tags are not allowed: !!python/object/apply:os.getcwd\n  hint: write the plain value",
        ),
    ],
)
def test_refusals(text: str, expected: str) -> None:
    assert refusal(text) == expected


def test_a_space_that_explodes_is_refused_before_it_is_built() -> None:
    lists = ", ".join(f"{name}: [{', '.join(map(str, range(60)))}]" for name in ("width", "depth", "a", "b", "c", "d"))
    assert "makes 46656000000 candidates" in refusal(f"generator: scalable\ncoefficients: {{{lists}}}\n")


def test_all_problems_at_once() -> None:
    text = "generator: plain\narguments: {classes: 5}\ncoefficients: {widht: [1, 2]}\n"
    assert refusal(text).count("space.yaml:") == 3
