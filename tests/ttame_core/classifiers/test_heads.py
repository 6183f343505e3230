"""Heads of classifiers, and the layers that they read."""

import pytest

import ttame_core as tt
from ttame_core.classifiers.heads import warm_backbone
from ttame_core.errors import NotServedError


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg11", {}),  # three linear layers
        ("timm/convnext_atto", {}),  # a norm behind the pooling
        ("timm/deit_tiny_distilled_patch16_224", {"img_size": 64}),  # the mean of two heads
    ],
)
def test_a_head_that_reads_no_feature_map_has_no_warm_start(name, options):
    size = {"image_size": 64, "resize": 64}
    backbone = tt.load_backbone(name, None, preprocessing=size, **options)
    with pytest.raises(NotServedError, match="so there is no warm start"):
        warm_backbone(backbone)
