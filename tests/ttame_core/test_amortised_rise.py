"""Amortised RISE, and fusion rows tied to the classifier's head."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ttame_core as tt
from ttame_core.attention import AttentionMechanism
from ttame_core.errors import NotServedError
from ttame_core.losses import rise_loss
from ttame_core.steps import (
    draw_masks,
    initialise,
    optimizer_of,
    training_step,
    warn_of_collapse,
)

RECIPE = tt.Recipe(
    steps=7, batch_size=6, objective="rise", optimizer="adamw", start="zero", max_lr=0.01
)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class LinearConfidence(nn.Module):
    """The confidence in its first class is exactly linear in the pixels; its tap is the image."""

    def __init__(self, weight):
        super().__init__()
        self.tap, self.weight = nn.Identity(), nn.Parameter(weight)  # (3, H, W), a sum of 1

    def forward(self, images):
        first = (self.tap(images) * self.weight).sum((1, 2, 3)).clamp(0, 1)
        rest = (1 - first) / 2
        return torch.stack([first, rest, rest], 1).clamp_min(1e-12).log()


def linear(size=4):
    weight = torch.rand(3, size, size)
    preprocessing = tt.Preprocessing(size, size, mean=(0, 0, 0), std=(1, 1, 1))
    model = LinearConfidence(weight / weight.sum())
    return tt.Backbone(model, ["tap"], name="linear", preprocessing=preprocessing, masking="image")


def test_the_minimiser_is_what_each_pixel_brings_where_confidence_is_linear():
    """One Newton step on a quadratic loss arrives at its minimum, from anywhere."""
    backbone, images = linear(), 0.5 + 0.5 * torch.rand(2, 3, 4, 4)
    recipe = replace(RECIPE, masks=64, cells=4)
    brought = (backbone.model.weight * images).sum(1).detach()  # (B, H, W)
    coefficients = 16 * brought / brought.sum((1, 2), keepdim=True)

    def loss(values):
        draw = torch.Generator().manual_seed(3)
        maps = lambda features, classes: values.view(2, 1, 4, 4)  # noqa: E731
        return training_step(backbone, maps, images, recipe, draw)["total"]

    start = torch.randn(32)
    gradient = torch.autograd.functional.jacobian(loss, start)
    hessian = torch.autograd.functional.hessian(loss, start).double()
    assert torch.linalg.eigvalsh(hessian).min() > 0  # so that there is one minimum
    found = start - torch.linalg.solve(hessian, gradient.double())
    assert torch.allclose(found.float(), coefficients.flatten(), atol=1e-3)
    assert loss(coefficients.flatten()) < 1e-10 < 1e-4 < loss(start)


def test_the_loss_by_hand_does_not_know_how_hard_an_image_is():
    shares = torch.tensor([[0.9, 0.5], [0.2, 0.2]])
    masks = torch.zeros(2, 2, 1, 2)
    masks[:, 0, 0, 0] = masks[:, 1, 0, 1] = 1  # the first mask shows the first pixel of two
    maps = torch.tensor([[[1.0, 0.6]], [[0.4, 0.0]]])
    # shares differ by 0.4 and 0; the maps say 0.2 and 0.2: the squares of half of what is left
    expected = (0.1**2 + 0.1**2) / 2, (0.2**2 + 0) / 2
    assert [float(x) for x in rise_loss(shares, maps, masks)] == pytest.approx(expected)
    easier = shares + torch.tensor([[0.05], [0.7]])
    assert torch.allclose(rise_loss(easier, maps, masks)[0], rise_loss(shares, maps, masks)[0])


def test_masks_are_rises_and_another_for_each_image_and_step():
    images, recipe = torch.rand(50, 3, 28, 28), replace(RECIPE, masks=4, p=0.3)
    masks = draw_masks(images, recipe, torch.Generator().manual_seed(0))
    assert masks.shape == (50, 4, 28, 28) and masks.min() >= 0 and masks.max() <= 1
    assert masks.mean() == pytest.approx(0.3, abs=0.02)
    assert len({tuple(mask.flatten().tolist()) for mask in masks.flatten(0, 1)}) == 200


def test_no_gradient_passes_the_classifier(tiny, noise):
    ways = []
    tiny.model.requires_grad_(True)
    explainer = tt.TTAME(tiny, "tied")
    initialise(explainer, noise, RECIPE)
    hook = tiny.model.register_forward_hook(
        lambda module, given, logits: ways.append(logits.requires_grad)
    )
    draw = torch.Generator().manual_seed(0)
    terms = training_step(tiny, explainer.attention, noise.images[:6], RECIPE, draw)
    terms["total"].backward()
    hook.remove()
    assert ways == [False, False]  # the images, and the masked ones
    assert all(p.grad is None for p in tiny.model.parameters())
    assert explainer.attention.fusion.weight.grad.any()
    assert terms["total"] == terms["variance"]  # of maps that are 0


def test_both_objectives_add_up(tiny, noise):
    explainer = tt.TTAME(tiny, "scaled")
    weights = tt.LossWeights(rise=5.0)
    recipe = tt.Recipe(steps=1, batch_size=6, other_classes="in-batch", mask="top", loss=weights)

    def terms(objective):
        draw = torch.Generator().manual_seed(0)
        asked = replace(recipe, objective=objective)
        if objective == "ttame":  # then come the percentages
            draw_masks(noise.images[:6], recipe, draw)
        return training_step(tiny, explainer.attention, noise.images[:6], asked, draw)

    rise, both = terms("rise")["total"], terms("both")
    assert both["rise"] == rise > 0
    paper = both["total"] - 5 * rise
    assert torch.allclose(paper, terms("ttame")["total"])
    assert {*terms("ttame")} == {*both} - {"rise"}
    gradients = []
    for total in (both["total"], paper + 5 * terms("rise")["total"]):
        explainer.attention.zero_grad()
        total.backward(retain_graph=True)
        gradients.append(explainer.attention.fusion.weight.grad.clone())
    assert torch.allclose(*gradients, atol=1e-6) and gradients[0].any()


def test_processes_share_the_masks_of_one():
    images, shares = torch.rand(6, 3, 16, 16), []
    whole = draw_masks(images, RECIPE, torch.Generator().manual_seed(0))
    for rank in (0, 1):
        fabric, draw = SimpleNamespace(world_size=2, global_rank=rank), torch.Generator()
        mine = images[3 * rank : 3 * rank + 3]
        shares.append(draw_masks(mine, RECIPE, draw.manual_seed(0), fabric))
    assert torch.equal(torch.cat(shares), whole)


@pytest.mark.parametrize("variant", ["squashed", "tied"])
def test_a_killed_training_goes_on_to_the_same_weights(variant, tiny, noise, tmp_path):
    whole = tt.TTAME(tiny, variant)
    history = tt.train(whole, noise, RECIPE)

    def kill(done, total):
        if done == 5:
            raise KeyboardInterrupt

    options = {"checkpoint": tmp_path / "c", "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        tt.train(tt.TTAME(tiny, variant), noise, RECIPE, progress=kill, **options)
    resumed = tt.TTAME(tiny, variant)
    assert tt.train(resumed, noise, RECIPE, **options) == history
    assert same(state(resumed.attention), state(whole.attention))
    keys = {"step", "lr", "total", "variance", "truth_mean", "truth_spread"}
    assert history[0].keys() == keys | {"logits_min", "logits_max"}
    resumed.save(tmp_path / "mine.safetensors")
    loaded = tt.TTAME.load(tmp_path / "mine.safetensors", tiny)
    assert torch.equal(loaded.explain(noise.images), resumed.explain(noise.images))
    assert "head" not in resumed.attention.state_dict()


def test_trained_together_with_the_papers_objective_each_is_what_it_would_be_alone(tiny, noise):
    recipes = [RECIPE, tt.Recipe(steps=5, batch_size=6, max_lr=0.05), replace(RECIPE, masks=2)]
    variants = ["tied", "proposed", "squashed"]
    together = [tt.TTAME(tiny, variant) for variant in variants]
    histories = tt.train_together(together, noise, recipes)
    for explainer, variant, recipe, history in zip(
        together, variants, recipes, histories, strict=True
    ):
        alone = tt.TTAME(tiny, variant)
        assert tt.train(alone, noise, recipe) == history, variant
        assert same(state(alone.attention), state(explainer.attention)), variant


def test_a_step_of_adamw_is_as_long_as_the_rate_and_spares_biases_and_norms(tiny):
    attention = tt.TTAME(tiny, "tied").attention
    nn.init.zeros_(attention.fusion.weight)
    optimizer = optimizer_of(attention, replace(RECIPE, max_lr=0.25, weight_decay=0.0))
    attention.fusion.weight.grad = torch.randn_like(attention.fusion.weight)
    optimizer.step()
    assert torch.allclose(attention.fusion.weight.abs(), torch.tensor(0.25), atol=1e-4)
    decays = {
        p.ndim > 1: g["weight_decay"]
        for g in optimizer_of(attention, RECIPE).param_groups
        for p in g["params"]
    }
    assert decays == {True: 5e-4, False: 0.0}
    assert type(optimizer) is torch.optim.AdamW


def test_a_row_is_the_heads_centred_row_times_a_matrix_and_a_row_in_common_for_each_tap():
    head, features = torch.randn(6, 3), [torch.randn(2, 5, 8, 8), torch.randn(2, 7, 4, 4)]
    tied = AttentionMechanism((5, 7), 6, head, tied=True).eval()
    for shared in tied.fusion.parameters():  # (3 + 1, C), (3 + 1)
        nn.init.normal_(shared)
    own = AttentionMechanism((5, 7), 6).eval()
    own.branches = tied.branches
    rows = head - head.mean(0)
    rows = rows / rows.square().sum(1).mean().sqrt()
    with torch.no_grad():
        matrix, common = tied.fusion.weight[..., 0, 0].split([3, 1])
        own.fusion.weight[..., 0, 0] = rows @ matrix + common
        own.fusion.bias[:] = rows @ tied.fusion.bias[:3] + tied.fusion.bias[3]
    classes = torch.tensor([[3, 0], [5, 5]])
    assert torch.allclose(tied(features), own(features), atol=1e-5)
    assert torch.allclose(tied(features, classes), own(features, classes), atol=1e-5)
    assert tied.num_classes == 6
    numbers = [
        sum(
            p.numel()
            for p in AttentionMechanism((5, 7), k, torch.randn(k, 3), tied=True).parameters()
        )
        for k in (6, 1000)
    ]
    assert numbers[0] == numbers[1]


def test_classes_of_equal_head_rows_have_equal_maps_and_unseen_ones_learn_too(tiny, noise):
    with torch.no_grad():
        tiny.model.head.weight[5] = tiny.model.head.weight[2]
        tiny.model.head.bias[4] += 3  # all that is seen is of one class
    images = noise.images[:4]
    maps = {}
    for variant in ("squashed", "tied"):
        explainer = tt.TTAME(tiny, variant)
        tt.train(explainer, noise, RECIPE)
        with torch.no_grad():
            maps[variant] = explainer.attention(tiny.features(images)[1])  # (B, K, h, w)
    spread = {variant: found.flatten(2).std(2) for variant, found in maps.items()}
    assert torch.equal(maps["tied"][:, 5], maps["tied"][:, 2])
    assert (spread["tied"] > 0).all()  # of all classes, where they started at 0
    assert (spread["squashed"][:, 4] > 0).all()
    assert not spread["squashed"][:, [k for k in range(8) if k != 4]].any()


@pytest.mark.happens(
    "Training and explaining",
    "a variant tied to a head that is missing or whose rows are all alike",
    "refused, with the remedy",
)
def test_what_rows_cannot_be_tied_to_is_told(tiny):
    with pytest.raises(NotServedError, match="no head of 3 outputs found in linear"):
        tt.TTAME(linear(), "tied")
    with torch.no_grad():
        tiny.model.head.weight[:] = tiny.model.head.weight[0].clone()
    with pytest.raises(tt.TTAMEError, match=r"head are all alike.* a variant that is not tied"):
        tt.TTAME(tiny, "tied")
    with pytest.raises(tt.TTAMEError, match="head is None; expected the weights"):
        AttentionMechanism((5, 7), 6, tied=True)


@pytest.mark.parametrize("factor", [0.9, 1.2])
@pytest.mark.happens(
    "Training and explaining",
    "amortised RISE whose loss ends above the variance it is to explain",
    "a warning, with remedies",
)
def test_maps_that_tell_less_than_nothing_are_warned_of(factor, recwarn):
    warn_of_collapse([{"total": 0.1 * factor, "variance": 0.1}] * 100)
    assert [str(w.message)[:31] for w in recwarn] == ["the maps tell less than nothing"] * (
        factor > 1
    )
