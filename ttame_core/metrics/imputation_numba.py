"""The solver of `imputation` in compiled loops, an image at a time (needs numba).

The same hierarchy and iteration as there, without temporaries, so that everything stays in the
cache. Grids carry a border of zeros, one pixel wide: neighbours need no special case at the edges.
Pixels are written in loops, not as slices: those take numba three times as long to compile.
"""

import numpy as np
from numba import njit

# nogil: images are solved in threads; fastmath: sums in any order, so that they are vectorised
compiled = njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
F32 = np.float32
# as in `imputation`, but not imported: numba caches what it compiled until this very file changes
W_EDGE, W_CORNER, OMEGA, COARSEST = F32(2), F32(1), F32(0.8), 8
THREE, SIXTEENTH = F32(3), F32(1 / 16)


@compiled
def around(x, i, j):  # pragma: no cover
    """Weighted sum of the eight neighbours."""
    edges = x[i - 1, j] + x[i + 1, j] + x[i, j - 1] + x[i, j + 1]
    corners = x[i - 1, j - 1] + x[i - 1, j + 1] + x[i + 1, j - 1] + x[i + 1, j + 1]
    return W_EDGE * edges + W_CORNER * corners


@compiled
def multiply(a, b, out):  # pragma: no cover
    """Products, pixel by pixel."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j] * b[i, j]


@compiled
def combine(a, factor, b, out):  # pragma: no cover
    """``a + factor * b``, which may be written over either."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = a[i, j] + factor * b[i, j]


@compiled
def residual(x, right, weight, mask, out):  # pragma: no cover
    """Right side less left side, 0 outside the holes."""
    for i in range(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            out[i, j] = mask[i, j] * (right[i, j] - weight[i, j] * x[i, j] + around(x, i, j))


@compiled
def smooth(x, right, weight, damp, out):  # pragma: no cover
    """One damped Jacobi step."""
    for i in range(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            left = weight[i, j] * x[i, j] - around(x, i, j)
            out[i, j] = x[i, j] + damp[i, j] * (right[i, j] - left)


@compiled
def restrict(fine, mask, line, coarse):  # pragma: no cover
    """Transpose of `prolong`."""
    for i in range(1, coarse.shape[0] - 1):
        a = 2 * i - 2
        for j in range(fine.shape[1]):
            line[j] = fine[a, j] + fine[a + 3, j] + THREE * (fine[a + 1, j] + fine[a + 2, j])
        for j in range(1, coarse.shape[1] - 1):
            b = 2 * j - 2
            total = line[b] + line[b + 3] + THREE * (line[b + 1] + line[b + 2])
            coarse[i, j] = SIXTEENTH * mask[i, j] * total


@compiled
def prolong(coarse, mask, line, fine):  # pragma: no cover
    """Add the coarse grid's correction, enlarged bilinearly."""
    for i in range(1, coarse.shape[0] - 1):
        for half in range(2):
            beside = i - 1 + 2 * half
            f = 2 * i - 1 + half
            for j in range(coarse.shape[1]):
                line[j] = SIXTEENTH * (THREE * coarse[i, j] + coarse[beside, j])
            for j in range(1, coarse.shape[1] - 1):
                fine[f, 2 * j - 1] += mask[f, 2 * j - 1] * (THREE * line[j] + line[j - 1])
                fine[f, 2 * j] += mask[f, 2 * j] * (THREE * line[j] + line[j + 1])


@compiled
def v_cycle(masks, weights, damps, rights, xs, spares, line):  # pragma: no cover
    """Run one multigrid cycle from zero on ``rights[0]``; the result is in ``xs[0]``."""
    last = len(masks) - 1
    for k in range(last):
        multiply(damps[k], rights[k], xs[k])
        residual(xs[k], rights[k], weights[k], masks[k], spares[k])
        restrict(spares[k], masks[k + 1], line, rights[k + 1])
    multiply(damps[last], rights[last], xs[last])
    for _ in range(4):
        smooth(xs[last], rights[last], weights[last], damps[last], spares[last])
        smooth(spares[last], rights[last], weights[last], damps[last], xs[last])
    for k in range(last - 1, -1, -1):
        prolong(xs[k + 1], masks[k], line, xs[k])
        smooth(xs[k], rights[k], weights[k], damps[k], spares[k])
        xs[k], spares[k] = spares[k], xs[k]


@compiled
def hierarchy(removed, height, width):  # pragma: no cover
    """Make the grids, finest first; a coarse cell is a hole's where all four below it are."""
    mask = np.zeros((height + 2, width + 2), F32)
    inside = np.zeros((height + 2, width + 2), F32)
    for i in range(removed.shape[0]):
        for j in range(removed.shape[1]):
            mask[i + 1, j + 1] = removed[i, j]
            inside[i + 1, j + 1] = 1
    masks = []  # a line each: numba wants it so
    weights = []
    damps = []
    grids = []
    while True:
        weight, damp = np.zeros_like(mask), np.zeros_like(mask)
        for i in range(1, mask.shape[0] - 1):
            for j in range(1, mask.shape[1] - 1):
                weight[i, j] = around(inside, i, j)
                if mask[i, j] > 0:
                    damp[i, j] = OMEGA / weight[i, j]
        masks.append(mask)
        weights.append(weight)
        damps.append(damp)
        grids.append(np.zeros_like(mask))
        if min(height, width) <= COARSEST:
            return masks, weights, damps, grids
        height, width = height // 2, width // 2
        coarse = np.zeros((height + 2, width + 2), F32)
        within = np.zeros_like(coarse)
        wide = False
        for i in range(1, height + 1):
            for j in range(1, width + 1):
                a, b = 2 * i - 1, 2 * j - 1
                coarse[i, j] = mask[a, b] * mask[a + 1, b] * mask[a, b + 1] * mask[a + 1, b + 1]
                wide |= coarse[i, j] > 0
                two = inside[a, b] * inside[a + 1, b]
                within[i, j] = two * inside[a, b + 1] * inside[a + 1, b + 1]
        if not wide:  # no hole is
            return masks, weights, damps, grids
        mask, inside = coarse, within


@compiled
def dot(a, b):  # pragma: no cover
    """Sum of products."""
    total = 0.0  # float64 over the rows; float32 within them, where loops are vectorised
    for i in range(a.shape[0]):
        row = F32(0)
        for j in range(a.shape[1]):
            row += a[i, j] * b[i, j]
        total += float(row)
    return total


@compiled
def largest(a):  # pragma: no cover
    """Largest absolute value."""
    found = F32(0)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            found = max(found, abs(a[i, j]))
    return found


@compiled
def solve(image, removed, out, size, tolerance, iterations):  # pragma: no cover
    """Fill the holes ``(H, W)`` of one image ``(C, H, W)`` into ``out``, all float32 but the holes.

    ``size`` is the finest grid's, which can be halved often enough. Returns the largest estimated
    error of a pixel, at most ``tolerance`` unless the ``iterations`` do not suffice.
    """
    height, width = removed.shape
    masks, weights, damps, rights = hierarchy(removed, size[0], size[1])
    xs = [np.zeros_like(m) for m in masks]
    spares = [np.zeros_like(m) for m in masks]
    line = np.zeros(max(size[0], size[1]) + 2, F32)
    mask, weight, right = masks[0], weights[0], rights[0]
    x, zero = np.zeros_like(mask), np.zeros_like(mask)
    direction, product = np.zeros_like(mask), np.zeros_like(mask)
    worst = 0.0
    for c in range(image.shape[0]):
        for i in range(height):
            for j in range(width):
                x[i + 1, j + 1] = image[c, i, j] * (F32(1) - mask[i + 1, j + 1])
        residual(x, zero, weight, mask, right)
        previous = 1.0
        for iteration in range(iterations):
            v_cycle(masks, weights, damps, rights, xs, spares, line)
            step = xs[0]  # about the error of x
            error, now = largest(step), dot(right, step)
            if error <= tolerance or now == 0 or iteration == iterations - 1:
                worst = max(worst, error)
                break
            combine(step, F32(now / previous), direction if iteration else zero, direction)
            previous = now
            residual(direction, zero, weight, mask, product)
            length = F32(-now / dot(direction, product))
            combine(x, length, direction, x)
            combine(right, length, product, right)
        for i in range(height):
            for j in range(width):
                out[c, i, j] = x[i + 1, j + 1]
    return worst
