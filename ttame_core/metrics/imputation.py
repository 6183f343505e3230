"""Noisy linear imputation (Rong et al., ICML 2022; Sec. IV-B): holes filled from their rims.

Every removed pixel is the weighted mean of its eight neighbours, removed or not. Times the sum of a
pixel's weights, that is a symmetric positive definite system for each hole pattern, shared by the
channels: a Laplace equation. It is solved by conjugate gradients preconditioned with one multigrid
V-cycle, in some ten iterations whatever the size of the hole: compiled on a CPU where numba is
installed, else by torch, batched, on any device.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ttame_core.classifiers.fast import fitting
from ttame_core.errors import TTAMEError, check_kind, check_number, check_seed, check_whole
from ttame_core.images.reading import check_range

# weights of the neighbours that share an edge or a corner, twelve times the paper's 1/6 and 1/12:
# whole numbers are exact in float32, where rounded weights would shift wide holes by 1e-3
EDGE, CORNER = 2, 1
COARSEST = 8  # pixels; the shorter side at which coarsening ends
DAMPING = 0.8  # of the Jacobi smoother; what suits a Laplace equation on a plane best
ITERATIONS = 100  # at most


def impute(
    images: Tensor,
    removed: Tensor,
    noise: float = 0.01,
    seed: int = 0,
    tolerance: float | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Fill removed pixels by noisy linear imputation.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)`` in [0, 1], float32 or float64.
    removed : Tensor
        ``(B, H, W)`` bool, pixels to fill; in no image all of them.
    noise : float
        Standard deviation of the Gaussian noise on the filled pixels; 0 for none.
    seed : int
        Seed of the noise, which is one field for all images.
    tolerance : float, optional
        Estimated error of a pixel at which the solver stops; a true one can be ten times that. By
        default 2e-5, and 1e-7 for images of at most 64 x 64, where it costs little; there rounding
        of float32 adds up to 2e-6 in strips with hardly a known pixel.
    chunk : int, optional
        Images solved at once by torch, which changes the result by less than the error; by default
        32 on a CPU, and as many as a GPU's free memory holds.

    Returns
    -------
    Tensor
        ``(B, C, H, W)``; pixels that were not removed are as they were.

    Raises
    ------
    TTAMEError
        If shapes, types or ranges do not fit, or an image has no pixel left to fill from.
    """
    check_number("noise", noise)
    check_seed(seed)
    if chunk is not None:
        check_whole("chunk", chunk, 1)
    if tolerance is not None:
        check_number("tolerance", tolerance)
    _check(images, removed)
    if not len(images):
        return images.clone()
    if tolerance is None:
        tolerance = 1e-7 if images[0, 0].numel() <= 64 * 64 else 2e-5
    on_cpu = images.device.type == "cpu" and images.dtype == torch.float32
    compiled = _compiled() if on_cpu else None
    if compiled:
        filled = _solve_compiled(compiled, images, removed, tolerance)
    else:
        chunk = chunk or _at_once(images)
        parts = zip(images.split(chunk), removed.split(chunk), strict=True)
        filled = torch.cat([_solve(*part, tolerance) for part in parts])
    if noise:
        # one field for all images, so that an image's noise does not depend on its batch
        generator = torch.Generator().manual_seed(seed)
        field = torch.randn(images.shape[1:], generator=generator, dtype=images.dtype)
        filled = filled + noise * field.to(images.device) * removed[:, None]
    return filled


def mean_fill(images: Tensor, removed: Tensor) -> Tensor:
    """Fill removed pixels with the mean colour of those that are left (Fig. 4's comparison).

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)`` in [0, 1], float32 or float64.
    removed : Tensor
        ``(B, H, W)`` bool, in no image all of them.

    Returns
    -------
    Tensor
        ``(B, C, H, W)``.

    Raises
    ------
    TTAMEError
        As `impute`.
    """
    _check(images, removed)
    left = (~removed)[:, None].to(images)
    mean = (images * left).sum((2, 3), keepdim=True) / left.sum((2, 3), keepdim=True)
    return torch.where(removed[:, None], mean, images)


def _check(images: Tensor, removed: Tensor) -> None:
    """Raise a TTAMEError unless images and holes fit, and every image has a pixel left."""
    check_kind("images", images, Tensor, "a tensor (B, C, H, W) in [0, 1]")
    check_kind("removed", removed, Tensor, "a tensor (B, H, W) bool")
    if images.ndim != 4 or images.dtype not in (torch.float32, torch.float64):
        raise TTAMEError(
            f"images are {tuple(images.shape)} {images.dtype}; expected (B, C, H, W) of float32 or float64"
        )
    if removed.dtype != torch.bool or removed.shape != images[:, 0].shape:
        raise TTAMEError(
            f"removed is {tuple(removed.shape)} {removed.dtype}; expected {tuple(images[:, 0].shape)} bool, "
            "true where a pixel is to be filled"
        )
    if images.numel():
        check_range(images)
    empty = removed.flatten(1).all(1).nonzero().flatten().tolist()
    if empty:
        raise TTAMEError(
            f"all pixels of the images {empty[:8]} are removed, so there is nothing to fill them from; "
            "keep at least one, e.g. remove at most 99 %"
        )


@lru_cache
def _compiled() -> ModuleType | None:
    """The compiled solver, where numba is installed."""
    try:
        from ttame_core.metrics import imputation_numba
    except ImportError:
        return None
    return imputation_numba


def _solve_compiled(compiled: Any, images: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Fill without noise, an image a job, on as many threads as torch has."""
    height, width = images.shape[2:]
    size = _padded(height, width)
    ground, holes = images.detach().contiguous().numpy(), removed.contiguous().numpy()
    filled = torch.empty_like(images, memory_format=torch.contiguous_format)
    out = filled.numpy()

    def job(i: int) -> float:
        return compiled.solve(ground[i], holes[i], out[i], size, tolerance, ITERATIONS)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        _warn(max(pool.map(job, range(len(images)))), tolerance)
    return filled


def _at_once(images: Tensor) -> int:
    """How many images to solve at once by torch."""
    if images.device.type == "cpu":
        return 32
    # a GPU waits for the start of each of thousands of operations: the fewer the better
    return max(1, int(min(4096, fitting(images.device, 20 * images[0].nbytes))))


def _warn(error: float, tolerance: float) -> None:
    """Warn where the solver stopped before it was done."""
    if error > tolerance:
        warnings.warn(
            f"the imputation stopped at an estimated error of {error:.1e} a pixel, wanted {tolerance:.1e}; "
            "give float64 images or a larger tolerance",
            stacklevel=3,
        )


def _padded(height: int, width: int) -> tuple[int, int]:
    """Size that can be halved until the shorter side is at most `COARSEST`."""
    step = 1
    while min(height, width) / step > COARSEST:
        step *= 2
    return -(-height // step) * step, -(-width // step) * step


@dataclass(frozen=True)
class _Level:
    """One grid of the multigrid hierarchy; all ``(B, 1, h, w)``."""

    mask: Tensor  # 1 in the holes, 0 elsewhere
    weight: Tensor  # sum of a pixel's neighbours' weights, everywhere
    damp: Tensor  # DAMPING / weight in the holes, 0 elsewhere

    def residual(self, x: Tensor, right: Tensor) -> Tensor:
        return self.mask * (right - self.weight * x + _neighbours(x))

    def smooth(self, x: Tensor, right: Tensor) -> Tensor:
        return x + self.damp * (right - self.weight * x + _neighbours(x))


def _hierarchy(removed: Tensor, dtype: torch.dtype) -> list[_Level]:
    """Make the grids, finest first; a coarse cell is a hole's where all four below it are."""
    height, width = removed.shape[1:]
    padded = _padded(height, width)
    border = (0, padded[1] - width, 0, padded[0] - height)
    mask = F.pad(removed[:, None].to(dtype), border)
    inside = F.pad(torch.ones_like(removed[:1, None], dtype=dtype), border)
    levels = []
    while True:
        weight = _neighbours(inside)
        levels.append(_Level(mask, weight, mask * DAMPING / weight.clamp_min(CORNER)))
        if min(mask.shape[2:]) <= COARSEST:
            return levels
        mask, inside = -F.max_pool2d(-mask, 2), -F.max_pool2d(-inside, 2)  # minima of 2 x 2


def _solve(images: Tensor, removed: Tensor, tolerance: float) -> Tensor:
    """Fill without noise, all images at once."""
    height, width = images.shape[2:]
    levels = _hierarchy(removed, images.dtype)
    fine = levels[0]
    border = (0, fine.mask.shape[3] - width, 0, fine.mask.shape[2] - height)
    known = F.pad(images, border) * (1 - fine.mask)
    x = torch.zeros_like(known)
    residual = fine.mask * _neighbours(known)
    direction = torch.zeros_like(known)
    previous = error = torch.ones(()).to(known)
    for _ in range(ITERATIONS):
        # about the error of x, so that the preconditioner serves as the stopping rule too
        step = _v_cycle(levels, residual)
        error = step.abs().amax()
        if error < tolerance:
            break
        product = (residual * step).sum((2, 3), keepdim=True)  # (B, C, 1, 1)
        direction = step + _ratio(product, previous) * direction
        previous = product
        image = -fine.residual(direction, torch.zeros_like(direction))
        length = _ratio(product, (direction * image).sum((2, 3), keepdim=True))
        x, residual = x + length * direction, residual - length * image
    _warn(float(error), tolerance)
    return (known + x)[:, :, :height, :width]


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Quotient; 0 where an image is solved already and both are 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)


def _v_cycle(levels: list[_Level], right: Tensor) -> Tensor:
    """Run one multigrid cycle from zero: about the solution."""
    level = levels[0]
    # a smoothing step from zero is no more than this; there is one on the way down and one on the
    # way up, as conjugate gradients need a symmetric preconditioner
    x = level.damp * right
    if len(levels) == 1:
        # some 8 x 8 cells: eight steps carry a value across, no direct solver is called for
        for _ in range(8):
            x = level.smooth(x, right)
        return x
    coarse = levels[1].mask * _restrict(level.residual(x, right))
    x = x + level.mask * _prolong(_v_cycle(levels[1:], coarse))
    return level.smooth(x, right)


def _neighbours(x: Tensor) -> Tensor:
    """Weighted sum of every pixel's eight neighbours; there is nothing beyond the edges."""
    x = F.pad(x, (1, 1, 1, 1))
    beside = x[..., :-2] + x[..., 2:]
    edges = beside[..., 1:-1, :] + x[..., :-2, 1:-1] + x[..., 2:, 1:-1]
    return EDGE * edges + CORNER * (beside[..., :-2, :] + beside[..., 2:, :])


def _prolong(x: Tensor) -> Tensor:
    """Enlarge twofold, bilinearly."""
    for axis in (2, 3):
        last = x.shape[axis]
        p = F.pad(x, (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0))
        before, after = p.narrow(axis, 0, last), p.narrow(axis, 2, last)
        x = torch.stack((3 * x + before, 3 * x + after), axis + 1).flatten(axis, axis + 1) / 4
    return x


def _restrict(x: Tensor) -> Tensor:
    """Transpose of `_prolong`."""
    p = F.pad(x, (1, 1, 1, 1))
    p = (p[..., :-3:2, :] + p[..., 3::2, :] + 3 * (p[..., 1:-2:2, :] + p[..., 2:-1:2, :])) / 4
    return (p[..., :-3:2] + p[..., 3::2] + 3 * (p[..., 1:-2:2] + p[..., 2:-1:2])) / 4
