"""Relevance propagation through vision transformers."""

import pytest
import torch

import ttame_book as tb
import ttame_core as tt
from tests.ttame_core.methods.written_out import (
    CLASS_TOKEN,
    CLASSES,
    HEAD,
    assert_same,
    by_hand,
    each,
    gradients,
    lrp_by_its_rules,
)
from ttame_core.errors import NotServedError
from ttame_core.masking import minmax
from ttame_core.methods.transformer_lrp import relevance, transformer_blocks


@pytest.mark.parametrize("c", [0, 1])
def test_lrp_by_hand(one_block, pixels, c):
    tokens, attention = by_hand(pixels[0])
    context = attention @ tokens
    read = CLASS_TOKEN + context
    at_head = read * HEAD[c] / (HEAD[c] @ read)  # z+ rule: all is positive
    at_context = at_head * context / read  # shares of the residual sum
    expected = attention * (tokens @ (at_context / context)) / 2  # half to the attention
    found = relevance(one_block, transformer_blocks(one_block), pixels, torch.tensor([c]))
    assert torch.allclose(found.attention[0][0, 0, 0], expected, atol=1e-6)
    assert torch.allclose(found.gradients[0][0, 0, 0], tokens @ HEAD[c], atol=1e-6)
    whole = (tokens @ HEAD[c] * expected).relu()[1:].view(2, 2)
    maps = tt.method("transformer-lrp", one_block)(pixels, torch.tensor([c]))
    assert torch.allclose(maps[0], minmax(whole), atol=1e-5)


@pytest.mark.parametrize("name", ["demo_vit", "timm/deit_tiny_patch16_224"])
def test_lrp_conserves_relevance_at_every_block(name):
    small = {"preprocessing": {"image_size": 64, "resize": 64}}
    options = {"weights": None, "img_size": 64, **small} if name.startswith("timm") else {}
    backbone = tt.load_backbone(name, **options).double()
    digits = tb.DigitsInPhotographs("test", 5)
    images = torch.stack([digits[i]["image"] for i in range(5)]).double()
    found = relevance(backbone, transformer_blocks(backbone), images, backbone(images).argmax(1))
    totals = torch.stack(found.totals)
    assert len(totals) == 1 + len(found.attention)
    assert torch.allclose(totals, torch.ones_like(totals), atol=1e-6)


def test_relevance_and_gradients_of_two_blocks(two_blocks, images):
    found = relevance(two_blocks, transformer_blocks(two_blocks), images, CLASSES)
    assert_same(torch.stack(found.attention, 1), each(lrp_by_its_rules, two_blocks, images))
    assert_same(torch.stack(found.gradients, 1), each(gradients, two_blocks, images))


def test_lrp_refuses_what_is_no_plain_vit():
    pooled = tt.load_backbone(
        "timm/vit_tiny_patch16_224", None, global_pool="avg", class_token=False
    )
    with pytest.raises(NotServedError, match="class token"):
        tt.method("transformer-lrp", pooled)
