"""The cheaper twin of a classifier: the same answers, and whatever listens to a layer hears that layer."""

import copy
import math
import weakref
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import DataLoader

import ttame_book as tb
import ttame_core as tt
from ttame_core.classifiers.fast import (
    GRADIENTS,
    batch_norms_behind,
    batch_that_suits,
    fitting,
    folded,
)
from ttame_core.classifiers.hooks import capture
from ttame_core.images.reading import Preprocessing

SMALL = {"image_size": 64, "resize": 64}


def small(name, precision="auto", **options):
    torch.manual_seed(0)
    return tt.load_backbone(name, None, preprocessing=SMALL, precision=precision, **options)


def twin_of(backbone):
    """What runs for a backbone where nothing listens."""
    with backbone.held(), backbone._fast.running(backbone.model, 64) as model:
        return model


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def unsettled(model):
    """Give batch norms statistics of their own: those of a new model would hide a wrong fold."""
    for norm in norms(model):
        for tensor, low, high in (
            (norm.running_mean, -1, 1),
            (norm.running_var, 0.5, 2),
            (norm.weight, 0.5, 1.5),
            (norm.bias, -1, 1),
        ):
            nn.init.uniform_(tensor, low, high)
    return model


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "efficientnet_lite0", "mobilenet_v2"])
@pytest.mark.slow
def test_batch_norms_are_folded_away_and_change_no_answer(name):
    backbone = small(name)
    unsettled(backbone.model)
    model, twin = backbone.model, twin_of(backbone)
    assert norms(model) and not norms(twin)
    images = torch.rand(3, 3, 64, 64)
    logits = backbone(images)
    with torch.no_grad():
        expected = model(backbone.standardise(images))
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    shared = {t.data_ptr() for t in model.parameters()} & {t.data_ptr() for t in twin.parameters()}
    assert shared  # the head's, at least, are there once


def test_a_tapped_convolution_is_heard_as_it_is():
    backbone = small("resnet18").with_taps(["layer2.0.conv1", "layer3.0.bn1", "layer4"])
    unsettled(backbone.model)
    images = torch.rand(2, 3, 64, 64)
    _, features = backbone.features(images)
    with torch.no_grad(), capture(backbone.model, backbone.taps) as heard:
        backbone.model(backbone.standardise(images))
    for tap, feature in zip(backbone.taps, features, strict=True):
        assert (feature - heard[tap]).abs().max() < 1e-4 * heard[tap].abs().max(), tap
    # a batch norm's output is the same whether it is folded or not
    folded_away = backbone.output_of("layer3.0.bn1", images)
    assert (folded_away - features[1]).abs().max() < 1e-4 * features[1].abs().max()


def test_a_convolution_is_heard_as_it_is_by_any_of_its_names():
    class TwoNames(TwoReaders):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(self.conv)

        def forward(self, x):
            return self.head(self.norm(self.features(x)).relu().mean((2, 3)))

    torch.manual_seed(0)
    model = unsettled(TwoNames())
    backbone = tt.Backbone(model, ["norm"], preprocessing=Preprocessing(**SMALL))
    assert not norms(twin_of(backbone))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().conv(backbone.standardise(images))
    for name in ("conv", "features.0"):
        assert torch.allclose(backbone.output_of(name, images), expected, atol=1e-4)


def test_a_folded_convolution_is_not_heard_where_another_layer_is_replaced():
    backbone = small("resnet18").with_taps(["layer2.0.conv1", "layer4"])
    images = torch.rand(2, 3, 64, 64)
    with (
        backbone.replaced("layer4", lambda output: output),
        pytest.raises(tt.TTAMEError, match=r"\['layer2.0.conv1'\] are folded into others"),
    ):
        backbone.features(images)
    assert len(backbone.features(images)[1]) == 2


def test_what_listens_to_a_module_of_the_classifier_hears_it():
    backbone, heard = small("resnet18"), []
    handle = backbone.model.layer1[0].bn1.register_forward_hook(lambda *_: heard.append(1))
    backbone(torch.rand(1, 3, 64, 64))
    handle.remove()
    backbone(torch.rand(1, 3, 64, 64))
    assert heard == [1]


def test_weights_that_change_in_place_and_others_in_their_stead_are_taken_up():
    backbone, images = small("resnet18"), torch.rand(2, 3, 64, 64)
    before = backbone(images)
    with torch.no_grad():
        backbone.model.conv1.weight.mul_(2)
    after = backbone(images)
    assert (after - before).abs().max() > 1e-3
    with torch.no_grad():
        assert torch.allclose(after, backbone.model(backbone.standardise(images)), atol=1e-4)
    backbone.model = unsettled(copy.deepcopy(backbone.model))
    with torch.no_grad():
        expected = backbone.model(backbone.standardise(images))
    assert torch.allclose(backbone(images), expected, atol=1e-4 * expected.abs().max().item())


def assigned(model, state):
    model.load_state_dict(state, assign=True)


def through_data(model, state):
    for name, parameter in model.named_parameters():
        parameter.data = state[name]


def other_modules(model, state):
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    for name, module in other.named_children():
        setattr(model, name, module)


@pytest.mark.happens(
    "Weights",
    "a classifier's weights after its first explanation: `load_state_dict(assign=True)`, `weight.data =`, other modules",
    "what is explained has the new ones",
)
@pytest.mark.parametrize("change", [assigned, through_data, other_modules])
def test_weights_that_others_take_the_place_of_are_not_kept(change, tiny):
    images = torch.rand(2, 3, 16, 16)
    twins = [twin_of(tiny)]
    change(tiny.model, unsettled(copy.deepcopy(tiny.model)).state_dict())
    twins.append(twin_of(tiny))
    found = tiny(images)
    assert twins[0] is not twins[1] is twin_of(tiny)  # made once
    assert (twins[1] is tiny.model) == (change is other_modules)  # whose state may be their own
    assert torch.allclose(found, tiny.with_taps(tiny.taps)(images), rtol=1e-4, atol=1e-5)


def test_no_weights_can_come_to_lie_where_those_of_the_twin_lay(tiny):
    weight = tiny.model.last[0].weight
    memory = weight.numpy().copy()
    weight.data, held = torch.from_numpy(memory), weakref.ref(memory)
    del memory
    twin_of(tiny)
    weight.data = torch.zeros_like(weight)
    assert held() is not None
    twin_of(tiny)  # another, of the zeros
    assert held() is None


class TwoReaders(nn.Module):
    """A convolution that a batch norm reads, and something else too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.conv(x)
        return self.head((self.norm(x) + x).mean((2, 3)))


class RunsTwice(TwoReaders):
    def forward(self, x):
        return self.head((self.norm(self.conv(x)) + self.norm(self.conv(x.flip(3)))).mean((2, 3)))


@pytest.mark.parametrize("kind", [TwoReaders, RunsTwice])
def test_what_cannot_be_folded_is_left(kind):
    torch.manual_seed(0)
    model = unsettled(kind().eval().requires_grad_(False))
    images = torch.rand(2, 3, 16, 16)
    assert bool(batch_norms_behind(model, images)) == (kind is TwoReaders)
    with torch.no_grad():
        assert folded(model, images) == (model, set())


def test_a_classifier_that_is_trained_with_stays_itself():
    backbone = copy.deepcopy(small("resnet18"))
    backbone.frozen = False
    backbone.model.train()
    mean = backbone.model.bn1.running_mean.clone()
    backbone(torch.rand(2, 3, 64, 64))
    assert not torch.equal(backbone.model.bn1.running_mean, mean)


def test_gradients_reach_masks_as_they_do_through_the_classifier_itself():
    backbone = small("resnet18")
    unsettled(backbone.model)
    for name, module in list(backbone.model.named_modules()):
        if isinstance(module, nn.ReLU):  # which rounding may switch, where a value is almost 0
            backbone.model.set_submodule(name, nn.GELU())
    images, masks = torch.rand(2, 3, 64, 64), torch.rand(2, 8, 8, requires_grad=True)
    found = torch.autograd.grad(backbone(images, masks).logsumexp(1).sum(), masks)[0]
    handle = backbone.model.register_forward_hook(lambda *_: None)
    expected = torch.autograd.grad(backbone(images, masks).logsumexp(1).sum(), masks)[0]
    handle.remove()
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("name", ["demo_resnet", "demo_vit"])
def test_bfloat16_gives_maps_in_the_same_order_and_confidences_near_by(name):
    plain = tt.load_backbone(name)
    half = tt.load_backbone(name, precision="bfloat16")
    assert (plain.precision, half.precision) == ("float32", "bfloat16")
    assert next(twin_of(half).parameters()).dtype == torch.bfloat16
    images = torch.stack([image for image in torch.rand(8, 3, 64, 64)])
    images = torch.nn.functional.avg_pool2d(images, 9, 1, 4)
    one, other = (tt.TTAME(b, "scaled", seed=1)(images, torch.arange(8)) for b in (plain, half))
    assert other.maps.dtype == other.confidences.dtype == torch.float32
    orders = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(one.maps, other.maps, strict=True)]
    assert sum(orders) / len(orders) > 0.999
    assert (one.confidences - other.confidences).abs().max() < 0.05
    assert half.same_classifier(plain)


@pytest.mark.parametrize("name", ["demo_resnet", "demo_vit"])
@pytest.mark.slow
def test_bfloat16_gives_means_within_a_tenth_of_their_intervals(name):
    """Or of IC, a count of images, by two of a hundred: processors do not round alike."""
    count, found = 100, []
    images = DataLoader(tb.DigitsInPhotographs("test", count), 50)
    for precision in ("float32", "bfloat16"):
        backbone = tt.load_backbone(name, precision=precision)
        explainer = tt.TTAME(backbone, "scaled", seed=1).eval()
        measures = dict.fromkeys(tt.MASKING, (100, 50, 15))
        scores = tt.evaluate(backbone, {"t-tame": explainer}, images, measures)
        found.append(scores[scores["measure"].isin([*measures])].groupby(["measure", "v"])["value"])
    plain, half = found
    widths = 2 * 1.96 * plain.std() / math.sqrt(count)
    assert (plain.count() == count).all() and len(widths) == 6
    limits = widths / 10
    limits["ic"] = limits["ic"].clip(lower=200 / count)  # which goes by whole images
    assert ((half.mean() - plain.mean()).abs() <= limits).all()


@pytest.mark.parametrize("name", ["demo_resnet", "demo_vit"])
def test_twenty_steps_have_the_losses_of_the_classifier_as_it_is(name):
    images = tb.DigitsInPhotographs("train", 32)
    recipe, losses = tt.Recipe(steps=20, batch_size=8, max_lr=0.001), []  # the released code's rate
    for listened in (False, True):
        backbone = tt.load_backbone(name)
        if listened:  # which keeps the classifier itself at work
            next(iter(backbone.model.modules())).register_forward_hook(lambda *_: None)
        assert (twin_of(backbone) is backbone.model) == listened
        history = tt.train(tt.TTAME(backbone), images, recipe)
        losses.append(torch.tensor([row["total"] for row in history]))
    assert losses[1].max() > 1.05 * losses[1].min()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=0)


def test_a_classifier_runs_as_it_came_where_that_is_asked_for():
    backbone = small("resnet18", "own")
    assert twin_of(backbone) is backbone.model and backbone.precision == "float32"
    assert backbone.with_taps(["layer2"])._fast.precision == "own"
    images = torch.rand(2, 3, 64, 64)
    inputs = backbone._as_inputs(backbone.standardise(images), backbone.model)
    assert torch.equal(backbone(images), backbone.model(inputs))
    assert not torch.equal(small("resnet18")(images), backbone(images))  # whose norms are folded


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(tt.TTAMEError, match="precision 'bf16' is unknown; did you mean 'bfloat16'"):
        tt.Backbone(nn.Identity(), precision="bf16")
    assert small("resnet18", "float32").with_taps(["layer2", "layer4"]).precision == "float32"


def test_a_copy_has_a_twin_of_its_own():
    backbone = small("resnet18")
    other = copy.deepcopy(backbone)
    assert twin_of(other) is not twin_of(backbone)
    assert "_fast" not in "".join(backbone.state_dict()) and isinstance(
        backbone.preprocessing, Preprocessing
    )


def test_what_is_passed_at_once_fits_into_a_gpus_free_memory(monkeypatch):
    gpu = torch.device("cuda")
    for name, value in (("memory_reserved", 3e9), ("memory_allocated", 1e9)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6e9, 80e9))
    assert fitting(gpu, 1e6) == 4000 and fitting(torch.device("cpu"), 1e6) == math.inf
    images = torch.zeros(1, 3, 224, 224)
    assert batch_that_suits(images) == 8
    on_gpu = SimpleNamespace(shape=images.shape, device=gpu)
    assert batch_that_suits(on_gpu) == 62 and batch_that_suits(on_gpu, GRADIENTS) == 15
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6e10, 8e10))
    assert batch_that_suits(on_gpu) == 128
