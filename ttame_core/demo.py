"""The demo edition's classifiers: torchvision's own classes in small, for digits in photographs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import VGG, ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import make_layers
from torchvision.models.vision_transformer import ConvStemConfig

from ttame_core.errors import TTAMEError, nearest
from ttame_core.progress import Tell
from ttame_core.wheels import DigitsInPhotographs

WEIGHTS = Path(__file__).parent / "weights"
CLASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as for the large namesakes


def demo_vgg() -> VGG:
    """Build a narrow VGG-16: 13 convolutions, layers numbered as vgg16's, maps of 16, 8, 4 px.

    The second pool is left out, so that a 64 px image ends as 4 x 4, and the head is a small one.
    """
    widths = [12, 12, "M", 24, 24, "M", 24, 24, 24, "M", 48, 48, 48, "M", 64, 64, 64, "M"]
    features = make_layers(widths)
    features[9] = nn.Identity()
    with torch.device("meta"):  # its own head has 120 million weights
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
    """torchvision's ResNet with 5/32 of its channels, for 64 px: maps of 32, 16, 8 px in layers 2 to 4.

    The first pool and the stride of layer 2 are left out.
    """

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
        self.maxpool = nn.Identity()
        self.fc = nn.Linear(512 * 5 // 32, CLASSES)

    def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
        stride = 1 if planes == 128 else stride
        return super()._make_layer(block, planes * 5 // 32, blocks, stride, dilate)


def demo_vit() -> VisionTransformer:
    """Build a small ViT: an 8 x 8 grid of tokens from a convolutional stem, five blocks.

    With plain patches of 8 px it reached 62 % in thirty epochs.
    """
    return VisionTransformer(
        image_size=64,
        patch_size=8,
        num_layers=5,
        num_heads=4,
        hidden_dim=80,
        mlp_dim=160,
        num_classes=CLASSES,
        conv_stem_configs=[ConvStemConfig(width, 3, 2) for width in (24, 40, 64)],
    )


DEMO_BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "demo_vgg": demo_vgg,
    "demo_resnet": NarrowResNet,
    "demo_vit": demo_vit,
}


@dataclass(frozen=True)
class BackboneRecipe:
    """How a demo classifier is trained: AdamW, OneCycleLR, label smoothing 0.05.

    The photographs behind the digits fade in from their mean colour over the first part of the training, as
    ``(step / fade_steps) ** fade_power``: without that the ViT stays at chance. A ninth of each batch shows no digit and
    belongs to no class: without that a blank image is some class, and nothing need be shown to explain it.
    """

    epochs: int
    max_lr: float
    images: int = 8_000
    batch_size: int = 64
    weight_decay: float = 0.05
    fade: float = 0.5  # part of the training
    fade_power: float = 1.0

    def visible(self, progress: float) -> float:
        """How much of the photographs is seen, 0 to 1, at a part of the training done."""
        return min(1.0, progress / self.fade) ** self.fade_power


RECIPES = {
    "demo_vgg": BackboneRecipe(epochs=12, max_lr=2e-3),
    "demo_resnet": BackboneRecipe(epochs=10, max_lr=5e-3),
    "demo_vit": BackboneRecipe(
        epochs=32, max_lr=7e-4, batch_size=32, weight_decay=0.02, fade=0.4, fade_power=2.0
    ),
}


def load_demo_backbone(name: str, weights: str | Path | None = "DEFAULT") -> nn.Module:
    """Load a demo classifier.

    Parameters
    ----------
    name : str
        A key of `DEMO_BACKBONES`.
    weights : "DEFAULT" or Path or None
        The shipped weights, a safetensors file, or random ones.

    Returns
    -------
    nn.Module
        ``(B, 3, 64, 64)`` standardised to ``(B, 10)``, in evaluation mode.

    Raises
    ------
    TTAMEError
        If the name or the weights are unknown.
    """
    if name not in DEMO_BACKBONES:
        raise TTAMEError(f"demo backbone {name!r} is unknown; {nearest(name, DEMO_BACKBONES)}")
    file = WEIGHTS / f"{name}.safetensors" if weights == "DEFAULT" else weights
    if file is not None and not Path(file).is_file():
        raise TTAMEError(
            f"{name} has no weights {str(weights)!r}; expected 'DEFAULT', None or a file"
        )
    model = DEMO_BACKBONES[name]()
    if file is not None:
        model.load_state_dict(load_file(file))
    return model.eval()


def train_demo_backbone(
    name: str,
    *,
    count: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: Tell | None = None,
) -> nn.Module:
    """Train a demo classifier from scratch on digits in photographs, by its recipe.

    Parameters
    ----------
    name : str
        A key of `DEMO_BACKBONES`.
    count : int, optional
        Training images; the recipe's by default.
    epochs : int, optional
        The recipe's by default.
    seed : int
        Of weights and order.
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    nn.Module
        In evaluation mode.
    """
    recipe = RECIPES[name]
    epochs = epochs or recipe.epochs
    data = DigitsInPhotographs("train", count or recipe.images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DEMO_BACKBONES[name]().to(memory_format=torch.channels_last)
        steps = epochs * math.ceil(len(data) / recipe.batch_size)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.max_lr, total_steps=steps)
        done = 0
        model.train()
        for _ in range(epochs):
            for chosen in torch.randperm(len(data)).split(recipe.batch_size):
                images, targets = _batch(data, chosen, recipe.visible(done / steps))
                loss = F.cross_entropy(model(standardise(augment(images))), targets)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                done += 1
                if progress:
                    progress(done, steps)
    return model.to(memory_format=torch.contiguous_format).eval()


def _batch(data: DigitsInPhotographs, chosen: Tensor, visible: float) -> tuple[Tensor, Tensor]:
    """Images with a digit and, an eighth as many, without; probabilities of the classes.

    In half of either the photograph is faded at random to a dark colour, and in half the whole is dimmed, as masks
    will do: or else brightness, or a plain ground, would tell whether there is a digit.
    """
    blank = chosen[: len(chosen) // 8]
    images = []
    for which, digit in ((chosen, True), (blank, False)):
        size = (len(which), 1, 1, 1)
        masked = torch.rand(size) < 0.5
        flat = torch.rand(len(which), 3, 1, 1) * torch.rand(size) * 0.6
        photograph = (data.backgrounds[which].float() / 255).mean((2, 3), keepdim=True)
        fade = visible * torch.where(masked, torch.rand(size), 1)
        light = torch.where(torch.rand(size) < 0.5, torch.rand(size) * 0.85 + 0.15, 1)
        images.append(
            light * data.compose(which, fade, torch.where(masked, flat, photograph), digit)
        )
    targets = F.one_hot(data.labels[chosen], CLASSES) * 0.95 + 0.05 / CLASSES
    nothing = torch.full((len(blank), CLASSES), 1 / CLASSES)
    return torch.cat(images), torch.cat([targets, nothing])


def augment(images: Tensor) -> Tensor:
    """Shift each image by up to 6 px around its edges and jitter its contrast."""
    shifted = [image.roll(tuple(torch.randint(-6, 7, (2,)).tolist()), (1, 2)) for image in images]
    contrast = torch.empty(len(images), 1, 1, 1).uniform_(0.7, 1.3)
    return ((torch.stack(shifted) - 0.5) * contrast + 0.5).clamp(0, 1)


def standardise(images: Tensor) -> Tensor:
    """Standardise ``(B, 3, H, W)`` in [0, 1] with ImageNet's statistics, channels last."""
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(model: nn.Module, data: DigitsInPhotographs) -> float:
    """Share of images that a demo classifier gets right, in per cent."""
    model.eval()
    right = 0
    for chosen in torch.arange(len(data)).split(256):
        right += int(
            (model(standardise(data.compose(chosen))).argmax(1) == data.labels[chosen]).sum()
        )
    return 100 * right / len(data)
