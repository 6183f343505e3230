"""Rollout, LRP and IIA of vision transformers: by hand on one block; two blocks written out in numpy."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import nn
from torchvision.models import VisionTransformer

import ttame_core as tt
from ttame_core.errors import NotServedError
from ttame_core.masking import minmax
from ttame_core.methods import transformers
from ttame_core.methods.transformer_lrp import relevance, transformer_blocks
from ttame_core.zoo import Preprocessing

HEAD = torch.tensor([[2.0, 1.0], [0.5, 3.0]])
CLASS_TOKEN = torch.tensor([0.3, 0.6])


@pytest.fixture
def one_block():
    """A ViT of one block without norms and MLP on 2 x 2 patches of a pixel: tokens are (red, green).

    The query is (1, 0) for every token, the key is the token, so attention goes by red; the value is the token.
    """
    model = VisionTransformer(2, 1, 1, 1, 2, 2, num_classes=2, norm_layer=lambda dim: nn.Identity())
    for value in model.parameters():
        nn.init.zeros_(value)
    with torch.no_grad():
        model.conv_proj.weight[:, :, 0, 0] = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
        model.class_token[0, 0] = CLASS_TOKEN
        attend = model.encoder.layers[0].self_attention
        attend.in_proj_bias[0] = 1
        attend.in_proj_weight[2:] = torch.eye(2).repeat(2, 1)
        attend.out_proj.weight.copy_(torch.eye(2))
        model.heads.head.weight.copy_(HEAD)
    plain = Preprocessing(2, 2, mean=(0, 0, 0), std=(1, 1, 1))
    return tt.Backbone(model, ["encoder.layers.encoder_layer_0"], preprocessing=plain)


def by_hand(image, scale=1.0):
    """Tokens (5, 2) and the class token's attention to them (5,)."""
    tokens = torch.cat([CLASS_TOKEN[None], scale * image[:2].flatten(1).T])
    return tokens, (tokens[:, 0] / math.sqrt(2)).softmax(0)


@pytest.fixture
def pixels():
    return torch.rand(1, 3, 2, 2)


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


@pytest.mark.parametrize("c", [0, 1])
def test_iia_of_a_vit_by_hand(one_block, pixels, c):
    mean = torch.zeros(5)
    for i, j in itertools.product(range(6), range(6)):
        tokens, attention = by_hand(pixels[0], i / 5)
        gradient = tokens @ HEAD[c]  # of the logit w.r.t. the class token's row of the attention
        mean += (gradient * attention * j / 5).relu() / 36
    expected = minmax((mean[1:] / (1 + mean.sum())).view(2, 2))
    found = tt.method("iia", one_block)(pixels, torch.tensor([c]))
    assert torch.allclose(found[0], expected, atol=1e-5)


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


def test_lrp_conserves_relevance_at_every_block():
    backbone = tt.load_backbone("demo_vit").double()
    digits = tt.DigitsInPhotographs("test", 5)
    images = torch.stack([digits[i]["image"] for i in range(5)]).double()
    found = relevance(backbone, transformer_blocks(backbone), images, backbone(images).argmax(1))
    totals = torch.stack(found.totals)
    assert len(totals) == 1 + len(found.attention)
    assert torch.allclose(totals, torch.ones_like(totals), atol=1e-6)


MEAN, STD = (0.5, 0.25, 0.375), (0.25, 0.5, 0.125)  # the same in single and double precision
CLASSES = torch.tensor([0, 2])


@pytest.fixture
def two_blocks():
    """A ViT of two blocks, two heads of width 3, and 2 x 2 patches; weights of either sign; double precision."""
    model = VisionTransformer(4, 2, 2, 2, 6, 5, num_classes=3)
    for value in model.parameters():
        nn.init.normal_(value, std=0.7)
    plain = Preprocessing(4, 4, mean=MEAN, std=STD)
    return tt.Backbone(model, ["encoder.layers.encoder_layer_1"], preprocessing=plain).double()


@pytest.fixture
def images():
    return torch.rand(2, 3, 4, 4, dtype=torch.float64)


def part(w, name):
    """The weights under a name, without it."""
    return {key.removeprefix(name): value for key, value in w.items() if key.startswith(name)}


def affine(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(x, w, name):
    centred = x - x.mean(1, keepdims=True)
    spread = np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
    return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]


def by_head(x):
    """(N, D) to (h, N, d)."""
    return np.stack(np.split(x, 2, axis=1))


def run_block(x, w, nudge, scale):
    """What one block computes of tokens (N, D), its attention scaled and nudged."""
    s = SimpleNamespace(w=w, start=x, inputs=layer_norm(x, w, "ln_1"))
    qkv = s.inputs @ w["self_attention.in_proj_weight"].T + w["self_attention.in_proj_bias"]
    s.query, s.key, s.value = (by_head(third) for third in np.split(qkv, 3, axis=1))
    rising = np.exp(s.query @ s.key.swapaxes(1, 2) / math.sqrt(3))
    s.attention = scale * rising / rising.sum(2, keepdims=True) + nudge  # (h, N, N)
    s.context = np.concatenate(list(s.attention @ s.value), axis=1)
    s.middle = x + affine(s.context, w, "self_attention.out_proj")
    s.normed = layer_norm(s.middle, w, "ln_2")
    wide = affine(s.normed, w, "mlp.0")
    s.active = wide * (1 + erf(wide / math.sqrt(2))) / 2
    s.end = s.middle + affine(s.active, w, "mlp.3")
    return s


def run(w, image, nudges=(0, 0), last_scale=1.0):
    """The whole network on an image (3, 4, 4)."""
    standard = (image - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    cells = standard.reshape(3, 2, 2, 2, 2)
    patches = np.einsum("cypxq,dcpq->yxd", cells, w["conv_proj.weight"]).reshape(4, 6)
    x = np.concatenate([w["class_token"][0], patches + w["conv_proj.bias"]])
    x = x + w["encoder.pos_embedding"][0]
    blocks = []
    for i, scale in enumerate([1.0, last_scale]):
        blocks.append(run_block(x, part(w, f"encoder.layers.encoder_layer_{i}."), nudges[i], scale))
        x = blocks[-1].end
    top = layer_norm(x, w, "encoder.ln")
    attention = np.stack([s.attention for s in blocks])  # (2, h, N, N)
    logits = affine(top[:1], w, "heads.head")[0]
    return SimpleNamespace(blocks=blocks, attention=attention, top=top, logits=logits)


def gradients(w, image, c, last_scale=1.0):
    """Of a logit with respect to each entry of each block's attention, by complex steps: exact, and no autograd."""
    found = np.zeros((2, 2, 5, 5))
    for place in np.ndindex(found.shape):
        nudges = np.zeros(found.shape, complex)
        nudges[place] = 1e-30j
        found[place] = run(w, image, nudges, last_scale).logits[c].imag / 1e-30
    return found


def z_plus(relevance, inputs, weight):
    """Inputs that raise an output share its relevance (N, out) as they raise it."""
    raises = np.maximum(inputs[:, None] * weight, 0)  # (N, out, in)
    total = raises.sum(2, keepdims=True)
    return (relevance[..., None] * raises / np.where(total > 0, total, 1)).sum(1)


def of_sum(relevance, *summands):
    """In proportion, then scaled so that the totals are shared as their sizes are and nothing is lost."""
    parts = [relevance * x / sum(summands) for x in summands]
    sizes = [abs(p.sum()) for p in parts]
    return [
        p / p.sum() * relevance.sum() * size / sum(sizes)
        for p, size in zip(parts, sizes, strict=True)
    ]


def of_product(relevance, left, right):
    """Each product of two entries gets its share of what it adds to; half goes to either factor."""
    products = np.einsum("hnm,hmd->hnmd", left, right)
    shares = products / products.sum(2, keepdims=True) * relevance[:, :, None] / 2
    return shares.sum(3), shares.sum(1)


def lrp_by_its_rules(w, image, c):
    """Relevance of the attention matrices (2, h, N, N)."""
    seen = run(w, image)
    of_end = np.zeros((5, 6))
    of_end[:1] = z_plus(np.eye(3)[[c]], seen.top[:1], w["heads.head.weight"])
    found = []
    for s in reversed(seen.blocks):
        of_middle, of_mlp = of_sum(of_end, s.middle, s.end - s.middle)
        of_mlp = z_plus(of_mlp, s.active, s.w["mlp.3.weight"])
        of_mlp = z_plus(of_mlp, s.normed, s.w["mlp.0.weight"])
        of_start, of_attending = of_sum(of_middle + of_mlp, s.start, s.middle - s.start)
        of_context = z_plus(of_attending, s.context, s.w["self_attention.out_proj.weight"])
        of_attention, of_value = of_product(by_head(of_context), s.attention, s.value)
        of_query, of_key = of_product(of_attention, s.query, s.key.swapaxes(1, 2))
        of_qkv = np.concatenate([*of_query, *of_key.swapaxes(1, 2), *of_value], axis=1)
        of_end = of_start + z_plus(of_qkv, s.inputs, s.w["self_attention.in_proj_weight"])
        found.append(of_attention)
    return np.stack(found[::-1])


def rolled_out(attention, normalise):
    """The class token's row over both blocks, (2, N, N) to (2, 2): it looks into the second, which looks into the first."""
    first, second = attention + np.eye(5)
    if normalise:
        first, second = (step / step.sum(1, keepdims=True) for step in (first, second))
    row = sum(second[0, k] * first[k] for k in range(5))
    return row[1:].reshape(2, 2)


def rollout_by_definition(w, image, c):
    return rolled_out(run(w, image).attention.mean(1), normalise=True)


def lrp_by_definition(w, image, c):
    positive = np.maximum(gradients(w, image, c) * lrp_by_its_rules(w, image, c), 0)
    return rolled_out(positive.mean(1), normalise=False)


def iia_by_definition(w, image, c):
    total = np.zeros((2, 5, 5))
    for i, j in itertools.product(range(5), range(5)):
        dimmed, scale = i / 4 * image, j / 4
        attention = run(w, dimmed, last_scale=scale).attention
        total += np.maximum(gradients(w, dimmed, c, scale) * attention, 0).mean(1)
    return rolled_out(total / 25, normalise=True)


def each(function, backbone, images):
    """A function of the weights written out, applied to each image and its class."""
    w = {name: value.numpy() for name, value in backbone.model.state_dict().items()}
    pairs = zip(images.numpy(), CLASSES.tolist(), strict=True)
    return torch.from_numpy(np.stack([function(w, image, c) for image, c in pairs]))


def assert_same(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_the_model_of_two_blocks_is_what_is_written_out(two_blocks, images):
    assert_same(
        two_blocks(images), each(lambda w, image, c: run(w, image).logits, two_blocks, images)
    )


def test_relevance_and_gradients_of_two_blocks(two_blocks, images):
    found = relevance(two_blocks, transformer_blocks(two_blocks), images, CLASSES)
    assert_same(torch.stack(found.attention, 1), each(lrp_by_its_rules, two_blocks, images))
    assert_same(torch.stack(found.gradients, 1), each(gradients, two_blocks, images))


@pytest.mark.parametrize(
    ("name", "definition", "options"),
    [
        ("attention-rollout", rollout_by_definition, {}),
        ("transformer-lrp", lrp_by_definition, {}),
        ("iia", iia_by_definition, {"steps": 4, "chunk": 7}),
    ],
)
def test_maps_of_two_blocks_are_their_definition(
    name, definition, options, two_blocks, images, monkeypatch
):
    expected = each(definition, two_blocks, images)
    explain = tt.method(name, two_blocks, **options)
    assert_same(explain(images, CLASSES), minmax(expected))
    monkeypatch.setattr(transformers, "minmax", nn.Identity())
    assert_same(explain(images, CLASSES), expected)


def test_lrp_refuses_what_is_no_plain_vit():
    pooled = tt.load_backbone(
        "timm/vit_tiny_patch16_224", None, global_pool="avg", class_token=False
    )
    with pytest.raises(NotServedError, match="class token"):
        tt.method("transformer-lrp", pooled)


def test_timm_vits_are_served():
    backbone = tt.load_backbone("timm/deit_tiny_patch16_224", None)
    image = torch.rand(1, 3, 224, 224)
    logits = backbone(image)
    for name in ("transformer-lrp", "attention-rollout"):
        assert tt.method(name, backbone)(image, logits.argmax(1)).shape == (1, 14, 14)
    assert torch.equal(backbone(image), logits)
