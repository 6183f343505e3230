"""Small things that many tests use."""

import pytest
import torch
from torch import nn

import ttame_core as tt
from ttame_core.images.reading import Preprocessing


def pytest_collection_modifyitems(items):
    """Begin with the file that takes longest, so that none waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(autouse=True)
def seeded():
    """Start every test from the same random state."""
    torch.manual_seed(0)


class TinyCNN(nn.Module):
    """Three convolutions, batch norm, dropout: a classifier of 8 classes for 16 px images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.middle = nn.Sequential(
            nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        )
        self.last = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 8)

    def forward(self, x):
        return self.head(self.drop(self.last(self.middle(self.stem(x))).mean((2, 3))))


@pytest.fixture
def tiny():
    """A tapped TinyCNN."""
    preprocessing = Preprocessing(image_size=16, resize=16)
    return tt.Backbone(
        TinyCNN(), ["stem", "middle", "last"], name="tiny", preprocessing=preprocessing
    )


class Noise(torch.utils.data.Dataset):
    """Random images with ids."""

    def __init__(self, size=24, pixels=16):
        self.images = torch.rand(
            size, 3, pixels, pixels, generator=torch.Generator().manual_seed(1)
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "id": f"noise-{index}"}


@pytest.fixture
def noise():
    """24 random images of 16 px."""
    return Noise()
