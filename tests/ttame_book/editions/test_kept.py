"""Maps and answers that an edition keeps."""

import torch

from tests.ttame_book.smoke import read
from ttame_book.studies.comparison import compared_methods


def test_costly_maps_are_found_by_runs_of_other_settings(tmp_path):
    images = torch.rand(1, 3, 64, 64)
    files = []
    for methods in (["rise"], ["rise", "random"]):
        edition = read(tmp_path, methods=methods)
        backbone = edition.backbone("demo_resnet")
        ready, _ = compared_methods(edition, backbone, keep=True)
        ready["rise"](images, torch.tensor([1]))
        files.append(list(tmp_path.rglob("*.npy")))
    assert files[0] == files[1] and len(files[0]) == 1
