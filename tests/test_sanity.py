"""Randomisation goes from the head down, leaves the original alone, and similarity is what it says."""

import itertools

import pandas as pd
import pytest
import torch

import ttame_core as tt
from ttame_core import sanity
from ttame_core.counterfactuals import misclassified, own_object, runner_up_scores
from ttame_core.wheels import two_digits


@pytest.fixture
def explainer():
    return tt.TTAME(tt.load_backbone("demo_resnet"))


def changed(a, b):
    return {
        k.split(".")[0] for k, v in a.state_dict().items() if not torch.equal(v, b.state_dict()[k])
    }


def test_stages_go_from_the_head_to_the_first_layer(explainer):
    model = explainer.backbone.model
    order = sanity.stages(model, explainer.backbone.taps)
    assert order[:3] == ["fc", "layer4", "layer3"] and order[-1] == "conv1"
    vit = tt.load_backbone("demo_vit")
    assert sanity.stages(vit.model, vit.taps)[:2] == ["heads.head", "encoder.ln"]


def test_each_stage_is_randomised_on_top_of_those_before(explainer):
    model = explainer.backbone.model
    order = sanity.stages(model, explainer.backbone.taps)
    seen = [changed(model, copy) for _, copy in sanity.cascade(model, order)]
    assert seen[0] == {"fc"} and seen[1] == {"fc", "layer4"}
    assert seen[-1] == {"fc", "layer1", "layer2", "layer3", "layer4", "conv1", "bn1"}
    assert all(a < b for a, b in itertools.pairwise(seen))


def test_attention_layers_of_a_vit_are_randomised_whole():
    model = tt.load_backbone("demo_vit").model
    attend = model.encoder.layers[-1].self_attention
    *_, (_, copy) = sanity.cascade(model, ["encoder.layers.encoder_layer_4"])
    other = copy.encoder.layers[-1].self_attention
    for name in ("in_proj_weight", "out_proj.weight"):
        assert not torch.equal(attend.get_parameter(name), other.get_parameter(name)), name


@pytest.mark.parametrize("name", ["demo_vit", "demo_vgg", "timm/convnext_atto"])
def test_the_last_stage_leaves_no_parameter_as_it_was(name):
    backbone = tt.load_backbone(name, weights=None)
    for parameter in backbone.model.parameters():
        torch.nn.init.uniform_(parameter)
    *_, (_, copy) = sanity.cascade(backbone.model, sanity.stages(backbone.model, backbone.taps))
    other = dict(copy.named_parameters())
    same = [n for n, p in backbone.model.named_parameters() if torch.equal(p, other[n])]
    assert not same


def test_following_names_the_last_stage_and_keeps_the_first_images_maps():
    maps = torch.rand(3, 8, 8)
    steps = [
        (name, tt.Explanation(torch.rand(3, 8, 8), None, None, None)) for name in ("head", "stem")
    ]
    strip, rows = sanity.follow(maps, steps, "whole")
    assert list(strip) == ["original", "head", "whole"]
    assert torch.equal(strip["whole"], steps[1][1].maps[:1])
    assert rows["stage"].tolist() == ["head"] * 3 + ["whole"] * 3
    assert rows[rows["stage"] == "whole"]["ssim"].tolist() == pytest.approx(
        sanity.similarity(maps, steps[1][1].maps)["ssim"].tolist()
    )


def test_the_explainer_stays_as_it_is(explainer):
    images = torch.rand(2, 3, 64, 64)
    original = explainer(images)
    for _, explanation in sanity.randomised_backbone(explainer, images, original.classes):
        assert explanation.maps.shape == original.maps.shape
    parts = [name for name, _ in sanity.randomised_attention(explainer, images, original.classes)]
    assert parts == ["fusion", "branches.2", "branches.1", "branches.0"]
    again = explainer(images)
    assert torch.equal(again.maps, original.maps)


def test_a_random_head_alone_leaves_a_classs_map_as_it_is(explainer):
    images = torch.rand(4, 3, 64, 64)
    original = explainer(images)
    (head, first), *_, (_, last) = sanity.randomised_backbone(explainer, images, original.classes)
    assert head == "fc"
    assert torch.equal(first.classes, original.classes)
    assert not torch.allclose(first.confidences, original.confidences)
    assert torch.allclose(first.maps, original.maps)
    assert not torch.allclose(last.maps, original.maps, atol=0.1)


def test_explaining_in_parts_changes_nothing(tiny, noise, monkeypatch):
    explainer = tt.TTAME(tiny).eval()
    whole = explainer(noise.images, 2)
    monkeypatch.setattr(sanity, "batch_that_suits", lambda images: 10)
    for classes, rank in ((None, 0), (whole.classes[:, 1], 1)):
        parts = sanity.explain_in_parts(explainer, noise.images, classes)
        assert torch.equal(parts.classes, whole.classes[:, rank])
        assert torch.equal(parts.ranks, whole.ranks[:, rank])
        assert torch.allclose(parts.maps, whole.maps[:, rank], atol=1e-6)
        assert torch.allclose(parts.confidences, whole.confidences[:, rank])


def test_similarity_by_hand():
    ramp = torch.linspace(0, 1, 64).view(1, 8, 8)
    found = sanity.similarity(ramp.repeat(4, 1, 1), torch.cat([ramp, ramp**3, 1 - ramp, ramp * 0]))
    assert found["rank correlation"].tolist() == pytest.approx([1, 1, -1, 0])
    assert found["ssim"][0] == pytest.approx(1) and (found["ssim"][1:] < 0.95).all()


def test_two_digits_are_both_there_and_apart():
    test = tt.DigitsInPhotographs("test", 40)
    pairs = two_digits(test, 10)
    assert len(pairs) == 10
    for item in pairs:
        first, second = item["masks"]
        assert item["labels"][0] != item["labels"][1]
        assert not (first & second).any() and first.any() and second.any()
        i, j = (int(n) for n in item["id"].removeprefix("digits-test-").split("+"))
        assert (int(test.labels[i]), int(test.labels[j])) == item["labels"]
        assert torch.equal(second, test.masks[j])
        outside = test.opacity[j] == 0
        assert torch.equal(item["image"][:, outside], test[i]["image"][:, outside])
        share = test.opacity[j][None].float() / 255
        expected = test[i]["image"] * (1 - share) + test.colours[j][:, None, None] * share
        assert torch.allclose(item["image"], expected, atol=1e-6)
    again = two_digits(test, 10)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(pairs, again, strict=True))


def test_own_object_by_hand():
    masks = torch.zeros(1, 2, 8, 8).bool()
    masks[0, 0, :, :2] = masks[0, 1, :, 6:] = True
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, :, 0] = 1  # on its own
    maps[0, 1, :, 0] = maps[0, 1, 0, 7] = 1  # half a column of the other's, one pixel of its own
    maps[0, 1, 1:, 0] = 0.5
    found = own_object(maps, masks, ["a"]).set_index(["method", "measure"])["value"]
    assert found["own object", "energy"] == pytest.approx((100 + 100 / 5.5) / 2)
    assert found["other object", "energy"] == pytest.approx((0 + 100 * 4.5 / 5.5) / 2)
    assert found["own object", "pointing"] == pytest.approx((100 + 50) / 2)


def test_what_is_left_of_both_classes_under_the_map_of_either(tiny, noise):
    explainer = tt.TTAME(tiny).eval()
    batches = torch.utils.data.DataLoader(noise, batch_size=10)
    seen = []
    found = runner_up_scores(explainer, batches, (100, 40), progress=seen.append)
    assert seen == [10, 20, 24]
    values = found.set_index(["method", "measure", "v", "image_id"])["value"].sort_index()
    assert len(values) == values.index.nunique() == 24 * (3 + 2 * 3 * 2 + 2)
    explanation = explainer(noise.images, 2)
    for i in (0, 13):
        image = noise.images[i : i + 1]
        scores = {"no map": 100 * tiny(image).softmax(1)}
        for name, heat in zip(("predicted class", "runner-up"), explanation.maps[i], strict=True):
            large = tt.masking.upsample(heat[None], (16, 16))
            masks = large * tt.select_top(large, 40)
            scores[name] = 100 * tiny(image, masks).softmax(1)
        for name, of_all in scores.items():
            first, second = (float(of_all[0, c]) for c in explanation.classes[i])
            told = [
                values[name, measure, 100 if name == "no map" else 40, f"noise-{i}"]
                for measure in ("of the predicted", "of the runner-up", "runner-up first")
            ]
            assert told == pytest.approx([first, second, 100 * (second > first)], abs=1e-3)
    maps = explanation.maps
    expected = sanity.similarity(maps[:, 0], maps[:, 1])["ssim"].mean()
    assert values["runner-up", "ssim", 0].mean() == pytest.approx(expected)
    assert values["no map", "runner-up first"].max() == 0


def test_a_killed_scoring_of_two_classes_goes_on(tiny, noise, tmp_path, monkeypatch):
    explainer = tt.TTAME(tiny).eval()
    batches = list(torch.utils.data.DataLoader(noise, batch_size=10))
    runner_up_scores(explainer, batches[:2], keep=tmp_path)  # then it was killed
    asked = []
    whole = tiny.logits
    monkeypatch.setattr(tiny, "logits", lambda x: asked.append(len(x)) or whole(x))
    found = runner_up_scores(explainer, batches, keep=tmp_path)
    assert (
        sum(asked) == 24 + 4 * 2 * 3
    )  # all explained; the last batch masked by two maps at three v
    pd.testing.assert_frame_equal(found, runner_up_scores(explainer, batches))


def test_misclassified_images_are_found(tiny, noise):
    predicted = tiny(noise.images).argmax(1).tolist()
    items = [
        {"image": im, "label": p if i % 3 else (p + 1) % 8}
        for i, (im, p) in enumerate(zip(noise.images, predicted, strict=True))
    ]
    found = misclassified(tiny, items, 4)
    assert len(found) == 4 and found[1] is items[3]
    assert misclassified(tiny, [{"image": noise.images[0]}], 4) == []


def test_the_stage_from_which_it_stays_below_a_bound():
    highs = [0.9, 0.4, 0.6, 0.3, 0.2, 0.9]  # the last is another cascade's
    names = ["head", "norm", "late", "early", "whole", "fusion"]
    means = pd.DataFrame({"measure": "rank correlation", "method": names, "high": highs})
    assert sanity.first_below(means, "whole") == "early"
    assert sanity.first_below(means, "whole", 1) == "head"
    assert sanity.first_below(means, "whole", 0.1) is None
