"""Explain photographs from the command line: ``python -m ttame_core explain PHOTO... --out FOLDER``."""

import argparse
import json
import os
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
from ttame_core.zoo import fingerprint


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
        there = next(
            place for place in (given.out, *given.out.absolute().parents) if place.exists()
        )
        if not there.is_dir():
            raise TTAMEError(f"{there} is no folder; name another by --out")
        if not os.access(there, os.W_OK):
            raise TTAMEError(f"{there} may not be written to; name another folder by --out")
        explainer = load_explainer(given.explainer, given.weights)
        device = torch.accelerator.current_accelerator(check_available=True)
        explainer.to(device or "cpu")
        photos = find_photos(given.photos)
        classes = [explainer.backbone.class_index(words) for words in given.classes or ()]
        written = explain_photos(explainer, photos, given.out, classes, given.top)
    except TTAMEError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in written:
        overlay_file = given.out / row["overlay"]
        print(f"{row['photo']}: {row['class']} ({row['confidence']:.1%}) -> {overlay_file}")
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

    What that file has of earlier runs is kept; the same photograph and class, explained again, replace theirs.

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
        A row a map, as in the file: photo, its name in the folder, class, index, confidence, rank (1: the most
        confident), overlay and map (relative to the folder).

    Raises
    ------
    TTAMEError
        If a photograph cannot be read or a class not be explained; see `earlier_explanations` too.
    """
    backbone = explainer.backbone
    record = out / "explanations.json"
    about = {"classifier": backbone.name, "explainer": fingerprint(explainer)}
    earlier = earlier_explanations(record, about, photos)
    wanted = torch.tensor([list(dict.fromkeys(classes))]) if classes else top
    labels = [in_a_name(backbone.label(i)) for i in range(backbone.num_classes)]
    times = Counter(labels)
    rows = []
    for file, name in photos:
        image = backbone.read(file)
        found = explainer(image, wanted)
        columns = (found.classes, found.confidences, found.ranks, found.maps)
        for index, confidence, rank, heat in zip(*(c[0] for c in columns), strict=True):
            index = int(index)
            stem = f"{name.as_posix()}-{labels[index]}"
            if times[labels[index]] > 1:  # Cardigan is a dog, cardigan a garment
                stem += f"-{index}"
            with atomic_path(out / f"{stem}.png") as path:
                overlay(image[0], heat).save(path)
            with atomic_path(out / f"{stem}.npy") as path:
                np.save(path, heat.cpu().numpy())
            rows.append(
                {
                    "photo": os.path.abspath(file),
                    "name": name.as_posix(),
                    "class": backbone.label(index),
                    "index": index,
                    "confidence": float(confidence),
                    "rank": int(rank),
                    "overlay": f"{stem}.png",
                    "map": f"{stem}.npy",
                }
            )
    written = {row["map"] for row in rows}
    kept = [row for row in earlier if row["map"] not in written]
    with atomic_path(record) as path:
        path.write_text(json.dumps({**about, "explanations": kept + rows}, indent=1) + "\n")
    return rows


def earlier_explanations(
    record: Path, about: dict[str, str], photos: Sequence[tuple[Path, Path]]
) -> list[dict]:
    """Read what a folder's ``explanations.json`` has of earlier runs, and see that theirs is not overwritten.

    Parameters
    ----------
    record : Path
        The file.
    about : dict
        What it must say of classifier and explainer.
    photos : sequence of (Path, Path)
        From `find_photos`, to be explained now.

    Returns
    -------
    list of dict
        Its rows; none where there is no such file.

    Raises
    ------
    TTAMEError
        If it is another kind of file, of another explainer, or of another photograph by the name of one of these.
    """
    if not record.exists():
        return []
    given = {name.as_posix(): os.path.abspath(file) for file, name in photos}
    try:
        found = json.loads(record.read_text())
        rows = found.pop("explanations")
        photo_of = {row["name"]: row["photo"] for row in rows}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TTAMEError(
            f"{record} is no record of explanations ({error!r}); move it away, or name another folder by --out"
        ) from error
    if found != about:
        raise TTAMEError(
            f"the maps in {record.parent} are those of {found}, these would be of {about}; name another folder by --out"
        )
    for name, photo in photo_of.items():
        if given.get(name, photo) != photo:
            raise TTAMEError(
                f"{given[name]} would be written as {name}, as {photo} has been in {record.parent}; "
                "rename it, or name another folder by --out"
            )
    return rows


def in_a_name(label: str) -> str:
    """Write a class in small letters, digits and hyphens, for the name of a file."""
    return re.sub("[^a-z0-9]+", "-", label.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
