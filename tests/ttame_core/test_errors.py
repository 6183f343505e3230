"""What a mistyped name and a missing extra are told."""

import pytest

import ttame_core as tt
from ttame_core.errors import NotServedError, nearest, needed


@pytest.mark.parametrize(
    ("name", "valid", "told"),
    [
        ("resnet5", ["resnet50", "vgg16"], "did you mean 'resnet50'? valid: resnet50, vgg16"),
        ("xyz", ["resnet50", "vgg16"], "valid: resnet50, vgg16"),
        ("alph", ["alpha", *map(str, range(20))], "did you mean 'alpha'?"),
        (
            "xyz",
            [f"name{i:02}" for i in range(20)],
            f"valid: {', '.join(f'name{i:02}' for i in range(12))}, ... (20 in all)",
        ),
        (None, [None, "a"], "did you mean 'None'? valid: None, a"),
    ],
)
def test_the_nearest_names_are_told_and_few_are_listed(name, valid, told):
    assert nearest(name, valid) == told


def test_what_is_missing_says_what_to_install():
    assert needed("json", "json", "this").loads("1") == 1
    with pytest.raises(
        tt.TTAMEError, match=r"drawing needs no_such_module, .* pip install 'extra'"
    ):
        needed("no_such_module", "extra", "drawing")


def test_errors_are_values_that_are_wrong():
    assert issubclass(NotServedError, tt.TTAMEError) and issubclass(tt.TTAMEError, ValueError)
