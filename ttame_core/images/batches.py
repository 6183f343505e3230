"""Batches for training: of any data set, checked, in an order that a restart finds again.

Several processes share each batch; what they compute is what one process computes of all of it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Subset

from ttame_core.errors import SEEDS, TTAMEError, told
from ttame_core.images.reading import check_images


def check_data_set(images: Any) -> None:
    """Raise a TTAMEError unless images are a data set that can be counted and read by index."""
    wrong = isinstance(images, Tensor | np.ndarray | str | Mapping)
    if wrong or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        remedy = "a tt.ImageFolder, or [{'image': image} for image in images]"
        remedy = "give its .dataset" if isinstance(images, DataLoader) else remedy
        expected = f"expected a data set of single images: {remedy}"
        raise TTAMEError(f"images are {told(images)}; {expected}")


def check_batch(images: int, sizes: set[int], processes: int) -> None:
    """Raise a TTAMEError unless there is one batch size, images fill it and processes share it."""
    if len(sizes) > 1:
        told = ", ".join(map(str, sorted(sizes)))
        raise TTAMEError(f"batch sizes are {told}; trained together, all have one")
    (size,) = sizes
    if images < size:
        raise TTAMEError(
            f"{images} training images do not fill a batch of {size}; give more images or a smaller batch_size"
        )
    if size % processes:
        raise TTAMEError(
            f"{processes} processes cannot share a batch of {size} images evenly; choose a batch_size that is a "
            "multiple of their number"
        )


def stack(items: Any) -> Tensor:
    """Stack the pictures of items to ``(B, 3, H, W)`` in [0, 1].

    A TTAMEError says what an item is that has none, and where they differ in size.
    """
    pictures = []
    for item in items:
        pair = isinstance(item, list | tuple) and len(item)
        found = item.get("image") if isinstance(item, Mapping) else item[0] if pair else None
        picture = torch.as_tensor(found) if isinstance(found, np.ndarray) else found
        if not isinstance(picture, Tensor) or picture.ndim != 3 or len(picture) != 3:
            kinds = _kind(item) if found is None else f"{_kind(item)} with {_kind(found)}"
            expected = "a dict with 'image' (3, H, W) in [0, 1], or a pair that starts with it"
            raise TTAMEError(f"an item of the images is {kinds}; expected {expected}")
        pictures.append(picture)
    sizes = sorted({f"{picture.shape[1]} x {picture.shape[2]}" for picture in pictures})
    if len(sizes) > 1:
        remedy = "resize or crop all to one, for instance with transform=backbone.random_crop"
        raise TTAMEError(f"images of a batch are of sizes {', '.join(sizes[:4])}; {remedy}")
    return torch.stack(pictures)


def _kind(value: Any) -> str:
    about = [*value] if isinstance(value, Mapping) else [*getattr(value, "shape", ())]
    return f"a {type(value).__name__} {about or ''}".rstrip()


def digest_of(images: Any) -> str:
    """Hash what tells training images from others: their files, and the first and last picture.

    A picture that is another whenever it is read tells nothing, and is left out.
    """
    if hasattr(images, "set_epoch"):
        images.set_epoch(0)
    files = getattr(images, "files", None)
    names = [Path(file).parts[-2:] for file in files] if isinstance(files, list) else ""
    digest = hashlib.sha256(str(names).encode())  # whatever folder they were moved to
    with torch.random.fork_rng(devices=[]):
        for index in (0, len(images) - 1):
            torch.manual_seed(0)
            first = stack([images[index]])
            # a mirror that is thrown like a coin shows the same twice every other time
            if all(torch.equal(first, stack([images[index]])) for _ in range(7)):
                digest.update(first.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:16]


def endless_batches(
    fabric: Any, images: Any, batch_size: int, seed: int, skip: int, workers: int
) -> Iterator[Tensor]:
    """Yield batches for ever, an order an epoch that depends on seed and epoch only.

    Each of the fabric's processes gets its share of them, in the order of their ranks; ``skip``
    counts the batches that are done already.
    """
    share = batch_size // fabric.world_size
    per_epoch = len(images) // batch_size
    on_gpu = fabric.device.type == "cuda"  # copied there while it is at work
    pinned = on_gpu and stack([images[0]]).is_cpu  # some data sets lie on the GPU already
    how: dict[str, Any] = {"num_workers": workers, "collate_fn": stack, "pin_memory": pinned}
    epoch, first = divmod(skip, per_epoch)
    while True:
        if hasattr(images, "set_epoch"):
            images.set_epoch(epoch)
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % SEEDS)
        order = torch.randperm(len(images), generator=generator)
        mine = order[: per_epoch * batch_size].view(per_epoch, fabric.world_size, share)
        chosen = Subset(images, mine[first:, fabric.global_rank].flatten().tolist())
        for pictures in DataLoader(chosen, share, **how):
            check_images(pictures)  # here, where no accelerator waits for the answer
            yield pictures.to(fabric.device, non_blocking=on_gpu)
        epoch, first = epoch + 1, 0


def of_all(fabric: Any, values: Tensor) -> Tensor:
    """Gather every process's values ``(...)`` to ``(P, ...)``, in the order of their ranks."""
    if fabric.world_size == 1:
        return values[None]
    found = values.new_empty(fabric.world_size, *values.shape)
    distributed.all_gather([*found], values.contiguous())
    return found


class Total(torch.autograd.Function):
    """The sum of every process's values, whose gradient is the sum of every process's gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Add the processes' values up, in each of them."""
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """Add the processes' gradients up, in each of them."""
        return Total.apply(gradient)


class SharedBatchNorm(nn.Module):
    """A batch norm that takes its statistics from all processes' shares, which are of one size.

    `nn.SyncBatchNorm` does so on GPUs alone. Weights and running statistics are the given norm's.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        """Normalise a share ``(B, C, h, w)`` by mean and variance of the whole batch."""
        norm: Any = self.norm
        values, processes = features.to(norm.weight), distributed.get_world_size()
        mean = Total.apply(values.mean((0, 2, 3))) / processes  # (C,)
        centred = values - mean[:, None, None]
        variance = Total.apply(centred.square().mean((0, 2, 3))) / processes
        with torch.no_grad():
            count = processes * values.numel() / len(mean)
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
            norm.num_batches_tracked += 1
        scale = norm.weight * (variance + norm.eps).rsqrt()
        return (centred * scale[:, None, None] + norm.bias[:, None, None]).to(features)


@contextmanager
def shared_batch_norms(fabric: Any, module: nn.Module) -> Iterator[None]:
    """Have a module's batch norms see all processes' shares while the block trains it."""
    named = module.named_modules() if fabric.world_size > 1 else ()
    norms = {name: norm for name, norm in named if isinstance(norm, nn.BatchNorm2d)}
    try:
        for name, norm in norms.items():
            module.set_submodule(name, SharedBatchNorm(norm))
        yield
    finally:
        for name, norm in norms.items():
            module.set_submodule(name, norm)
