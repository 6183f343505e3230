"""Real photographs, where the folder `shared` lies beside the project; skipped elsewhere."""

from pathlib import Path

import pytest

import ttame_book as tb
import ttame_core as tt
from ttame_core.classifiers.loading import LITE0
from ttame_core.images.batches import stack
from ttame_core.images.folders import evenly

WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
IMAGENETTE = Path(__file__).parents[3] / "shared" / "data" / "imagenette"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not IMAGENETTE.is_dir(), reason=f"no photographs at {IMAGENETTE}"),
]


def photographs(backbone):
    """Sixty of the imagenette edition's test images, as a classifier reads them, and labels."""
    edition = tb.Edition.read("imagenette", {"data_root": str(IMAGENETTE)})
    images = evenly(edition.images(backbone, "test"), 60)  # about six a class
    return stack(images), [item["label"] for item in images]


def recognised(backbone):
    """How many of the sixty a classifier names rightly."""
    images, labels = photographs(backbone)
    predicted = backbone(images).argmax(1).tolist()
    return sum(p == label for p, label in zip(predicted, labels, strict=True))


def test_the_photographs_are_recognised():
    backbone = tt.load_backbone(LITE0)
    assert recognised(backbone) >= 39
    assert backbone.label(0) == "tench"


@pytest.mark.parametrize(("name", "least"), [("squeezenet1_1", 30), ("vit_ti_16", 38)])
def test_weights_from_files_are_read_with_their_preprocessing(name, least):
    entry = tb.Edition.read("imagenette").entry(name)
    file = WEIGHTS / Path(entry["weights"]).name
    backbone = tt.load_backbone(name, file, preprocessing=entry.get("preprocessing"))
    assert recognised(backbone) >= least


def test_an_explainer_of_real_photographs_trains_and_explains():
    explainer = tt.TTAME(tt.load_backbone(LITE0))
    images, _ = photographs(explainer.backbone)
    items = [{"image": image} for image in images[:8]]
    history = tt.train(explainer, items, tt.Recipe(steps=2, batch_size=4, max_lr=0.01))
    assert all(row["total"] > 0 for row in history)
    maps = explainer.explain(images[:4])
    assert maps.shape == (4, 28, 28)
    assert (maps.flatten(1).std(1) > 0.01).all()
    assert all((maps[i] - maps[i + 1]).abs().mean() > 0.02 for i in range(3))
