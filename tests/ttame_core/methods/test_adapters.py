"""Classes of grad-cam and Captum by name: what the library itself gives, and what is refused."""

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.ablation_layer import AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import ttame_core as tt
from tests.ttame_core.methods.models import linear
from ttame_core.errors import NotServedError
from ttame_core.masking import minmax
from ttame_core.methods.cams import _Logits, target_layer


@pytest.mark.parametrize(
    ("name", "kind", "built", "called"),
    [
        ("demo_resnet", "HiResCAM", {}, {}),
        ("demo_resnet", "GradCAM", {}, {"eigen_smooth": True}),
        ("demo_resnet", "FEM", {"k": 1}, {}),
        ("demo_resnet", "FullGrad", {}, {}),
        ("demo_vgg", "ShapleyCAM", {}, {}),
        ("demo_vit", "XGradCAM", {}, {}),
        ("demo_vit", "AblationCAM", {"batch_size": 40}, {}),
    ],
)
def test_maps_of_grad_cam_are_those_of_its_own_call(name, kind, built, called, backbones, digits):
    backbone, images = backbones[name], digits[:2]
    layer, classes = target_layer(backbone), torch.tensor([3, 7])
    cls = getattr(pytorch_grad_cam, kind)
    own = (
        {"ablation_layer": AblationLayerVit()}
        if (name, kind) == ("demo_vit", "AblationCAM")
        else {}
    )
    reshape = backbone.grid if backbone.tokens else None
    theirs = []
    for image, c in zip(images, classes, strict=True):
        at = [backbone.model.get_submodule(layer)]
        with cls(_Logits(backbone, layer), at, reshape, **built, **own) as cam:
            given = image[None].clone().requires_grad_()
            theirs.append(cam(given, [ClassifierOutputTarget(int(c))], **called)[0])
    found = tt.method(f"grad-cam:{kind}", backbone, **built, **called)(images, classes)
    assert found.std() > 0.01
    assert torch.allclose(found, minmax(torch.as_tensor(np.stack(theirs))), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("demo_resnet", "Occlusion", {"sliding_window_shapes": [3, 16, 16], "strides": [3, 16, 8]}),
        ("demo_vit", "InputXGradient", {}),
        ("demo_vgg", "GuidedBackprop", {}),
        ("demo_vit", "DeepLift", {"eps": 1e-8, "baselines": 0.5}),
        ("demo_resnet", "LayerGradCam", {"relu_attributions": True}),
        ("demo_vit", "LayerIntegratedGradients", {"n_steps": 3}),
    ],
)
def test_maps_of_captum_are_those_of_its_own_call(name, kind, options, backbones, digits):
    backbone, images, classes = backbones[name], digits[:2], torch.tensor([3, 7])
    layer = [backbone.model.get_submodule(target_layer(backbone))] if "Layer" in kind else []
    built = {"eps": 1e-8} if kind == "DeepLift" else {}
    asked = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items() if k != "eps"}
    theirs = getattr(captum.attr, kind)(backbone, *layer, **built)
    given = images.clone().requires_grad_()
    values = theirs.attribute(given, target=classes, **asked).detach()
    values = backbone.grid(values) if layer else values
    found = tt.method(f"captum:{kind}", backbone, **options)(images, classes)
    assert found.std() > 0.01
    assert torch.allclose(found, minmax(values.sum(1).relu()), atol=1e-3)


def test_occlusion_of_a_linear_model_is_what_is_hidden():
    weight, image = torch.randn(2, 3, 6, 6), torch.rand(1, 3, 6, 6)
    hidden = (weight[1] * image[0]).unflatten(1, (3, 2)).unflatten(3, (3, 2)).sum((0, 2, 4))
    options = {"sliding_window_shapes": [3, 2, 2], "strides": [3, 2, 2]}
    found = tt.method("captum:Occlusion", linear(weight), **options)(image, torch.tensor([1]))
    expected = hidden.repeat_interleave(2, 0).repeat_interleave(2, 1).relu()
    assert torch.allclose(found[0], minmax(expected[None])[0], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [("grad-cam:RandomCAM", {}), ("captum:ShapleyValueSampling", {"n_samples": 2})],
)
def test_what_a_class_draws_comes_from_the_seed_for_each_image(name, options):
    weight, images = torch.randn(2, 3, 2, 2), torch.rand(3, 3, 2, 2)
    weight[:, :, 0, 0] = weight[:, :, 0, 0].abs()
    backbone, classes = linear(weight), torch.tensor([0, 1, 0])
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    together = tt.method(name, backbone, seed=3, **options)(images, classes)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    alone = tt.method(name, backbone, seed=3, **options)(images[2:], classes[2:])
    assert torch.equal(together[2:], alone)


def test_nothing_is_printed_and_another_seed_is_another_map(backbones, digits, capfd):
    maps = [tt.method("grad-cam:RandomCAM", backbones["demo_vgg"], seed=s)(digits) for s in (0, 1)]
    assert not torch.equal(*maps)
    for kind in ("FullGrad", "AblationCAM"):
        tt.method(f"grad-cam:{kind}", backbones["demo_vgg"])
    assert capfd.readouterr() == ("", "")


@pytest.mark.happens(
    "Measures and methods", "the method {name} is asked for with {options}", "{message}"
)
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "grad-cam:HiRes",
            {},
            "'grad-cam:HiRes' is none of pytorch_grad_cam; did you mean 'HiResCAM'",
        ),
        ("grad-cam:AblationLayer", {}, "did you mean 'AblationCAM'"),
        (
            "captum:Oclusion",
            {},
            "'captum:Oclusion' is none of captum.attr; did you mean 'Occlusion'",
        ),
        ("captum:NoiseTunnel", {}, "'captum:NoiseTunnel' is none of captum.attr"),
        ("captom:Occlusion", {}, "'captom:Occlusion' is unknown"),
        (
            "captum:Occlusion",
            {},
            "captum:Occlusion needs sliding_window_shapes, which must be given",
        ),
        ("captum:Saliency", {"stride": 3}, "'stride' is no option of it; valid: abs"),
        ("captum:Saliency", {"target": 3}, "'target' is no option of it"),
        ("grad-cam:FEM", {"kk": 3}, "'kk' is no option of it; did you mean 'k'"),
        ("grad-cam:FEM", {"seed": -1}, "seed is -1; expected a whole number"),
        (
            *("captum:Occlusion", {"sliding_window_shapes": [3, 8]}),
            "captum:Occlusion does not take these options: Occlusion shape .* 3 dimensions",
        ),
    ],
)
def test_a_class_that_a_library_lacks_and_options_that_it_does_not_take_are_told(
    name, options, message, backbones
):
    with pytest.raises(tt.TTAMEError, match=message) as error:
        tt.method(name, backbones["demo_vit"], **options)
    assert not isinstance(error.value, NotServedError)


@pytest.mark.happens(
    "Measures and methods",
    "Captum's {name} is asked for of a transformer, for which it has no rule or no value a patch",
    "left out, with Captum's reason, when it is made",
)
@pytest.mark.parametrize("name", ["LayerGradCam", "GuidedGradCam", "LRP"])
def test_a_class_that_cannot_serve_a_classifier_says_so_when_it_is_made(name, backbones):
    with pytest.raises(NotServedError, match=f"captum:{name} .*demo_vit"):
        tt.method(f"captum:{name}", backbones["demo_vit"])
