"""Randomisation goes from the head down, leaves the original alone, and similarity is what it says."""

import itertools

import pandas as pd
import pytest
import torch

import ttame_core as tt
from ttame_book.studies import randomisation
from ttame_core.classifiers.taps import attention_norms


@pytest.fixture
def explainer():
    return tt.TTAME(tt.load_backbone("demo_resnet"))


def changed(a, b):
    return {
        k.split(".")[0] for k, v in a.state_dict().items() if not torch.equal(v, b.state_dict()[k])
    }


def test_stages_go_from_the_head_to_the_first_layer(explainer):
    model = explainer.backbone.model
    order = randomisation.stages(model, explainer.backbone.taps)
    assert order[:3] == ["fc", "layer4", "layer3"] and order[-1] == "conv1"
    vit = tt.load_backbone("demo_vit")
    order = randomisation.stages(vit.model, vit.taps)
    assert order[:2] == ["heads.head", "encoder.ln"]
    assert randomisation.stages(vit.model, attention_norms(vit.model, vit.taps)) == order


def test_each_stage_is_randomised_on_top_of_those_before(explainer):
    model = explainer.backbone.model
    order = randomisation.stages(model, explainer.backbone.taps)
    seen = [changed(model, copy) for _, copy in randomisation.cascade(model, order)]
    assert seen[0] == {"fc"} and seen[1] == {"fc", "layer4"}
    assert seen[-1] == {"fc", "layer1", "layer2", "layer3", "layer4", "conv1", "bn1"}
    assert all(a < b for a, b in itertools.pairwise(seen))


def test_attention_layers_of_a_vit_are_randomised_whole():
    model = tt.load_backbone("demo_vit").model
    attend = model.encoder.layers[-1].self_attention
    *_, (_, copy) = randomisation.cascade(model, ["encoder.layers.encoder_layer_4"])
    other = copy.encoder.layers[-1].self_attention
    for name in ("in_proj_weight", "out_proj.weight"):
        assert not torch.equal(attend.get_parameter(name), other.get_parameter(name)), name


@pytest.mark.parametrize("name", ["demo_vit", "demo_vgg", "timm/convnext_atto"])
def test_the_last_stage_leaves_no_parameter_as_it_was(name):
    backbone = tt.load_backbone(name, weights=None)
    for parameter in backbone.model.parameters():
        torch.nn.init.uniform_(parameter)
    *_, (_, copy) = randomisation.cascade(
        backbone.model, randomisation.stages(backbone.model, backbone.taps)
    )
    other = dict(copy.named_parameters())
    same = [n for n, p in backbone.model.named_parameters() if torch.equal(p, other[n])]
    assert not same


def test_following_names_the_last_stage_and_keeps_the_first_images_maps():
    maps = torch.rand(3, 8, 8)
    steps = [
        (name, tt.Explanation(torch.rand(3, 8, 8), None, None, None, None))
        for name in ("head", "stem")
    ]
    strip, rows = randomisation.follow(maps, steps, "whole")
    assert list(strip) == ["original", "head", "whole"]
    assert torch.equal(strip["whole"], steps[1][1].maps[:1])
    assert rows["stage"].tolist() == ["head"] * 3 + ["whole"] * 3
    assert rows[rows["stage"] == "whole"]["ssim"].tolist() == pytest.approx(
        randomisation.similarity(maps, steps[1][1].maps)["ssim"].tolist()
    )


def test_the_explainer_stays_as_it_is(explainer):
    images = torch.rand(2, 3, 64, 64)
    original = explainer(images)
    for _, explanation in randomisation.randomised_backbone(explainer, images, original.classes):
        assert explanation.maps.shape == original.maps.shape
    parts = [
        name for name, _ in randomisation.randomised_attention(explainer, images, original.classes)
    ]
    assert parts == ["fusion", "branches.2", "branches.1", "branches.0"]
    again = explainer(images)
    assert torch.equal(again.maps, original.maps)


def test_a_random_head_alone_leaves_a_classs_map_as_it_is(explainer):
    images = torch.rand(4, 3, 64, 64)
    original = explainer(images)
    (head, first), *_, (_, last) = randomisation.randomised_backbone(
        explainer, images, original.classes
    )
    assert head == "fc"
    assert torch.equal(first.classes, original.classes)
    assert not torch.allclose(first.confidences, original.confidences)
    assert torch.allclose(first.maps, original.maps)
    assert not torch.allclose(last.maps, original.maps, atol=0.1)


def test_explaining_in_parts_changes_nothing(tiny, noise, monkeypatch):
    explainer = tt.TTAME(tiny).eval()
    whole = explainer(noise.images, 2)
    monkeypatch.setattr(randomisation, "batch_that_suits", lambda images: 10)
    for classes, rank in ((None, 0), (whole.classes[:, 1], 1)):
        parts = randomisation.explain_in_parts(explainer, noise.images, classes)
        assert torch.equal(parts.classes, whole.classes[:, rank])
        assert torch.equal(parts.ranks, whole.ranks[:, rank])
        assert torch.allclose(parts.maps, whole.maps[:, rank], atol=1e-6)
        assert torch.allclose(parts.confidences, whole.confidences[:, rank])


def test_similarity_by_hand():
    ramp = torch.linspace(0, 1, 64).view(1, 8, 8)
    found = randomisation.similarity(
        ramp.repeat(4, 1, 1), torch.cat([ramp, ramp**3, 1 - ramp, ramp * 0])
    )
    assert found["rank correlation"].tolist() == pytest.approx([1, 1, -1, 0])
    assert found["ssim"][0] == pytest.approx(1) and (found["ssim"][1:] < 0.95).all()


def test_the_stage_from_which_it_stays_below_a_bound():
    highs = [0.9, 0.4, 0.6, 0.3, 0.2, 0.9]  # the last is another cascade's
    names = ["head", "norm", "late", "early", "whole", "fusion"]
    means = pd.DataFrame({"measure": "rank correlation", "method": names, "high": highs})
    assert randomisation.first_below(means, "whole") == "early"
    assert randomisation.first_below(means, "whole", 1) == "head"
    assert randomisation.first_below(means, "whole", 0.1) is None
