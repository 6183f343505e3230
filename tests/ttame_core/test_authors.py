"""The authors' released explainers: checkpoints of their layout, made here at reduced width."""

import argparse

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import make_layers

import ttame_core as tt

CLASSES = 7
LAYERS = {
    "vgg16": ["features.16", "features.23", "features.30"],
    "resnet50": ["layer2", "layer3", "layer4"],
    "vit_b_16": [f"encoder.layers.encoder_layer_{i}.ln" for i in (9, 10, 11)],
}
SIDES = {"vgg16": 28, "resnet50": 28, "vit_b_16": 14}
NARROW = [4, 4, "M", 8, 8, "M", 8, 8, 8, "M", 12, 12, 12, "M", 16, 16, 16, "M"]


class NarrowVGG(nn.Module):
    """VGG-16's layers by their names; torchvision's has a hundred million weights in its head."""

    def __init__(self):
        super().__init__()
        self.features = make_layers(NARROW)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Linear(16 * 49, CLASSES)

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def narrow(name, weights=None, **options):
    """A classifier with the names of torchvision's, of fewer channels and blocks."""
    if name == "vgg16":
        return NarrowVGG()
    if name == "resnet50":
        return ResNet(BasicBlock, [1, 1, 1, 1], **options)
    size = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 2}
    model = VisionTransformer(**size, hidden_dim=12, mlp_dim=16, **options)
    nn.init.normal_(model.heads.head.weight)  # torchvision's begins with zeros
    return model


@pytest.fixture
def builders(monkeypatch):
    """Torchvision with narrow classifiers: the full ones are half a gigabyte each."""
    monkeypatch.setattr(torchvision.models, "get_model", narrow)


def checkpoint_of(name, **settings):
    """A classifier, and a checkpoint as the authors' training wrote it, of random values."""
    model = narrow(name, num_classes=CLASSES).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # drifted
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    state = {f"generic.body.{k}": v for k, v in model.state_dict().items()}
    channels = [tapped.shape[1] for tapped in taps_of(name, model, torch.rand(1, 3, 224, 224))]
    for i, c in enumerate(channels):
        conv, norm = nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        for part, module in (("convs", conv), ("bns", norm)):
            for key, value in module.state_dict().items():
                state[f"generic.attn_mech.{part}.{i}.{key}"] = value
    fuser = nn.Conv2d(sum(channels), CLASSES, 1)
    state |= {f"generic.attn_mech.fuser.{k}": v for k, v in fuser.state_dict().items()}
    state |= {f"generic.arrangement.{k}": v for k, v in [("body.copy", torch.ones(2))]}
    parameters = {
        "model_name": name,
        "layers": LAYERS[name],
        "attention_version": "TAME",
        "train_method": "new" if name == "vit_b_16" else "raw_normalize",
        "num_classes": CLASSES,
        "lr": 0.001,
    }
    about = {"epoch": 8, "pytorch-lightning_version": "1.7.7", "lr_schedulers": [{"last": 1}]}
    return model, {**about, "state_dict": state, "hyper_parameters": parameters | settings}


@torch.no_grad()
def taps_of(name, model, inputs):
    """Feature maps of standardised images, by the modules themselves."""
    found, hooks = [], []
    for layer in LAYERS[name]:
        module = model.get_submodule(layer + "_1" if layer.endswith(".ln") else layer)
        hooks.append(module.register_forward_hook(lambda *given: found.append(given[2].clone())))
    model(inputs)
    for hook in hooks:
        hook.remove()
    if name == "vit_b_16":  # tokens without the class token, on their grid
        found = [f[:, 1:].reshape(len(f), 14, 14, -1).permute(0, 3, 1, 2) for f in found]
    return found


@torch.no_grad()
def maps_of(name, model, state, images, classes):
    """The maps of METHOD 2, written out: every map of every class, concatenated and fused."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    mechanism = {k.removeprefix("generic.attn_mech."): v for k, v in state.items()}
    branches = []
    for i, features in enumerate(taps_of(name, model, (images - mean) / std)):
        attention = F.conv2d(features, mechanism[f"convs.{i}.weight"], mechanism[f"convs.{i}.bias"])
        norm = [mechanism[f"bns.{i}.{k}"] for k in ("running_mean", "running_var", "weight")]
        attention = F.batch_norm(attention, *norm, mechanism[f"bns.{i}.bias"])
        attention = torch.relu(attention + features)
        branches.append(F.interpolate(attention, (SIDES[name],) * 2, mode="bilinear"))
    every = F.conv2d(torch.cat(branches, 1), mechanism["fuser.weight"], mechanism["fuser.bias"])
    maps = every[torch.arange(len(images)), classes]
    low, high = maps.amin((1, 2), True), maps.amax((1, 2), True)
    return (maps - low) / (high - low)


@pytest.fixture
def saved(tmp_path, builders):
    """Writes a checkpoint, and returns its path, the classifier and the checkpoint."""

    def write(name="vgg16", **settings):
        model, checkpoint = checkpoint_of(name, **settings)
        file = tmp_path / f"{name}_TTAME.ckpt"
        torch.save(checkpoint, file)
        return file, model, checkpoint

    return write


@pytest.mark.parametrize("name", LAYERS)
def test_a_released_explainer_has_the_maps_of_the_paper_on_the_classifier_in_its_file(name, saved):
    file, model, checkpoint = saved(name)
    explainer = tt.load_released(file)
    backbone = explainer.backbone
    images, classes = torch.rand(2, 3, 224, 224), torch.tensor([3, 5])
    maps = explainer.explain(images, classes)
    expected = maps_of(name, model, checkpoint["state_dict"], images, classes)
    assert maps.shape == (2, SIDES[name], SIDES[name])
    assert (maps - expected).abs().max() < 1e-5
    assert expected.std() > 0.05
    assert not explainer.training and explainer.seed is None
    assert backbone.masking == ("standardised" if name == "vit_b_16" else "image")
    assert (backbone.preprocessing.resize, backbone.preprocessing.image_size) == (256, 224)
    assert torch.allclose(backbone(images), model(backbone.standardise(images)), atol=1e-5)


def test_which_classifier_was_taken_is_kept_with_the_explainer(saved, tmp_path):
    file, model, _ = saved("resnet50")
    published = {
        k: torch.ones_like(v) if "running" in k else v for k, v in model.state_dict().items()
    }
    torch.save(published, tmp_path / "published.pt")
    own = tt.load_released(file)
    other = tt.load_released(file, weights=str(tmp_path / "published.pt"))
    images, classes = torch.rand(1, 3, 224, 224), torch.tensor([0])
    assert not torch.allclose(
        own.explain(images, classes), other.explain(images, classes), atol=0.01
    )
    for explainer, source in ((own, "file"), (other, str(tmp_path / "published.pt"))):
        assert explainer.notes == {"checkpoint": file.name, "classifier": source}
        explainer.save(tmp_path / "kept.safetensors")
        again = tt.TTAME.load(tmp_path / "kept.safetensors", explainer.backbone)
        assert again.notes == explainer.notes
        assert torch.equal(again.explain(images, classes), explainer.explain(images, classes))
    scores = tt.evaluate(
        own.backbone, {"t-tame": own}, [{"image": images, "id": ["a"]}], {"ad": [50]}
    )
    assert len(scores) and scores["value"].notna().all()


def test_a_mechanism_is_put_on_no_classifier_of_another_training(saved):
    file, *_ = saved("vit_b_16")
    other = narrow("vit_b_16", num_classes=CLASSES).state_dict()
    with pytest.raises(tt.TTAMEError, match=r"is not what .*trained with.*'IMAGENET1K_V1'"):
        tt.load_released(file, weights=other)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "attention_version",
            "TAMELow",
            "attention_version 'TAMELow' is unknown; did you mean 'TAME'",
        ),
        ("train_method", "raw", "train_method 'raw' is unknown.*raw_normalize"),
        ("model_name", "vgg61", "model_name 'vgg61' is unknown; did you mean.*'vgg16'"),
        ("layers", [], r"layers are \[\]; expected names"),
        ("layers", ["features.16", "features.23", "features.99"], "no layer 'features.99'"),
        ("layers", ["features.23", "features.30"], "do not fit AttentionMechanism"),
        ("num_classes", 1000, "num_classes 1000, and its fuser has 7 rows"),
        ("num_classes", 7.5, "num_classes is 7.5; expected a whole number"),
    ],
)
@pytest.mark.happens(
    "Weights",
    "a released checkpoint of another mechanism, training method, classifier or layers",
    "refused by name",
)
def test_another_mechanism_is_refused_by_name(name, value, told, saved):
    file, *_ = saved(**{name: value})
    with pytest.raises(tt.TTAMEError, match=told):
        tt.load_released(file)


@pytest.mark.happens(
    "Weights",
    "a released checkpoint that would run code, or lacks a part",
    "told, with what to save of it; nothing is run",
)
def test_a_file_that_is_no_such_checkpoint_is_told(saved, tmp_path):
    file, _, checkpoint = saved()
    state, settings = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    for broken, told in (
        ({**checkpoint, "callbacks": argparse.Namespace()}, "Namespace.*'hyper_parameters'"),
        ({"state_dict": state}, "has no hyper_parameters but"),
        ({"hyper_parameters": settings}, "has no state_dict but"),
        ({**checkpoint, "hyper_parameters": {"lr": 1}}, "does not say its attention_version"),
        (
            {
                **checkpoint,
                "state_dict": {k: v for k, v in state.items() if ".body." not in k},
            },
            r"no generic\.body\.\*",
        ),
        (
            {
                **checkpoint,
                "state_dict": {k: v for k, v in state.items() if "bns.1.bias" not in k},
            },
            "1 missing",
        ),
        (
            {
                **checkpoint,
                "state_dict": state | {"generic.attn_mech.fuser.bias": torch.full((7,), torch.nan)},
            },
            "not finite",
        ),
    ):
        torch.save(broken, file)
        with pytest.raises(tt.TTAMEError, match=told):
            tt.load_released(file)
    with pytest.raises(tt.TTAMEError, match="there is no checkpoint at"):
        tt.load_released(tmp_path / "none.ckpt")


def test_taller_maps_are_computed_with_56_cells(saved):
    mechanism = tt.AttentionMechanism([4, 6], 3, tallest=56).eval()
    whole = tt.AttentionMechanism([4, 6], 3).eval()
    whole.load_state_dict(mechanism.state_dict())
    features = [torch.rand(2, 4, 112, 112), torch.rand(2, 6, 28, 28)]
    with torch.no_grad():
        every = [b(f) for b, f in zip(mechanism.branches, features, strict=True)]
        every = torch.cat([F.interpolate(each, (56, 56), mode="bilinear") for each in every], 1)
        expected = mechanism.fusion(every)
        assert torch.allclose(mechanism(features), expected, atol=1e-5)
        assert whole(features).shape == (2, 3, 112, 112)
        small = [f[..., :56, :56] for f in features]
        assert torch.equal(mechanism(small), whole(small))
