"""Training: frozen means frozen, same seed same bytes, resumed equals uninterrupted."""

import threading
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import ttame_core as tt
from tests.conftest import Noise, TinyCNN
from tests.ttame_core.methods.models import RightHalf, RightHalfViT, looking_right
from ttame_core import steps, training
from ttame_core.attention import AttentionMechanism
from ttame_core.images.batches import digest_of
from ttame_core.images.folders import evenly
from ttame_core.losses import sample_other_classes
from ttame_core.masking import keep_top, minmax, select_top, soften_top, upsample
from ttame_core.steps import LEAST, draw_percentages, training_step

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
@pytest.mark.filterwarnings("ignore:the maps of the model truth")  # where the area counts alone
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
    from ttame_core.steps import optimizer_of

    decayed, plain = optimizer_of(explainer.attention, RECIPE).param_groups
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


def test_a_top_mask_is_the_map_that_is_evaluated_and_its_top_alone(tiny, noise):
    """At any v; what was left out gets a gradient where it is near the edge, and the rest none."""
    images, shape = noise.images[:4], (4, 4, 8, 8)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    recipe = replace(RECIPE, mask="top", other_classes="in-batch", loss=tt.LossWeights(q=0.5))
    draw = torch.Generator().manual_seed(1)
    row = training_step(tiny, lambda features, classes: logits, images, recipe, draw)
    row["total"].backward()
    kept = draw_percentages(4, torch.Generator().manual_seed(1))
    assert kept.min() >= LEAST and kept.max() <= 100
    truth, own = tiny(images).argmax(1), logits.detach()[:, 0]
    soft = minmax(own.sigmoid()) * soften_top(own, kept)
    hard = [
        keep_top(minmax(m.sigmoid()), v) for m, v in zip(own.split(1), kept.tolist(), strict=True)
    ]
    confidences = tiny(images, soft).softmax(1)[torch.arange(4), truth]
    assert row["total"].detach() == pytest.approx(float(1.5 * (2 - 2 * confidences.sqrt()).mean()))
    edges = [m.quantile(1 - v / 100) for m, v in zip(own.flatten(1), kept.tolist(), strict=True)]
    near = (own - torch.stack(edges)[:, None, None]).abs() < own.flatten(1).std(1)[:, None, None]
    assert 0 < (soft - torch.cat(hard))[~near].abs().max() < 0.01
    assert (logits.grad[:, 0][near] != 0).all() and not logits.grad[:, 1:].any()


@pytest.mark.parametrize("v", [8.0, 15.0, 50.0, 100.0])
def test_a_soft_selection_has_its_edge_at_the_percentile(v):
    maps = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0))
    soft = soften_top(7 * maps - 100, torch.full((3,), v))
    torch.testing.assert_close(soft, soften_top(maps, torch.full((3,), v)))  # of any scale
    kept = (soft >= 0.5).flatten(1).sum(1)
    assert (kept - v / 100 * 400).abs().max() <= 1
    assert torch.equal(select_top(maps, 100 * int(kept[0]) / 400), soft >= 0.5)
    assert soften_top(torch.zeros(1, 4, 4), torch.tensor([v])).eq(0.5).all()  # none is above


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


@pytest.mark.filterwarnings("ignore:the maps of the model truth")  # at so high a rate
@pytest.mark.parametrize("kind", [RightHalf, RightHalfViT])
@pytest.mark.parametrize("variant", ["proposed", "scaled", "l_cam_img"])
@pytest.mark.slow
def test_trained_methods_learn_which_half_the_model_looks_at(kind, variant):
    backbone = looking_right(kind)
    explainer = tt.TTAME(backbone, variant)
    images = torch.rand(32, 3, 16, 16)
    recipe = tt.Recipe(steps=60, batch_size=8, max_lr=0.3)
    tt.train(explainer, [{"image": image} for image in images], recipe)
    maps = upsample(explainer(images[:4], torch.zeros(4, dtype=torch.long)).maps, (16, 16))
    left, right = maps[..., :8].sum((1, 2)), maps[..., 8:].sum((1, 2))
    assert (right > left).all()


WITH = "Training and explaining"


@pytest.mark.happens(WITH, "another thread explains while an explainer is trained", "both as alone")
def test_explaining_meanwhile_changes_no_training(tiny, noise):
    recipe = replace(RECIPE, steps=40)
    alone = tt.TTAME(tiny)
    expected = tt.train(alone, noise, recipe)
    explainer, done = tt.TTAME(tiny), threading.Event()

    def explain():
        while not done.is_set():
            explainer(noise.images[:1])

    other = threading.Thread(target=explain)
    other.start()
    try:
        found = tt.train(explainer, noise, recipe)
    finally:
        done.set()
        other.join()
    assert found == expected
    assert same(state(explainer.attention), state(alone.attention))
    assert not explainer.attention.training


@pytest.mark.parametrize("of", ["images", "files", "seed"])
@pytest.mark.happens(WITH, "a checkpoint of a training with other {of}", "is not taken over")
def test_a_checkpoint_of_other_images_is_not_taken(of, tiny, noise, tmp_path):
    tt.train(tt.TTAME(tiny), noise, RECIPE, checkpoint=tmp_path / "c")
    images, explainer = Noise(), tt.TTAME(tiny, seed=int(of == "seed"))
    fresh = tt.TTAME(tiny, seed=explainer.seed)
    if of == "images":
        images.images[-1] = 1 - images.images[-1]
    if of == "files":
        images.files = ["a.png"]
    seen = []
    found = tt.train(
        explainer, images, RECIPE, checkpoint=tmp_path / "c", progress=lambda *done: seen.append(1)
    )
    assert len(seen) == RECIPE.steps
    assert found == tt.train(fresh, images, RECIPE)


def test_images_drawn_anew_are_resumed_and_draw_what_they_did_before(tiny, tmp_path):
    class Mirrored(Noise):
        def __getitem__(self, index):
            image = self.images[index]
            return {"image": image.flip(2) if torch.rand(()) < 0.5 else image}

    assert digest_of(Mirrored()) == digest_of(Mirrored()) != digest_of(Noise())
    torch.manual_seed(1)
    plain = tt.train(tt.TTAME(tiny), Mirrored(), RECIPE)
    torch.manual_seed(1)
    assert tt.train(tt.TTAME(tiny), Mirrored(), RECIPE, checkpoint=tmp_path / "c") == plain
    seen = []
    again = tt.train(
        tt.TTAME(tiny), Mirrored(), RECIPE, checkpoint=tmp_path / "c", progress=seen.append
    )
    assert again == plain and not seen


def test_an_interrupted_explainer_goes_on_itself(tiny, noise, tmp_path):
    whole, _ = trained(tiny, noise)

    def kill(done, total):
        if done == 5:
            raise KeyboardInterrupt

    explainer, options = tt.TTAME(tiny), {"checkpoint": tmp_path / "c", "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        tt.train(explainer, noise, RECIPE, progress=kill, **options)
    seen = []
    tt.train(explainer, noise, RECIPE, progress=lambda done, total: seen.append(done), **options)
    assert seen == [5, 6, 7] and same(state(explainer.attention), whole)


IMAGE = torch.rand(3, 16, 16)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": {"steps": 3}}, "recipe is {'steps': 3}; expected a tt.Recipe"),
        ({"checkpoint": 3}, "checkpoint is 3; expected the name of a file"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0; expected a whole number, at least 1"),
        ({"workers": -1}, "workers is -1; expected a whole number, at least 0"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected a whole number, at least 0"),
        ({"seed": 2**63}, "seed is 9223372036854775808; expected a whole number"),
        ({"images": None}, "images are None; expected a data set of single images: a tt.ImageF"),
        ({"images": iter([])}, "images are a list_iterator; expected a data set"),
        ({"images": torch.rand(9, 3, 16, 16)}, "images are a Tensor; expected a data set"),
        ({"images": "photos"}, "images are 'photos'; expected a data set"),
        (
            {"images": torch.utils.data.DataLoader(Noise())},
            "images are a DataLoader; expected a data set of single images: give its .dataset",
        ),
        (
            {"images": [IMAGE] * 6},
            r"images is a Tensor \[3, 16, 16\]; expected a dict with 'image'",
        ),
        ({"images": [IMAGE.numpy()] * 6}, r"images is a ndarray \[3, 16, 16\]; expected a dict"),
        ({"images": ["a.png"] * 6}, "images is a str; expected a dict with 'image'"),
        ({"images": [Image.new("RGB", (16, 16))] * 6}, "images is a Image; expected a dict"),
        ({"images": [{"image": Image.new("RGB", (16, 16))}] * 6}, "'image'] with a Image; exp"),
        ({"images": [{"pixel_values": IMAGE}] * 6}, "images is a dict .'pixel_values'.; expected"),
        ({"images": [("a.png", 3)] * 6}, "images is a tuple with a str; expected"),
        ({"images": [{"image": IMAGE[0]}] * 6}, r"with a Tensor \[16, 16\]; expected a dict"),
        (
            {"images": [(IMAGE, 0), (IMAGE[:, 1:], 0)] * 3},
            "images of a batch are of sizes 15 x 16, 16 x 16; resize or crop all to one.*random_crop",
        ),
    ],
)
@pytest.mark.happens(
    WITH,
    "an argument of a training that is not of its kind, or images without a picture",
    "told, with what was expected",
)
def test_what_cannot_be_trained_with_is_told(given, message, tiny, noise):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.train(tt.TTAME(tiny), **{"images": noise, "recipe": RECIPE, **given})


@pytest.mark.parametrize(("variant", "workers"), [("scaled", 0), ("proposed", 1)])
def test_an_item_without_a_picture_is_told_wherever_it_is_read(variant, workers, tiny):
    with pytest.raises(tt.TTAMEError, match=r"images is a Tensor \[3, 16, 16\]; expected a dict"):
        tt.train(tt.TTAME(tiny, variant), [IMAGE] * 6, RECIPE, workers=workers)


def test_a_backbone_is_no_explainer(tiny, noise):
    with pytest.raises(tt.TTAMEError, match=r"explainer is a Backbone; expected a tt\.TTAME"):
        tt.train(tiny, noise, RECIPE)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.happens(WITH, "a training where gradients are turned off", "as where they are on")
def test_gradients_are_turned_on(mode, tiny, noise):
    expected, _ = trained(tiny, noise)
    with mode():
        assert same(trained(tiny, [{"image": i.clone()} for i in noise.images])[0], expected)


def test_pairs_and_numpys_pictures_are_trained_on_alike(tiny, noise):
    expected, _ = trained(tiny, noise)
    assert same(trained(tiny, [(image, 0) for image in noise.images])[0], expected)
    assert same(trained(tiny, [{"image": i.numpy()} for i in noise.images])[0], expected)


def test_without_momentum_it_is_plain_sgd(tiny, noise):
    found = tt.train(tt.TTAME(tiny), noise, replace(RECIPE, momentum=0))
    assert found != tt.train(tt.TTAME(tiny), noise, RECIPE)


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_numbers_brought_over_together_are_those_of_each_step(
    at_once, tiny, noise, tmp_path, monkeypatch
):
    expected, history = trained(tiny, noise)
    monkeypatch.setitem(training.ROWS_AT_ONCE, "cpu", at_once)
    options = {"checkpoint": tmp_path / "c", "checkpoint_every": 5}
    found = trained(tiny, noise, **options)
    assert same(found[0], expected) and found[1] == history
    assert trained(tiny, noise, **options)[1] == history  # the checkpoint has all rows


@pytest.mark.parametrize("at_once", [1, 50])
@pytest.mark.happens(
    WITH, "a loss that is not finite", "stops, with the rates to change and the last good state"
)
def test_where_a_training_diverged_and_what_is_left_of_it(
    at_once, tiny, noise, tmp_path, monkeypatch
):
    rate = trained(tiny, noise)[1][5]["lr"]
    monkeypatch.setitem(training.ROWS_AT_ONCE, "cpu", at_once)
    step, calls = training.training_step, []

    def diverging(*args):
        calls.append(1)
        terms = step(*args)
        return terms | {"total": terms["total"] * (torch.nan if len(calls) >= 6 else 1)}

    monkeypatch.setattr(training, "training_step", diverging)
    file = tmp_path / "{c}"
    for checkpoint, kept in (
        (None, ""),
        (file, f"; the last good state is that after step 3, in {file}"),
    ):
        calls.clear()
        with pytest.raises(tt.TTAMEError) as raised:
            trained(tiny, noise, checkpoint=checkpoint, checkpoint_every=4)
        told = (
            f"the loss is nan at step 5, learning rate {rate:.3g}; try a smaller max_lr than 0.05"
        )
        assert str(raised.value) == told + kept


def test_weights_that_are_not_finite_are_neither_kept_nor_returned(tiny, noise, tmp_path):
    def spoil(done, total):
        if done == 7:
            raise AssertionError("it went on")

    step = torch.optim.SGD.step
    explainer = tt.TTAME(tiny)

    def spoiled(self, *args, **options):
        step(self, *args, **options)
        explainer.attention.fusion.bias.data[3] = torch.inf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", spoiled)
        with pytest.raises(tt.TTAMEError, match="the weights are not finite at step 0, learning"):
            tt.train(
                *(explainer, noise, replace(RECIPE, steps=1)),
                **{"checkpoint": tmp_path / "c", "progress": spoil},
            )
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("level", "less"), [(-40.0, "smaller"), (40.0, "larger")])
@pytest.mark.happens(WITH, "maps that are all near 0 or 1 at the end", "a warning, with remedies")
def test_a_collapse_is_warned_of(level, less, tiny, noise):
    explainer = tt.TTAME(tiny)
    explainer.attention.fusion.bias.data[:] = level
    with pytest.warns(UserWarning, match=f"all but constant, .*max_lr.*a {less} tt.Loss") as told:
        tt.train(explainer, noise, replace(RECIPE, max_lr=1e-6))
    assert len(told) == 1 and told[0].filename == __file__


@pytest.mark.parametrize("variant", tt.VARIANTS)
@pytest.mark.parametrize("steps", [1, 7])
def test_a_healthy_training_is_not_warned_of(variant, steps, tiny, noise):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tt.train(tt.TTAME(tiny, variant), noise, replace(RECIPE, steps=steps))


def test_a_broken_checkpoint_is_told_to_who_trains(tiny, noise, tmp_path):
    (tmp_path / "c").write_bytes(b"no checkpoint")
    with pytest.warns(UserWarning, match=r"is named \.broken now; it is trained anew") as told:
        trained(tiny, noise, checkpoint=tmp_path / "c")
    assert told[0].filename == __file__


VARIED = {
    "proposed": RECIPE,
    "two_taps": replace(RECIPE, steps=4),
    "scaled": replace(RECIPE, other_classes="in-batch", max_lr=0.01, mask="min-max"),
    "no_skip": replace(RECIPE, backbone_mode="train"),
}


def several(tiny, noise, names=VARIED, **options):
    """Explainers, one of other taps, and the histories of their common training."""
    explainers = [
        tt.TTAME(tiny.with_taps([*tiny.taps[1:]]) if name == "scaled" else tiny, name, seed=i)
        for i, name in enumerate(names)
    ]
    recipes = [VARIED[name] for name in names]
    return explainers, tt.train_together(explainers, noise, recipes, seed=3, **options)


def test_trained_together_each_is_what_it_would_be_alone(tiny, noise):
    torch.manual_seed(0)  # of the dropout of the classifier that is in training mode
    explainers, histories = several(tiny, noise)
    for explainer, history, (name, recipe) in zip(
        explainers, histories, VARIED.items(), strict=True
    ):
        alone = tt.TTAME(explainer.backbone, name, seed=explainer.seed)
        torch.manual_seed(0)
        assert tt.train(alone, noise, recipe, seed=3) == history, name
        assert same(state(explainer.attention), state(alone.attention)), name
        assert not explainer.attention.training


def test_trained_together_they_ask_the_classifier_once_and_read_a_batch_once(
    tiny, noise, monkeypatch
):
    asked, read = [], []
    features, item = tt.Backbone.features, Noise.__getitem__
    monkeypatch.setattr(tt.Backbone, "features", lambda *a: asked.append(1) or features(*a))
    monkeypatch.setattr(Noise, "__getitem__", lambda *a: read.append(1) or item(*a))
    several(tiny, noise, ["proposed", "two_taps"])
    assert len(asked) == RECIPE.steps and len(read) == RECIPE.steps * RECIPE.batch_size


def test_trainings_that_are_not_equally_far_go_on_together(tiny, noise, tmp_path):
    names = ["proposed", "two_taps"]
    files = [tmp_path / name for name in names]
    expected, histories = several(tiny, noise, names)

    def kill(done, total):
        if done == 5:
            raise KeyboardInterrupt

    options = {"checkpoints": files, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        several(tiny, noise, names, progress=kill, **options)
    files[0].unlink()  # begins anew, while the other is done
    seen = []
    found, again = several(
        tiny, noise, names, progress=lambda done, total: seen.append(done), **options
    )
    assert again == histories and seen == [*range(1, 8)]
    for a, b in zip(found, expected, strict=True):
        assert same(state(a.attention), state(b.attention))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipes": [RECIPE]}, "there are 2 explainers, 1 recipes and 2 checkpoints; expected"),
        ({"recipes": [RECIPE, replace(RECIPE, batch_size=4)]}, "batch sizes are 4, 6; trained"),
        ({"other": True}, "tiny and other are two classifiers; train them apart"),
    ],
)
@pytest.mark.happens(WITH, "trained together with {change}", "{message}")
def test_what_cannot_be_trained_together_is_told(change, message, tiny, noise):
    other = tiny
    if change.get("other"):
        torch.manual_seed(5)
        other = tt.Backbone(TinyCNN(), tiny.taps, name="other", preprocessing=tiny.preprocessing)
    recipes = change.get("recipes", [RECIPE, RECIPE])
    with pytest.raises(tt.TTAMEError, match=message):
        tt.train_together([tt.TTAME(tiny), tt.TTAME(other)], noise, recipes)


@pytest.mark.parametrize(("holds", "found"), [(13, 13), (16, 16), (23, 22), (99, 24), (2, 2)])
def test_the_largest_batch_is_what_memory_holds(holds, found, tiny, noise, monkeypatch):
    explainer, whole = tt.TTAME(tiny), steps.training_step
    before, tried = state(explainer.attention), []

    def step(backbone, attention, images, *rest):
        tried.append(len(images))
        if len(images) > holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(backbone, attention, images, *rest)

    monkeypatch.setattr(steps, "training_step", step)
    fabric = SimpleNamespace(device=torch.device("cpu"), world_size=1)
    assert steps.largest_batch(explainer, noise, RECIPE, fabric) == found
    assert max(tried) <= 24 and same(state(explainer.attention), before)


def test_where_no_batch_fits_and_where_something_else_is_wrong(tiny, noise, monkeypatch):
    fabric = SimpleNamespace(device=torch.device("cpu"), world_size=1)
    for message, expected in (("out of memory", "no step of two images fits"), ("odd", "^odd$")):

        def step(*_, message=message):
            raise RuntimeError(message)

        monkeypatch.setattr(steps, "training_step", step)
        with pytest.raises((tt.TTAMEError, RuntimeError), match=expected):
            steps.largest_batch(tt.TTAME(tiny), noise, RECIPE, fabric)


@pytest.mark.happens(WITH, "a batch size 'auto' on a CPU", "asks for a number")
def test_an_automatic_batch_size_is_for_accelerators_and_a_checkpoints_is_kept(
    tiny, noise, tmp_path
):
    auto = replace(RECIPE, batch_size="auto")
    with pytest.raises(tt.TTAMEError, match='"auto" is what a GPU holds; on a CPU give a number'):
        tt.train(tt.TTAME(tiny), noise, auto)
    history = tt.train(tt.TTAME(tiny), noise, RECIPE, checkpoint=tmp_path / "c")
    again = tt.train(tt.TTAME(tiny), noise, auto, checkpoint=tmp_path / "c")
    assert again == history
    with pytest.raises(tt.TTAMEError, match="steps is 'auto'"):
        tt.Recipe(steps="auto")
