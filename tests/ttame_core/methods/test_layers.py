"""Layers of every kind: called several times, in tuples, of tokens first or last, of any size."""

import copy

import pytest
import torch
import torchvision
from torch import nn

import ttame_core as tt
from ttame_core.classifiers.hooks import replaced_output, rewrap, unwrap_features
from ttame_core.classifiers.taps import to_grid
from ttame_core.errors import NotServedError
from ttame_core.methods.cams import target_layer


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=6).eval()


SMALL = tt.Preprocessing(image_size=64, resize=64)
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([1, 4])


@pytest.mark.happens(
    "Layers",
    "a tapped module runs twice in a forward pass ({name})",
    "its last call counts, for maps and gradients alike",
)
@pytest.mark.parametrize("name", ["grad-cam", "grad-cam++", "layer-cam", "ablation-cam", "iia"])
@pytest.mark.slow
def test_of_a_module_that_runs_twice_the_last_call_is_explained(resnet, name):
    # a basic block ends with the second call of its ReLU, whose output is the block's
    found = {}
    for last in ("layer4", "layer4.1", "layer4.1.relu"):
        backbone = tt.Backbone(resnet, ["layer2", "layer3", last], preprocessing=SMALL)
        assert backbone.calls[last] == (2 if last.endswith("relu") else 1)
        options = {"steps": 2} if name == "iia" else {}
        found[last] = tt.method(name, backbone, **options)(IMAGES, CLASSES)
        features = backbone.features(IMAGES)[1][-1]
        assert torch.equal(features, backbone.output_of("layer4", IMAGES))
    assert torch.allclose(found["layer4"], found["layer4.1.relu"], atol=1e-6)
    assert torch.allclose(found["layer4"], found["layer4.1"], atol=1e-6)


class Shared(nn.Module):
    """A CNN with one pooling layer for all its stages."""

    def __init__(self):
        super().__init__()
        self.pool, self.act = nn.MaxPool2d(2), nn.ReLU()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.conv3, self.fc = nn.Conv2d(12, 16, 3, padding=1), nn.Linear(16, 5)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = self.pool(self.act(conv(x)))
        return self.fc(x.mean((2, 3)))


@pytest.mark.happens(
    "Layers",
    "taps are given deepest first, or are one shared pool",
    "put in the order in which they last run",
)
def test_taps_come_in_the_order_in_which_they_last_run(resnet):
    straight = tt.Backbone(resnet, ["layer2", "layer3", "layer4"], preprocessing=SMALL)
    turned = tt.Backbone(resnet, ["layer4", "layer2", "layer3"], preprocessing=SMALL)
    assert turned.taps == straight.taps and turned.shapes == straight.shapes
    maps = [tt.method("grad-cam", each)(IMAGES, CLASSES) for each in (straight, turned)]
    assert torch.equal(*maps)
    shared = tt.Backbone(Shared(), preprocessing=SMALL)
    sides = [shape[1] for shape in shared.shapes]
    assert sides == sorted(sides, reverse=True) and shared.taps[-1] == "pool"
    assert shared.shapes[-1] == (16, 8, 8)


@pytest.mark.happens("Layers", "a layer has two names", "either will do; named twice it is refused")
def test_a_layer_by_another_of_its_names_and_one_named_twice(resnet):
    model = copy.deepcopy(resnet)
    model.also = model.layer4
    backbone = tt.Backbone(model, ["layer3", "also"], preprocessing=SMALL)
    expected = tt.Backbone(resnet, ["layer3", "layer4"], preprocessing=SMALL)
    maps = [tt.method("grad-cam", each)(IMAGES, CLASSES) for each in (backbone, expected)]
    assert torch.equal(*maps)
    with pytest.raises(tt.TTAMEError, match="name each layer once"):
        tt.Backbone(resnet, ["layer3", "layer3"], preprocessing=SMALL)


class Tupled(nn.Module):
    """Gives what another module gives, among other things."""

    def __init__(self, inner, kind):
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, x):
        return self.kind(self.inner(x))


class Last(nn.Module):
    def __init__(self, stages, take, head):
        super().__init__()
        self.stages, self.take, self.head = stages, take, head

    def forward(self, x):
        for stage in self.stages:
            x = self.take(stage(x))
        return self.head(x.mean((2, 3)))


KINDS = {
    "tuple": (lambda x: (x, x.sum()), lambda out: out[0]),
    "list": (lambda x: [x], lambda out: out[0]),
    "tuple in a tuple": (lambda x: ((x, 1), 2), lambda out: out[0][0]),
    "object": (lambda x: Output(x), lambda out: out.last_hidden_state),
}


class Output:
    def __init__(self, tensor):
        self.last_hidden_state = tensor


@pytest.mark.happens(
    "Layers", "a tap gives its tensor in: {kind}", "unwrapped for maps, put back where it is edited"
)
@pytest.mark.parametrize("kind", KINDS)
def test_taps_that_give_more_than_a_tensor_are_explained_as_the_tensor(kind):
    torch.manual_seed(0)
    wrap, take = KINDS[kind]
    convolutions = [nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 8), (8, 8), (8, 12))]
    head = nn.Linear(12, 6)
    plain = Last(nn.ModuleList(convolutions), lambda x: x, head)
    other = Last(nn.ModuleList(Tupled(c, wrap) for c in convolutions), take, head)
    taps = ["stages.0", "stages.1", "stages.2"]
    both = [tt.Backbone(model, taps, preprocessing=SMALL) for model in (plain, other)]
    for name in ("grad-cam", "score-cam", "ablation-cam", "iia"):
        maps = [tt.method(name, backbone)(IMAGES, CLASSES) for backbone in both]
        assert torch.allclose(*maps, atol=1e-6), name
    assert torch.equal(*[tt.TTAME(backbone).explain(IMAGES) for backbone in both])


def test_a_tensor_goes_back_to_where_it_came_from():
    x, y = torch.zeros(2), torch.ones(2)
    for output in (x, (x, 1), [x, 2], ((x, 1), 2), Output(x), Output((x, 3))):
        changed = rewrap(output, y)
        assert type(changed) is type(output) and unwrap_features(changed) is y
        assert unwrap_features(output) is x
    layer = nn.Identity()
    with replaced_output(layer, lambda t: t + 1, calls=2):
        assert [float(layer(x)[0]) for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("shape", "prefix", "size", "expected"),
    [
        ((2, 6, 7, 10), None, (224, 320), (2, 6, 7, 10)),
        ((2, 7, 10, 6), None, (224, 320), (2, 6, 7, 10)),
        ((2, 71, 6), 1, (224, 320), (2, 6, 7, 10)),
        ((2, 71, 6), None, (224, 320), (2, 6, 7, 10)),
        ((2, 70, 6), 1, (224, 320), (2, 6, 7, 10)),  # the class token comes in later
        ((2, 196, 6), 1, (224, 224), (2, 6, 14, 14)),
        ((2, 6, 8, 11), None, (225, 336), (2, 6, 8, 11)),  # rounded up
        ((2, 6, 7, 10), None, (225, 336), (2, 6, 7, 10)),  # and down
    ],
)
def test_grids_have_the_images_proportions(shape, prefix, size, expected):
    output = torch.arange(torch.Size(shape).numel()).view(shape).float()
    grid = to_grid(output, "layer", prefix, size)
    assert grid.shape == expected
    cell = grid[1, :, 2, 3]  # of row 2, column 3
    if len(shape) == 3:
        assert torch.equal(
            cell, output[1, shape[1] - expected[2] * expected[3] + 23 + 2 * (expected[3] - 10)]
        )
    else:
        assert torch.equal(cell, output[1, :, 2, 3] if shape[1] == 6 else output[1, 2, 3])


@pytest.mark.happens(
    "Images and classes",
    "tensors that are not square",
    "explained in their proportions; refused by a classifier of one size, which is told",
)
@pytest.mark.slow
def test_images_that_are_not_square_are_explained_where_the_classifier_takes_them(resnet):
    backbone = tt.Backbone(resnet, ["layer1", "layer2"], preprocessing=SMALL)
    wide = torch.rand(2, 3, 64, 96)
    explanation = tt.TTAME(backbone)(wide)
    assert explanation.maps.shape == (2, 16, 24)
    for name in ("grad-cam", "score-cam", "rise", "iia", "integrated-gradients"):
        options = {"rise": {"masks": 8}, "iia": {"steps": 2}}.get(name, {})
        maps = tt.method(name, backbone, **options)(wide, CLASSES)
        assert abs(maps.shape[2] / maps.shape[1] - 1.5) < 0.01, name
    batch = {"image": wide, "id": ["a", "b"]}
    scores = tt.evaluate(backbone, {"t-tame": tt.TTAME(backbone)}, [batch])
    assert not scores["value"].isna().any()
    # what is on the right is on the right of the map
    classes = backbone(wide).argmax(1)
    narrow = tt.method("grad-cam", backbone)(wide.transpose(2, 3), classes)
    assert narrow.shape == (2, 96, 64)
    vit = tt.load_backbone("demo_vit")
    with pytest.raises(
        tt.TTAMEError, match=r"takes no images of 64 x 96 px .*resize them to 64 x 64"
    ):
        tt.TTAME(vit)(wide)


class PostNorm(nn.Module):
    """A ViT of PyTorch's own encoder layers, whose norms follow in their default form."""

    def __init__(self, pooled=False, batch_first=True, norm_first=False):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            16, 2, 32, dropout=0.0, batch_first=batch_first, norm_first=norm_first
        )
        self.patches = nn.Conv2d(3, 16, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 17, 16))
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head, self.pooled, self.first = nn.Linear(16, 6), pooled, batch_first

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        x = self.encoder(x) if self.first else self.encoder(x.transpose(0, 1)).transpose(0, 1)
        return self.head(x.mean(1) if self.pooled else x[:, 0])


def post_norm(**options):
    torch.manual_seed(0)
    taps = [f"encoder.layers.{i}" for i in range(3)]
    return tt.Backbone(PostNorm(**options), taps, preprocessing=SMALL)


@pytest.mark.happens(
    "Layers",
    "a transformer with norms behind the attention",
    "CAMs explain the last layer whose patches still reach the head",
)
def test_a_cam_of_a_post_norm_encoder_explains_the_last_layer_whose_patches_are_read():
    backbone = post_norm()
    assert target_layer(backbone).startswith("encoder.layers.1")
    maps = tt.method("grad-cam", backbone)(IMAGES, CLASSES)
    assert (maps.amax((1, 2)) == 1).all()
    assert target_layer(post_norm(norm_first=True)) == "encoder.layers.2.norm1"
    assert target_layer(post_norm(pooled=True)).startswith("encoder")


@pytest.mark.happens(
    "Layers",
    "a transformer whose head pools patches, or with sequences first: rollout, LRP, IIA",
    "refused: there is no class token that is read alone",
)
def test_rollout_serves_a_class_token_alone_and_pytorchs_own_encoder():
    found = tt.method("attention-rollout", post_norm())(IMAGES, CLASSES)
    assert found.shape == (2, 4, 4) and found.max() == 1
    for name in ("attention-rollout", "iia", "transformer-lrp"):
        with pytest.raises(NotServedError, match="reads patches"):
            tt.method(name, post_norm(pooled=True))
        with pytest.raises(tt.TTAMEError):
            tt.method(name, post_norm(batch_first=False))


@pytest.mark.happens(
    "Layers", "a CAM of a transformer that is tapped elsewhere", "the same layer, whatever the taps"
)
def test_a_cams_layer_does_not_hang_on_the_taps():
    vit = tt.load_backbone("demo_vit")
    expected = tt.method("grad-cam", vit)(IMAGES, CLASSES)
    for taps in ("spread", "spread-norms"):
        other = tt.Backbone(vit.model, vit.taps, preprocessing=vit.preprocessing).with_taps(taps)
        assert target_layer(other) == target_layer(vit)
        assert torch.equal(tt.method("grad-cam", other)(IMAGES, CLASSES), expected)


BAD = {
    "standardised": (IMAGES * 4 - 2, "range from"),
    "0 to 255": (IMAGES * 255, "range from"),
    "bytes": ((IMAGES * 255).byte(), "uint8"),
    "grey": (IMAGES[:, :1], r"\(2, 1, 64, 64\)"),
    "one without a batch": (IMAGES[0], r"\(3, 64, 64\)"),
    "none": (IMAGES[:0], "at least one"),
    "not a number": (IMAGES.clone().fill_(torch.nan), "range from nan"),
    "an array": (IMAGES.numpy(), "ndarray"),
}


@pytest.mark.happens("Images and classes", "images are: {name}", "refused at every door: “{words}”")
@pytest.mark.parametrize(("name", "images", "words"), [(name, *case) for name, case in BAD.items()])
def test_bad_images_are_refused_at_every_door(resnet, name, images, words):
    backbone = tt.Backbone(resnet, ["layer2", "layer3", "layer4"], preprocessing=SMALL)
    explainer = tt.TTAME(backbone)
    items = list(images) if len(images) else []
    doors = {
        "explain": lambda: explainer(images, CLASSES),
        "method": lambda: tt.method("rise", backbone, masks=2)(images, CLASSES),
        "control": lambda: tt.method("brightness", backbone)(images, CLASSES),
        "evaluate": lambda: tt.evaluate(
            backbone, {"t-tame": explainer}, [{"image": images, "id": ["a", "b"]}]
        ),
        "score": lambda: tt.score_batch(
            backbone, images, CLASSES, torch.ones(2), torch.rand(2, 8, 8)
        ),
        "costs": lambda: tt.explanation_costs(backbone, {"t-tame": explainer}, images, CLASSES),
    }
    for door, open_it in doors.items():
        with pytest.raises(tt.TTAMEError, match=words):
            open_it()
            pytest.fail(door)
    if name not in ("one without a batch", "none", "an array"):
        with pytest.raises(tt.TTAMEError, match="1, 64, 64" if name == "grey" else words):
            tt.train(explainer, [{"image": i} for i in items], tt.Recipe(steps=1, batch_size=2))


@pytest.mark.happens(
    "Images and classes", "classes of two images are {classes}", "refused: “{words}”"
)
@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (torch.tensor([1]), r"\(1,\)"),
        (torch.tensor([1, 6]), "0 to 5"),
        (torch.tensor([-1, 2]), "range from -1"),
        (torch.tensor([1.0, 2.0]), "float32"),
        (torch.tensor(1), r"\(\)"),
        ([1, 2], "a list"),
        (torch.tensor([1, 2, 3]), r"\(3,\)"),
    ],
)
def test_bad_classes_are_refused_at_every_door(resnet, classes, words):
    backbone = tt.Backbone(resnet, ["layer2", "layer3", "layer4"], preprocessing=SMALL)
    for name in ("grad-cam", "iia", "random"):
        with pytest.raises(tt.TTAMEError, match=words):
            tt.method(name, backbone)(IMAGES, classes)
    with pytest.raises(tt.TTAMEError, match=words):
        tt.score_batch(backbone, IMAGES, classes, torch.ones(2), torch.rand(2, 8, 8))


@pytest.mark.happens(
    "Images and classes", "a method's maps are {name}", "refused, and the method named"
)
@pytest.mark.parametrize(
    ("name", "maps", "words"),
    [
        ("above 1", torch.rand(2, 8, 8) * 3, "range from"),
        ("below 0", torch.rand(2, 8, 8) - 0.5, "range from"),
        ("of a channel each", torch.rand(2, 1, 8, 8), r"\(2, 1, 8, 8\)"),
        ("one too many", torch.rand(3, 8, 8), r"\(3, 8, 8\)"),
        ("whole numbers", torch.ones(2, 8, 8).long(), "int64"),
    ],
)
def test_bad_maps_are_refused_with_their_methods_name(resnet, name, maps, words):
    backbone = tt.Backbone(resnet, ["layer2", "layer3", "layer4"], preprocessing=SMALL)
    batch = {"image": IMAGES, "id": ["a", "b"]}
    with pytest.raises(tt.TTAMEError, match=f"mine.*{words}"):
        tt.evaluate(backbone, {"mine": lambda images, classes: maps}, [batch])


@pytest.mark.happens(
    "Images and classes",
    "an explainer of another classifier is to be scored",
    "refused, both named",
)
def test_an_explainer_of_another_classifier_is_not_scored(resnet):
    taps = ["layer2", "layer3", "layer4"]
    backbone = tt.Backbone(resnet, taps, preprocessing=SMALL, name="one")
    other = copy.deepcopy(resnet)
    with torch.no_grad():
        other.fc.bias += 1
    another = tt.Backbone(other, taps, preprocessing=SMALL, name="another")
    batch = {"image": IMAGES, "id": ["a", "b"]}
    for explainer in (tt.TTAME(another), tt.method("grad-cam", another)):
        with pytest.raises(tt.TTAMEError, match="explains another, and one is to be asked"):
            tt.evaluate(backbone, {"mine": explainer}, [batch])
    same = tt.Backbone(copy.deepcopy(resnet), ["layer3", "layer4"], preprocessing=SMALL)
    assert len(tt.evaluate(backbone, {"mine": tt.TTAME(same)}, [batch]))


@pytest.mark.happens(
    "Images and classes",
    "a data set gives pairs of image and label",
    "trained on as items with images are",
)
def test_pairs_of_images_and_labels_train_as_dicts_do(resnet):
    backbone = tt.Backbone(resnet, ["layer2", "layer3", "layer4"], preprocessing=SMALL)
    recipe = tt.Recipe(steps=2, batch_size=2)
    rows = []
    for items in ([{"image": i} for i in IMAGES], [(i, 3) for i in IMAGES]):
        rows.append(tt.train(tt.TTAME(backbone), items, recipe)[-1]["total"])
    assert rows[0] == rows[1]
