"""Training: frozen means frozen, same seed same bytes, resumed equals uninterrupted."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import ttame_core as tt
from tests.ttame_core.methods.models import RightHalf, RightHalfViT, looking_right
from ttame_core.attention import AttentionMechanism
from ttame_core.images.folders import evenly
from ttame_core.losses import sample_other_classes
from ttame_core.masking import upsample
from ttame_core.training import training_step

RECIPE = tt.Recipe(steps=7, batch_size=6, max_lr=0.05)


def state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def trained(tiny, noise, **options):
    explainer = tt.TTAME(tiny)
    history = tt.train(explainer, noise, RECIPE, **options)
    return state(explainer.attention), history


def test_frozen_means_frozen(tiny, noise):
    before = state(tiny)
    explainer = tt.TTAME(tiny)
    start = state(explainer.attention)
    tt.train(explainer, noise, RECIPE)
    assert same(state(tiny), before)
    assert not any(m.training for m in tiny.modules())
    assert not any(p.requires_grad or p.grad is not None for p in tiny.parameters())
    assert not same(state(explainer.attention), start)
    explainer.train()
    assert not any(m.training for m in tiny.modules())


def test_scaled_maps_are_trained_alike_whatever_the_classifiers_scale(tiny, noise):
    """A classifier whose maps are a thousand times as large, and its head as much smaller, is the same classifier."""
    histories = []
    for factor in (1.0, 1000.0):
        explainer = tt.TTAME(tiny, "scaled")
        features = tiny.features

        def enlarged(images, features=features, factor=factor):
            logits, maps = features(images)
            return logits, [factor * m for m in maps]

        object.__setattr__(tiny, "features", enlarged)
        history = tt.train(explainer, noise, RECIPE)
        object.__delattr__(tiny, "features")
        histories.append([row["total"] for row in history])
        batch = torch.stack([item["image"] for item in evenly(noise, RECIPE.batch_size)])
        squares = [m.square().mean() for m in tiny.features(batch)[1]]
        expected = factor * torch.stack(squares).sqrt()
        assert torch.allclose(explainer.attention.scales, expected, rtol=1e-4)
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)
    assert tt.TTAME(tiny).attention.scales is None


def test_a_tap_that_is_zero_on_the_first_batch_keeps_its_values():
    mechanism = AttentionMechanism([3, 4], 5, scaled=True)
    mechanism.measure_scales([torch.zeros(2, 3, 4, 4), torch.full((2, 4, 2, 2), -3.0)])
    assert mechanism.scales.tolist() == [1.0, 3.0]
    assert torch.isfinite(mechanism([torch.ones(2, 3, 4, 4), torch.ones(2, 4, 2, 2)])).all()


def test_same_seed_same_bytes(tiny, noise):
    first, history = trained(tiny, noise, seed=1)
    second, again = trained(tiny, noise, seed=1)
    other, _ = trained(tiny, noise, seed=2)
    assert same(first, second)
    assert history == again
    assert not same(first, other)


@pytest.mark.parametrize("others", ["uniform", "in-batch"])
def test_a_step_is_eq_17_of_the_model_truth(tiny, noise, others):
    """Composed by hand: target, the map that masks, Psi, sigmoid, lambdas."""
    weights = tt.LossWeights(ce=1.1, area=0.7, variation=0.3, power=0.4)
    recipe = tt.Recipe(batch_size=6, other_classes=others, loss=weights)
    images, explainer = noise.images[:6], tt.TTAME(tiny).eval()
    draw = torch.Generator().manual_seed(4)
    found = training_step(tiny, explainer.attention, images, recipe, draw)["total"]
    logits, features = tiny.features(images)
    truth = logits.argmax(1)
    maps = explainer.attention(features).sigmoid()  # of all classes
    if others == "uniform":
        draw = torch.Generator().manual_seed(4)
        chosen = sample_other_classes(truth, 8, 5, draw).tolist()
    else:
        chosen = [[int(truth[(i + j) % 6]) for j in range(1, 6)] for i in range(6)]
    psi = torch.stack([maps[i, [int(truth[i]), *chosen[i]]] for i in range(6)])
    masks = F.interpolate(maps[range(6), truth][:, None], (16, 16), mode="bilinear")
    ce = F.cross_entropy(tiny.model((masks * images - tiny.mean) / tiny.std), truth)
    down, right = psi.diff(dim=2).square().sum(), psi.diff(dim=3).square().sum()
    smooth = (down + right) / (2 * psi.numel())
    expected = 1.1 * ce + 0.7 * (((psi + 5e-4) ** 0.4).mean() + 0.3 * smooth)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_worker_processes_change_nothing(tiny, noise):
    assert same(trained(tiny, noise)[0], trained(tiny, noise, workers=2)[0])


@pytest.mark.parametrize("others", ["uniform", "in-batch"])
@pytest.mark.slow
def test_each_term_of_the_loss_is_the_one_that_falls_where_it_counts_alone(tiny, noise, others):
    """Whoever asks for the class alone gets it, for small maps small ones, for smooth ones those."""
    none = {"ce": 0.0, "area": 0.0, "variation": 0.0}
    weights = {
        "ce": tt.LossWeights(**{**none, "ce": 2.0}),
        "area": tt.LossWeights(**{**none, "area": 2.0}, power=1.0),
        "variation": tt.LossWeights(**{**none, "area": 1e-3, "variation": 2e4}, power=1.0),
        "all": tt.LossWeights(),
    }
    last = {}
    for name, loss in weights.items():
        recipe = tt.Recipe(steps=60, batch_size=6, max_lr=0.05, other_classes=others, loss=loss)
        history = tt.train(tt.TTAME(tiny), noise, recipe)
        totals = [row["total"] for row in history]
        assert sum(totals[-5:]) < 0.9 * sum(totals[:5]) or name == "ce"
        last[name] = {k: sum(row[k] for row in history[-5:]) / 5 for k in history[0]}
    first = tt.train(tt.TTAME(tiny), noise, replace(recipe, steps=1))[0]
    for name in ("ce", "area"):
        assert last[name][name] < first[name]
        assert last[name][name] == min(row[name] for row in last.values())
    for map_of in ("truth_mean", "others_mean"):
        assert last["area"][map_of] < 0.1 * first[map_of]
        assert last["variation"][map_of] > 0.5 * first[map_of]  # flat, not empty
    assert last["variation"]["variation"] < 0.1 * first["variation"]
    assert last["variation"]["truth_spread"] < 0.7 * first["truth_spread"]
    assert last["ce"]["truth_mean"] > last["all"]["truth_mean"]


def test_a_killed_training_goes_on_to_the_same_weights(tiny, noise, tmp_path):
    whole, history = trained(tiny, noise)

    def kill(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tiny, noise, checkpoint=tmp_path / "c", checkpoint_every=2, progress=kill)
    seen = []
    resumed, rest = trained(
        tiny, noise, checkpoint=tmp_path / "c", progress=lambda done, total: seen.append(done)
    )
    assert seen == [5, 6, 7]  # from the checkpoint after step 4
    assert same(resumed, whole)
    assert rest == history


def test_a_checkpoint_of_another_recipe_is_not_taken(tiny, noise, tmp_path):
    tt.train(tt.TTAME(tiny), noise, RECIPE, checkpoint=tmp_path / "c", checkpoint_every=2, seed=5)
    fresh, _ = trained(tiny, noise)
    assert same(trained(tiny, noise, checkpoint=tmp_path / "c")[0], fresh)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(tiny, noise):
    seen = []

    class Watched(type(noise)):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    tt.train(tt.TTAME(tiny), Watched(), tt.Recipe(steps=8, batch_size=6, max_lr=0.05))
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24))
    assert seen[:24] != seen[24:] and seen[:24] != list(range(24))


def test_momentum_stays_what_the_recipe_says(tiny, noise, monkeypatch):
    seen = []
    step = torch.optim.SGD.step

    def watched(self, *args, **options):
        seen.extend((group["momentum"], group["nesterov"]) for group in self.param_groups)
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    trained(tiny, noise)
    assert set(seen) == {(0.9, True)} and len(seen) == 2 * RECIPE.steps


def test_a_checkpoint_of_another_classifier_is_not_taken(tiny, noise, tmp_path):
    tt.train(tt.TTAME(tiny), noise, RECIPE, checkpoint=tmp_path / "c", checkpoint_every=2)
    fresh, _ = trained(tiny, noise)
    with torch.no_grad():
        tiny.model.head.bias += 0.01
    changed, _ = trained(tiny, noise, checkpoint=tmp_path / "c")
    assert same(changed, trained(tiny, noise)[0])
    assert fresh.keys() == changed.keys()


def test_weight_decay_spares_biases_and_norms(tiny, noise):
    explainer = tt.TTAME(tiny)
    from ttame_core.training import _optimizer

    decayed, plain = _optimizer(explainer.attention, RECIPE).param_groups
    names = {id(p): n for n, p in explainer.attention.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in decayed["params"]} == {"weight"}
    assert all("conv" in names[id(p)] or "fusion" in names[id(p)] for p in decayed["params"])
    assert plain["weight_decay"] == 0 and decayed["weight_decay"] == 5e-4
    assert len(names) == len(decayed["params"]) + len(plain["params"])


def test_too_few_images(tiny, noise):
    with pytest.raises(tt.TTAMEError, match="24 training images do not fill a batch of 32"):
        tt.train(tt.TTAME(tiny), noise, tt.Recipe(steps=1, batch_size=32))


def test_a_loss_that_is_not_finite_stops_the_training(tiny, noise):
    explainer = tt.TTAME(tiny)
    explainer.attention.fusion.weight.data[:] = torch.nan
    with pytest.raises(tt.TTAMEError, match="loss is nan at step 0"):
        tt.train(explainer, noise, RECIPE)
    noise.images[:] = torch.nan
    with pytest.raises(tt.TTAMEError, match="images range from nan"):
        tt.train(tt.TTAME(tiny), noise, RECIPE)


def test_a_min_max_mask_is_the_map_that_is_evaluated(tiny, noise):
    """Whatever level and contrast a map has, the classifier sees it from 0 to 1."""
    images, shape = noise.images[:4], (4, 4, 8, 8)
    high = torch.linspace(0.1, 0.9, 4 * 4 * 64).view(shape)[:, :, torch.randperm(8)]
    terms = {}
    for mask in ("sigmoid", "min-max"):
        for level, contrast in ((0, 1), (0.5, 0.2)):
            logits = (level + contrast * high).logit().requires_grad_()

            def attention(features, classes, logits=logits):
                return logits

            recipe = replace(RECIPE, mask=mask, other_classes="in-batch")
            row = training_step(tiny, attention, images, recipe, torch.Generator())
            row["total"].backward()
            assert torch.isfinite(logits.grad).all()
            terms[mask, level] = {k: float(v.detach()) for k, v in row.items()}
    assert terms["min-max", 0]["ce"] == pytest.approx(terms["min-max", 0.5]["ce"], rel=1e-4)
    assert abs(terms["sigmoid", 0]["ce"] - terms["sigmoid", 0.5]["ce"]) > 1e-3
    for key in ("truth_mean", "others_mean"):  # signs of a collapse are those of the sigmoid
        assert terms["min-max", 0.5][key] == terms["sigmoid", 0.5][key]
    with pytest.raises(tt.TTAMEError, match="did you mean 'min-max'"):
        tt.Recipe(mask="minmax")


def test_a_train_mode_backbone_drifts_in_a_copy_only(tiny, noise):
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    recipe = tt.Recipe(steps=3, batch_size=6, max_lr=0.05)
    explainers = []
    for mode in ("eval", "train"):
        explainer = tt.TTAME(tiny)
        tt.train(explainer, noise, replace(recipe, backbone_mode=mode))
        explainers.append(explainer.attention.fusion.weight)
    assert all(torch.equal(before[k], v) for k, v in tiny.state_dict().items())
    assert not any(m.training for m in tiny.modules())
    assert not torch.equal(*explainers)  # dropout and batch statistics were in the way
    with pytest.raises(tt.TTAMEError, match="'frozen' is unknown; valid: eval, train"):
        tt.Recipe(backbone_mode="frozen")


@pytest.mark.parametrize("kind", [RightHalf, RightHalfViT])
@pytest.mark.parametrize("variant", ["proposed", "scaled", "l_cam_img"])
def test_trained_methods_learn_which_half_the_model_looks_at(kind, variant):
    backbone = looking_right(kind)
    explainer = tt.TTAME(backbone, variant)
    images = torch.rand(32, 3, 16, 16)
    recipe = tt.Recipe(steps=60, batch_size=8, max_lr=0.3)
    tt.train(explainer, [{"image": image} for image in images], recipe)
    maps = upsample(explainer(images[:4], torch.zeros(4, dtype=torch.long)).maps, (16, 16))
    left, right = maps[..., :8].sum((1, 2)), maps[..., 8:].sum((1, 2))
    assert (right > left).all()
