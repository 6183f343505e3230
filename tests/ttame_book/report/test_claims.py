"""The paper's claims name what there is, and say better where the measure says so."""

import pytest

import ttame_core as tt
from ttame_book.report.claims import CLAIMS, FAMILIES, RIVALS
from ttame_book.studies.ablations import ablations
from ttame_book.studies.randomisation import WHOLE_ATTENTION, WHOLE_BACKBONE
from ttame_core.metrics.measures import direction
from ttame_core.recipes import TRAINED


def comparisons_of(claim):
    return (*claim.tests, *claim.mixed)


def cells_of(claim):
    return [cell for test in comparisons_of(claim) for cell in (test.left, test.right) if cell]


def test_there_are_twelve_claims_in_their_order():
    assert [claim.number for claim in CLAIMS] == list(range(1, 13))
    assert all(claim.tests and claim.text.endswith(".") for claim in CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: str(claim.number))
def test_a_claim_is_about_rows_and_measures_that_there_are(claim):
    """Else it would never apply, and nobody would be told."""
    listed = ablations(tt.load_backbone("demo_resnet", None), tt.Recipe())
    rows = {(a.table, a.label) for a in listed}
    for cell in cells_of(claim):
        assert cell.family in FAMILIES
        if cell.table:
            assert (cell.table, cell.method) in rows
            assert not cell.minus or (cell.table, cell.minus) in rows
        elif cell.measure == "rank correlation":
            assert cell.method in (WHOLE_BACKBONE, WHOLE_ATTENTION)
        else:
            assert cell.method in RIVALS and cell.method in {**tt.METHODS, **TRAINED}
        assert cell.measure in {*tt.MEASURES, "forwards"}
        averaged = {*tt.AVERAGES, "rank correlation", "forwards"}
        valid = (0,) if cell.measure in averaged else tt.MEASURES[cell.measure].percentages
        assert cell.v in valid


@pytest.mark.parametrize("claim", CLAIMS[:8], ids=lambda claim: str(claim.number))
def test_better_is_less_where_less_is_better(claim):
    for test in comparisons_of(claim):
        assert test.left.measure == test.right.measure and test.left.v == test.right.v
        assert test.left.family == test.right.family
        assert test.less == (direction(test.left.measure) < 0)
        assert (test.bound <= 0) if test.less else (test.bound >= 0)


def test_a_best_method_is_held_against_every_rival_and_never_against_itself():
    for claim, family in ((CLAIMS[4], "vit"), (CLAIMS[2], "resnet")):
        pairs = {}
        for test in claim.tests:
            assert test.left.method == "t-tame" != test.right.method and test.optional
            assert test.left.family == family
            pairs.setdefault((test.left.measure, test.left.v), set()).add(test.right.method)
        assert pairs.keys() == {(m, v) for m in ("ad", "ic") for v in (100, 50, 15)}
        assert all(rivals == set(RIVALS) - {"t-tame"} for rivals in pairs.values())
    assert CLAIMS[2].exception == "score-cam"
    assert {claim.exception for claim in CLAIMS if claim.number != 3} == {None}
