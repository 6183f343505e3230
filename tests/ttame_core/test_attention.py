"""The attention mechanism against the paper's own formulation."""

import math

import pytest
import torch
import torch.nn.functional as F

import ttame_core as tt
from ttame_core.attention import AttentionMechanism, smooth


@pytest.mark.parametrize(
    ("channels", "million"),
    [((256, 512, 512), 1.87), ((512, 1024, 2048), 9.10), ((768, 768, 768), 4.08)],
)
def test_parameter_counts_of_the_paper(channels, million):
    mechanism = tt.AttentionMechanism(channels, 1000)
    assert sum(p.numel() for p in mechanism.parameters()) / 1e6 == pytest.approx(million, abs=0.01)


def concatenate_then_fuse(mechanism, features, size):
    """The paper's order: enlarge every branch, concatenate, one 1x1 convolution to K maps."""
    branches = [b(f) for b, f in zip(mechanism.branches, features, strict=True)]
    large = [F.interpolate(a, size=size, mode="bilinear", align_corners=False) for a in branches]
    return mechanism.fusion(torch.cat(large, 1))


def test_native_resolution_equals_concatenate_then_fuse_in_outputs_and_gradients():
    mechanism = tt.AttentionMechanism((5, 7, 9), 11).double()
    features = [
        torch.randn(4, c, s, s, dtype=torch.float64, requires_grad=True)
        for c, s in ((5, 12), (7, 6), (9, 3))
    ]
    classes = torch.stack([torch.randperm(11)[:4] for _ in range(4)])
    ours = mechanism(features, classes)
    theirs = concatenate_then_fuse(mechanism, features, (12, 12))
    theirs = theirs.gather(1, classes[:, :, None, None].expand(-1, -1, 12, 12))
    assert torch.allclose(ours, theirs, atol=1e-10, rtol=0)
    weights = torch.randn_like(ours)
    leaves = [*features, *mechanism.parameters()]
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), leaves),
        torch.autograd.grad((theirs * weights).sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-10, rtol=0)


def test_all_classes_equal_selected_ones():
    mechanism = tt.AttentionMechanism((5, 7), 6).eval()
    features = [torch.randn(2, 5, 8, 8), torch.randn(2, 7, 4, 4)]
    classes = torch.tensor([[3, 0], [5, 5]])
    chosen = mechanism(features)[torch.arange(2)[:, None], classes]
    assert torch.allclose(mechanism(features, classes), chosen, atol=1e-5)


def modules(variant):
    mechanism = tt.AttentionMechanism((5, 7, 9), 4, **tt.VARIANTS[variant])
    return [
        (b.skip, type(b.norm).__name__, type(b.activation).__name__) for b in mechanism.branches
    ]


def test_variants_differ_in_the_parts_they_name_only():
    assert modules("proposed") == [(True, "BatchNorm2d", "ReLU")] * 3
    assert modules("no_skip") == [(False, "BatchNorm2d", "ReLU")] * 3
    assert modules("no_skip_no_batch_norm") == [(False, "Identity", "ReLU")] * 3
    assert modules("sigmoid") == [(True, "BatchNorm2d", "Sigmoid")] * 3
    assert modules("two_taps") == modules("proposed")[:2]
    assert modules("one_tap") == modules("proposed")[:1]


def test_fewer_taps_leave_out_the_earliest():
    mechanism = tt.AttentionMechanism((5, 7, 9), 4, taps=2)
    assert mechanism.channels == (7, 9)
    features = [torch.randn(1, 5, 8, 8), torch.randn(1, 7, 4, 4), torch.randn(1, 9, 2, 2)]
    assert mechanism.eval()(features).shape == (1, 4, 4, 4)


@pytest.mark.parametrize("options", [{"taps": 4}, {"taps": 0}, {"activation": "rleu"}])
def test_wrong_options_are_named(options):
    with pytest.raises(tt.TTAMEError, match=str(next(iter(options.values())))):
        tt.AttentionMechanism((5, 7, 9), 4, **options)


def test_smoothing_is_a_gaussian_that_keeps_flat_maps_and_mirrors():
    flat = torch.full((1, 2, 14, 14), 3.0)
    assert torch.allclose(smooth(flat, 1.0), flat)
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 1
    blurred = smooth(point, 1.0)[0, 0]
    assert blurred[7, 8] / blurred[7, 7] == pytest.approx(math.exp(-1 / 2), rel=1e-4)
    assert blurred[6, 9] / blurred[7, 7] == pytest.approx(math.exp(-5 / 2), rel=1e-4)
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    corner = torch.zeros(1, 1, 3, 3)  # smaller than the Gaussian's reach
    corner[..., 0, 0] = 1
    assert torch.allclose(smooth(corner.flip(-1), 1.0), smooth(corner, 1.0).flip(-1))
    assert smooth(corner, 0.0) is corner


def test_the_smooth_variant_is_the_scaled_one_blurred():
    features = [torch.randn(2, 5, 8, 8), torch.randn(2, 7, 4, 4)]
    torch.manual_seed(0)
    scaled = tt.AttentionMechanism((5, 7), 6, **tt.VARIANTS["scaled"]).eval()
    blurred = tt.AttentionMechanism((5, 7), 6, **tt.VARIANTS["smooth"]).eval()
    blurred.load_state_dict(scaled.state_dict())
    assert torch.allclose(blurred(features), smooth(scaled(features), 1.0))
    assert not torch.allclose(blurred(features), scaled(features), atol=0.01)


def kinds(explainer):
    return [type(m).__name__ for m in explainer.attention.modules()]


def test_the_variants_differ_in_the_parts_they_name(tiny):
    parts = {name: kinds(tt.TTAME(tiny, name)) for name in tt.VARIANTS}
    proposed = parts["proposed"]
    assert proposed.count("BatchNorm2d") == proposed.count("ReLU") == 3
    assert parts["no_skip"] == proposed  # the skip is no module
    assert not any(b.skip for b in tt.TTAME(tiny, "no_skip").attention.branches)
    assert parts["no_skip_no_batch_norm"] == [
        "Identity" if k == "BatchNorm2d" else k for k in proposed
    ]
    assert parts["sigmoid"] == ["Sigmoid" if k == "ReLU" else k for k in proposed]
    for name, count in (("two_taps", 2), ("one_tap", 1)):
        assert parts[name].count("FeatureBranch") == count
    assert parts["l_cam_img"] == ["AttentionMechanism", "ModuleList", "Identity", "Conv2d"]


def test_standardised_maps_have_one_mean_and_spread_whatever_the_rows():
    head, features = torch.randn(6, 3), [torch.randn(2, 5, 8, 8), torch.randn(2, 7, 4, 4)]
    options = {"tied": True, "squashed": True}
    plain = AttentionMechanism((5, 7), 6, head, **options).eval()
    standardised = AttentionMechanism((5, 7), 6, head, standardised=True, **options).eval()
    standardised.load_state_dict(plain.state_dict())
    with torch.no_grad():
        before, maps = plain(features), standardised(features)
        standardised.fusion.weight.mul_(1000)
        standardised.fusion.bias.add_(100)
        assert torch.allclose(standardised(features), maps, atol=1e-3)
    assert torch.allclose(maps.mean((2, 3)), torch.ones(2, 6), atol=1e-4)
    assert torch.allclose(maps.std((2, 3)), torch.full((2, 6), 1.5), atol=1e-4)
    assert torch.equal(maps.flatten(2).argsort(), before.flatten(2).argsort())
    assert maps.sigmoid().flatten(2).amax(2).max() < 1  # its top is told apart
