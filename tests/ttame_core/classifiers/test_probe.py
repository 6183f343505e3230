"""What a classifier must be, and that its owner's is left as it is."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import ttame_core as tt
from ttame_core.classifiers.probe import fingerprint
from ttame_core.metrics.measures import MASKING


@pytest.fixture(scope="module")
def demo():
    return tt.load_backbone("demo_resnet")


class Wrapped(nn.Module):
    """A classifier whose images and logits are changed on their way."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = copy.deepcopy(model), change

    def forward(self, x):
        return self.change(self.model, x)


def wrapped(demo, change, **options):
    taps = ["model." + tap for tap in demo.taps]
    return tt.Backbone(
        Wrapped(demo.model, change), taps, preprocessing=demo.preprocessing, **options
    )


REFUSED = {
    "no_grad": (lambda m, x: torch.no_grad()(m)(x), "no gradient .* reaches"),
    "detached images": (lambda m, x: m(x.detach()), "no gradient .* reaches"),
    "detached logits": (lambda m, x: m(x).detach(), "no gradient .* reaches"),
    "rounded through numpy": (lambda m, x: torch.from_numpy(m(x).detach().numpy()), "no gradient"),
    "rounded images": (lambda m, x: m((x * 2).round() / 2), "no gradient .* reaches"),
    "images cut off to steps": (lambda m, x: m((x * 40).floor() / 40), "no gradient .* reaches"),
    "gradients of 0": (lambda m, x: m(x).detach() + 0 * m(x), "no gradient .* reaches"),
    "softmax in per cent": (lambda m, x: 100 * m(x).softmax(1), "returns probabilities"),
    "softmax of some classes": (lambda m, x: m(x).softmax(1)[:, :6], "returns probabilities"),
    "softmax, raised": (lambda m, x: m(x).softmax(1) + 0.01, "returns probabilities"),
    "sigmoid, clamped": (lambda m, x: m(x).sigmoid().clamp(1e-6, 1), "returns probabilities"),
    "sigmoid, by hand": (lambda m, x: 1 / (1 + (-m(x)).exp()), "returns probabilities"),
    "hard sigmoid": (lambda m, x: nn.functional.hardsigmoid(m(x)), "returns probabilities"),
    "dropout that stays on": (lambda m, x: m(nn.functional.dropout(x, 0.5)), "at another call"),
    "the batch's mean taken away": (lambda m, x: m(x) - m(x).mean(0), "in another batch"),
    "softmax": (lambda m, x: m(x).softmax(1), "returns probabilities"),
    "softmax, reshaped": (lambda m, x: m(x).softmax(1)[:, None].squeeze(1) * 1, "returns prob"),
    "sigmoid": (lambda m, x: m(x).sigmoid(), "returns probabilities"),
    "sigmoid, reshaped": (lambda m, x: m(x).sigmoid().view(-1, 10), "returns probabilities"),
    "one logit": (lambda m, x: m(x)[:, :1], "single logit.*torch.cat"),
    "no class dimension": (lambda m, x: m(x)[:, 0], r"returns \(2,\)"),
    "a map of logits": (lambda m, x: m(x)[:, :, None, None], r"returns \(2, 10, 1, 1\)"),
    "one row for the batch": (lambda m, x: m(x)[:1], r"returns \(1, 10\)"),
    "whole numbers": (lambda m, x: m(x).round().long(), "int64 for 2 images"),
    "a dict without logits": (lambda m, x: {"out": m(x)}, "a dict with .'out'."),
    "nothing": (lambda m, x: None, "returns a NoneType"),
    "not a number": (lambda m, x: m(x) * float("nan"), "not finite"),
    "infinite": (lambda m, x: m(x) / 0, "not finite"),
    "one channel": (lambda m, x: m(x[:, :1]), "cannot classify images .2, 3, 64, 64."),
    "another size": (lambda m, x: m(x.view(-1, 3, 32, 32)[:1, :, :, :5]), "cannot|returns"),
    "raises": (lambda m, x: 1 / 0, "ZeroDivisionError"),
}


@pytest.mark.happens("Classifiers", "its forward gives or does: {name}", "refused: “{words}”")
@pytest.mark.parametrize(
    ("name", "change", "words"), [(name, *case) for name, case in REFUSED.items()]
)
def test_what_cannot_be_explained_is_refused_where_it_is_wrapped(demo, name, change, words):
    with pytest.raises(tt.TTAMEError, match=words):
        wrapped(demo, change)


@pytest.mark.happens("Classifiers", "its forward gives {name}", "explained")
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("logits", lambda m, x: m(x)),
        ("logarithms of probabilities", lambda m, x: m(x).log_softmax(1)),
        ("a dict with logits", lambda m, x: {"logits": m(x), "loss": None}),
        ("a tuple that starts with logits", lambda m, x: (m(x), None)),
        ("logits in double precision", lambda m, x: m(x).double()),
        ("0 and a single logit", lambda m, x: torch.cat([torch.zeros(len(x), 1), m(x)[:, :1]], 1)),
    ],
)
def test_what_holds_logits_in_another_way_is_explained(demo, name, change):
    images = torch.rand(2, 3, 64, 64)
    backbone = wrapped(demo, change)
    assert backbone(images).dtype == torch.float32
    maps = tt.TTAME(backbone).explain(images)
    assert maps.shape == (2, 32, 32) and (maps.amax((1, 2)) == 1).all()


@pytest.mark.happens(
    "Classifiers", "it has no head: its features would be taken for classes", "refused"
)
def test_a_head_that_is_not_there_is_told_from_one_that_is(demo):
    model = copy.deepcopy(demo.model)
    model.fc = nn.Identity()
    with pytest.raises(tt.TTAMEError, match=r"has no head: .* features"):
        tt.Backbone(model, demo.taps, preprocessing=demo.preprocessing)
    with pytest.raises(tt.TTAMEError, match="has no head"):
        tt.load_backbone("timm/resnet10t", None, num_classes=0)
    model.fc = nn.Dropout()
    vit = tt.load_backbone("demo_vit")
    no_head = copy.deepcopy(vit.model)
    no_head.heads = nn.Identity()
    for headless, taps in (
        (model, demo.taps),
        (nn.Sequential(model), ["0." + tap for tap in demo.taps]),
        (nn.Sequential(*[*model.children()][:-1], nn.Flatten()), ["4", "5", "6"]),
        (no_head, vit.taps),
    ):
        with pytest.raises(tt.TTAMEError, match="has no head"):
            tt.Backbone(headless, taps, preprocessing=demo.preprocessing)


class Counts(nn.Module):
    """A classifier that counts its calls in a buffer."""

    def __init__(self, model):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.model(x)


class Hides(nn.Module):
    """A classifier with a batch norm that is registered nowhere."""

    def __init__(self, model):
        super().__init__()
        self.model, self.hidden = copy.deepcopy(model), [nn.BatchNorm2d(3)]

    def forward(self, x):
        return self.model(self.hidden[0](x))


@pytest.mark.happens("Classifiers", "its buffers change in evaluation mode", "refused, put back")
def test_a_classifier_that_changes_itself_is_refused_and_left_as_it_was(demo):
    model = Counts(demo.model)
    with pytest.raises(tt.TTAMEError, match=r"the buffers \['calls'\] of .* change"):
        tt.Backbone(model, ["model.layer2"], preprocessing=demo.preprocessing)
    assert model.calls == 0


@pytest.mark.happens(
    "Classifiers",
    "a batch norm in a plain list, or without running statistics",
    "refused: an image's logits would hang on its batch",
)
def test_a_batch_norm_that_reads_the_batch_is_refused(demo):
    with pytest.raises(tt.TTAMEError, match="other logits in another batch"):
        tt.Backbone(Hides(demo.model), ["model.layer2"], preprocessing=demo.preprocessing)
    model = copy.deepcopy(demo.model)
    model.bn1 = nn.BatchNorm2d(model.conv1.out_channels, track_running_stats=False)
    with pytest.raises(tt.TTAMEError, match="other logits in another batch"):
        tt.Backbone(model, demo.taps, preprocessing=demo.preprocessing)


@pytest.mark.happens("Classifiers", "a forward was put on one of its modules", "refused")
def test_a_forward_that_leads_back_to_the_owners_modules_is_refused(demo):
    model = copy.deepcopy(demo.model)
    before = model.layer1.forward
    model.layer1.forward = lambda x: before(x)
    with pytest.raises(tt.TTAMEError, match="a forward was put on 'layer1'"):
        tt.Backbone(model, demo.taps, preprocessing=demo.preprocessing)


@pytest.mark.happens("Classifiers", "it is a Backbone already", "refused: see with_taps")
def test_a_backbone_is_not_wrapped_again(demo):
    with pytest.raises(tt.TTAMEError, match="is a Backbone already"):
        tt.Backbone(demo, ["model.layer2"], preprocessing=demo.preprocessing)


@pytest.mark.happens(
    "Images and classes", "a backbone is given images of 0-255, standardised or grey", "refused"
)
def test_a_backbone_looks_at_its_images(demo):
    images = torch.rand(2, 3, 64, 64)
    for bad, words in (
        (images * 255, "range from .* to 25"),
        (demo.standardise(images), "range from -"),
        ((images * 255).byte(), "uint8"),
        (images[:, :1], r"\(2, 1, 64, 64\)"),
        (images[0], r"\(3, 64, 64\)"),
    ):
        for door in (demo, demo.features):
            with pytest.raises(tt.TTAMEError, match=words):
                door(bad)


@pytest.mark.happens("Classifiers", "a weight is NaN", "refused, and the tensor named")
def test_weights_that_are_no_numbers_are_named(demo):
    model = copy.deepcopy(demo.model)
    with torch.no_grad():
        model.layer3[0].conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(tt.TTAMEError, match=r"not finite: \['layer3.0.conv1.weight'\]"):
        tt.Backbone(model, demo.taps, preprocessing=demo.preprocessing)


@pytest.mark.happens(
    "Classifiers", "it is scripted, traced, or no module", "refused: give the module before that"
)
def test_what_has_no_layers_to_tap_is_refused(demo):
    scripted = torch.jit.trace(copy.deepcopy(demo.model), torch.rand(1, 3, 64, 64))
    for model in (scripted, torch.sin):
        with pytest.raises(tt.TTAMEError, match="cannot be tapped"):
            tt.Backbone(model, demo.taps)


@pytest.mark.happens("Classifiers", "it takes greyscale images", "refused, and the channels told")
def test_greyscale_classifiers_are_told_by_their_first_layer():
    with pytest.raises(tt.TTAMEError, match="takes 1 channels"):
        tt.load_backbone("timm/resnet10t", None, in_chans=1)


@pytest.mark.happens("Layers", "the logits do not depend on a tap", "refused, and the tap named")
def test_a_tap_that_the_logits_do_not_depend_on_is_refused(demo):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.aside = copy.deepcopy(demo.model), nn.Conv2d(3, 4, 3)

        def forward(self, x):
            self.aside(x)
            return self.model(x)

    with pytest.raises(tt.TTAMEError, match="reaches the tap 'aside'"):
        tt.Backbone(Aside(), ["model.layer3", "aside"], preprocessing=demo.preprocessing)


@pytest.mark.happens("Classifiers", "it is of {dtype}", "it runs so; maps and scores are float32")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.slow
def test_other_precisions_run(demo, dtype):
    images = torch.rand(2, 3, 64, 64)
    model = copy.deepcopy(demo.model).to(dtype)
    backbone = tt.Backbone(model, demo.taps, preprocessing=demo.preprocessing)
    assert torch.allclose(backbone(images), demo(images), atol=0.2)
    explainer = tt.TTAME(backbone)
    assert explainer(images).maps.dtype == torch.float32
    classes = demo(images).argmax(1)
    for name in ("grad-cam", "score-cam", "ablation-cam", "rise", "iia"):
        options = {"masks": 4} if name == "rise" else {}
        maps = tt.method(name, backbone, **options)(images, classes)
        assert maps.dtype == torch.float32 and 0 <= maps.min() <= maps.max() <= 1, name
    items = [{"image": image} for image in images]
    tt.train(explainer, items, tt.Recipe(steps=1, batch_size=2))
    assert explainer.identity() == tt.TTAME(backbone).identity()


@pytest.mark.happens(
    "Classifiers",
    "it is compiled, or wrapped in DataParallel",
    "the module inside is explained; taps go by either name",
)
def test_wrapped_and_compiled_classifiers_are_the_classifier_inside(demo):
    images = torch.rand(2, 3, 64, 64)
    plain = demo(images)
    for model, prefix in (
        (nn.DataParallel(copy.deepcopy(demo.model)), "module."),
        (torch.compile(copy.deepcopy(demo.model)), "_orig_mod."),
    ):
        for start in ("", prefix):
            taps = [start + tap for tap in demo.taps]
            backbone = tt.Backbone(model, taps, preprocessing=demo.preprocessing)
            assert backbone.taps == demo.taps and torch.equal(backbone(images), plain)
            assert fingerprint(backbone.model) == fingerprint(demo.model)


OPTIONS = {"rise": {"masks": 20}, "integrated-gradients": {"steps": 3}, "iia": {"steps": 2}}


def every_method(backbone):
    """All that explains a backbone, and can serve it."""
    explainer = tt.TTAME(backbone)
    found = {"t-tame": lambda images, classes: explainer(images, classes).maps}
    for name in tt.METHODS:
        try:
            found[name] = tt.method(name, backbone, **OPTIONS.get(name, {}))
        except tt.TTAMEError:
            continue
    return found


def of_owner(model):
    """What an owner may notice: modes, flags, statistics, hooks, weights."""
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    strides = [p.stride() for p in model.parameters()]
    gradients = [p.grad is None for p in model.parameters()]
    return modes, flags, hooks, strides, gradients, fingerprint(model)


@pytest.mark.happens(
    "Classifiers",
    "its owner calls train() before or after wrapping ({name})",
    "the same maps; his modes, flags, statistics and hooks stay as they are",
)
@pytest.mark.parametrize("name", ["demo_resnet", "demo_vit"])
@pytest.mark.slow
def test_the_owners_model_is_after_any_call_what_it_was_and_its_mode_changes_no_map(name):
    twin = tt.load_backbone(name)
    options = {"preprocessing": twin.preprocessing, "name": name}
    images = torch.rand(2, 3, 64, 64)
    owned = copy.deepcopy(twin.model).requires_grad_(True)
    for p in list(owned.parameters())[::3]:
        p.requires_grad_(False)
    maps = {}
    for mode in (False, True):
        owned.train(mode)
        before = of_owner(owned)
        backbone = tt.Backbone(owned, twin.taps, **options)
        assert of_owner(owned) == before
        classes = backbone(images).argmax(1)
        for method, explain in every_method(backbone).items():
            for call, change in enumerate((lambda: None, owned.train, backbone.model.train)):
                change()
                before = of_owner(owned)
                found = explain(images, classes)
                assert of_owner(owned) == before, method
                assert torch.equal(found, maps.setdefault(method, found)), (method, call)
        explainer = tt.TTAME(backbone)
        tt.train(explainer, [{"image": i} for i in images], tt.Recipe(steps=1, batch_size=2))
        loader = [{"image": images, "id": ["a", "b"]}]
        tt.evaluate(backbone, {"t-tame": explainer}, loader, MASKING)
        assert of_owner(owned) == before


@pytest.mark.happens(
    "Classifiers",
    "its owner trains it on after wrapping",
    "the weights are shared: it is explained as it is then",
)
def test_what_an_optimiser_does_to_the_weights_is_explained(demo):
    owned = copy.deepcopy(demo.model).requires_grad_(True)
    backbone = tt.Backbone(owned, demo.taps, preprocessing=demo.preprocessing)
    images = torch.rand(2, 3, 64, 64)
    before = backbone(images)
    optimiser = torch.optim.SGD(owned.parameters(), 0.1)
    owned.eval()(backbone.standardise(images)).sum().backward()
    optimiser.step()
    with torch.no_grad():
        assert torch.allclose(backbone(images), owned(backbone.standardise(images)), atol=1e-5)
    assert not torch.allclose(backbone(images), before)


@pytest.mark.happens(
    "Classifiers",
    "eight threads explain by every method at once ({name})",
    "they take turns: the maps of one thread",
)
@pytest.mark.parametrize("name", ["demo_resnet", "demo_vit"])
@pytest.mark.slow
def test_eight_threads_on_one_backbone_give_the_maps_of_one(name):
    backbone = tt.load_backbone(name)
    images = torch.rand(16, 3, 64, 64)
    methods = every_method(backbone)
    jobs = [(method, i) for i in range(len(images)) for method in methods]
    classes = backbone(images).argmax(1)

    def explain(job):
        method, i = job
        return methods[method](images[i : i + 1], classes[i : i + 1])

    jobs = [job for job in jobs if job[1] < 4 or job[0] in ("t-tame", "grad-cam")]
    alone = [explain(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(explain, jobs))
    for job, one, other in zip(jobs, alone, together, strict=True):
        assert torch.equal(one, other), job


@pytest.mark.happens(
    "Classifiers", "a thread classifies while another ablates channels", "each sees its own"
)
def test_a_thread_that_only_classifies_sees_no_other_threads_hooks(demo):
    images = torch.rand(2, 3, 64, 64)
    expected, wrong, stop = demo(images), [], threading.Event()

    def classify():
        while not stop.is_set():
            if not torch.equal(demo(images), expected):
                wrong.append(1)

    other = threading.Thread(target=classify)
    other.start()
    try:
        for _ in range(5):
            tt.method("ablation-cam", demo, chunk=8)(images[:1], torch.tensor([0]))
    finally:
        stop.set()
        other.join()
    assert not wrong


@pytest.mark.happens("Classifiers", "all is made and called under {mode.__name__}", "the same maps")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_every_mode_of_the_callers_gives_the_same_maps(demo, mode):
    images = torch.rand(1, 3, 64, 64)
    expected = {m: f(images, torch.tensor([3])) for m, f in every_method(demo).items()}
    with mode():
        backbone = tt.Backbone(demo.model, demo.taps, preprocessing=demo.preprocessing)
        made = every_method(backbone)
        for method, maps in expected.items():
            found = made[method](images.clone(), torch.tensor([3]))
            assert torch.allclose(found, maps, atol=1e-6), method


@pytest.mark.happens(
    "Classifiers",
    "it is explained under autocast to bfloat16",
    "maps in float32; confidences as near as that precision is",
)
def test_autocast_explains_in_float32(demo):
    images = torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tt.TTAME(demo)(images)
        maps = tt.method("grad-cam", demo)(images, found.classes)
    assert found.maps.dtype == maps.dtype == torch.float32
    assert (found.confidences - demo(images).softmax(1).amax(1)).abs().max() < 0.05
