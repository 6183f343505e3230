"""A shipped explainer and photographs, for the explainers and the command line."""

import numpy as np
import pytest
import torch
from PIL import Image

import ttame_book as tb
import ttame_core as tt
from tests.ttame_core.methods.models import BACKBONES
from ttame_core import pretrained


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder of ready-made explainers that holds one, of the demo's ResNet."""
    explainer = tt.TTAME(tt.load_backbone("demo_resnet"), seed=3)
    explainer.save(tmp_path / "ready" / "demo_resnet.safetensors", half=True)
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "ready")
    return explainer.eval()


@pytest.fixture
def photos(tmp_path):
    """A folder with two pictures, one of them in a folder of its own."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "more/b.jpg")):
        pixels = np.random.default_rng(seed).integers(0, 255, (80, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def digits():
    test = tb.DigitsInPhotographs("test", 5)
    return torch.stack([test[i]["image"] for i in range(5)])


@pytest.fixture(scope="module")
def backbones():
    return {name: tt.load_backbone(name) for name in BACKBONES}
