"""What can be chosen, and what cannot."""

import pytest

import ttame_core as tt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"other_classes": "inbatch"}, "did you mean 'in-batch'"),
        ({"steps": 0}, "at least 1 step"),
        ({"batch_size": 1}, "batch norm"),
        ({"max_lr": -1.0}, "positive rate"),
    ],
)
def test_recipes_that_cannot_be(options, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.Recipe(**options)
