"""The measures against values worked out by hand."""

import pytest
import torch
from torch import nn

import ttame_core as tt
from ttame_core.metrics import (
    average_drop,
    energy_inside,
    evaluate,
    increase_in_confidence,
    invalid_maps,
    pointing_game,
)
from ttame_core.zoo import Preprocessing


def test_drop_and_increase_by_hand():
    full, masked = torch.tensor([0.8, 0.5, 0.4]), torch.tensor([0.2, 0.5, 0.6])
    assert torch.allclose(average_drop(full, masked), torch.tensor([75.0, 0, 0]))
    assert torch.equal(increase_in_confidence(full, masked), torch.tensor([0.0, 0, 100]))


class LeftHalf(nn.Module):
    """Two classes; the first one's logit is the mean of the left half of the image."""

    def __init__(self):
        super().__init__()
        self.tap = nn.Identity()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = self.tap(x * self.weight)
        left = x[..., :, : x.shape[-1] // 2].mean((1, 2, 3))
        return torch.stack([left * 4, torch.zeros_like(left)], 1)


@pytest.fixture
def left_half():
    plain = Preprocessing(image_size=8, resize=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    return tt.Backbone(LeftHalf(), ["tap"], name="left", preprocessing=plain)


def test_scores_of_a_classifier_that_looks_left(left_half):
    images = torch.ones(2, 3, 8, 8)
    classes = torch.zeros(2, dtype=torch.int64)
    maps = torch.zeros(2, 8, 8)
    maps[0, :, :4] = 1  # the half that counts
    maps[1, :, 4:] = 1  # the other
    scores = tt.score_batch(left_half, images, classes, maps)
    full, empty, part = (torch.tensor(x).sigmoid() for x in (4.0, 0.0, 4 * 0.3125))
    expected = {(100, 0): 0, (100, 1): full - empty, (50, 0): 0, (50, 1): full - empty}
    for (v, image), drop in expected.items():
        assert scores["ad", v][image] == pytest.approx(float(100 * drop / full), abs=1e-4)
    assert scores["ad", 15][0] == pytest.approx(float(100 * (full - part) / full), abs=1e-4)
    assert scores["confidence", 100][0] == pytest.approx(float(100 * full), abs=1e-4)


def test_all_ones_changes_nothing(left_half):
    images = torch.rand(5, 3, 8, 8)
    classes = left_half(images).argmax(1)
    scores = tt.score_batch(left_half, images, classes, torch.ones(5, 8, 8))
    assert scores["ad", 100].max() == 0
    assert scores["ic", 100].max() == 0


def test_pointing_and_energy_by_hand():
    truth = torch.zeros(3, 2, 2, dtype=torch.bool)
    truth[:, 0, 0] = True
    maps = torch.tensor([[[3.0, 1], [0, 0]], [[1.0, 3], [0, 0]], [[1.0, 1], [1, 1]]])
    assert pointing_game(maps, truth).tolist() == [100, 0, 25]
    assert energy_inside(maps, truth).tolist() == [75, 25, 25]


def test_invalid_maps_are_found_counted_and_not_scored(left_half, noise):
    maps = torch.rand(3, 4, 4)
    maps[1, 0, 0] = torch.nan
    maps[2] = 0.5
    assert invalid_maps(maps).tolist() == [False, True, True]

    def broken(images, classes):
        return maps[:, :, :].clone()

    batch = {"image": torch.rand(3, 3, 8, 8), "id": ["a", "b", "c"]}
    scores = evaluate(left_half, {"broken": broken}, [batch])
    assert scores[scores["measure"] == "invalid"]["value"].tolist() == [0, 1, 1]
    assert set(scores[scores["measure"] == "ad"]["image_id"]) == {"a"}


def test_chunks_and_batches_do_not_matter(tiny, noise):
    images, classes = noise.images, tiny(noise.images).argmax(1)
    maps = torch.rand(24, 4, 4)
    before = images.clone()
    together = tt.score_batch(tiny, images, classes, maps)
    for i in (0, 7, 23):
        alone = tt.score_batch(tiny, images[i : i + 1], classes[i : i + 1], maps[i : i + 1])
        for key, value in alone.items():
            assert torch.allclose(value[0], together[key][i], atol=1e-3), key
    assert torch.equal(images, before)


def test_wrong_number_of_maps(tiny, noise):
    with pytest.raises(tt.TTAMEError, match=r"expected \(24, h, w\)"):
        tt.score_batch(tiny, noise.images, torch.zeros(24).long(), torch.rand(3, 4, 4))
