"""Imputation: exact where it can be worked out, accurate everywhere else, the same by both solvers."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.sparse.linalg import splu

import ttame_core as tt
from ttame_core.metrics import imputation

RAMP = torch.arange(25.0).view(1, 1, 5, 5) / 24


def hole(*pixels, size=5):
    removed = torch.zeros(1, size, size, dtype=torch.bool)
    for i, j in pixels:
        removed[0, i, j] = True
    return removed


@pytest.fixture(params=["compiled", "torch"])
def solver(request, monkeypatch):
    """Run a test with each solver."""
    if request.param == "torch":
        monkeypatch.setattr(imputation, "_compiled", lambda: None)
    elif imputation._compiled() is None:
        pytest.skip("numba is not installed")


@pytest.mark.parametrize(("pixel", "value"), [((2, 2), 12), ((0, 0), 3.6), ((0, 2), 4.5)])
def test_single_holes_in_a_ramp(solver, pixel, value):
    filled = tt.impute(RAMP, hole(pixel), noise=0)
    assert 24 * filled[0, 0][pixel].item() == pytest.approx(value, abs=1e-5)
    assert torch.equal(
        filled.flatten()[~hole(pixel).flatten()], RAMP.flatten()[~hole(pixel).flatten()]
    )


def test_a_wide_hole_in_a_ramp_is_restored(solver):
    removed = hole(*[(i, j) for i in (1, 2, 3) for j in (1, 2, 3)])
    assert torch.allclose(tt.impute(RAMP, removed, noise=0, tolerance=1e-6), RAMP, atol=1e-5)


@pytest.mark.filterwarnings("ignore:the imputation stopped")
@pytest.mark.parametrize("holes", [[], [(2, 2)], [(i, j) for i in (1, 2, 3) for j in (1, 2, 3)]])
def test_a_tolerance_that_is_never_reached_ends_as_exactly_as_numbers_are(holes, solver):
    removed = hole(*holes)
    exact, found = (tt.impute(RAMP, removed, noise=0, tolerance=t) for t in (1e-7, 0.0))
    assert torch.allclose(found, exact, atol=1e-6)


def direct(image, removed):
    """Direct sparse solution in float64: every removed pixel is the weighted mean of its neighbours."""
    height, width = removed.shape
    number = np.full(
        (height + 2, width + 2), -1
    )  # of each unknown; -1 is known or beyond the image
    rows, columns = np.nonzero(removed)
    count = len(rows)
    number[rows + 1, columns + 1] = np.arange(count)
    known = np.pad(np.where(removed, 0, image), ((0, 0), (1, 1), (1, 1)))
    inside = np.pad(np.ones((height, width)), 1)
    matrix, total, right = sp.lil_matrix((count, count)).tocoo(), np.zeros(count), 0
    for di, dj in itertools.product((-1, 0, 1), repeat=2):
        if (di, dj) != (0, 0):
            weight = 1 / 6 if 0 in (di, dj) else 1 / 12
            there = rows + 1 + di, columns + 1 + dj
            unknown = np.flatnonzero(number[there] >= 0)
            entries = np.full(len(unknown), -weight), (unknown, number[there][unknown])
            matrix = matrix + sp.coo_matrix(entries, shape=(count, count))
            total += weight * inside[there]
            right = right + weight * known[:, there[0], there[1]]
    filled = image.copy()
    options = {"SymmetricMode": True}
    solver = splu((matrix + sp.diags(total)).tocsc(), "MMD_AT_PLUS_A", options=options)
    filled[:, rows, columns] = solver.solve(np.ascontiguousarray(right.T)).T
    return filled


@settings(max_examples=15, deadline=None, derandomize=True)  # the same cases in every run
@given(
    share=st.floats(0.05, 0.95),
    height=st.integers(2, 23),
    width=st.integers(2, 23),
    seed=st.integers(0, 99),
)
def test_small_systems_agree_with_a_direct_solution(share, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 2, height, width, generator=generator, dtype=torch.float64)
    removed = torch.rand(1, height, width, generator=generator) < share
    removed[0, 0, 0] = False
    removed[0, -1, -1] = True
    exact = direct(image[0].numpy(), removed[0].numpy())
    for kind in (torch.float64, torch.float32):
        ours = tt.impute(image.to(kind), removed, noise=0)
        assert np.abs(ours[0].numpy() - exact).max() < 1e-6


def test_a_strip_with_hardly_a_known_pixel_is_where_single_precision_ends():
    """The worst case found: values travel along 21 pixels, and rounding adds up on the way."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 2, 21, generator=generator, dtype=torch.float64)
    removed = torch.rand(1, 2, 21, generator=generator) < 0.9375
    removed[0, 0, 0], removed[0, -1, -1] = False, True
    exact = direct(image[0].numpy(), removed[0].numpy())
    assert np.abs(tt.impute(image, removed, noise=0)[0].numpy() - exact).max() < 1e-7
    assert np.abs(tt.impute(image.float(), removed, noise=0)[0].numpy() - exact).max() < 3e-6


def saliency(kind):
    generator = torch.Generator().manual_seed(0)
    if kind == "noise":
        return torch.rand(1, 224, 224, generator=generator)
    if kind == "corner":  # holes from a corner on: nothing is known on two of their sides
        ramp = torch.linspace(1, 0, 224)
        return (ramp[:, None] + ramp)[None]
    cells = torch.randn(1, 1, 7, 7, generator=generator)
    smooth = F.interpolate(cells, size=224, mode="bilinear", align_corners=False)[0]
    return (smooth - smooth.quantile(0.6)).clamp(min=0) if kind == "relu" else smooth


@pytest.mark.parametrize("order", ["morf", "lerf"])
@pytest.mark.parametrize("kind", ["smooth", "noise", "relu", "corner"])
@pytest.mark.parametrize("shares", [(10, 90), pytest.param((30, 50, 70), marks=pytest.mark.slow)])
@pytest.mark.slow
def test_full_size_holes_are_filled_to_a_tenth_of_the_noise(kind, order, shares):
    image = F.interpolate(torch.rand(1, 3, 56, 56), size=224, mode="bicubic").clamp(0, 1)
    maps = saliency(kind) if order == "morf" else -saliency(kind)
    for v in shares:
        removed = tt.select_top(maps, v)
        exact = direct(image[0].double().numpy(), removed[0].numpy())
        error = np.abs(tt.impute(image, removed, noise=0)[0].numpy() - exact).max()
        assert error <= 1e-3, v


@pytest.mark.parametrize("kind", ["smooth", "corner"])
def test_the_widest_holes_are_filled_by_torch_as_well(kind):
    image = torch.rand(1, 3, 224, 224)
    removed = tt.select_top(saliency(kind), 90)
    exact = direct(image[0].double().numpy(), removed[0].numpy())
    assert np.abs(imputation._solve(image, removed, 2e-5)[0].numpy() - exact).max() <= 1e-3


def test_both_solvers_agree():
    if imputation._compiled() is None:
        pytest.skip("numba is not installed")
    images = torch.rand(3, 3, 50, 37)
    removed = torch.rand(3, 50, 37) < torch.tensor([0.2, 0.6, 0.95])[:, None, None]
    fast = tt.impute(images, removed, noise=0)
    plain = imputation._solve(images, removed, 1e-4)
    assert torch.allclose(fast, plain, atol=5e-4)
    assert torch.equal(fast.movedim(1, -1)[~removed], images.movedim(1, -1)[~removed])


def test_grad_cams_imputer_agrees_where_its_noise_is_off(solver):
    image = torch.rand(3, 32, 32)
    removed = torch.rand(1, 32, 32) < 0.7
    theirs = NoisyLinearImputer(noise=0.0)(image, (~removed[0]).float())
    ours = tt.impute(image[None], removed, noise=0, tolerance=1e-6)[0]
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_noise_is_on_the_filled_pixels_only_seeded_and_of_the_size_asked_for(solver):
    images, removed = torch.rand(2, 3, 64, 64), torch.rand(2, 64, 64) < 0.5
    plain, noisy = (tt.impute(images, removed, noise=n) for n in (0, 0.01))
    added = (noisy - plain).movedim(1, -1)
    assert not added[~removed].any()
    assert added[removed].std() == pytest.approx(0.01, rel=0.05)
    assert torch.equal(noisy, tt.impute(images, removed))
    assert not torch.equal(noisy, tt.impute(images, removed, seed=1))


def test_batch_equals_loop_and_inputs_are_untouched(solver):
    images, removed = torch.rand(5, 3, 40, 40), torch.rand(5, 40, 40) < 0.8
    before = images.clone(), removed.clone()
    together = tt.impute(images, removed, chunk=2)
    for i in range(5):
        alone = tt.impute(images[i : i + 1], removed[i : i + 1])[0]
        assert torch.allclose(alone, together[i], atol=5e-4)
    assert torch.equal(images, before[0]) and torch.equal(removed, before[1])


def test_mean_fill_by_hand():
    filled = tt.mean_fill(RAMP, hole((0, 0), (4, 4)))
    corners = filled[0, 0, [0, 4], [0, 4]]
    assert torch.allclose(corners, torch.full((2,), 0.5), atol=1e-6)
    assert torch.equal(filled.flatten()[1:24], RAMP.flatten()[1:24])


@pytest.mark.parametrize(
    ("images", "removed", "message"),
    [
        (
            torch.rand(2, 3, 4, 4),
            torch.ones(2, 4, 4, dtype=torch.bool),
            r"images \[0, 1\] are removed",
        ),
        (torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4), "float32; expected .* bool"),
        (torch.rand(2, 3, 4, 4), hole(), "expected"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), hole(), "uint8"),
    ],
)
def test_what_cannot_be_filled(images, removed, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.impute(images, removed)


def test_no_image_and_no_hole(solver):
    assert tt.impute(torch.rand(0, 3, 4, 4), torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (
        0,
        3,
        4,
        4,
    )
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(tt.impute(images, torch.zeros(2, 4, 4, dtype=torch.bool)), images)


def test_a_solver_that_stops_short_says_so(monkeypatch):
    monkeypatch.setattr(imputation, "ITERATIONS", 1)
    with pytest.warns(UserWarning, match="stopped at an estimated error"):
        tt.impute(torch.rand(1, 1, 64, 64), tt.select_top(torch.rand(1, 64, 64), 99))


IMAGES, HOLES = torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)


@pytest.mark.happens(
    "Measures and methods",
    "pixels of images that are {name} are to be imputed, or filled with the mean",
    "refused: “images range from”",
)
@pytest.mark.parametrize(
    ("name", "images"),
    [("standardised", 4 * IMAGES - 2), ("not finite", IMAGES / 0), ("0 to 255", 255 * IMAGES)],
)
def test_what_is_no_image_is_not_filled(name, images):
    for fill in (tt.impute, tt.mean_fill):
        with pytest.raises(tt.TTAMEError, match="images range from"):
            fill(images, HOLES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": IMAGES.numpy()}, "images is a ndarray; expected a tensor"),
        ({"removed": HOLES.numpy()}, "removed is a ndarray; expected a tensor"),
        ({"noise": -1}, "noise is -1; expected a finite number"),
        ({"seed": "a"}, "seed is 'a'; expected a whole number"),
        ({"chunk": 0}, "chunk is 0; expected a whole number, at least 1"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
    ],
)
def test_what_no_imputation_can_be_asked_for(options, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.impute(**{"images": IMAGES, "removed": HOLES, **options})
