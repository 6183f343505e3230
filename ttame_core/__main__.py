"""Explain photographs from the command line: ``python -m ttame_core explain PHOTO... --out FOLDER``."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ttame_core.data import SUFFIXES, image_files, read_image
from ttame_core.errors import TTAMEError
from ttame_core.explainer import TTAME
from ttame_core.figures import overlay
from ttame_core.files import atomic_path
from ttame_core.ready import load_explainer, shipped_explainers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 where all went well, 2 where it was given something wrong."""
    parser = argparse.ArgumentParser(prog="python -m ttame_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser("explain", help="write maps of photographs")
    explain.add_argument("photos", nargs="+", type=Path, help="files, or folders of them")
    explain.add_argument("--out", type=Path, default=Path("explained"), help="folder to write to")
    explain.add_argument(
        "--explainer",
        default="efficientnet_lite0",
        help=f"one of {', '.join(shipped_explainers())}, or a file that TTAME.save wrote",
    )
    explain.add_argument("--weights", default="DEFAULT", help="of the classifier: a name or a file")
    which = explain.add_mutually_exclusive_group()
    which.add_argument(
        "--class",
        dest="classes",
        action="append",
        metavar="NAME",
        help="class to explain, in words or by number; may be given several times",
    )
    which.add_argument(
        "--top", type=int, default=1, help="explain so many of the most confident classes"
    )
    given = parser.parse_args(arguments)
    try:
        if given.out.exists() and not given.out.is_dir():
            raise TTAMEError(f"{given.out} is no folder; name another by --out")
        explainer = load_explainer(given.explainer, given.weights)
        device = torch.accelerator.current_accelerator(check_available=True)
        explainer.to(device or "cpu")
        photos = find_photos(given.photos)
        wanted = [explainer.backbone.class_index(words) for words in given.classes or ()]
        written = explain_photos(explainer, photos, given.out, wanted, given.top)
    except TTAMEError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in written:
        print(f"{row['photo']}: {row['class']} ({row['confidence']:.1%}) -> {row['overlay']}")
    return 0


def find_photos(places: Sequence[Path]) -> list[tuple[Path, Path]]:
    """List image files: those given, and those in folders given.

    Parameters
    ----------
    places : sequence of Path
        Files and folders.

    Returns
    -------
    list of (Path, Path)
        Each file, and its path without suffix relative to the folder given, for what is written of it.

    Raises
    ------
    TTAMEError
        If one is missing, cannot be read, or a folder holds none: before any work is done.
    """
    found: list[tuple[Path, Path]] = []
    for place in places:
        if place.is_dir():
            files = image_files(place)
            if not files:
                raise TTAMEError(f"no images in {place}; looked for {', '.join(sorted(SUFFIXES))}")
            found += [(file, file.relative_to(place).with_suffix("")) for file in files]
        elif place.is_file():
            found.append((place, Path(place.stem)))
        else:
            raise TTAMEError(f"there is no photograph or folder {place}; correct the path")
    for file, _ in found:
        read_image(file)
    times = Counter(name for _, name in found)
    for file, name in found:
        if times[name] > 1:
            raise TTAMEError(
                f"several photographs would be written as {name} ({file} is one); rename them, or run once for each"
            )
    return found


def explain_photos(
    explainer: TTAME,
    photos: Sequence[tuple[Path, Path]],
    out: Path,
    classes: Sequence[int] = (),
    top: int = 1,
) -> list[dict]:
    """Write an overlay and the raw map of each photograph and class, and ``explanations.json`` for all.

    Parameters
    ----------
    explainer : TTAME
        In evaluation mode.
    photos : sequence of (Path, Path)
        From `find_photos`.
    out : Path
        Folder to write to.
    classes : sequence of int
        Classes to explain; the most confident ones by default.
    top : int
        So many of those.

    Returns
    -------
    list of dict
        A row a map, as in the file: photo, class, index, confidence, rank (1: the most confident), overlay, map.
    """
    backbone = explainer.backbone
    wanted = torch.tensor([list(classes)]) if classes else top
    rows = []
    for file, name in photos:
        image = backbone.read(file)
        found = explainer(image, wanted)
        columns = (found.classes, found.confidences, found.ranks, found.maps)
        for index, confidence, rank, heat in zip(*(c[0] for c in columns), strict=True):
            index = int(index)
            label = backbone.label(index)
            stem = out / f"{name}-{re.sub('[^a-z0-9]+', '-', label.lower()).strip('-')}"
            overlay_file, map_file = (
                stem.with_name(f"{stem.name}.png"),
                stem.with_name(f"{stem.name}.npy"),
            )
            with atomic_path(overlay_file) as path:
                overlay(image[0], heat).save(path)
            with atomic_path(map_file) as path:
                np.save(path, heat.cpu().numpy())
            rows.append(
                {
                    "photo": str(file),
                    "class": label,
                    "index": index,
                    "confidence": float(confidence),
                    "rank": int(rank),
                    "overlay": str(overlay_file),
                    "map": str(map_file),
                }
            )
    about = {"classifier": backbone.name, "explanations": rows}
    with atomic_path(out / "explanations.json") as path:
        path.write_text(json.dumps(about, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    sys.exit(main())
