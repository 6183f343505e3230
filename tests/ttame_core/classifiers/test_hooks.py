"""Hooks: what they read and change, and that they always go away."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ttame_core as tt
from ttame_core.classifiers.hooks import (
    capture,
    hooked,
    replaced_output,
    traffic,
    unwrap_features,
    unwrap_logits,
)
from ttame_core.images.reading import Preprocessing


@pytest.fixture
def model():
    """A layer that doubles between two that change nothing."""
    return nn.Sequential(nn.Identity(), Doubled(), nn.Identity())


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def hooks_of(model):
    return [hook for m in model.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]


def test_outputs_come_in_the_order_in_which_the_layers_run(model):
    x = torch.rand(2, 3)
    with capture(model, ["2", "1", "0"]) as outputs:
        model(x)
    assert list(outputs) == ["0", "1", "2"]
    assert torch.equal(outputs["0"], x) and torch.equal(outputs["2"], 2 * x)
    assert not hooks_of(model)


def test_traffic_is_the_first_input_and_the_output_without_their_graph(model):
    x = torch.rand(2, 3, requires_grad=True)
    with traffic([model[1]]) as seen:
        model(x)
    given, output = seen[model[1]]
    assert torch.equal(given, x) and torch.equal(output, 2 * x)
    assert not (given.requires_grad or output.requires_grad or hooks_of(model))


def test_what_comes_behind_a_layer_sees_its_output_edited(model):
    x = torch.rand(1, 3)
    with replaced_output(model[0], lambda output: output.repeat(4, 1) + 1):
        assert torch.equal(model(x), 2 * (x.repeat(4, 1) + 1))
    assert torch.equal(model(x), 2 * x)


@pytest.mark.parametrize(
    "listening",
    [
        lambda model: hooked({model[1]: lambda *call: None}),
        lambda model: capture(model, ["0", "1"]),
        lambda model: traffic([model[0], model[2]]),
        lambda model: replaced_output(model[0], torch.zeros_like),
    ],
)
def test_hooks_go_away_where_the_block_fails(listening, model):
    with pytest.raises(KeyboardInterrupt), listening(model):
        assert hooks_of(model)
        raise KeyboardInterrupt
    assert not hooks_of(model)


def test_hooks_may_nest_and_only_their_own_go_away(model):
    x = torch.rand(2, 3)
    with capture(model, ["1"]) as outer:
        with capture(model, ["1"]) as inner:
            pass
        model(x)
    assert torch.equal(outer["1"], 2 * x) and not inner


def test_logits_and_features_are_taken_out_of_what_is_returned():
    x, other = torch.rand(2, 3), torch.rand(2, 3)
    for wrapped in (x, (x, other), [x], SimpleNamespace(logits=x)):
        assert unwrap_logits(wrapped) is x
    for wrapped in (x, (x, other), SimpleNamespace(last_hidden_state=x)):
        assert unwrap_features(wrapped) is x
    assert unwrap_features(()) == ()


def test_an_inplace_relu_does_not_change_a_tap():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1),
        torch.nn.ReLU(inplace=True),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 2),
    )
    small = Preprocessing(image_size=4, resize=4)
    backbone = tt.Backbone(model, ["0"], preprocessing=small)
    assert (backbone.features(torch.rand(2, 3, 4, 4))[1][0] < 0).any()


def test_no_hooks_are_left():
    backbone = tt.load_backbone("demo_resnet")
    backbone.features(torch.rand(1, 3, 64, 64))
    with pytest.raises(tt.TTAMEError, match="is no feature map"):
        backbone.features(torch.rand(1, 3, 1, 1))
    with backbone.held(), backbone._fast.running(backbone.model, 64) as twin:
        assert twin is not backbone.model  # which it would be if something listened to it
        assert not any(m._forward_hooks for m in twin.modules())
