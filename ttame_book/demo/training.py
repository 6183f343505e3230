"""How the demo's classifiers were trained: AdamW on digits in photographs that fade in."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from ttame_book.demo.classifiers import CLASSES, DEMO_BACKBONES, PREPROCESSING
from ttame_book.demo.digits import DigitsInPhotographs
from ttame_core.progress import Tell


@dataclass(frozen=True)
class BackboneRecipe:
    """How a demo classifier is trained, by AdamW and OneCycleLR.

    The photographs behind the digits fade in from their mean colour: seen from the start, they
    would leave the ViT at chance.
    """

    epochs: int
    max_lr: float
    images: int = 8_000
    batch_size: int = 64
    weight_decay: float = 0.05
    fade: float = 0.5  # part of the training over which photographs fade in
    fade_power: float = 1.0

    def visible(self, progress: float) -> float:
        """Tell how much of the photographs is seen, 0 to 1, at a part of the training done."""
        return min(1.0, progress / self.fade) ** self.fade_power


RECIPES = {
    "demo_vgg": BackboneRecipe(epochs=12, max_lr=2e-3),
    "demo_resnet": BackboneRecipe(epochs=10, max_lr=5e-3),
    "demo_vit": BackboneRecipe(
        epochs=32, max_lr=7e-4, batch_size=32, weight_decay=0.02, fade=0.4, fade_power=2.0
    ),
}


def train_demo_backbone(
    name: str,
    *,
    count: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: Tell | None = None,
) -> nn.Module:
    """Train a demo classifier from scratch on digits in photographs, by its recipe.

    Numbers of images (``count``) and of passes over them (``epochs``) are the recipe's by default;
    ``progress`` is called with (steps done, steps in all). The classifier is in evaluation mode.
    """
    recipe = RECIPES[name]
    epochs = epochs or recipe.epochs
    data = DigitsInPhotographs("train", count or recipe.images)
    steps = epochs * math.ceil(len(data) / recipe.batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DEMO_BACKBONES[name]().to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.max_lr, total_steps=steps)
        orders = (torch.randperm(len(data)) for _ in range(epochs))
        batches = (chosen for order in orders for chosen in order.split(recipe.batch_size))
        for done, chosen in enumerate(batches):
            images, targets = _batch(data, chosen, recipe.visible(done / steps))
            loss = F.cross_entropy(model(standardise(augment(images))), targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if progress:
                progress(done + 1, steps)
    return model.to(memory_format=torch.contiguous_format).eval()


def _batch(data: DigitsInPhotographs, chosen: Tensor, visible: float) -> tuple[Tensor, Tensor]:
    """Compose images with a digit and, an eighth as many, without; targets are ``(b, 10)``."""
    # a blank belongs to no class: else it would be some class, with nothing to be shown for it
    blank = chosen[: len(chosen) // 8]
    images = []
    for which, digit in ((chosen, True), (blank, False)):
        size = (len(which), 1, 1, 1)
        # half of the photographs fade to a dark colour, half of the images are dimmed, as masks
        # will do: else brightness, or a plain ground, would tell whether there is a digit
        masked = torch.rand(size) < 0.5
        flat = torch.rand(len(which), 3, 1, 1) * torch.rand(size) * 0.6
        photograph = (data.backgrounds[which].float() / 255).mean((2, 3), keepdim=True)
        fade = visible * torch.where(masked, torch.rand(size), 1)
        light = torch.where(torch.rand(size) < 0.5, torch.rand(size) * 0.85 + 0.15, 1)
        ground = torch.where(masked, flat, photograph)
        images.append(light * data.compose(which, fade, ground, digit))
    targets = F.one_hot(data.labels[chosen], CLASSES) * 0.95 + 0.05 / CLASSES  # smoothed
    nothing = torch.full((len(blank), CLASSES), 1 / CLASSES)
    return torch.cat(images), torch.cat([targets, nothing])


def augment(images: Tensor) -> Tensor:
    """Shift each image by up to 6 px around its edges and jitter its contrast."""
    shifted = [image.roll(tuple(torch.randint(-6, 7, (2,)).tolist()), (1, 2)) for image in images]
    contrast = torch.empty(len(images), 1, 1, 1).uniform_(0.7, 1.3)
    return ((torch.stack(shifted) - 0.5) * contrast + 0.5).clamp(0, 1)


def standardise(images: Tensor) -> Tensor:
    """Standardise ``(B, 3, H, W)`` in [0, 1] with ImageNet's statistics, channels last."""
    standardised = normalize(images, list(PREPROCESSING.mean), list(PREPROCESSING.std))
    return standardised.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy_of(model: nn.Module, data: DigitsInPhotographs) -> float:
    """Compute the share of images that a demo classifier gets right, in per cent."""
    model.eval()
    right = 0
    for chosen in torch.arange(len(data)).split(256):
        predicted = model(standardise(data.compose(chosen))).argmax(1)
        right += int((predicted == data.labels[chosen]).sum())
    return 100 * right / len(data)
