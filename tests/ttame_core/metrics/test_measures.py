"""The measures against values worked out by hand, and how they are told."""

import torch

from ttame_core.metrics.measures import (
    average_drop,
    energy_inside,
    increase_in_confidence,
    pointing_game,
)


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
