"""A backbone: frozen, masked in its family's order, its statistics where it is."""

import pytest
import torch
import torchvision

import ttame_core as tt
from ttame_core.images.reading import Preprocessing


def test_a_marked_patch_lands_in_its_cell():
    vit = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=1,
        num_heads=1,
        hidden_dim=8,
        mlp_dim=8,
        num_classes=3,
    )
    with torch.no_grad():
        vit.encoder.pos_embedding.zero_()
    backbone = tt.Backbone(
        vit, ["encoder.dropout"], preprocessing=Preprocessing(image_size=32, resize=32)
    )
    images = torch.full((1, 3, 32, 32), 0.5)
    images[:, :, 8:16, 24:32] = 1.0  # row 1, column 3 of the 4 x 4 grid
    grid = backbone.features(images)[1][0]  # (1, 8, 4, 4)
    background = grid[0, :, 0, 0][:, None, None]
    changed = (grid[0] - background).abs().amax(0) > 1e-6
    assert changed.nonzero().tolist() == [[1, 3]]


def test_masking_orders_of_the_families():
    images, masks = torch.rand(2, 3, 64, 64), torch.rand(2, 8, 8)
    large = torch.nn.functional.interpolate(masks[:, None], size=64, mode="bilinear")
    cnn, vit = tt.load_backbone("demo_resnet"), tt.load_backbone("demo_vit")
    assert torch.allclose(cnn(images, masks), cnn.model(cnn.standardise(large * images)), atol=1e-5)
    assert torch.allclose(vit(images, masks), vit.model(large * vit.standardise(images)), atol=1e-5)
    assert torch.equal(vit(images), vit.logits(vit.standardise(images)))


def test_the_statistics_are_where_the_classifier_is():
    model = tt.load_backbone("demo_resnet", None).model.to("meta")  # stands for an accelerator
    backbone = tt.Backbone(model, ["layer2", "layer4"])
    assert backbone.mean.device.type == backbone.std.device.type == "meta"
    assert backbone.with_taps(["layer3"]).mean.device.type == "meta"


def test_unknown_masking():
    with pytest.raises(tt.TTAMEError, match="standardised"):
        tt.load_backbone("demo_resnet", masking="standardized")
