"""Heads of classifiers, and the layers that they read."""

import pytest

import ttame_core as tt
from ttame_core.classifiers.heads import head_of, read_by_head, warm_backbone
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


def test_the_head_is_the_last_layer_of_as_many_outputs_as_classes(tiny):
    assert head_of(tiny) is tiny.model.head  # its last tap has eight channels too
    squeezenet = tt.load_backbone("squeezenet1_1", None)
    assert head_of(squeezenet) is squeezenet.model.classifier[1]
    tiny.num_classes = 9
    with pytest.raises(NotServedError, match="no head of 9 outputs found in tiny"):
        head_of(tiny)


def test_layers_that_the_head_reads_are_found_by_their_numbers(tiny):
    assert read_by_head(tiny, ["stem", "middle", "last"]) == ["last"]
    assert read_by_head(tiny, ["stem", "middle"]) == []
    vit = tt.load_backbone("demo_vit")
    names = [name for name, _ in vit.model.named_modules() if name]
    assert read_by_head(vit, names) == ["encoder.ln", "encoder"]  # by the class token


def test_a_backbone_with_a_warm_start_is_kept_or_gets_the_layer_that_its_head_reads(tiny):
    assert warm_backbone(tiny) is tiny
    shallow = tiny.with_taps(["stem", "middle"])
    assert warm_backbone(shallow).taps[0] == "stem" and "last" in warm_backbone(shallow).taps[1]
    vit = tt.load_backbone("demo_vit")
    warm = warm_backbone(vit)
    assert warm.taps == (*vit.taps[:2], "encoder.ln")
    pointers = [[p.data_ptr() for p in each.model.parameters()] for each in (warm, vit)]
    assert pointers[0] == pointers[1]  # one classifier's weights, not two
    assert (warm.masking, warm.name) == (vit.masking, vit.name)
