"""The controls: what their maps are, by hand."""

import torch

import ttame_core as tt
from ttame_core.methods.controls import all_ones, brightness, random_map


def test_brightness_is_each_patchs_luminance_scaled():
    backbone = tt.load_backbone("demo_vit", None)  # 8 x 8 patches of 8 px
    image = torch.zeros(1, 3, 64, 64)
    image[0, 0, :8, :8] = 1.0  # red weighs 0.2989, green 0.587, blue 0.114
    image[0, 1, 8:16, :8] = 0.5
    image[0, 2, :4, 8:16] = 1.0  # half a patch
    expected = torch.zeros(8, 8)
    expected[0, 0], expected[1, 0], expected[0, 1] = 0.2989, 0.587 / 2, 0.114 / 2
    (found,) = brightness(backbone)(image, torch.zeros(1).long())
    assert torch.allclose(found, expected / 0.2989, atol=1e-3)


def test_a_random_map_is_its_images_and_its_seeds_and_even():
    backbone = tt.load_backbone("demo_resnet", None)
    images = torch.rand(3, 3, 64, 64)
    classes = torch.zeros(3).long()
    maps = random_map(backbone)(images, classes)
    assert torch.equal(maps[1:2], random_map(backbone)(images[1:2], classes[1:2]))
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(maps, random_map(backbone, seed=1)(images, classes))
    assert maps.shape[1:] == max(shape[1:] for shape in backbone.shapes)
    assert maps.min() >= 0 and maps.max() < 1 and abs(maps.mean() - 0.5) < 0.02
    assert abs(maps.std() - 12**-0.5) < 0.02


def test_all_ones_is_1_and_says_that_it_means_to_be_constant():
    explain = all_ones(tt.load_backbone("demo_vgg", None))
    assert explain.constant
    assert (explain(torch.rand(2, 3, 64, 64), torch.zeros(2).long()) == 1).all()
