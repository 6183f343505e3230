"""The measures against values worked out by hand, and how they are told."""

import pytest
import torch

import ttame_core as tt
from ttame_core.metrics.measures import (
    average_drop,
    direction,
    energy_inside,
    increase_in_confidence,
    invalid_maps,
    measure_label,
    pointing_game,
)
from ttame_core.metrics.perturbations import KINDS


def test_drop_and_increase_by_hand():
    full, masked = torch.tensor([0.8, 0.5, 0.4]), torch.tensor([0.2, 0.5, 0.6])
    assert torch.allclose(average_drop(full, masked), torch.tensor([75.0, 0, 0]))
    assert torch.equal(increase_in_confidence(full, masked), torch.tensor([0.0, 0, 100]))


def test_pointing_and_energy_by_hand():
    truth = torch.zeros(3, 2, 2, dtype=torch.bool)
    truth[:, 0, 0] = True
    maps = torch.tensor([[[3.0, 1], [0, 0]], [[1.0, 3], [0, 0]], [[1.0, 1], [1, 1]]])
    assert pointing_game(maps, truth).tolist() == [100, 0, 25]
    assert energy_inside(maps, truth).tolist() == [75, 25, 25]


def test_a_map_that_is_zero_throughout_has_no_energy():
    assert energy_inside(torch.zeros(1, 2, 2), torch.ones(1, 2, 2).bool()).isnan().all()


@pytest.mark.parametrize(
    ("name", "v", "told", "better"),
    [
        ("ad", 50, "AD(50) ↓", -1),
        ("ic", 15.0, "IC(15) ↑", 1),
        ("ic", 12.5, "IC(12.5) ↑", 1),
        ("morf", 30, "MoRF(30) ↓", -1),
        ("lerf", 30, "LeRF(30) ↑", 1),
        ("mean morf", 0, "ROAD, MoRF ↓", -1),
        ("mean lerf", 0, "ROAD, LeRF ↑", 1),
        ("mean insertion", 0, "insertion ↑", 1),
        ("mean deletion", 0, "deletion ↓", -1),
        ("pointing", 100, "pointing game ↑", 1),
        ("energy", 100, "energy inside ↑", 1),
        ("coverage", 100, "coverage", 0),
        ("ssim", 0, "SSIM", 0),
        ("of the predicted", 50, "of the predicted", 0),  # unknown: by its name
    ],
)
def test_measures_are_told_in_words_with_an_arrow_to_the_better_side(name, v, told, better):
    assert (measure_label(name, v), direction(name)) == (told, better)


def test_the_papers_tables_ask_for_the_papers_percentages():
    assert tt.MASKING == {"ad": (100, 50, 15), "ic": (100, 50, 15)}
    tenths = tuple(range(10, 100, 10))
    assert {"morf": tenths, "lerf": tenths} == tt.ROAD
    assert {name: (vs[0], vs[-1], len(vs)) for name, vs in tt.CURVES.items()} == {
        "insertion": (0, 100, 11),
        "deletion": (0, 100, 11),
    }
    assert tt.LOCALISATION == ("pointing", "energy")
    assert tt.AVERAGES == ("mean morf", "mean lerf", "mean insertion", "mean deletion")


def test_what_asks_the_classifier_says_how_and_what_is_averaged_does_not():
    for name, measure in tt.MEASURES.items():
        assert measure.name == name
        if name in {**tt.MASKING, **tt.ROAD, **tt.CURVES}:
            assert measure.perturbation in KINDS and measure.read
        else:
            assert not measure.perturbation
    assert set(tt.AVERAGES) <= tt.MEASURES.keys()


@pytest.mark.parametrize(
    ("change", "invalid"),
    [
        (lambda m: m, False),
        (lambda m: m * 0.0, True),
        (lambda m: m * 0 + 0.5, True),
        (lambda m: m * 1.01, True),
        (lambda m: m * 1.0005, False),  # rounding
        (lambda m: m - 0.01, True),
        (lambda m: torch.full_like(m, torch.nan), True),
        (lambda m: torch.where(m == 1, torch.inf, m), True),
    ],
)
def test_maps_that_explain_nothing(change, invalid):
    ramp = torch.linspace(0, 1, 16).view(1, 4, 4)
    both = torch.cat([change(ramp), ramp])
    assert invalid_maps(both).tolist() == [invalid, False]
    ones = torch.ones(1, 4, 4)
    assert invalid_maps(ones).item() and not invalid_maps(ones, allow_constant=True).item()
