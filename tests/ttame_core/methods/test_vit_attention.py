"""Rollout and what is rolled out of vision transformers: by hand on one block, written out on two."""

import pytest
import torch
from torch import nn

import ttame_core as tt
from tests.ttame_core.methods.written_out import (
    CLASS_TOKEN,
    CLASSES,
    HEAD,
    assert_same,
    by_hand,
    each,
    iia_by_definition,
    lrp_by_definition,
    original_iia_by_definition,
    rollout_by_definition,
    run,
)
from ttame_core.errors import NotServedError
from ttame_core.images.reading import Preprocessing
from ttame_core.masking import minmax
from ttame_core.methods import vit_attention


def test_the_one_block_model_is_what_it_says(one_block, pixels):
    tokens, attention = by_hand(pixels[0])
    assert torch.allclose(
        one_block(pixels)[0], HEAD @ (CLASS_TOKEN + attention @ tokens), atol=1e-6
    )


def test_rollout_by_hand(one_block, pixels):
    _, attention = by_hand(pixels[0])
    expected = minmax((attention[1:] / 2).view(2, 2))  # rows of A + I sum to 2
    found = tt.method("attention-rollout", one_block)(pixels, torch.tensor([0]))
    assert torch.allclose(found[0], expected, atol=1e-5)


def test_the_model_of_two_blocks_is_what_is_written_out(two_blocks, images):
    assert_same(
        two_blocks(images), each(lambda w, image, c: run(w, image).logits, two_blocks, images)
    )


@pytest.mark.parametrize(
    ("name", "definition", "options"),
    [
        ("attention-rollout", rollout_by_definition, {}),
        ("transformer-lrp", lrp_by_definition, {}),
        ("iia", iia_by_definition, {"steps": 4, "chunk": 7}),
        ("iia", original_iia_by_definition, {"steps": 2, "chunk": 7, "original": True}),
    ],
)
def test_maps_of_two_blocks_are_their_definition(
    name, definition, options, two_blocks, images, monkeypatch
):
    expected = each(definition, two_blocks, images)
    explain = tt.method(name, two_blocks, **options)
    assert_same(explain(images, CLASSES), minmax(expected))
    monkeypatch.setattr(vit_attention, "minmax", nn.Identity())
    assert_same(explain(images, CLASSES), expected)


def test_timm_vits_are_served():
    backbone = tt.load_backbone("timm/deit_tiny_patch16_224", None, **SMALL_TIMM)
    images = torch.rand(2, 3, 64, 64)
    logits, seen = backbone(images), []

    def keep(module, args):
        seen.append(args[0].detach())  # (B, heads, N, N), behind the softmax

    handles = []
    for block in backbone.model.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_pre_hook(keep))
    backbone(images)
    for handle in handles:
        handle.remove()
    whole = torch.eye(17)
    for attention in seen:
        step = attention.mean(1) + torch.eye(17)
        whole = step / step.sum(2, keepdim=True) @ whole
    expected = minmax(whole[:, 0, 1:].unflatten(1, (4, 4)))
    assert len(seen) == 12
    found = tt.method("attention-rollout", backbone)(images, logits.argmax(1))
    assert torch.allclose(found, expected, atol=1e-4)
    maps = tt.method("transformer-lrp", backbone)(images, torch.tensor([1, 1]))
    assert maps.shape == (2, 4, 4) and (maps[0] - maps[1]).abs().mean() > 0.02
    other = tt.method("transformer-lrp", backbone)(images, torch.tensor([2, 2]))
    assert (maps - other).abs().mean() > 0.02  # of a class, which rollout is not
    assert torch.equal(
        tt.method("attention-rollout", backbone)(images, torch.tensor([1, 2])), found
    )
    assert torch.allclose(backbone(images), logits, atol=1e-5)


@pytest.mark.happens(
    "Layers",
    "attention is to be read of a ViT whose blocks are of neither torchvision nor timm",
    "refused, and the blocks named that were looked for",
)
@pytest.mark.parametrize("name", ["attention-rollout", "transformer-lrp", "iia"])
def test_a_vit_of_another_library_is_told_what_was_looked_for(name):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=8, image_size=32, patch_size=8, num_labels=3
    )
    model = transformers.ViTForImageClassification(config)
    backbone = tt.Backbone(model, preprocessing=Preprocessing(32, 32), name="other")
    message = r"other, of transformers, has no attention of torchvision's blocks .*timm.layers"
    with pytest.raises(NotServedError, match=message):
        tt.method(name, backbone)


SMALL_TIMM = {"img_size": 64, "preprocessing": {"image_size": 64, "resize": 64}}
