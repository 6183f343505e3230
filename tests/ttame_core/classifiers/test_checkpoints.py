"""Weights as people have them: what is unwrapped, and what is said of what is no weights."""

import argparse
import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ttame_core as tt
from tests.conftest import TinyCNN
from ttame_core.classifiers.checkpoints import load_weights

OTHER = {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}, "epoch": 3}


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def dotted(state, kept):
    return {name: value for name, value in state.items() if kept(name)}


NESTED = {
    "as it is": lambda s: s,
    "beside other things": lambda s: {**s, "epoch": 3},
    "state_dict": lambda s: {"state_dict": s, **OTHER},
    "model": lambda s: {**OTHER, "model": s},
    "deep": lambda s: {"a": {"b": {"net": s}}},
    "twice the same": lambda s: {"model": s, "ema": copy.deepcopy(s)},
    "data parallel": lambda s: prefixed("module.", s),
    "compiled data parallel": lambda s: prefixed("_orig_mod.module.", s),
    "lightning": lambda s: {
        "state_dict": {**prefixed("model.", s), "loss.weight": torch.ones(4)},
        "pytorch-lightning_version": "2",
    },
    "averaged": lambda s: {"n_averaged": torch.tensor(5), **prefixed("module.", s)},
    "any words": lambda s: prefixed("my.best.net.", s),
    "without batch norms' counters": lambda s: dotted(s, lambda n: "num_batches" not in n),
}


@pytest.fixture
def trained():
    """A classifier with weights and statistics of its own."""
    model = TinyCNN()
    for value in model.state_dict().values():
        value.add_(3) if value.dtype == torch.int64 else value.copy_(torch.rand(value.shape))
    return model


@pytest.mark.happens(
    "Weights",
    "weights that are nested, prefixed, of DataParallel or a compiled model, averaged, without counters, in memory",
    "found and loaded",
)
@pytest.mark.parametrize("how", NESTED)
def test_weights_are_found_wherever_they_are(how, trained, tmp_path):
    checkpoint = NESTED[how](trained.state_dict())
    torch.save(checkpoint, tmp_path / "c.pth")
    for given in (checkpoint, tmp_path / "c.pth", str(tmp_path / "c.pth")):
        model = TinyCNN()
        load_weights(model, given)
        for name, value in trained.state_dict().items():
            if "num_batches" not in name:
                assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.happens(
    "Weights",
    "two sets of weights in a file that both fit",
    "refused, both named",
)
@pytest.mark.parametrize(
    "checkpoint",
    [
        lambda s, other: {"model": s, "ema": other},
        lambda s, other: {**prefixed("student.", s), **prefixed("teacher.", other)},
        # without counters, which the other has
        lambda s, other: {"net": s, "ema": dotted(other, lambda n: "num_batches" not in n)},
    ],
)
def test_of_several_that_differ_none_is_chosen_in_silence(checkpoint, trained):
    state = trained.state_dict()
    other = {name: value + 1 for name, value in state.items()}
    model = TinyCNN()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(tt.TTAMEError, match=r"more than once, and they differ.*give one of them"):
        load_weights(model, checkpoint(state, other))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.happens(
    "Weights",
    "weights of half, bfloat16 or double precision",
    "loaded in the model's own",
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_the_models_own(dtype, trained):
    model = TinyCNN()
    load_weights(model, {name: value.to(dtype) for name, value in trained.state_dict().items()})
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, trained.head.weight.to(dtype).float())


@pytest.mark.happens(
    "Weights",
    "weights with missing, further, misshapen or broken tensors",
    "refused by their names; the model stays as it was",
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: prefixed("module.", dotted(s, lambda n: "head" not in n)),
            r"\(module\.\*\) do not fit TinyCNN: 2 missing \['head.bias', 'head.weight'\], 0 unex",
        ),
        (lambda s: {"model": {**s, "extra": torch.ones(2)}}, r"\['model'\].*1 unexpected \['ext"),
        (
            lambda s: {**s, "head.bias": torch.ones(10)},
            r"head.bias is \(10,\) torch.float32, expected \(8,\).*and its num_classes",
        ),
        (  # quantised numbers would be loaded as if they were weights
            lambda s: {**s, "head.bias": torch.ones(8, dtype=torch.int8)},
            r"head.bias is \(8,\) torch.int8, expected \(8,\) torch.float32",
        ),
        (
            lambda s: {**s, "middle.0.weight": s["middle.0.weight"] * float("nan")},
            r"not finite: \['middle.0.weight'\], 1 in all",
        ),
        (lambda s: {"state": OTHER}, r"do not fit TinyCNN: \d+ missing.*1 unexpected \['step'\]"),
        (lambda s: {"epoch": 3, "best": "a"}, r"no tensors by name, but 2 of \['int', 'str'\]"),
        (lambda s: {}, "holds no tensors by name, but 0"),
        (lambda s: {0: torch.ones(3)}, "no tensors by name"),
    ],
)
def test_what_does_not_fit_is_told_by_names(change, message, trained):
    model = TinyCNN()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(tt.TTAMEError, match=message):
        load_weights(model, change(trained.state_dict()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def write(path, kind, state):
    """Write something that is often taken for weights."""
    torch.save(state, path)
    whole = path.read_bytes()
    save_file(state, path)
    texts = {
        "empty": b"",
        "short": b"PK",
        "garbage": b"no weights at all",
        "page": b"\n<!DOCTYPE html><html>404</html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
        "index": b'{"weight_map": {}}',
        "cut": whole[: len(whole) // 2],
        "cut safetensors": path.read_bytes()[:-9],
        "broken pickle": b"\x80\x04garbage",
    }
    objects = {
        "model": TinyCNN(),
        "settings": {"model": state, "args": argparse.Namespace(lr=1)},
        "tensor": torch.ones(3),
        "list": [state],
    }
    if kind in objects:
        torch.save(objects[kind], path)
    else:
        path.write_bytes(texts[kind])


@pytest.mark.happens(
    "Weights",
    "a file that is empty, cut, garbage, HTML, an LFS pointer, JSON or a pickled model",
    "refused by what was found",
)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "it is empty; expected"),
        ("short", "its end is missing after 2 bytes; copy"),
        ("garbage", "it begins with b'no weights a'"),
        ("page", "it is a page of HTML or XML: download"),
        ("pointer", "it is a Git LFS pointer: .*`git lfs pull`"),
        ("index", "it is JSON: give the file of the weights"),
        ("cut", r"its end is missing after \d+ bytes; copy it once more"),
        ("cut safetensors", r"bytes, SafetensorError: .*incomplete"),
        ("broken pickle", r"9 bytes, UnpicklingError: "),
        ("model", r"holds tests\.conftest\.TinyCNN, and to load that would run code.*state dict"),
        ("settings", r"holds argparse\.Namespace, and .*weights_only=False, and save its state"),
        ("tensor", "it holds a Tensor; expected .safetensors, or a state dict"),
        ("list", "it holds a list; expected"),
    ],
)
def test_what_is_no_file_of_weights_is_told_by_what_it_is(kind, message, trained, tmp_path):
    file = tmp_path / "weights.pth"
    write(file, kind, trained.state_dict())
    with pytest.raises(tt.TTAMEError, match=message) as raised:
        load_weights(TinyCNN(), file)
    assert str(file) in str(raised.value)
    # torch's own advice
    assert "Re-running" not in str(raised.value) and "do it only" not in str(raised.value)


@pytest.mark.happens(
    "Weights",
    "a folder as weights",
    "refused: what lies in it is told",
)
def test_a_folder_tells_what_is_in_it(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(tt.TTAMEError, match=r"are a folder of \['model.safetensors'\]; give"):
        load_weights(TinyCNN(), tmp_path)


@pytest.mark.happens(
    "Weights",
    "a model, list, int or array as weights",
    "refused in words",
)
@pytest.mark.parametrize("given", [nn.Linear(2, 2), [1], 3, np.ones(2)])
def test_what_is_neither_file_nor_dict(given):
    with pytest.raises(tt.TTAMEError, match=r"weights are <class .*state dict: model.state_dict"):
        load_weights(TinyCNN(), given)


@pytest.mark.happens(
    "Weights",
    "a wrong suffix, or an old format",
    "read by what the file holds",
)
def test_files_are_read_by_what_they_hold_whatever_their_suffix(trained, tmp_path):
    state = trained.state_dict()
    save_file(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.safetensors")
    torch.save(state, tmp_path / "c.bin", _use_new_zipfile_serialization=False)  # before 2020
    for name in ("a.pth", "b.safetensors", "c.bin"):
        model = TinyCNN()
        load_weights(model, tmp_path / name)
        assert torch.equal(model.head.weight, trained.head.weight), name
