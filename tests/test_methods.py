"""The compared methods: values worked out by hand, the library's maps, batches, chunks, leaks."""

import gc
import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import AblationCAM, GradCAM, GradCAMPlusPlus, LayerCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchvision.models import VisionTransformer

import ttame_core as tt
from ttame_core.costs import counted_passes
from ttame_core.errors import NotServedError
from ttame_core.masking import minmax, upsample
from ttame_core.methods import CONTROLS
from ttame_core.methods.cams import _Logits, target_layer
from ttame_core.methods.iia import summed_gradients
from ttame_core.methods.rise import smooth_masks, weighted_masks
from ttame_core.zoo import Preprocessing

SMALL = {
    "rise": {"masks": 10, "chunk": 4},
    "integrated-gradients": {"steps": 4},
    "iia": {"steps": 2},
}
CHUNKED = ["score-cam", "ablation-cam", "rise", "iia", "integrated-gradients"]
FOR_VITS = ["transformer-lrp", "attention-rollout"]
BACKBONES = ["demo_vgg", "demo_resnet", "demo_vit"]


def make(name, backbone, **options):
    return tt.method(name, backbone, **{**SMALL.get(name, {}), **options})


def served(backbones):
    return [(b, m) for b in backbones for m in tt.METHODS if "vit" in b or m not in FOR_VITS]


@pytest.fixture(scope="module")
def digits():
    test = tt.DigitsInPhotographs("test", 5)
    return torch.stack([test[i]["image"] for i in range(5)])


@pytest.fixture(scope="module")
def backbones():
    return {name: tt.load_backbone(name) for name in BACKBONES}


@pytest.mark.parametrize(("name", "method"), served(BACKBONES))
def test_batch_equals_loop_and_chunks_do_not_matter(name, method, backbones, digits):
    backbone = backbones[name]
    classes = backbone(digits).argmax(1)
    before = digits.clone()
    together = make(method, backbone)(digits, classes)
    assert together.shape[0] == 5 and together.ndim == 3 and together.device == digits.device
    assert together.min() >= 0 and together.max() <= 1 and torch.isfinite(together).all()
    for i in range(5):
        alone = make(method, backbone)(digits[i : i + 1], classes[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-5), i
    if method in CHUNKED:
        other = make(method, backbone, chunk=7)(digits, classes)
        assert torch.allclose(other, together, atol=1e-5)
    assert torch.equal(digits, before)


@pytest.mark.parametrize("name", ["demo_vgg", "demo_resnet"])
@pytest.mark.parametrize(
    ("method", "library"),
    [
        ("grad-cam", GradCAM),
        ("grad-cam++", GradCAMPlusPlus),
        ("layer-cam", LayerCAM),
        ("score-cam", ScoreCAM),
        ("ablation-cam", AblationCAM),
    ],
)
def test_the_librarys_maps(name, method, library, backbones, digits, monkeypatch):
    half_pixel = lambda size: nn.Upsample(size, mode="bilinear")  # noqa: E731
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", half_pixel)  # as Score-CAM's authors have it
    backbone = backbones[name]
    classes = (backbone(digits).argmax(1) + torch.tensor([0, 0, 0, 0, 1])) % 10
    with library(_Logits(backbone), [target_layer(backbone)]) as cam:
        theirs = torch.as_tensor(
            cam(digits.clone().requires_grad_(), [ClassifierOutputTarget(int(c)) for c in classes])
        )
    ours = upsample(make(method, backbone)(digits, classes), digits.shape[-2:])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.9999


@pytest.mark.parametrize(
    ("method", "library"),
    [("grad-cam", GradCAM), ("grad-cam++", GradCAMPlusPlus), ("layer-cam", LayerCAM)],
)
def test_the_librarys_maps_of_a_vit(method, library, backbones, digits):
    backbone = backbones["demo_vit"]
    classes = backbone(digits).argmax(1)
    with library(_Logits(backbone), [target_layer(backbone)], backbone.grid) as cam:
        theirs = cam(
            digits.clone().requires_grad_(), [ClassifierOutputTarget(int(c)) for c in classes]
        )
    ours = make(method, backbone)(digits, classes)
    assert torch.allclose(ours, torch.as_tensor(theirs), atol=1e-4)


def test_score_cam_of_a_vit_is_the_librarys_on_masked_standardised_images(
    backbones, digits, monkeypatch
):
    """The library masks what it is given: for a ViT's own procedure that is standardised images."""
    half_pixel = lambda size: nn.Upsample(size, mode="bilinear")  # noqa: E731
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", half_pixel)
    backbone = backbones["demo_vit"]
    classes = backbone(digits).argmax(1)
    with ScoreCAM(backbone.model, [target_layer(backbone)], backbone.grid) as cam:
        theirs = torch.as_tensor(
            cam(backbone.standardise(digits), [ClassifierOutputTarget(int(c)) for c in classes])
        )
    ours = upsample(make("score-cam", backbone)(digits, classes), digits.shape[-2:])
    for a, b in zip(ours, theirs, strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.9999


def right_half(images):
    return F.pad(images[..., 8:], (8, 0))


class RightHalf(nn.Module):
    """A CNN to which the left half is black, and all it sees evidence of its first class."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.ReLU(), nn.AvgPool2d(4))
        self.head = nn.Linear(6, 3)
        nn.init.uniform_(self.stem[0].weight, 0, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.5, 1, 0.5, 1, 1, 0.5], [0] * 6, [0] * 6]))

    def forward(self, x):
        return self.head(self.stem(right_half(x)).mean((2, 3)))


class RightHalfViT(VisionTransformer):
    """Likewise a ViT of one block, without norms and MLP: tokens and values are (red, green)."""

    def __init__(self):
        super().__init__(16, 4, 1, 1, 2, 2, num_classes=3, norm_layer=lambda dim: nn.Identity())
        for value in self.parameters():
            nn.init.zeros_(value)
        with torch.no_grad():
            self.conv_proj.weight[0, 0] = self.conv_proj.weight[1, 1] = 1
            attend = self.encoder.layers[0].self_attention
            attend.in_proj_weight[4:] = attend.out_proj.weight[:] = torch.eye(2)
            self.heads.head.weight[0] = torch.tensor([0.1, 0.2])

    def forward(self, x):
        return super().forward(right_half(x))


def looking_right(kind):
    small = Preprocessing(16, 16, mean=(0, 0, 0), std=(1, 1, 1))
    taps = ["stem"] if kind is RightHalf else ["encoder.layers.encoder_layer_0"]
    return tt.Backbone(kind(), taps, name="right", preprocessing=small)


@pytest.mark.parametrize("kind", [RightHalf, RightHalfViT])
@pytest.mark.parametrize(
    "method", [m for m in tt.METHODS if m not in (*CONTROLS, "attention-rollout")]
)
def test_every_method_prefers_the_half_the_model_looks_at(kind, method):
    backbone = looking_right(kind)
    if kind is RightHalf and method in FOR_VITS:
        with pytest.raises(NotServedError, match="right is no ViT"):
            make(method, backbone)
        return
    images = torch.rand(4, 3, 16, 16)
    options = {"masks": 4000} if method == "rise" else {}
    maps = upsample(make(method, backbone, **options)(images, backbone(images).argmax(1)), (16, 16))
    left, right = maps[..., :8].sum((1, 2)), maps[..., 8:].sum((1, 2))
    assert (right > left).all()


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


class Linear(nn.Module):
    """Logits that are linear in the image; its tap is the image itself."""

    def __init__(self, weight):
        super().__init__()
        self.tap = nn.Identity()
        self.weight = nn.Parameter(weight)  # (K, 3, H, W)

    def forward(self, x):
        return torch.einsum("kchw,bchw->bk", self.weight, self.tap(x))


def linear(weight):
    size = weight.shape[-1]
    plain = Preprocessing(size, size, mean=(0, 0, 0), std=(1, 1, 1))
    return tt.Backbone(Linear(weight), ["tap"], preprocessing=plain)


def test_integrated_gradients_of_a_linear_model_is_weight_times_image():
    weight, images = torch.randn(2, 3, 6, 6), torch.rand(2, 3, 6, 6)
    maps = tt.method("integrated-gradients", linear(weight))(images, torch.tensor([0, 1]))
    assert torch.allclose(maps, minmax((weight * images).sum(1).relu()), atol=1e-5)


def test_score_cam_of_a_linear_model():
    weight, image = torch.randn(2, 3, 6, 6), torch.rand(3, 6, 6)
    scores = [(weight[1] * image * minmax(image[c])).sum() for c in range(3)]
    expected = torch.einsum("c,chw->hw", torch.stack(scores).softmax(0), image)
    maps = tt.method("score-cam", linear(weight))(image[None], torch.tensor([1]))
    assert torch.allclose(maps[0], minmax(expected), atol=1e-5)


def test_constant_channels_share_one_forward_of_score_cam():
    weight, image = 0.1 * torch.rand(2, 3, 6, 6), torch.rand(3, 6, 6)
    image[0], image[2] = -0.5, -0.1  # below zero, or a constant would not show in a scaled map
    backbone = linear(weight)
    scores = [(weight[1] * image * minmax(image[c])).sum() for c in range(3)]
    expected = torch.einsum("c,chw->hw", torch.stack(scores).softmax(0), image)
    with counted_passes(backbone.model) as passes:
        maps = tt.method("score-cam", backbone, chunk=1)(image[None], torch.tensor([1]))
    assert torch.allclose(maps[0], minmax(expected.relu()), atol=1e-5)
    assert passes.forwards == 1 + 2  # for the maps, the one that varies, and both constant ones


class Share(nn.Module):
    """Two classes whose softmax scores are s and 1 - s, s linear in the image."""

    def __init__(self, weight):
        super().__init__()
        self.tap = nn.Identity()
        self.weight = nn.Parameter(weight)  # (3, H, W)

    def forward(self, x):
        s = (self.tap(x) * self.weight).sum((1, 2, 3))
        return torch.stack([s, 1 - s], 1).log()


def all_grids():
    return torch.tensor(list(itertools.product([0.0, 1], repeat=4))).view(16, 2, 2)


def test_rise_on_all_grids_is_its_definition():
    size, weight = 8, torch.rand(3, 8, 8) / 200
    plain = Preprocessing(size, size, mean=(0, 0, 0), std=(1, 1, 1))
    backbone = tt.Backbone(Share(weight), ["tap"], preprocessing=plain)
    images, shifts = torch.rand(2, 3, size, size), torch.rand(16, 2)
    expected = torch.zeros(2, size, size)
    masks = []
    for grid, (down, right) in zip(all_grids(), shifts, strict=True):
        large = F.interpolate(grid[None, None], (12, 12), mode="bilinear")[0, 0]  # three cells of 4
        y, x = int(4 * down), int(4 * right)
        masks.append(large[y : y + size, x : x + size])
        expected += (images * masks[-1] * weight).sum((1, 2, 3))[:, None, None] * masks[-1]
    found = weighted_masks(backbone, images, torch.zeros(2).long(), all_grids(), shifts, 0.5, 5)
    assert torch.allclose(found, expected / (16 * 0.5), atol=1e-5)
    made = torch.cat(list(smooth_masks(all_grids(), shifts, (size, size), 5)))
    assert torch.allclose(made, torch.stack(masks))


def test_rise_of_a_linear_score_is_the_masks_covariance_applied_to_it():
    size, weight = 8, torch.rand(3, 8, 8) / 200
    plain = Preprocessing(size, size, mean=(0, 0, 0), std=(1, 1, 1))
    backbone = tt.Backbone(Share(weight), ["tap"], preprocessing=plain)
    image, shifts = torch.rand(1, 3, size, size), torch.zeros(16, 2)
    masks = torch.cat(list(smooth_masks(all_grids(), shifts, (size, size), 16))).flatten(1)
    second_moment = masks.T @ masks / 16  # E[m m'], (HW, HW)
    expected = second_moment @ (image[0] * weight).sum(0).flatten() / 0.5
    found = weighted_masks(backbone, image, torch.zeros(1).long(), all_grids(), shifts, 0.5)
    assert torch.allclose(found.flatten(), expected, atol=1e-5)


def test_the_masks_of_rise_show_a_share_p_and_are_shifted(monkeypatch):
    seen = {}

    def keep(backbone, images, classes, grids, shifts, p, *rest):
        seen.update(grids=grids, shifts=shifts, p=p)
        return torch.rand(1, 4, 4)

    module = sys.modules["ttame_core.methods.rise"]  # the function has the same name
    monkeypatch.setattr(module, "weighted_masks", keep)
    explain = tt.method("rise", None, masks=2000, cells=5, p=0.3)
    explain(torch.rand(1, 3, 4, 4), torch.tensor([0]))
    assert seen["grids"].shape == (2000, 5, 5) and seen["p"] == 0.3
    assert seen["grids"].mean() == pytest.approx(0.3, abs=0.01)
    assert seen["shifts"].mean() == pytest.approx(0.5, abs=0.02)
    assert seen["shifts"].std() == pytest.approx(12**-0.5, abs=0.01)


def test_rise_is_its_seed():
    backbone = tt.load_backbone("demo_vit", None)
    image, c = torch.rand(1, 3, 64, 64), torch.zeros(1).long()
    maps = [tt.method("rise", backbone, masks=6, seed=s)(image, c) for s in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1]) and not torch.equal(maps[0], maps[2])


class Quadratic(Linear):
    """Logits whose gradient with respect to the last map, weight x (1 + map), depends on the map."""

    def forward(self, x):
        maps = self.tap(x)
        return torch.einsum("kchw,bchw->bk", self.weight, maps + maps**2 / 2)


@pytest.fixture
def quadratic():
    plain = Preprocessing(4, 4, mean=(0, 0, 0), std=(1, 1, 1))
    return tt.Backbone(Quadratic(torch.randn(2, 3, 4, 4)), ["tap"], preprocessing=plain).double()


def test_gradients_are_taken_and_weighed_at_each_step_from_the_minimum(quadratic):
    maps = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    scales = torch.tensor([0, 0.25, 1], dtype=torch.float64)
    low = maps.amin((2, 3), keepdim=True)
    rise = maps - low
    # sum over s of weight x (1 + low + s rise) x s rise
    expected = quadratic.model.weight[[1, 0]] * rise * (1.25 * (1 + low) + 1.0625 * rise)
    found = summed_gradients(quadratic, quadratic.model.tap, maps, torch.tensor([1, 0]), scales)
    assert torch.allclose(found, expected.sum(1), rtol=1e-10, atol=1e-10)


def test_iia_of_a_cnn_by_hand(quadratic):
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    low = image.amin((2, 3), keepdim=True)
    rise = image - low
    expected = torch.zeros(1, 4, 4)
    for i, j in itertools.product(range(11), range(11)):
        step = i / 10 * j / 10 * rise
        expected = expected + (quadratic.model.weight[1] * (1 + i / 10 * low + step) * step).sum(1)
    found = tt.method("iia", quadratic)(image, torch.tensor([1]))
    assert torch.allclose(found, minmax(expected), atol=1e-6)  # tenths are in single precision


def test_iia_says_when_a_connection_goes_round_the_last_tap():
    class Round(nn.Module):
        def __init__(self):
            super().__init__()
            self.tap = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return (self.tap(x) + x).mean((2, 3))

    small = Preprocessing(4, 4)
    backbone = tt.Backbone(Round(), ["tap"], name="round", preprocessing=small)
    with pytest.raises(NotServedError, match="goes round the last tap of round"):
        tt.method("iia", backbone)(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))


@pytest.fixture
def only_new_objects():
    """Let the garbage collector list, and search, only what the test itself makes: far faster."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(("kind", "method"), served(["cnn", "vit"]))
def test_nothing_is_left_behind(kind, method, tiny, only_new_objects):
    backbone = tiny if kind == "cnn" else looking_right(RightHalfViT)
    explain = make(method, backbone, **({"masks": 2} if method == "rise" else {}))
    image, c = torch.rand(1, 3, 16, 16), torch.tensor([0])
    live = []
    for repeats in (5, 195):
        for _ in range(repeats):
            explain(image, c)
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        live.append((len(tensors), sum(t.untyped_storage().nbytes() for t in tensors)))
        del tensors
    assert live[1][0] <= live[0][0] and live[1][1] <= live[0][1]  # objects, bytes
    modules = list(backbone.modules())
    hooks = [
        h for m in modules for h in (*m._forward_hooks, *m._forward_pre_hooks, *m._backward_hooks)
    ]
    assert not hooks and not any("forward" in m.__dict__ for m in modules)
    assert not any(p.requires_grad or p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "method", "forwards", "backwards"),
    [
        ("demo_resnet", "grad-cam", 1, 1),
        ("demo_resnet", "rise", 10, 0),
        ("demo_resnet", "score-cam", 81, 0),  # the image, and once a channel
        ("demo_resnet", "ablation-cam", 2, 0),  # the rest is behind the last map
        ("demo_resnet", "iia", 3, 9),
        ("demo_vit", "transformer-lrp", 1, 1),
        ("demo_vit", "iia", 9, 9),
        ("demo_vit", "attention-rollout", 1, 0),
        ("demo_resnet", "all-ones", 0, 0),
    ],
)
def test_passes_are_counted(name, method, forwards, backwards, backbones, digits):
    backbone = backbones[name]
    classes = backbone(digits[:2]).argmax(1)
    with counted_passes(backbone.model) as passes:
        make(method, backbone)(digits[:2], classes)
    assert (passes.forwards, passes.backwards) == (2 * forwards, 2 * backwards)


def test_costs_in_bare_forwards(backbones, digits):
    backbone = backbones["demo_resnet"]
    methods = {"t-tame": tt.TTAME(backbone).explain}
    methods |= {m: make(m, backbone) for m in ("grad-cam", "rise", "integrated-gradients")}
    costs = tt.explanation_costs(backbone, methods, digits[:1], torch.tensor([3]), repeats=1)
    costs = costs.set_index("method")
    assert costs.loc["t-tame", "equivalents"] == pytest.approx(1, abs=0.05)
    assert costs.loc["grad-cam", "equivalents"] == pytest.approx(1, abs=0.01)
    assert costs.loc["rise", "equivalents"] == pytest.approx(10, abs=0.01)
    assert costs.loc["integrated-gradients", "equivalents"] > 4 * 1.9  # with their backwards
    assert (costs["milliseconds"] > 0).all() and (costs["megabytes"] > 0).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rise", {"masks": 0}, "masks 0"),
        ("rise", {"mask": 5}, "'rise' cannot be made with"),
        ("gradcam", {}, "did you mean 'grad-cam'"),
        ("lcam-img", {}, "did you mean 'l-cam-img'"),
    ],
)
def test_methods_that_cannot_be(name, options, message, backbones):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.method(name, backbones["demo_vit"], **options)
