"""The demo edition's classifiers: torchvision's own classes in small, for digits in photographs.

All take ``(B, 3, 64, 64)``, standardised, to logits ``(B, 10)``.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import VGG, ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import make_layers
from torchvision.models.vision_transformer import ConvStemConfig

from ttame_core.classifiers.loading import register
from ttame_core.errors import TTAMEError, check_known
from ttame_core.images.reading import Preprocessing

WEIGHTS = Path(__file__).parent / "weights"
CLASSES = 10
PREPROCESSING = Preprocessing(image_size=64, resize=64)
TAPS = {
    "demo_vgg": {
        "max-pool": ("features.16", "features.23", "features.30"),
        "conv": ("features.15", "features.22", "features.29"),
    },
    "demo_resnet": {
        "stages": ("layer2", "layer3", "layer4"),
        "fine": ("relu", "layer1", "layer4"),  # relu: the stem's
    },
    "demo_vit": {},
}
"""Named sets of taps; the first of a backbone is its default."""


def demo_vgg() -> VGG:
    """Build a narrow VGG-16: 13 convolutions, maps of 16, 8 and 4 px, and a small head."""
    widths = [12, 12, "M", 24, 24, "M", 24, 24, 24, "M", 48, 48, 48, "M", 64, 64, 64, "M"]
    features = make_layers(widths)
    # the second pool does nothing, so that 64 px end as 4 x 4; it stays, so that layers are
    # numbered as vgg16's and its names of taps hold
    features[9] = nn.Identity()
    with torch.device("meta"):  # the head that is built and thrown away has 120 million weights
        model = VGG(features, num_classes=CLASSES, init_weights=False)
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.classifier = nn.Sequential(nn.Linear(256, 96), nn.ReLU(), nn.Linear(96, CLASSES))
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


class NarrowResNet(ResNet):
    """torchvision's ResNet-18 with 5/32 of its channels: maps of 32, 16, 8 px in layers 2 to 4.

    The first pool and the stride of layer 2 are left out, as 64 px are few.
    """

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
        self.maxpool = nn.Identity()
        self.fc = nn.Linear(512 * 5 // 32, CLASSES)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        stride = 1 if planes == 128 else stride  # 128: layer 2
        return super()._make_layer(block, planes * 5 // 32, blocks, stride, dilate)


def demo_vit() -> VisionTransformer:
    """Build a small ViT: an 8 x 8 grid of tokens from a convolutional stem, five blocks."""
    return VisionTransformer(
        image_size=64,
        patch_size=8,
        num_layers=5,
        num_heads=4,
        hidden_dim=80,
        mlp_dim=160,
        num_classes=CLASSES,
        # plain patches of 8 px reached 62 % in thirty epochs
        conv_stem_configs=[ConvStemConfig(width, 3, 2) for width in (24, 40, 64)],
    )


DEMO_BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "demo_vgg": demo_vgg,
    "demo_resnet": NarrowResNet,
    "demo_vit": demo_vit,
}


def load_demo_backbone(name: str, weights: str | Path | None = "DEFAULT") -> nn.Module:
    """Load a demo classifier, a key of `DEMO_BACKBONES`, in evaluation mode.

    "DEFAULT" weights are the shipped ones, None random ones; else they are a safetensors file. An
    unknown name, or a file that is not there, raises a TTAMEError.
    """
    check_known("demo backbone", name, DEMO_BACKBONES)
    file = WEIGHTS / f"{name}.safetensors" if weights == "DEFAULT" else weights
    if file is not None and not Path(file).is_file():
        raise TTAMEError(
            f"{name} has no weights {str(weights)!r}; expected 'DEFAULT', None or a file"
        )
    model = DEMO_BACKBONES[name]()
    if file is not None:
        model.load_state_dict(load_file(file))
    return model.eval()


def _build(name: str, published: str | None, options: dict) -> tuple[nn.Module, Preprocessing]:
    if options:
        raise TTAMEError(f"{name} takes no options, {sorted(options)} were given; leave them out")
    return load_demo_backbone(name, published), PREPROCESSING


for _name, _taps in TAPS.items():
    register(_name, _build, _taps)
