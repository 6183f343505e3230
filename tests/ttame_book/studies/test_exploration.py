"""What the explorer shows of a classifier: which images, and confidences that are of what is shown."""

import base64
import io
import json

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from tests.ttame_book.smoke import read
from ttame_book.studies import exploration
from ttame_book.studies.exploration import SHARES, explored, explored_text
from ttame_core.masking import enlarged, keep_top, mask_images


def picture(uri):
    return to_tensor(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))))


@pytest.mark.parametrize("name", ["demo_resnet", "demo_vit"])
def test_a_confidence_is_that_of_the_image_and_map_that_are_shown(tmp_path, name):
    edition = read(tmp_path, methods=["grad-cam", "random"])
    backbone = edition.backbone(name)
    found = explored(edition, backbone, 2)
    assert found["masking"] == backbone.masking and len(found["images"]) == 2
    for one in found["images"]:
        image = picture(one["picture"])[None]
        assert image.shape == (1, 3, 64, 64) and list(one["methods"]) == ["grad-cam"]
        with torch.no_grad():
            before, classes = backbone(image).softmax(1).topk(2)
        for c, told in enumerate(one["classes"]):
            assert told["name"] == backbone.label(int(classes[0, c]))
            assert told["before"] == pytest.approx(float(before[0, c]), abs=0.01)
            shown = one["methods"]["grad-cam"][c]
            for v in (100, 15):
                mask = keep_top(enlarged(picture(shown["map"]), (64, 64)), v)
                masked = mask_images(image, mask, backbone.standardise, backbone.masking)
                with torch.no_grad():
                    after = backbone.logits(masked).softmax(1)[0, classes[0, c]]
                assert shown["left"][SHARES.index(v)] == pytest.approx(float(after), abs=0.01)


def test_a_classifier_of_photographs_shows_those_that_may_be_shown(tmp_path, monkeypatch):
    edition = read(tmp_path, methods=["grad-cam", "rise"])
    monkeypatch.setitem(edition.config["data"]["digits"], "kind", "folder")
    monkeypatch.setattr(edition, "images", lambda *_: pytest.fail("its own images were opened"))
    found = explored(edition, edition.backbone("demo_resnet"))
    assert [one["name"] for one in found["images"]] == ["cat", "coffee", "rocket"]
    assert all(list(one["methods"]) == ["grad-cam"] for one in found["images"])  # rise costs much
    assert "trained" not in found["note"]
    monkeypatch.setitem(edition.config["data"]["digits"], "kind", "photographs")
    assert "trained on crops of them" in explored(edition, edition.backbone("demo_resnet"))["note"]


def test_the_text_has_every_classifier_that_shows_a_method(tmp_path, monkeypatch):
    found = {
        "demo_resnet": {"images": [{"methods": {}}]},
        "demo_vit": {"images": [{"methods": {"rise": []}}]},
    }
    monkeypatch.setattr(exploration, "explored", lambda edition, backbone: found[backbone.name])
    told = json.loads(explored_text(read(tmp_path)))
    assert told["shares"] == [*range(100, 10, -10), 15, 10, 5]
    assert told["classifiers"] == {"demo_vit": found["demo_vit"]}
