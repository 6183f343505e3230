"""Maps of classes that were not predicted: scored by hand, killed and gone on with."""

import pandas as pd
import pytest
import torch

import ttame_core as tt
from ttame_book.studies import randomisation
from ttame_book.studies.other_classes import misclassified, own_object, pair_title, runner_up_scores
from ttame_core.metrics.cache import KeptConfidences


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
    expected = randomisation.similarity(maps[:, 0], maps[:, 1])["ssim"].mean()
    assert values["runner-up", "ssim", 0].mean() == pytest.approx(expected)
    assert values["no map", "runner-up first"].max() == 0


def test_a_killed_scoring_of_two_classes_goes_on(tiny, noise, tmp_path, monkeypatch):
    explainer = tt.TTAME(tiny).eval()
    batches = list(torch.utils.data.DataLoader(noise, batch_size=10))
    kept = KeptConfidences(tiny, tmp_path)
    runner_up_scores(explainer, batches[:2], confidences=kept)  # then it was killed
    asked = []
    whole = tiny.logits
    monkeypatch.setattr(tiny, "logits", lambda x: asked.append(len(x)) or whole(x))
    found = runner_up_scores(explainer, batches, confidences=kept)
    # all explained; the last batch masked by two maps at three v
    assert sum(asked) == 24 + 4 * 2 * 3
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


def test_a_title_has_a_line_a_class_and_long_names_are_cut(tiny, monkeypatch):
    names = ("cat", "soft-coated wheaten terrier", *map(str, range(6)))
    monkeypatch.setattr(tt.Backbone, "labels", names)
    title = pair_title(tiny, torch.tensor([1, 0]), torch.tensor([0.876, 0.004]))
    first, second = title.splitlines()
    assert first == "soft-coated…, 88\N{NO-BREAK SPACE}%" and second == "cat, 0\N{NO-BREAK SPACE}%"


def test_an_images_map_that_explains_nothing_has_no_scores_and_the_others_keep_theirs(tiny, noise):
    explainer = tt.TTAME(tiny).eval()
    batch = {"image": noise.images[:3], "id": list("abc")}
    plain = runner_up_scores(explainer, [batch], (50,))
    whole = explainer.forward

    def spoilt(images, classes):
        found = whole(images, classes)
        found.maps[1, 1] = 0.5  # the runner-up's of the second
        return found

    explainer.forward = spoilt
    keys = ["method", "measure", "v", "image_id"]
    found = runner_up_scores(explainer, [batch], (50,)).set_index(keys)["value"]
    plain = plain.set_index(keys)["value"]
    lost = found.index[found.isna()]
    measures = ("of the predicted", "of the runner-up", "runner-up first")
    assert set(lost) == {("runner-up", measure, 50, "b") for measure in measures}
    same = found.drop(lost).drop("runner-up", level="method")
    assert same.equals(plain.loc[same.index])
