"""Photographs out of packages: splits that share none, crops that change by epoch."""

import pytest
import torch

import ttame_book as tb
import ttame_core as tt
from ttame_core.images.folders import SPLITS


def test_photographs_of_the_splits_are_others_and_crops_change_by_epoch():
    ids = {
        s: {i["id"].rsplit("-", 1)[0] for i in tb.PackagePhotographs(s)} for s in ("val", "test")
    }
    train = tb.PackagePhotographs("train", 40)
    ids["train"] = {train[i]["id"].rsplit("-", 1)[0] for i in range(40)}
    assert [len(ids[s]) for s in SPLITS] == [19, 4, 8]
    assert not (ids["train"] & ids["val"] or ids["train"] & ids["test"] or ids["val"] & ids["test"])
    first = train[3]["image"]
    assert torch.equal(first, train[3]["image"])
    train.set_epoch(1)
    assert not torch.equal(first, train[3]["image"])


@pytest.mark.parametrize("maker", [tb.DigitsInPhotographs, tb.PackagePhotographs])
def test_an_unknown_split(maker):
    with pytest.raises(tt.TTAMEError, match="did you mean 'train'"):
        maker("trains")
