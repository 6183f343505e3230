"""Explain photographs: ``python -m ttame_core explain PHOTO... --out FOLDER``."""

import argparse
import json
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from ttame_core.classifiers.probe import fingerprint
from ttame_core.errors import TTAMEError
from ttame_core.explainer import TTAME
from ttame_core.files import atomic_path
from ttame_core.images import folders
from ttame_core.images.decoding import printable
from ttame_core.images.explanation import earlier_explanations, save_overlay
from ttame_core.pretrained import load_explainer, shipped_explainers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 where all went well, 1 where a photograph was left out, else 2."""
    parser = argparse.ArgumentParser(prog="python -m ttame_core", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser("explain", help="write maps of photographs")
    add, shipped = explain.add_argument, ", ".join(shipped_explainers())
    add("photos", nargs="+", type=Path, help="files, or folders of them")
    add("--out", type=Path, default=Path("explained"), help="folder to write to")
    own = f"one of {shipped}, or a file that TTAME.save wrote"
    add("--explainer", default="efficientnet_lite0", help=own)
    add("--weights", default="DEFAULT", help="of the classifier: a name or a file")
    add("--whole", action="store_true", help="explain whole photographs, not a square of each")
    add = explain.add_mutually_exclusive_group().add_argument
    which = "class to explain, in words or by number; may be given several times"
    add("--class", dest="classes", action="append", metavar="NAME", help=which)
    add("--top", type=int, default=1, help="explain so many of the most confident classes")
    given = parser.parse_args(arguments)
    written: list[dict] = []
    faults: list[TTAMEError] = []

    def report(error: TTAMEError) -> None:
        faults.append(error)
        _say(f"error: {error}", sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda text, *_: _say(f"warning: {text}", sys.stderr)
        try:
            folders.check_writable(given.out)
            photos = folders.find_photos(given.photos, report)
            if not photos:
                return 2
            explainer = load_explainer(given.explainer, given.weights)
            explainer.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
            classes = [explainer.backbone.class_index(words) for words in given.classes or ()]
            wanted = (classes, given.top, given.whole)
            written = explain_photos(explainer, photos, given.out, *wanted, report)
        except TTAMEError as error:
            report(error)
    for row in written:
        what = f"{row['photo']}: {row['class']} ({row['confidence']:.1%})"
        _say(f"{what} -> {given.out / row['overlay']}", sys.stdout)
    return (1 if written else 2) if faults else 0


def _say(text: str, to: TextIO) -> None:
    """Print a line that names may be part of, in characters that the terminal has."""
    code = to.encoding or "utf-8"
    print(printable(text).encode(code, "backslashreplace").decode(code), file=to)


def explain_photos(
    explainer: TTAME,
    photos: Sequence[tuple[Path, Path]],
    out: Path,
    classes: Sequence[int] = (),
    top: int = 1,
    whole: bool = False,
    report: folders.Report = folders.refuse,
) -> list[dict]:
    """Write an overlay and the raw map of each photograph and class, and ``explanations.json``.

    What that file has of earlier runs is kept; the same photograph and class replace theirs. It is
    written after each photograph, so that no interruption loses what was explained before.

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
    whole : bool
        Explain whole photographs; see `TTAME.forward`.
    report : callable
        Is told of a photograph that cannot be read, as a TTAMEError; raises it by default.

    Returns
    -------
    list of dict
        A row a map, as in the file: photo, its name in the folder, class, index, confidence, rank
        (1: the most confident), overlay and map (relative to the folder).
    """
    backbone = explainer.backbone
    record = out / "explanations.json"
    about = {"classifier": backbone.name, "explainer": fingerprint(explainer)}
    about |= {"whole": "yes"} if whole else {}
    earlier = earlier_explanations(record, about)
    owner = {folders.same_name(row["map"]): key for key, row in earlier.items()}
    head = json.dumps({**about, "explanations": []}).removesuffix("]}")
    lines = {key: json.dumps(row) for key, row in earlier.items()}
    if not 1 <= top <= backbone.num_classes:
        most = backbone.num_classes
        raise TTAMEError(f"{top} classes are asked for; expected 1 to {most}")
    wanted = torch.tensor([list(dict.fromkeys(classes))]) if classes else top
    slugs = [re.sub("[^a-z0-9]+", "-", x.lower()).strip("-")[:120] for x in backbone.labels]
    times, written = Counter(slugs), []
    for file, name in photos:
        try:
            found = explainer(file, wanted, whole)
        except TTAMEError as error:
            named = printable(file) in str(error)  # not where its crop is impossible
            report(error if named else TTAMEError(f"{file}: {error}"))
            continue
        columns = (found.classes, found.confidences, found.ranks, found.maps)
        for index, confidence, rank, heat in zip(*(c[0] for c in columns), strict=True):
            key = photo, index = os.path.abspath(file), int(index)
            # Cardigan is a dog, cardigan a garment
            tail = f"-{slugs[index]}" + (f"-{index}" if times[slugs[index]] > 1 else "")
            stem = folders.output_name(name, tail)
            if owner.setdefault(folders.same_name(f"{stem}.npy"), key) != key:  # another's
                stem = folders.output_name(name, f"-{folders.digest(file, index)}{tail}")
            with atomic_path(out / f"{stem}.npy") as path:
                np.save(path, heat.cpu().numpy())
            with atomic_path(out / f"{stem}.png") as path:
                save_overlay(path, found.images[0], heat)
            about_photo = {"photo": photo, "name": stem.removesuffix(tail)}
            about_class = {"class": backbone.label(index), "index": index}
            how_sure = {"confidence": float(confidence), "rank": int(rank)}
            files = {"overlay": f"{stem}.png", "map": f"{stem}.npy"}
            written.append(about_photo | about_class | how_sure | files)
            lines[key] = json.dumps(written[-1])
        rows = ",\n".join(lines.values())
        with atomic_path(record) as path:
            path.write_text(f"{head}\n{rows}\n]}}\n")
    return written


if __name__ == "__main__":
    sys.exit(main())
