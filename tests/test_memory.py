"""Memory does not grow with the number of calls; ``pytest -s`` prints the slopes."""

from mmap import mmap

import numpy as np
import psutil
import pytest
import torch

import ttame_core as tt

pytestmark = pytest.mark.slow
MEGABYTES = 2.0
"""What resident memory may grow by in 1,000 calls. A training's history, a row a step, takes 1 of it."""


def slope(held):
    """MB that resident memory grows by in 1,000 calls, over their second half; ``held``: call, MB."""
    calls, memory = np.array(held[len(held) // 2 :]).T
    return 1000 * np.polyfit(calls, memory, 1)[0]


def now():
    return psutil.Process().memory_info().rss / 1e6


@pytest.mark.happens(
    "Training and explaining", "4,000 explanations in one process", "memory does not grow"
)
def test_explaining_holds_no_memory(tiny):
    explainer, images, held = tt.TTAME(tiny), torch.rand(1, 3, 16, 16), []
    for call in range(4000):
        explainer(images)
        if call % 50 == 0:
            held.append((call, now()))
    print(f"explanations: {slope(held):.3f} MB more in 1,000, {held[-1][1]:.0f} MB at the end")
    assert slope(held) < MEGABYTES


@pytest.mark.happens(
    "Training and explaining", "500 training steps in one process", "memory does not grow"
)
def test_training_holds_no_memory(tiny, noise):
    held = []
    recipe = tt.Recipe(steps=500, batch_size=4, max_lr=0.01)
    tt.train(tt.TTAME(tiny), noise, recipe, progress=lambda done, _: held.append((done, now())))
    print(f"training: {slope(held):.3f} MB more in 1,000 steps, {held[-1][1]:.0f} MB at the end")
    assert slope(held) < MEGABYTES


def test_what_is_held_is_seen():
    kept, held = [], []
    for call in range(2000):
        kept.append(mmap(-1, 12_288))  # new pages: malloc would give what others have given back
        kept[-1].write(bytes(12_288))
        held.append((call, now()))
    assert 8 < slope(held) < 20
