"""Walk every family of classifiers of timm, torchvision and transformers: what serves which?

python benchmarks/families.py [timm] [torchvision] [transformers]

One small member of each family, with random weights, is wrapped and explained by every method. The
table goes to book/families.csv, a row as it is found; families that are there already are left out.
The last line counts the rows that say anything but a method's name or a TTAMEError: raw errors.
"""

import csv
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import shorten

import timm
import torch
import torchvision
import transformers
from transformers.models.auto import modeling_auto

import ttame_core as tt

TABLE = Path(__file__).parents[1] / "book" / "families.csv"
COLUMNS = ("library", "family", "member", "taps", "maps", "served by", "not by", "raw")
QUICK = {"rise": {"masks": 2}, "iia": {"steps": 1}, "integrated-gradients": {"steps": 2}}
LEFT_OUT = (
    "score-cam",
    *tt.CONTROLS,
)  # a forward a channel; it needs no more than grad-cam and rise
LARGE = 60_000_000  # parameters
SMALLER = (
    "test",
    "atto",
    "femto",
    "pico",
    "nano",
    "xxs",
    "xxt",
    "xt",
    "tiny",
    "_t",
    "s0",
    "b0",
    "small",
    "_s",
)


def of_timm() -> Iterator[tuple[str, str]]:
    """Each of timm's modules, with its smallest member by name and, of a few, by parameters."""
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if names:
            yield module, "timm/" + min(names, key=size_of)


def size_of(name: str) -> tuple[int, int, str]:
    """Guess which member is small: by the words for it, the image's side, the name."""
    config = timm.get_pretrained_cfg(name)
    side = (config.input_size if config else (3, 224, 224))[-1]
    words = [i for i, word in enumerate(SMALLER) if word in name]
    digits = [int(d) for d in re.findall(r"\d+", name)]
    return (side > 256, min(words, default=len(SMALLER)), f"{sum(digits):08d}{name}")


def of_torchvision() -> Iterator[tuple[str, str]]:
    """Each of torchvision's modules of classifiers, with its member of the fewest parameters."""
    members: dict[str, list[str]] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        family = torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]
        members.setdefault(family, []).append(name)
    for family, names in members.items():
        weights = {n: torchvision.models.get_model_weights(n).DEFAULT for n in names}
        yield family, min(names, key=lambda n: weights[n].meta["num_params"])


def of_transformers() -> Iterator[tuple[str, str]]:
    """Each of transformers' image classifiers."""
    for family in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        yield family, family


def load(library: str, member: str) -> tt.Backbone:
    """Wrap a member with random weights."""
    torch.manual_seed(0)
    if library == "timm":  # which has members without a head of their own
        config = timm.get_pretrained_cfg(member.removeprefix("timm/"))
        if config and config.input_size[-1] > 300:
            with suppress(tt.TTAMEError):  # what takes no other size than its own
                return tt.load_backbone(member, None, num_classes=10, img_size=224)
        return tt.load_backbone(member, None, num_classes=10)
    if library == "torchvision":
        return tt.load_backbone(member, None)
    config = transformers.AutoConfig.for_model(member)
    if isinstance(getattr(config, "num_hidden_layers", None), int):
        config.num_hidden_layers = min(config.num_hidden_layers, 4)
    kinds = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    model = (kinds[0] if isinstance(kinds, tuple) else kinds)(config).eval()
    size = getattr(config, "image_size", None) or 224
    size = size[0] if isinstance(size, list | tuple) else size
    preprocessing = tt.Preprocessing(image_size=size, resize=size)
    return tt.Backbone(model, name=member, preprocessing=preprocessing)


def walk(library: str, family: str, member: str) -> dict[str, str]:
    """Try everything on one member."""
    row = dict.fromkeys(COLUMNS, "") | {"library": library, "family": family, "member": member}
    try:
        backbone = load(library, member)
    except (tt.TTAMEError, ImportError) as error:  # a package that a family of transformers needs
        return row | {"not by": one_line(error)}
    except Exception as error:
        return row | {"not by": f"{type(error).__name__}: {one_line(error)}", "raw": "loading"}
    row["taps"] = ", ".join(backbone.taps)
    row["maps"] = ", ".join(f"{c}@{h}x{w}" for c, h, w in backbone.shapes)
    size = backbone.preprocessing.image_size
    images, classes = torch.rand(1, 3, size, size), torch.zeros(1, dtype=torch.int64)
    served, reasons, raw = [], {}, []
    large = sum(p.numel() for p in backbone.parameters()) > LARGE
    for name in ("t-tame", *(m for m in tt.METHODS if m not in LEFT_OUT)):
        if large and name == "ablation-cam":
            reasons["not tried, as it takes a forward a channel of a large classifier"] = [name]
            continue
        try:
            if name == "t-tame":
                maps = tt.TTAME(backbone).explain(images, classes)
            else:
                maps = tt.method(name, backbone, **QUICK.get(name, {}))(images, classes)
            assert maps.ndim == 3 and maps.min() >= 0 and maps.max() <= 1, f"a map {maps.shape}"
            served.append(name)
        except tt.TTAMEError as error:
            reasons.setdefault(one_line(error), []).append(name)
        except Exception as error:
            reasons.setdefault(f"{type(error).__name__}: {one_line(error)}", []).append(name)
            raw.append(name)
    why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return row | {"served by": ", ".join(served), "not by": why, "raw": ", ".join(raw)}


def one_line(error: Exception) -> str:
    """An error in one line of a table."""
    return shorten(str(error), 160, placeholder=" ...")


def main(libraries: list[str]) -> None:
    """Walk on from where the table ends."""
    warnings.filterwarnings("ignore")
    walks = {"timm": of_timm, "torchvision": of_torchvision, "transformers": of_transformers}
    rows = list(csv.DictReader(TABLE.open())) if TABLE.is_file() else []
    done = {(row["library"], row["family"]) for row in rows}
    for library in libraries or walks:
        for family, member in walks[library]():
            if (library, family) in done:
                continue
            row = walk(library, family, member)
            new = not TABLE.is_file()
            with TABLE.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            rows.append(row)
            print(library, family, member, row["maps"] or row["not by"], row["raw"], flush=True)
    raw = [row["member"] for row in rows if row["raw"]]
    served = sum(bool(row["served by"]) for row in rows)
    print(f"{served} of {len(rows)} families are served; raw errors: {raw or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1:])
