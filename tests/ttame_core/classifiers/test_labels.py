"""Classes in words."""

import pytest

import ttame_core as tt


def test_classes_of_imagenet_go_by_their_names(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "num_classes", 1000)
    assert tiny.class_index("Egyptian cat") == tiny.class_index("egyptian") == 285
    assert tiny.class_index("285") == tiny.class_index("egyptian_cat") == 285
    with pytest.raises(tt.TTAMEError, match=r"classes of .* go by 'cat': .*Egyptian cat \(285\)"):
        tiny.class_index("cat")
