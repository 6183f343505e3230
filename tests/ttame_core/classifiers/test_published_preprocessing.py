"""Pixels are those of the classifier's own transform: torchvision's, timm's, transformers'."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn

import ttame_core as tt
from ttame_book.demo.photographs import package_photographs
from ttame_core.classifiers.loading import build, timm_preprocessing

TIMM = (
    "convnextv2_nano.fcmae_ft_in22k_in1k_384",  # squashed, 384 of 384
    "vit_base_patch16_rope_reg1_gap_256.sbb_in1k",
    "eva02_tiny_patch14_336.mim_in22k_ft_in1k",
    "vit_medium_patch16_gap_384.sw_in12k_ft_in1k",
    "tf_efficientnet_b0.ns_jft_in1k",
    "efficientnet_b1.ft_in1k",
    "resnet18.a1_in1k",
    "resnet50.tv_in1k",
    "resnetv2_50x1_bit.goog_in21k_ft_in1k",
    "mobilenetv3_large_100.ra_in1k",
    "vit_tiny_patch16_224.augreg_in21k",
    "vit_base_patch16_clip_224.openai_ft_in1k",
    "beit_base_patch16_384.in22k_ft_in22k_in1k",
    "swin_tiny_patch4_window7_224.ms_in1k",
    "inception_v4.tf_in1k",
    "nasnetalarge.tf_in1k",
    "regnety_016.tv2_in1k",
    "test_vit.r160_in1k",
    "caformer_s18.sail_in1k_384",
    "volo_d4_448.sail_in1k",  # resized to less than the crop: a black frame
)
BORDER = [
    name for name in timm.list_pretrained() if timm.get_pretrained_cfg(name).crop_mode == "border"
][:2]
TORCHVISION = (
    *(("resnet18", "IMAGENET1K_V1"), ("resnet50", "IMAGENET1K_V2"), ("vit_b_16", "DEFAULT")),
    *(("vit_b_16", "IMAGENET1K_SWAG_E2E_V1"), ("efficientnet_b1", "IMAGENET1K_V1")),
    *(("efficientnet_b3", "DEFAULT"), ("efficientnet_v2_s", "DEFAULT"), ("swin_v2_t", "DEFAULT")),
    *(("inception_v3", "DEFAULT"), ("regnet_y_16gf", "IMAGENET1K_SWAG_LINEAR_V1")),
)


def pictures(size, resize):
    """Cuts of photographs whose sizes are awkward for a crop."""
    few = package_photographs()
    sizes = [
        *((size, size), (resize, resize), (resize, resize + 1), (resize + 3, resize)),
        *((size, size + 1), (2 * resize, resize), (resize, 3 * resize), (301, 299)),
        *((20, 13), (1, 40), (40, 1)),
    ]
    for number, (width, height) in enumerate(sizes):
        photo = few[number % len(few)]
        if width <= photo.width and height <= photo.height:
            yield photo.crop((0, 0, width, height))
        else:
            yield photo.resize((width, height))


def standardised(expected, picture):
    """As a backbone standardises."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (expected.mean, expected.std))
    pixels = expected.crop(picture)
    return ((pixels.flip(0) if expected.bgr else pixels) - mean) / std


def check_equal(expected, transform):
    resize = expected.resize if isinstance(expected.resize, int) else expected.resize[0]
    for picture in pictures(expected.image_size, resize):
        assert torch.equal(standardised(expected, picture), transform(picture)), picture.size


@pytest.mark.happens(
    "Preprocessing and labels",
    "a timm classifier that squashes, pads or crops to the middle, photographs of awkward sizes",
    "equal to its own transform, to the bit",
)
@pytest.mark.parametrize("name", [*TIMM, *BORDER])
def test_timms_own_transform(name):
    config = timm.get_pretrained_cfg(name).to_dict()
    own = timm_preprocessing(SimpleNamespace(pretrained_cfg=config))
    check_equal(own, create_transform(**resolve_data_config(pretrained_cfg=config)))


def test_timms_tags_are_of_every_kind():
    configs = [
        resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(n).to_dict())
        for n in (*TIMM, *BORDER)
    ]
    assert {c["crop_mode"] for c in configs} == {"center", "squash", "border"}
    assert {c["interpolation"] for c in configs} == {"bicubic", "bilinear"}
    assert len({c["crop_pct"] for c in configs}) >= 6
    assert len({c["input_size"] for c in configs}) >= 6 and len({c["mean"] for c in configs}) >= 3


@pytest.mark.happens(
    "Preprocessing and labels",
    "lanczos, box, hamming or nearest resampling",
    "equal to timm's, to the bit",
)
@pytest.mark.parametrize("interpolation", ["lanczos", "box", "hamming", "nearest"])
def test_timms_other_filters(interpolation):
    config = {"input_size": (3, 64, 64), "interpolation": interpolation, "crop_pct": 0.9}
    own = timm_preprocessing(SimpleNamespace(pretrained_cfg=config))
    check_equal(own, create_transform(**resolve_data_config(pretrained_cfg=config)))


@pytest.mark.happens(
    "Preprocessing and labels",
    "torchvision's weights, photographs of awkward sizes",
    "equal to their own transform, to the bit",
)
@pytest.mark.parametrize(("name", "weights"), TORCHVISION)
def test_torchvisions_own_transform(name, weights, monkeypatch):
    monkeypatch.setattr(torchvision.models, "get_model", lambda *a, **k: nn.Identity())
    _, own = build(name, weights, {})  # without the download
    check_equal(own, torchvision.models.get_model_weights(name)[weights].transforms())


@pytest.mark.happens(
    "Preprocessing and labels",
    "a photograph of exactly the crop's size",
    "resized and cropped as the weights ask for",
)
@pytest.mark.parametrize("name", ["squeezenet1_1", "timm/test_vit.r160_in1k"])
def test_a_photograph_is_read_from_its_file_as_the_classifiers_transform_has_it(name, tmp_path):
    backbone = tt.load_backbone(name, None)
    if name == "squeezenet1_1":
        transform = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    else:
        transform = create_transform(**resolve_data_config(model=backbone.model))
    size = backbone.preprocessing.image_size
    for number, picture in enumerate(pictures(size, backbone.preprocessing.resize)):
        file = tmp_path / f"{number}.png"
        picture.save(file)
        found = backbone.standardise(backbone.read(file))[0]
        assert torch.equal(found, transform(picture)), picture.size


PROCESSORS = {
    "ViT": {"size": {"height": 64, "width": 64}},
    "DeiT": {"size": {"height": 75, "width": 75}, "crop_size": 64},  # a margin of 5.5 px
    "Bit": {"size": {"shortest_edge": 71}, "crop_size": 64, "do_convert_rgb": True},
    "MobileNetV2": {"size": {"shortest_edge": 73}, "crop_size": 64},
    "ConvNext": {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    "Levit": {"size": {"shortest_edge": 64}, "crop_size": 64},
    "PoolFormer": {"size": {"shortest_edge": 64}, "crop_size": 64, "crop_pct": 0.9},
    "MobileViT": {"size": {"shortest_edge": 70}, "crop_size": 64},  # blue first
}


@pytest.mark.happens(
    "Preprocessing and labels",
    "an image processor of transformers",
    "equal to its own, within 3.5 of 255 levels",
)
@pytest.mark.parametrize("kind", PROCESSORS)
def test_transformers_own_processor_up_to_its_rounding(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    from ttame_core.classifiers.hugging_face import preprocessing_of

    made = getattr(transformers, f"{kind}ImageProcessor")(**PROCESSORS[kind])
    made.save_pretrained(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    own = preprocessing_of(processor)
    resize = own.resize if isinstance(own.resize, int) else own.resize[0]
    levels = 255 * np.array(own.std)[:, None, None]
    for picture in pictures(own.image_size, resize):
        theirs = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        difference = (standardised(own, picture) - theirs).abs().numpy() * levels
        assert difference.max() < 3.5, picture.size  # of 255; a crop one pixel off differs by tens
        assert difference.mean() < 0.3, picture.size


@pytest.mark.happens(
    "Preprocessing and labels",
    "an image processor that does something unknown",
    "refused, nothing is guessed",
)
def test_of_what_no_processor_that_is_known_does_nothing_is_guessed():
    transformers = pytest.importorskip("transformers")
    from ttame_core.classifiers.hugging_face import preprocessing_of

    for processor in (
        transformers.ViTImageProcessor(do_resize=False),
        transformers.PerceiverImageProcessor(),  # crops before it resizes
        transformers.MobileViTImageProcessor(),  # 256 of 224 px, and margins rounded down
        transformers.ViTImageProcessor(size={"height": 64, "width": 48}),
    ):
        with pytest.raises(tt.TTAMEError, match="resizes or crops in a way that is not known"):
            preprocessing_of(processor)


def test_pictures_are_as_awkward_as_they_say():
    sizes = [picture.size for picture in pictures(64, 73)]
    assert sizes[:3] == [(64, 64), (73, 73), (73, 74)] and sizes[-2:] == [(1, 40), (40, 1)]
    assert all(isinstance(picture, Image.Image) for picture in pictures(64, 73))
