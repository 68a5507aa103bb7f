"""The bookkeeping of Network Candidate Search: coefficients, groups, rankings, eliminations; the paper and by hand."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.search.grouping import groups_of, z_scores, z_sums
from codesign.search.scaling import EFFICIENTNET_REPEATS, scaled_down
from codesign.search.tournament import (
    Criterion,
    Elimination,
    Rounds,
    eliminations,
    matching,
    ranking,
    score,
    survivors,
)

POOL = Path(__file__).parent / "reference" / "efficientnet_elite_pool64.csv"
AVERAGE, LAST = Criterion.AVERAGE, Criterion.LAST


# Coefficients ----------------------------------------------------------------------------------------------------


def test_coefficients_are_those_of_table_3() -> None:
    found = scaled_down(EFFICIENTNET_REPEATS, 224, 4)
    assert found.depths == (1.0, 0.7, 0.6, 0.5)
    assert found.totals == (18, 17, 15, 12)
    assert (found.widths[1], round(found.widths[2], 3), round(found.widths[3], 3)) == (0.8666, 0.701, 0.514)
    assert found.resolutions == (224, 203, 172, 132)


def test_exact_fractions_are_not_those_of_table_3() -> None:
    assert round(17 / 18 * 1.1 / 1.2, 4) == 0.8657  # why the rule has three decimals


def test_depth_ends_where_no_coefficient_changes_the_total() -> None:
    assert scaled_down((1, 1), 64, 4).depths == (1.0,)
    assert scaled_down((1, 2), 64, 4).depths == (1.0, 0.5)
    assert scaled_down((10,), 64, 4).totals == (10, 9, 8, 7)


# Groups ----------------------------------------------------------------------------------------------------------


def pool() -> list[dict[str, float]]:
    with POOL.open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_z_sums_of_the_papers_pool() -> None:
    rows = pool()
    found = z_sums([[row["params_M"] for row in rows], [row["macs_M"] for row in rows]])
    assert len(rows) == 64
    assert found == pytest.approx([row["zsum"] for row in rows], abs=2e-4)
    # The sample's standard deviation instead of the population's is seen.
    assert [value * (63 / 64) ** 0.5 for value in found] != pytest.approx([row["zsum"] for row in rows], abs=2e-4)


def test_groups_of_the_papers_pool_are_ordered_by_its_z_sums() -> None:
    rows = pool()
    names = [f"{row['w']:g} {row['d']:g} {row['r']:g}" for row in rows]
    sums = dict(zip(names, z_sums([[row["params_M"] for row in rows], [row["macs_M"] for row in rows]]), strict=True))
    groups = groups_of(sums, 16)
    assert [len(group) for group in groups] == [4] * 16
    by_paper = [name for _, name in sorted(zip([row["zsum"] for row in rows], names, strict=True))]
    assert [name for group in groups for name in group] == by_paper
    assert groups[-1][-1] == "1 1 224"


def test_groups_are_as_even_as_can_be() -> None:
    sums = {str(number): -number for number in range(10)}
    assert [len(group) for group in groups_of(sums, 4)] == [3, 3, 2, 2]
    assert groups_of(sums, 4)[0] == ("9", "8", "7")


def test_equal_sums_stay_in_order() -> None:
    assert groups_of({"b": 0.0, "a": 0.0, "c": -1.0}, 1) == (("c", "b", "a"),)


def test_an_axis_without_differences_decides_nothing() -> None:
    assert z_scores([5, 5, 5]) == (0.0, 0.0, 0.0)
    assert z_sums([[1, 3], [5, 5]]) == (-1.0, 1.0)


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=40), st.integers(1, 1000), st.integers(0, 10**6))
def test_z_scores_do_not_depend_on_the_unit(values: list[int], factor: int, offset: int) -> None:
    moved = [value * factor + offset for value in values]
    assert z_scores(moved) == pytest.approx(z_scores(values), abs=1e-6)


# Rankings --------------------------------------------------------------------------------------------------------


def test_scores() -> None:
    assert score((0.2, 0.4, 0.9), 2, AVERAGE) == 0.3
    assert score((0.2, 0.4, 0.9), 2, LAST) == 0.4


def test_a_crossing_is_ranked_differently() -> None:
    """B is ahead all the time but at the end of the round."""
    curves = {"A": (0.1, 0.2, 0.6), "B": (0.3, 0.5, 0.5)}
    assert ranking(("A", "B"), curves, 3, AVERAGE) == ("B", "A")
    assert ranking(("A", "B"), curves, 3, LAST) == ("A", "B")


def test_equal_averages_go_by_the_last_accuracy_and_then_to_the_lighter() -> None:
    curves = {"light": (0.5, 0.5), "heavy": (0.5, 0.5), "rising": (0.4, 0.6)}
    assert ranking(("light", "heavy", "rising"), curves, 2, AVERAGE) == ("rising", "light", "heavy")
    assert ranking(("heavy", "light"), curves, 2, AVERAGE) == ("heavy", "light")


def test_rounding_of_sums_makes_no_ranking() -> None:
    curves = {"A": (0.1, 0.2, 0.3), "B": (0.3, 0.2, 0.1)}
    assert score(curves["A"], 3, AVERAGE) == score(curves["B"], 3, AVERAGE)


def test_the_worse_half_leaves_until_one_is_left() -> None:
    """Average accuracy: A 0.4, B 0.45, C 0.5, D 0.1, E 0.2 after round 1; C overtakes B after round 2."""
    group, rounds = ("A", "B", "C", "D", "E"), Rounds(2, 4)
    curves = {
        "A": (0.3, 0.5, 0.9, 0.9),
        "B": (0.4, 0.5, 0.5, 0.5),
        "C": (0.4, 0.6, 0.6, 0.6),
        "D": (0.0, 0.2),
        "E": (0.1, 0.3),
    }
    assert survivors(group, curves, rounds, 1, AVERAGE) == ("A", "B", "C")
    assert eliminations(group, curves, rounds, 1, AVERAGE) == (
        Elimination("E", 1, 2, 0.2),
        Elimination("D", 1, 2, 0.1),
    )
    # After four epochs: A 0.65, B 0.475, C 0.55.
    assert survivors(("A", "B", "C"), curves, rounds, 2, AVERAGE) == ("A", "C")
    assert eliminations(("A", "B", "C"), curves, rounds, 2, AVERAGE) == (Elimination("B", 2, 4, 0.475),)
    assert survivors(("A",), curves, rounds, 2, AVERAGE) == ("A",)
    assert eliminations(("A",), curves, rounds, 2, AVERAGE) == ()


def test_the_last_round_leaves_the_best_alone() -> None:
    curves = {name: (value,) for name, value in zip("ABCD", (0.1, 0.4, 0.3, 0.2), strict=True)}
    assert survivors(tuple("ABCD"), curves, Rounds(1, 2), 1, AVERAGE) == ("B", "C")
    assert survivors(tuple("ABCD"), curves, Rounds(1, 1), 1, AVERAGE) == ("B",)


# The paper's example ---------------------------------------------------------------------------------------------

FINAL = {"C1": 75.65, "C2": 76.45, "C3": 76.14, "C4": 76.62}  # table 4: accuracy after epoch 350
THIRTY_FIVE = Rounds(10, 35)


def paper_curves(unlucky: Sequence[int]) -> dict[str, tuple[float, ...]]:
    """Curves of 350 epochs that end as table 4 has it and behave as the paper observed.

    C2 and C4 cross: C2 is ahead for 9 epochs, then C4. In the `unlucky` rounds, C4 falls below C2 in the very epoch
    that ends the round.
    """
    curves = {name: [final * (1 - 0.5 / epoch) for epoch in range(1, 351)] for name, final in FINAL.items()}
    for epoch in range(9):
        curves["C2"][epoch] += 2.0
    for number in unlucky:
        curves["C4"][10 * number - 1] -= 0.3
    return {name: tuple(values) for name, values in curves.items()}


def test_average_and_last_epoch_rank_the_papers_candidates_differently() -> None:
    group, curves = tuple(FINAL), paper_curves([12])
    final = ("C4", "C2", "C3", "C1")
    assert ranking(group, curves, 350, LAST) == ranking(group, curves, 350, AVERAGE) == final
    assert ranking(group, curves, 120, LAST) == ("C2", "C4", "C3", "C1")
    assert ranking(group, curves, 120, AVERAGE) == final
    # Which of two is kept after round 12 is therefore a matter of the criterion.
    assert survivors(("C2", "C4"), curves, THIRTY_FIVE, 12, LAST) == ("C2",)
    assert survivors(("C2", "C4"), curves, THIRTY_FIVE, 12, AVERAGE) == ("C4",)


def test_matching_is_counted_as_equations_5_and_6_do() -> None:
    """22 of 35 rounds by single epochs; by averages all but those in which C2's early lead still counts."""
    curves = paper_curves([3, *range(10, 34, 2)])
    group = tuple(FINAL)
    assert matching(group, curves, THIRTY_FIVE, LAST) == 22 / 35
    late = next(
        number for number in range(1, 36) if ranking(group, curves, 10 * number, AVERAGE) == ("C4", "C2", "C3", "C1")
    )
    assert matching(group, curves, THIRTY_FIVE, AVERAGE) == (36 - late) / 35
    assert 2 < late < 20


@given(st.permutations(["A", "B", "C", "D"]), st.integers(1, 6))
def test_curves_that_never_cross_always_match(names: list[str], rounds: int) -> None:
    curves = {name: [0.1 * place + 0.01 * epoch for epoch in range(12)] for place, name in enumerate(names)}
    for criterion in Criterion:
        assert matching(tuple(names), curves, Rounds(2, rounds), criterion) == 1
