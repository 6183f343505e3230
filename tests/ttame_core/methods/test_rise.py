"""RISE: its definition, its masks, its seed."""

import itertools
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import ttame_core as tt
from tests.ttame_core.methods.models import Linear, Share
from ttame_core.images.reading import Preprocessing
from ttame_core.masking import minmax, smooth_masks
from ttame_core.methods.rise import answers, weighted_masks


def all_grids():
    return torch.tensor(list(itertools.product([0.0, 1], repeat=4))).view(16, 2, 2)


def asked(backbone):
    return partial(answers, backbone, masking=None, logits=False)


def test_rise_on_all_grids_is_its_definition():
    size, weight = 8, torch.rand(3, 8, 8) / 200
    plain = Preprocessing(size, size, mean=(0, 0, 0), std=(1, 1, 1))
    backbone = tt.Backbone(Share(weight), ["tap"], preprocessing=plain)
    images, shifts = torch.rand(2, 3, size, size), torch.rand(16, 2)
    expected = torch.zeros(2, size, size)
    masks = []
    for grid, (down, right) in zip(all_grids(), shifts, strict=True):
        large = F.interpolate(grid[None, None], (12, 12), mode="bilinear")[0, 0]  # three cells of 4
        y, x = int(4 * down), int(4 * right)
        masks.append(large[y : y + size, x : x + size])
        expected += (images * masks[-1] * weight).sum((1, 2, 3))[:, None, None] * masks[-1]
    found = weighted_masks(
        asked(backbone), images, torch.zeros(2).long(), all_grids(), shifts, 0.5, 5
    )
    assert torch.allclose(found, expected / (16 * 0.5), atol=1e-5)
    made = torch.cat(list(smooth_masks(all_grids(), shifts, (size, size), 5)))
    assert torch.allclose(made, torch.stack(masks))


def test_rise_of_a_linear_score_is_the_masks_covariance_applied_to_it():
    size, weight = 8, torch.rand(3, 8, 8) / 200
    plain = Preprocessing(size, size, mean=(0, 0, 0), std=(1, 1, 1))
    backbone = tt.Backbone(Share(weight), ["tap"], preprocessing=plain)
    image, shifts = torch.rand(1, 3, size, size), torch.zeros(16, 2)
    masks = torch.cat(list(smooth_masks(all_grids(), shifts, (size, size), 16))).flatten(1)
    second_moment = masks.T @ masks / 16  # E[m m'], (HW, HW)
    expected = second_moment @ (image[0] * weight).sum(0).flatten() / 0.5
    found = weighted_masks(
        asked(backbone), image, torch.zeros(1).long(), all_grids(), shifts, 0.5, 32
    )
    assert torch.allclose(found.flatten(), expected, atol=1e-5)


def test_the_masks_of_rise_show_a_share_p_and_are_shifted(monkeypatch):
    seen = {}

    def keep(ask, images, classes, grids, shifts, p, *rest):
        seen.update(grids=grids, shifts=shifts, p=p)
        return torch.rand(1, 4, 4)

    module = sys.modules["ttame_core.methods.rise"]  # the function has the same name
    monkeypatch.setattr(module, "weighted_masks", keep)
    explain = module.rise(None, masks=2000, cells=5, p=0.3)
    explain(torch.rand(1, 3, 4, 4), torch.tensor([0]))
    assert seen["grids"].shape == (2000, 5, 5) and seen["p"] == 0.3
    assert seen["grids"].mean() == pytest.approx(0.3, abs=0.01)
    assert seen["shifts"].mean() == pytest.approx(0.5, abs=0.02)
    assert seen["shifts"].std() == pytest.approx(12**-0.5, abs=0.01)


def test_rise_is_its_seed():
    backbone = tt.load_backbone("demo_vit", None)
    image, c = torch.rand(1, 3, 64, 64), torch.zeros(1).long()
    maps = [tt.method("rise", backbone, masks=6, seed=s)(image, c) for s in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1]) and not torch.equal(maps[0], maps[2])


@pytest.mark.parametrize(("masking", "logits"), [("image", True), ("standardised", False)])
def test_the_orders_and_scores_of_others_are_worked_out(masking, logits):
    means, weight = torch.tensor([0.5, 0.25, 0.75])[:, None, None], torch.randn(2, 3, 8, 8) / 9
    plain = Preprocessing(8, 8, mean=means.flatten().tolist(), std=(0.5, 0.5, 0.5))
    backbone = tt.Backbone(Linear(weight), ["tap"], preprocessing=plain)
    image = torch.rand(3, 8, 8)
    generator = torch.Generator().manual_seed(3)
    grids = (torch.rand(9, 2, 2, generator=generator) < 0.5).float()
    shifts = torch.rand(9, 2, generator=generator)
    expected = torch.zeros(8, 8)
    for mask in torch.cat(list(smooth_masks(grids, shifts, (8, 8), 9))):
        seen = (mask * image - means) / 0.5 if masking == "image" else mask * (image - means) / 0.5
        answer = (weight * seen).sum((1, 2, 3))
        expected += (answer if logits else answer.softmax(0))[1] * mask
    options = {"masks": 9, "cells": 2, "seed": 3, "masking": masking, "logits": logits}
    found = tt.method("rise", backbone, **options)(image[None], torch.tensor([1]))
    assert torch.allclose(found[0], minmax(expected[None])[0], atol=1e-5)
