"""Taps: which layers are feature maps, which are taken, and how outputs become maps."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ttame_core as tt
from ttame_core.classifiers.taps import blocks_over_depth, norms_over_depth, to_grid
from ttame_core.errors import NotServedError


def test_vgg16_conv_taps_are_the_rectified_maps_before_the_pools():
    backbone = tt.load_backbone("demo_vgg", taps="conv")
    pooled = tt.load_backbone("demo_vgg")
    images = torch.rand(1, 3, 64, 64)
    for conv, pool in zip(backbone.features(images)[1], pooled.features(images)[1], strict=True):
        assert torch.equal(torch.nn.functional.max_pool2d(conv, 2), pool)


GRID = torch.arange(2 * 5 * 49.0).view(2, 5, 7, 7)
TOKENS = GRID.flatten(2).transpose(1, 2)  # (2, 49, 5), row by row


def behind(count):
    """The tokens behind so many others."""
    return torch.cat([torch.full((2, count, 5), -1.0), TOKENS], 1)


@pytest.mark.parametrize(
    ("output", "prefix"),
    [
        (GRID, None),
        (GRID.permute(0, 2, 3, 1), None),  # channels last
        (TOKENS, None),
        (TOKENS, 0),
        (behind(1), None),
        (behind(4), 4),
        (behind(1), 1),
        ((TOKENS, None), None),
        (SimpleNamespace(last_hidden_state=behind(1)), None),
    ],
)
def test_outputs_of_every_kind_are_the_same_grid(output, prefix):
    assert torch.equal(to_grid(output, "tap", prefix), GRID)


@pytest.mark.parametrize(
    "output", [torch.zeros(2, 5), torch.zeros(2, 5, 1, 1), torch.zeros(2, 2, 9), None]
)
def test_what_is_no_feature_map(output):
    with pytest.raises(tt.TTAMEError, match="'head' is no feature map"):
        to_grid(output, "head")


def test_sets_of_taps_of_a_backbone_by_name_once_it_is_loaded():
    vgg = tt.load_backbone("demo_vgg")
    assert vgg.with_taps("conv").taps == tt.load_backbone("demo_vgg", taps="conv").taps != vgg.taps
    with pytest.raises(tt.TTAMEError, match="no set of taps 'stages'"):
        vgg.with_taps("stages")


@pytest.mark.slow
def test_taps_spread_over_a_transformers_depth_by_name():
    vit = tt.load_backbone("demo_vit")
    spread = tt.load_backbone("demo_vit", taps="spread")
    assert spread.taps == blocks_over_depth(vit.model, vit.taps[-1]) != vit.taps
    with pytest.raises(tt.TTAMEError, match="did you mean 'spread'"):
        tt.load_backbone("demo_vit", taps="spred")
    norms = tt.load_backbone("demo_vit", taps="spread-norms")
    assert norms.taps == tuple(f"{block}.ln_1" for block in spread.taps)
    assert vit.with_taps("spread-norms").taps == norms.taps
    images = torch.rand(2, 3, 64, 64)
    tokens = norms.features(images)[1][0].flatten(
        2
    )  # (B, C, N), before weight and bias at unit scale
    norm = norms.model.get_submodule(norms.taps[0])
    plain = (tokens - norm.bias[:, None]) / norm.weight[:, None]
    torch.testing.assert_close(
        plain.square().mean(1), torch.ones(2, tokens.shape[2]), rtol=0.01, atol=0
    )
    for taps in ("spread", "spread-norms"):
        with pytest.raises(NotServedError, match=f"taps '{taps}' are a transformer's.* is none"):
            tt.load_backbone("demo_resnet", taps=taps)
    with pytest.raises(NotServedError, match="no norm before the attention found in 'layer2'"):
        norms_over_depth(tt.load_backbone("demo_resnet").model, "layer2")
    with pytest.raises(NotServedError, match="taps 'spread' need four blocks alike"):
        blocks_over_depth(vit.model, "conv_proj")


def test_list_taps_shows_names_and_shapes_in_order():
    taps = tt.list_taps("demo_resnet")
    assert taps["layer2"] == (20, 32, 32)
    assert list(taps).index("layer2") < list(taps).index("layer3")
    assert "fc" not in taps


def test_windows_of_images_are_no_taps():
    name, tap = "timm/swin_tiny_patch4_window7_224", "layers.0.blocks.0.attn.proj"
    assert tap not in tt.list_taps(name)
    with pytest.raises(tt.TTAMEError, match="no feature map of whole images"):
        tt.load_backbone(name, None, [tap])


def test_every_listed_tap_can_be_tapped():
    name = "timm/vit_tiny_patch16_224"
    taps = tt.list_taps(name)
    assert taps["blocks.11"] == taps["patch_embed"] == (192, 14, 14)  # the class token comes later
    assert tt.load_backbone(name, None, list(taps)).shapes == tuple(taps.values())


def test_blocks_at_the_quarters_of_the_depth():
    model = nn.ModuleDict({"blocks": nn.Sequential(*(nn.Identity() for _ in range(12)))})
    assert blocks_over_depth(model, "blocks.11") == ("blocks.3", "blocks.6", "blocks.9")
    with pytest.raises(NotServedError, match="of blocks's kind there are 1"):
        blocks_over_depth(model, "blocks")


def test_of_two_grids_that_would_do_the_one_of_the_images_proportions_is_taken():
    assert to_grid(torch.rand(1, 8, 10, 12), "x", size=(64, 80)).shape == (1, 12, 8, 10)
    assert to_grid(torch.rand(1, 12, 8, 10), "x", size=(64, 80)).shape == (1, 12, 8, 10)
    assert to_grid(torch.rand(1, 8, 8, 8), "x", size=(64, 64)).shape == (1, 8, 8, 8)


@pytest.mark.happens("Layers", "taps that are no list of names: {taps}", "refused")
@pytest.mark.parametrize("taps", [[1], 3, "layer1", [], [None], ["layer1", "layer1"]])
def test_taps_that_are_no_list_of_layers_are_refused(taps):
    model = tt.load_backbone("demo_resnet")
    with pytest.raises(tt.TTAMEError, match=r"the taps of|has no layer|no set of taps"):
        tt.Backbone(model.model, taps, preprocessing=model.preprocessing)
    with pytest.raises(tt.TTAMEError, match="has no layer 'foo'"):
        model.output_of("foo", torch.rand(1, 3, 64, 64))
