"""Vision transformers of one and of two blocks, and methods on them, written out in numpy."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import torch
from scipy.special import erf

HEAD = torch.tensor([[2.0, 1.0], [0.5, 3.0]])


CLASS_TOKEN = torch.tensor([0.3, 0.6])


def by_hand(image, scale=1.0):
    """Tokens (5, 2) and the class token's attention to them (5,)."""
    tokens = torch.cat([CLASS_TOKEN[None], scale * image[:2].flatten(1).T])
    return tokens, (tokens[:, 0] / math.sqrt(2)).softmax(0)


MEAN, STD = (0.5, 0.25, 0.375), (0.25, 0.5, 0.125)  # the same in single and double precision


CLASSES = torch.tensor([0, 2])


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


def run_block(x, w, nudge, scale, held=None):
    """What one block computes of tokens (N, D), its attention scaled, or held at what is given, and nudged."""
    s = SimpleNamespace(w=w, start=x, inputs=layer_norm(x, w, "ln_1"))
    qkv = s.inputs @ w["self_attention.in_proj_weight"].T + w["self_attention.in_proj_bias"]
    s.query, s.key, s.value = (by_head(third) for third in np.split(qkv, 3, axis=1))
    rising = np.exp(s.query @ s.key.swapaxes(1, 2) / math.sqrt(3))
    attention = scale * rising / rising.sum(2, keepdims=True) if held is None else held
    s.attention = attention + nudge  # (h, N, N)
    s.context = np.concatenate(list(s.attention @ s.value), axis=1)
    s.middle = x + affine(s.context, w, "self_attention.out_proj")
    s.normed = layer_norm(s.middle, w, "ln_2")
    wide = affine(s.normed, w, "mlp.0")
    s.active = wide * (1 + erf(wide / math.sqrt(2))) / 2
    s.end = s.middle + affine(s.active, w, "mlp.3")
    return s


def run(w, image, nudges=(0, 0), last_scale=1.0, contrast=1.0, held=None):
    """The whole network on an image (3, 4, 4), scaled once standardised; the last attention may be held."""
    standard = contrast * (image - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    cells = standard.reshape(3, 2, 2, 2, 2)
    patches = np.einsum("cypxq,dcpq->yxd", cells, w["conv_proj.weight"]).reshape(4, 6)
    x = np.concatenate([w["class_token"][0], patches + w["conv_proj.bias"]])
    x = x + w["encoder.pos_embedding"][0]
    blocks = []
    for i, scale in enumerate([1.0, last_scale]):
        own = part(w, f"encoder.layers.encoder_layer_{i}.")
        blocks.append(run_block(x, own, nudges[i], scale, held if i else None))
        x = blocks[-1].end
    top = layer_norm(x, w, "encoder.ln")
    attention = np.stack([s.attention for s in blocks])  # (2, h, N, N)
    logits = affine(top[:1], w, "heads.head")[0]
    return SimpleNamespace(blocks=blocks, attention=attention, top=top, logits=logits)


def gradients(w, image, c, last_scale=1.0, **options):
    """Of a logit with respect to each entry of each block's attention, by complex steps: exact, and no autograd."""
    found = np.zeros((2, 2, 5, 5))
    for place in np.ndindex(found.shape):
        nudges = np.zeros(found.shape, complex)
        nudges[place] = 1e-30j
        found[place] = run(w, image, nudges, last_scale, **options).logits[c].imag / 1e-30
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


def original_iia_by_definition(w, image, c):
    """From grey, and with the last block's attention as a constant for what lies before it."""
    total = np.zeros((2, 5, 5))
    for i, j in itertools.product(range(3), range(3)):
        attention = run(w, image, last_scale=j / 2, contrast=i / 2).attention
        options = {"contrast": i / 2, "held": attention[1]}
        total += np.maximum(gradients(w, image, c, **options) * attention, 0).mean(1)
    return rolled_out(total / 9, normalise=True)


def each(function, backbone, images):
    """A function of the weights written out, applied to each image and its class."""
    w = {name: value.numpy() for name, value in backbone.model.state_dict().items()}
    pairs = zip(images.numpy(), CLASSES.tolist(), strict=True)
    return torch.from_numpy(np.stack([function(w, image, c) for image, c in pairs]))


def assert_same(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8)
