"""What a classifier must be: a probe where it is wrapped, and the twin that is explained."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ttame_core.classifiers.hooks import capture, counted_calls, hooked, unwrap_logits
from ttame_core.errors import TTAMEError

HEADS = ("Addmm", "Mm", "Bmm", "Mul", "Unsafe", "Convolution", "Einsum")
"""Beginnings of the names of autograd's steps by which a head ends: products with weights."""
SAME_VALUES = ("View", "Reshape", "Squeeze", "Clone", "ToCopy", "Permute", "Transpose", "Alias")
"""Beginnings of the names of autograd's steps that leave values as they are."""


def unwrapped(model: nn.Module) -> tuple[nn.Module, str]:
    """Take a classifier out of `DataParallel` or `torch.compile`, and say where in it it was."""
    prefix = ""
    while True:
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        inner = "module" if parallel else "_orig_mod" if hasattr(model, "_orig_mod") else ""
        if not inner:
            return model, prefix
        model, prefix = getattr(model, inner), f"{prefix}{inner}."


def frozen_twin(model: nn.Module) -> nn.Module:
    """Copy a classifier, in evaluation mode and without gradients; the weights' memory is shared.

    The owner's modules keep their mode and gradients, and theirs do not reach the twin; what an
    optimiser does to the weights does. Hooks come along, as they may be a part of what is computed.
    Raises a TTAMEError for what cannot be copied or tapped.
    """
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise TTAMEError(
            f"the classifier is a {type(model).__name__}, whose layers cannot be tapped; expected the nn.Module "
            "itself, before it is scripted or exported"
        )
    patched = [name for name, module in model.named_modules() if "forward" in vars(module)]
    if patched:
        raise TTAMEError(
            f"a forward was put on {patched[0] or 'the classifier'!r} in place of its class's, which leads back to your "
            "own modules from a copy; put it into a subclass, or into a module around it"
        )
    shared: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        # made in inference mode, a tensor could take part in no gradient
        own = tensor.detach().clone() if tensor.is_inference() else tensor.detach()
        parameter = isinstance(tensor, nn.Parameter)
        shared[id(tensor)] = nn.Parameter(own, requires_grad=False) if parameter else own
    try:
        return deepcopy(model, shared).eval()
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise TTAMEError(
            f"the classifier, a {type(model).__name__}, cannot be copied ({error}); remove what it holds beside "
            "modules, parameters and buffers"
        ) from error


def fingerprint(model: nn.Module) -> str:
    """Hash a model's parameters and buffers, to 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Probed:
    """What a probe saw of two noise images."""

    logits: Tensor  # (2, K)
    outputs: dict[str, Any]  # of the taps, in the order in which they last ran
    calls: dict[str, int]  # of every module in one forward pass


def probe(model: nn.Module, images: Tensor, taps: Sequence[str], name: str) -> Probed:
    """Pass two standardised images ``(2, 3, H, W)`` through a frozen classifier and back.

    Raises a TTAMEError unless the result is two rows of at least two finite logits, no
    probabilities, a gradient reaches the images and every tap, and there is a head.
    """
    ran: list[nn.Module] = []
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    # an owner may wrap his classifier while gradients are off
    with torch.inference_mode(False), torch.enable_grad():
        images = images.clone().requires_grad_()
        leaves = dict.fromkeys(
            filter(is_leaf, model.modules()), lambda module, *_: ran.append(module)
        )
        listening = capture(model, taps, copied=False)
        with counted_calls(model) as calls, listening as outputs, hooked(leaves):
            logits = unwrap_logits(run(model, images, name))
        check_logits(logits, model, name)
        if logits.is_meta:
            return Probed(logits.detach(), outputs, calls)
        check_values(logits, model, images, name)
        check_head(logits, model, ran, name)
        check_gradients(logits, images, outputs, name)
    check_repeats(logits, model, images.detach(), buffers, name)
    if missing := [tap for tap in taps if tap not in outputs]:
        raise TTAMEError(
            f"the layers {missing} did not run in a forward pass, so they cannot be tapped"
        )
    return Probed(logits.detach(), outputs, calls)


def run(model: nn.Module, images: Tensor, name: str) -> Any:
    """Pass images through a classifier of anybody's; what it raises becomes a TTAMEError."""
    try:
        return model(images)
    except Exception as error:  # a foreign forward may raise anything
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        channels = first.in_channels if first else 3
        about = f"; its first convolution takes {channels} channels" if channels != 3 else ""
        raise TTAMEError(
            f"{name} cannot classify images {tuple(images.shape)} {images.dtype} on {images.device} "
            f"({type(error).__name__}: {error}{about}); expected a classifier of standardised RGB images: say its size by "
            "preprocessing=tt.Preprocessing(image_size=..., resize=...), or wrap it in a module that takes such images"
        ) from error


def check_logits(logits: Any, model: nn.Module, name: str) -> None:
    """Raise a TTAMEError unless they are ``(2, K)`` floats, K at least 2."""
    kind = getattr(getattr(model, "config", None), "problem_type", None)
    if kind in ("multi_label_classification", "regression"):
        raise TTAMEError(
            f"{name} is trained for something else than one label an image ({kind}), and maps are trained and judged "
            "by the softmax over classes; expected a classifier of one label"
        )
    if not isinstance(logits, Tensor):
        found = f"a {type(logits).__name__}"
        found += f" with {sorted(map(str, logits))[:6]}" if isinstance(logits, dict) else ""
        raise TTAMEError(
            f"{name} returns {found}; expected logits (B, K): wrap it in a module that returns them"
        )
    if logits.ndim != 2 or len(logits) != 2 or not logits.is_floating_point():
        raise TTAMEError(
            f"{name} returns {tuple(logits.shape)} {logits.dtype} for 2 images; expected logits (2, K), floats"
        )
    if logits.shape[1] < 2:
        raise TTAMEError(
            f"{name} returns a single logit, of which the softmax is always 1; expected at least two classes: wrap it "
            "in a module that returns torch.cat([torch.zeros_like(z), z], 1), whose softmax is z's sigmoid"
        )


def check_values(logits: Tensor, model: nn.Module, images: Tensor, name: str) -> None:
    """Raise a TTAMEError unless logits ``(2, K)`` are finite and no probabilities."""
    if not logits.isfinite().all():
        tensors = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
        broken = [k for k, v in tensors.items() if not v.isfinite().all()]
        found = f"weights that are not finite: {broken[:3]}" if broken else "no such weights"
        raise TTAMEError(
            f"{name} returns logits that are not finite for two ordinary images ({found}); expected finite ones: "
            "load whole weights, or use another precision"
        )
    values = logits.detach().float()
    sums = values.sum(1)
    positive, varied = values.min() >= 0, not torch.equal(values[0], values[1])
    whole = positive and (sums - 1).abs().max() < 1e-3
    # a few logits may all lie in [0, 1] by chance, and those of a head at its beginning are zeros;
    # rectified ones that do are larger for images of more contrast, and probabilities are not
    bounded = positive and varied and values.max() <= 1 and values.shape[1] > 4
    bounded = bounded and unwrap_logits(run(model, 1000 * images, name)).max() <= 1
    constant = positive and varied and (sums[0] - sums[1]).abs() < 1e-4 * sums[0]
    squashed = last_step(logits).startswith(("SoftmaxBackward", "SigmoidBackward"))
    if whole or bounded or constant or squashed:
        raise TTAMEError(
            f"{name} returns probabilities, {values.min():.2g} to {values.max():.2g}, and their softmax would be all but "
            "even; expected logits: leave out the last softmax or sigmoid"
        )


def last_step(logits: Tensor) -> str:
    """Name the last step of autograd's that changed the values of logits."""
    step = getattr(logits, "grad_fn", None)
    while step and step.next_functions and step.name().startswith(SAME_VALUES):
        step = step.next_functions[0][0]
    return step.name() if step else ""


def is_leaf(module: nn.Module) -> bool:
    """Say whether a module has weights of its own, and none in modules inside it."""
    inside = next(module.children(), None) is not None
    return not inside and next(module.parameters(), None) is not None


def check_head(logits: Tensor, model: nn.Module, ran: Sequence[nn.Module], name: str) -> None:
    """Raise a TTAMEError where what ran last was a norm: a head ends in a product with weights."""
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    headless = bool(ran) and isinstance(ran[-1], norms) and not last_step(logits).startswith(HEADS)
    if headless or getattr(model, "num_classes", None) == 0:
        raise TTAMEError(
            f"{name} has no head: what it returns are {logits.shape[1]} features, and none of them is a class; give "
            "it a trained head (num_classes of a pretrained model is that of its weights)"
        )


def check_gradients(logits: Tensor, images: Tensor, outputs: dict[str, Any], name: str) -> None:
    """Raise a TTAMEError unless logits have a gradient, finite and not 0, at images and taps."""
    tensors = {tap: out for tap, out in outputs.items() if isinstance(out, Tensor)}
    asked = {"the image": images, **{f"the tap {tap!r}": out for tap, out in tensors.items()}}
    lost = [what for what, value in asked.items() if not value.requires_grad]
    if logits.requires_grad and not lost:
        weights = torch.linspace(1, 2, logits.numel()).view_as(logits)  # so that nothing cancels
        gradients = torch.autograd.grad(
            (logits * weights.to(logits)).sum(), [*asked.values()], allow_unused=True
        )
        found = dict(zip(asked, gradients, strict=True))
        broken = [what for what, g in found.items() if g is not None and not g.isfinite().all()]
        varied = not torch.equal(logits[0], logits[1])  # a head at its beginning may be all zeros
        lost = [what for what, g in found.items() if g is None or (varied and not g.any())]
        if broken and not lost:
            raise TTAMEError(f"the gradient of {name}'s logits is not finite at {broken[0]}")
    if lost or not logits.requires_grad:
        where = lost[0] if lost else "the image"
        raise TTAMEError(
            f"no gradient of {name}'s logits reaches {where}, so that nothing can be learnt or explained there; "
            "expected a forward without no_grad, detach, rounding or quantised layers, and taps that the logits depend on"
        )


@torch.no_grad()
def check_repeats(
    logits: Tensor, model: nn.Module, images: Tensor, buffers: dict[str, Tensor], name: str
) -> None:
    """Raise a TTAMEError where an image's logits hang on chance, its batch or the calls before.

    Takes the logits ``(2, K)`` of two images and the buffers as they were, which are put back.
    """
    again = unwrap_logits(run(model, torch.stack([images[1], images[0] / 2]), name))
    own = model.state_dict()
    changed = [k for k, v in buffers.items() if k in own and not torch.equal(own[k], v)]
    for key in changed:
        own[key].copy_(buffers[key])
    if changed:
        raise TTAMEError(
            f"the buffers {changed[:3]} of {name} change whenever it is called in evaluation mode, and so would what "
            "is explained; expected a classifier that stays as it is: count or observe outside of it"
        )
    close = 1e-3 if logits.dtype in (torch.float32, torch.float64) else 5e-2
    if (again[0] - logits[1]).abs().max() > close * logits.abs().max() + 1e-6:
        raise TTAMEError(
            f"{name} gives an image other logits in another batch, or at another call; expected the same in evaluation "
            "mode: dropout and batch norm must be modules, registered as such, and batch norm have running statistics"
        )
