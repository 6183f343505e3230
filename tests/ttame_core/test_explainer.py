"""T-TAME as a user meets it: explain, save, load."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import ttame_core as tt
from ttame_core.masking import minmax, upsample


def test_maps_are_scaled_to_0_and_1_at_the_largest_taps_size(tiny, noise):
    explanation = tt.TTAME(tiny)(noise.images)
    assert explanation.maps.shape == (24, 16, 16)
    assert torch.equal(explanation.maps.amin((1, 2)), torch.zeros(24))
    assert torch.equal(explanation.maps.amax((1, 2)), torch.ones(24))
    scores = tiny(noise.images).softmax(1)
    assert torch.allclose(explanation.confidences, scores.amax(1))
    assert torch.equal(explanation.classes, scores.argmax(1))


def test_batch_equals_loop_and_several_classes_equal_single_ones(tiny, noise):
    explainer, images = tt.TTAME(tiny), noise.images[:5]
    together = explainer.explain(images)
    for i in range(5):
        assert torch.allclose(explainer.explain(images[i : i + 1])[0], together[i], atol=1e-5)
    classes = torch.tensor([[2, 7]]).expand(5, 2)
    both = explainer.explain(images, classes)
    assert both.shape == (5, 2, 16, 16)
    assert torch.allclose(both[:, 1], explainer.explain(images, classes[:, 1]), atol=1e-5)


def test_explaining_leaves_the_mode_and_the_images_alone(tiny, noise):
    explainer = tt.TTAME(tiny).train()
    before = noise.images.clone()
    statistics = explainer.attention.branches[0].norm.running_mean.clone()
    explainer.explain(noise.images)
    assert explainer.attention.training
    assert torch.equal(explainer.attention.branches[0].norm.running_mean, statistics)
    assert torch.equal(noise.images, before)


def test_saved_and_loaded_it_gives_the_same_maps(tiny, noise, tmp_path):
    explainer = tt.TTAME(tiny, "no_skip", seed=3)
    explainer.save(tmp_path / "e.safetensors", recipe="mine")
    loaded = tt.TTAME.load(tmp_path / "e.safetensors", tiny)
    assert loaded.variant == "no_skip"
    assert torch.equal(loaded.explain(noise.images), explainer.explain(noise.images))
    assert tt.TTAME.metadata(tmp_path / "e.safetensors")["recipe"] == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]
    (tmp_path / "plain").touch()
    assert (tmp_path / "e.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.happens("Same in, same out", "an explainer is saved again", "the same bytes")
def test_the_same_explainer_has_the_same_bytes_whenever_it_is_saved(tiny, tmp_path):
    explainer = tt.TTAME(tiny)
    files = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for file in files:
        explainer.save(file, words="naïve, “quoted”")
    assert len({file.read_bytes() for file in files}) == 1
    assert tt.TTAME.metadata(files[0])["words"][2] == "ï"
    assert torch.equal(
        tt.TTAME.load(files[0], tiny).attention.fusion.weight, explainer.attention.fusion.weight
    )


def test_an_explainer_of_another_classifier_is_refused(tiny, tmp_path):
    tt.TTAME(tt.load_backbone("demo_resnet")).save(tmp_path / "e.safetensors")
    with pytest.raises(tt.TTAMEError, match="trained with taps"):
        tt.TTAME.load(tmp_path / "e.safetensors", tiny)
    other = tt.load_backbone("demo_resnet", weights=None)
    with pytest.raises(tt.TTAMEError, match="backbone_fingerprint"):
        tt.TTAME.load(tmp_path / "e.safetensors", other)


def test_broken_and_missing_files(tiny, tmp_path):
    (tmp_path / "e.safetensors").write_bytes(b"x" * 64)
    with pytest.raises(tt.TTAMEError, match="is no explainer"):
        tt.TTAME.load(tmp_path / "e.safetensors", tiny)
    with pytest.raises(tt.TTAMEError, match="no explainer at"):
        tt.TTAME.load(tmp_path / "f.safetensors", tiny)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 16, 16), "expected"),
        (torch.rand(2, 1, 16, 16), "expected"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "uint8"),
        (torch.rand(2, 3, 16, 16) * 255, "pixel values / 255"),
        (torch.full((2, 3, 16, 16), torch.nan), "nan"),
    ],
)
def test_images_that_are_none(tiny, images, message):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.TTAME(tiny).explain(images)


@pytest.mark.parametrize(
    "classes", [torch.tensor([0, 8]), torch.tensor([0]), torch.tensor([0.0, 1.0])]
)
def test_classes_that_are_none(tiny, noise, classes):
    with pytest.raises(tt.TTAMEError, match="classes"):
        tt.TTAME(tiny).explain(noise.images[:2], classes)


def test_unknown_variant(tiny):
    with pytest.raises(tt.TTAMEError, match="did you mean 'no_skip'"):
        tt.TTAME(tiny, "noskip")


@pytest.mark.parametrize("shape", [(0, 3, 64, 64), (1, 3, 0, 48)])
def test_no_image_and_images_of_no_pixels_are_refused(shape):
    explainer = tt.TTAME(tt.load_backbone("demo_resnet"))
    with pytest.raises(tt.TTAMEError, match="expected at least one, and a pixel"):
        explainer(torch.rand(shape))


def test_several_classes_in_words_or_numbers(tiny, noise):
    explainer = tt.TTAME(tiny)
    found = explainer(noise.images[:2], [3, "class 1"])
    assert found.classes.tolist() == [[3, 1]] * 2
    single = explainer.explain(noise.images[:2], torch.tensor([3, 3]))
    assert torch.allclose(found.maps[:, 0], single, atol=1e-5)
    with pytest.raises(tt.TTAMEError, match="no class 'dog'"):
        explainer(noise.images[:2], [3, "dog"])
    with pytest.raises(tt.TTAMEError, match="classes"):
        explainer(noise.images[:2], [])


@pytest.mark.parametrize("classes", [[], True, 1.5, {"a": 1}])
def test_what_names_no_classes_is_refused(classes, tiny, noise):
    with pytest.raises(tt.TTAMEError, match=r"classes are .*; expected a tensor, how many"):
        tt.TTAME(tiny)(noise.images[:2], classes)


def test_a_number_of_classes_means_the_most_confident_ones():
    explainer = tt.TTAME(tt.load_backbone("demo_resnet"))
    images = torch.rand(2, 3, 64, 64)
    found = explainer(images, 3)
    order = explainer.backbone(images).argsort(1, descending=True)
    assert torch.equal(found.classes, order[:, :3])
    assert found.ranks.tolist() == [[1, 2, 3]] * 2
    assert explainer(images, order[:, 4]).ranks.tolist() == [5, 5]
    assert torch.allclose(found.maps, explainer(images, order[:, :3]).maps)
    with pytest.raises(tt.TTAMEError, match="0 classes are asked for; expected 1 to 10"):
        explainer(images, 0)


def test_a_call_takes_a_class_in_words(shipped, photos):
    in_words = shipped(photos / "a.png", "class 7")
    assert in_words.classes.tolist() == [7]
    assert torch.equal(in_words.maps, shipped(photos / "a.png", torch.tensor([7])).maps)
    with pytest.raises(tt.TTAMEError, match="images are a list; expected a tensor"):
        shipped(["a.png"])


@pytest.mark.parametrize(("name", "found"), [("nope.jpg", "not there"), ("more", "a folder")])
def test_a_photograph_that_is_no_file_is_named(name, found, shipped, photos):
    with pytest.raises(tt.TTAMEError, match=f"{name} is {found}; expected an image file"):
        shipped(photos / name)


@pytest.mark.happens(
    "Images and classes",
    "a photograph that is not square, to be explained whole",
    "fitted into the classifier's square, and the map laid back over all of it",
)
def test_a_whole_photograph_is_explained_in_its_proportions(tmp_path):
    explainer = tt.TTAME(tt.load_backbone("demo_resnet"), seed=3).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 120, 3), dtype=np.uint8)
    file = tmp_path / "wide.png"
    Image.fromarray(pixels).save(file)
    whole, crop = explainer(file, whole=True), explainer(file)
    assert whole.maps.shape == (1, 21, 64) and whole.images.shape == (1, 3, 21, 64)
    assert (whole.maps.min(), whole.maps.max()) == (0, 1)
    assert crop.images.shape == (1, 3, 64, 64)
    # what the classifier saw: the whole picture, and the mean colour above and below it
    square = torch.tensor(explainer.backbone.preprocessing.mean)[:, None, None].expand(3, 64, 64)
    square = square.clone()
    square[:, 21:42] = whole.images[0]
    assert torch.equal(whole.classes, explainer(square[None]).classes)
    again = minmax(upsample(explainer(square[None], whole.classes).maps, (64, 64))[:, 21:42])
    assert torch.allclose(whole.maps, again, atol=1e-6)


def _spoiled(state, how):
    if how == "nan":
        state["fusion.bias"][3] = torch.nan
    elif how == "missing":
        del state["branches.1.conv.weight"]
    else:
        state["fusion.bias"] = torch.zeros(9)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [("nan", "not finite: fusion.bias"), ("missing", "Missing key"), ("shape", "size mismatch")],
)
@pytest.mark.happens("Weights", "an explainer's file with a tensor that is {how}", "{message}")
def test_tensors_that_are_not_those_of_the_header_are_told(how, message, tiny, tmp_path):
    file = tmp_path / "e.safetensors"
    tt.TTAME(tiny).save(file)
    save_file(_spoiled(load_file(file), how), file, tt.TTAME.metadata(file))
    expected = rf"e\.safetensors does not hold what its header says \(.*{message}.*; train anew, or"
    with pytest.raises(tt.TTAMEError, match=expected) as raised:
        tt.TTAME.load(file, tiny)
    assert "\n" not in str(raised.value)


def test_what_is_no_path_and_no_text_is_told(tiny, tmp_path):
    explainer = tt.TTAME(tiny)
    for call in (lambda: explainer.save(None), lambda: tt.TTAME.load(None, tiny)):
        with pytest.raises(tt.TTAMEError, match="path is None; expected the name of a file"):
            call()
    with pytest.raises(tt.TTAMEError, match="note is 3; expected a text"):
        explainer.save(tmp_path / "e.safetensors", note=3)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"backbone": torch.nn.Linear(1, 1)},
            "backbone is a Linear; expected a tt.Backbone: tt.Backbone",
        ),
        ({"variant": {"skp": True}}, "variant 'skp' is unknown; did you mean 'skip'"),
        ({"variant": None}, "variant is None; expected a name, or a dict of"),
        ({"variant": ["scaled"]}, r"variant is \['scaled'\]; expected a name"),
        ({"variant": {"skip": "no"}}, "skip is 'no'; expected True or False"),
        ({"variant": {"smoothing": -1}}, "smoothing is -1; expected a finite number"),
        ({"variant": {"taps": 1.5}}, "taps is 1.5; expected a whole number"),
        ({"seed": "a"}, "seed is 'a'; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected a whole number, at least 0"),
    ],
)
@pytest.mark.happens(
    "Training and explaining",
    "an explainer made of a plain model, or with no variant or seed",
    "told, with what was expected",
)
def test_what_no_explainer_is_made_of_is_told(given, message, tiny):
    with pytest.raises(tt.TTAMEError, match=message):
        tt.TTAME(**{"backbone": tiny, **given})


def test_a_mechanism_of_no_taps_is_told():
    with pytest.raises(tt.TTAMEError, match="channels is empty; expected one number or more"):
        tt.AttentionMechanism([], 10)


@pytest.mark.parametrize(
    "image", [torch.ones(1, 3, 16, 16).to_sparse(), torch.ones(1, 3, 16, 16, device="meta")]
)
def test_images_without_pixels_are_told(image, tiny):
    with pytest.raises(tt.TTAMEError, match="without values"):
        tt.TTAME(tiny)(image)


@pytest.mark.happens("Training and explaining", "torch's default is float64", "as in float32")
def test_a_mechanism_is_in_its_backbones_precision(tiny, noise):
    torch.set_default_dtype(torch.float64)
    try:
        explainer = tt.TTAME(tiny)
        assert explainer.explain(noise.images).dtype == torch.float32
        history = tt.train(explainer, noise, tt.Recipe(steps=2, batch_size=6))
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(history) == 2


def test_an_explainer_knows_its_seed_unless_it_was_loaded(tiny, tmp_path):
    explainer = tt.TTAME(tiny, seed=7)
    explainer.save(tmp_path / "e.safetensors")
    assert explainer.seed == 7 and "seed" not in explainer.attention.state_dict()
    assert tt.TTAME.load(tmp_path / "e.safetensors", tiny).seed is None


@pytest.mark.happens(
    "Images and classes",
    "an image on an accelerator is out of range, or a class is none",
    "nobody waits for it: its maps and confidences are NaN, the others' as ever",
)
def test_on_an_accelerator_what_is_out_of_range_gets_nan(tiny):
    explainer, images = tt.TTAME(tiny), torch.rand(3, 3, 16, 16)
    expected = explainer(images, torch.tensor([[0, 1], [1, 0], [0, 1]]))
    images[1, 0, 0, 0] = 1.5

    class Elsewhere(torch.Tensor):
        """A tensor that says that it is on an accelerator."""

        is_cpu = False

    there = images.as_subclass(Elsewhere)
    asked = torch.tensor([[0, -1], [1, 0], [99, 1]]).as_subclass(Elsewhere)
    found = explainer(there, asked)
    nan = torch.tensor([[False, True], [True, True], [True, False]])
    assert torch.equal(found.maps.isnan().all((2, 3)), nan)
    assert torch.equal(found.confidences.isnan(), nan)
    assert torch.equal(found.maps[0, 0], expected.maps[0, 0])
    with pytest.raises(tt.TTAMEError, match="range from"):
        explainer(images)
