"""Explain photographs: ``python -m ttame_core explain PHOTO... --out FOLDER``."""

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

from ttame_core.classifiers.backbone import fingerprint
from ttame_core.errors import TTAMEError
from ttame_core.explainer import TTAME
from ttame_core.files import atomic_path
from ttame_core.images.explanation import overlay
from ttame_core.images.folders import check_writable, find_photos
from ttame_core.pretrained import load_explainer, shipped_explainers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 where all went well, 2 where it was given something wrong."""
    parser = argparse.ArgumentParser(prog="python -m ttame_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser("explain", help="write maps of photographs")
    add, shipped = explain.add_argument, ", ".join(shipped_explainers())
    add("photos", nargs="+", type=Path, help="files, or folders of them")
    add("--out", type=Path, default=Path("explained"), help="folder to write to")
    own = f"one of {shipped}, or a file that TTAME.save wrote"
    add("--explainer", default="efficientnet_lite0", help=own)
    add("--weights", default="DEFAULT", help="of the classifier: a name or a file")
    add = explain.add_mutually_exclusive_group().add_argument
    which = "class to explain, in words or by number; may be given several times"
    add("--class", dest="classes", action="append", metavar="NAME", help=which)
    add("--top", type=int, default=1, help="explain so many of the most confident classes")
    given = parser.parse_args(arguments)
    try:
        check_writable(given.out)
        explainer = load_explainer(given.explainer, given.weights)
        explainer.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
        photos = find_photos(given.photos)
        classes = [explainer.backbone.class_index(words) for words in given.classes or ()]
        written = explain_photos(explainer, photos, given.out, classes, given.top)
    except TTAMEError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in written:
        what = f"{row['photo']}: {row['class']} ({row['confidence']:.1%})"
        print(what, "->", given.out / row["overlay"])
    return 0


def explain_photos(
    explainer: TTAME,
    photos: Sequence[tuple[Path, Path]],
    out: Path,
    classes: Sequence[int] = (),
    top: int = 1,
) -> list[dict]:
    """Write an overlay and the raw map of each photograph and class, and ``explanations.json``.

    What that file has of earlier runs is kept; the same photograph and class replace theirs.

    Parameters
    ----------
    explainer : TTAME
        In evaluation mode.
    photos : sequence of (Path, Path)
        What `find_photos` found.
    out : Path
        Folder to write to.
    classes : sequence of int
        Classes to explain; the ``top`` most confident ones by default.

    Returns
    -------
    list of dict
        A row a map, as in the file: photo, its name in the folder, class, index, confidence, rank
        (1: the most confident), overlay and map (relative to the folder).
    """
    backbone = explainer.backbone
    record = out / "explanations.json"
    about = {"classifier": backbone.name, "explainer": fingerprint(explainer)}
    earlier = earlier_explanations(record, about, photos)
    wanted = torch.tensor([list(dict.fromkeys(classes))]) if classes else top
    slugs = [re.sub("[^a-z0-9]+", "-", label.lower()).strip("-") for label in backbone.labels]
    times = Counter(slugs)
    rows = []
    for file, name in photos:
        image = backbone.read(file)
        found = explainer(image, wanted)
        columns = (found.classes, found.confidences, found.ranks, found.maps)
        for index, confidence, rank, heat in zip(*(c[0] for c in columns), strict=True):
            slug, index = slugs[index], int(index)
            # Cardigan is a dog, cardigan a garment
            stem = f"{name.as_posix()}-{slug}" + (f"-{index}" if times[slug] > 1 else "")
            with atomic_path(out / f"{stem}.png") as path:
                overlay(image[0], heat).save(path)
            with atomic_path(out / f"{stem}.npy") as path:
                np.save(path, heat.cpu().numpy())
            about_photo = {"photo": os.path.abspath(file), "name": name.as_posix()}
            about_class = {"class": backbone.label(index), "index": index}
            how_sure = {"confidence": float(confidence), "rank": int(rank)}
            files = {"overlay": f"{stem}.png", "map": f"{stem}.npy"}
            rows.append(about_photo | about_class | how_sure | files)
    written = {row["map"] for row in rows}
    kept = [row for row in earlier if row["map"] not in written]
    with atomic_path(record) as path:
        path.write_text(json.dumps({**about, "explanations": kept + rows}, indent=1) + "\n")
    return rows


def earlier_explanations(
    record: Path, about: dict[str, str], photos: Sequence[tuple[Path, Path]]
) -> list[dict]:
    """Read the rows of a folder's ``explanations.json``, none where there is no such file.

    Raises a TTAMEError if it is another kind of file, of another explainer than ``about`` says, or
    of another photograph by the name of one of these.
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


if __name__ == "__main__":
    sys.exit(main())
