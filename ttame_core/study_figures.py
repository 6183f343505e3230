"""Figures of the studies: grid search, randomisation, comparisons - in the theme of `ttame_core.figures`."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from torch import Tensor

from ttame_core.figures import method_styles, show_image
from ttame_core.masking import minmax
from ttame_core.tables import measure_label


def landscape(means: pd.DataFrame) -> Figure:
    """Draw AD(15) and IC(15) over learning rates and numbers of steps, the best of each framed.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it by ``max_lr`` and ``steps``.

    Returns
    -------
    Figure
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
    for axis, measure, colours in zip(axes, ("ad", "ic"), ("viridis_r", "viridis"), strict=True):
        chosen = means[(means["measure"] == measure) & (means["v"] == 15)]
        table = chosen.pivot_table(index="steps", columns="max_lr", values="mean")
        sns.heatmap(table, annot=True, fmt=".1f", cmap=colours, ax=axis, cbar=False)
        best = (table.min if measure == "ad" else table.max)().agg(
            "min" if measure == "ad" else "max"
        )
        for row, column in zip(*(table == best).to_numpy().nonzero(), strict=True):
            axis.add_patch(plt.Rectangle((column, row), 1, 1, fill=False, ec="black", lw=3))
        axis.set(title=measure_label(measure, 15), xlabel="max. learning rate", ylabel="steps")
    return figure


def map_strip(image: Tensor, maps: Mapping[str, Tensor], most: int = 9) -> Figure:
    """Draw one image and a row of its maps.

    Parameters
    ----------
    image : Tensor
        ``(3, H, W)`` in [0, 1].
    maps : mapping of str to Tensor
        ``(1, h, w)`` by what was done; the first and the last are always shown.
    most : int
        At most so many maps, evenly chosen.

    Returns
    -------
    Figure
    """
    names = list(maps)
    if len(names) > most:
        names = [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]
    figure, axes = plt.subplots(
        1, len(names) + 1, figsize=(1.45 * (len(names) + 1), 1.9), layout="constrained"
    )
    show_image(axes[0], image, title="image")
    for axis, name in zip(axes[1:], names, strict=True):
        short = name.replace("encoder.layers.encoder_", "").replace("encoder.", "")
        show_image(axis, image, minmax(maps[name][0].float()), title=short)
        axis.title.set_fontsize(8)
    return figure


def similarity_bars(means: pd.DataFrame) -> Figure:
    """Draw the similarity to the original map, a row a randomised part, with 95 % intervals.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it; measures ``rank correlation`` and ``ssim``.

    Returns
    -------
    Figure
    """
    names = list(dict.fromkeys(means["method"]))
    figure, axes = plt.subplots(
        1, 2, figsize=(8, 0.8 + 0.24 * len(names)), sharey=True, layout="constrained"
    )
    for axis, (measure, group) in zip(axes, means.groupby("measure", sort=False), strict=True):
        spread = [group["mean"] - group["low"], group["high"] - group["mean"]]
        axis.errorbar(
            group["mean"], group["method"], xerr=[s.clip(lower=0) for s in spread], fmt="o"
        )
        axis.axvline(0, color="0.5", lw=1)
        axis.set(title=measure_label(measure, 0), xlim=(-1, 1))
    axes[0].invert_yaxis()
    return figure


def differences_plot(differences: pd.DataFrame, measure: str, v: float) -> Figure:
    """Draw paired differences to every rival in one measure, a panel a backbone, a colour a method.

    Parameters
    ----------
    differences : DataFrame
        As `statistics.paired_differences` returns it.
    measure : str
        Measure drawn.
    v : float
        Its percentage.

    Returns
    -------
    Figure
        Filled: significant at 5 % after correction.
    """
    chosen = differences[(differences["measure"] == measure) & (differences["v"] == v)]
    panels = list(chosen.groupby("backbone", sort=False))
    methods = list(chosen["method"].unique())
    styles = method_styles([*methods, *chosen["rival"].unique()])
    rivals = [name for name in styles if name in set(chosen["rival"])]
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(3.1 * len(panels), 1.3 + (0.16 + 0.1 * len(methods)) * len(rivals)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, (backbone, group) in zip(axes[0], panels, strict=True):
        for i, method in enumerate(methods):
            own = group[group["method"] == method]
            places = own["rival"].map(rivals.index).astype(float)  # none where it cannot serve
            places += 0.7 * ((i + 0.5) / len(methods) - 0.5)
            colour, clear = styles[method]["color"], own["p"] < 0.05
            axis.hlines(places, own["low"], own["high"], color=colour, label=method)
            axis.scatter(own["difference"], places, color="white", ec=colour, zorder=3)
            axis.scatter(own["difference"][clear], places[clear], color=colour, zorder=3)
        axis.axvline(0, color="0.5", lw=1)
        axis.set_title(str(backbone))
    axes[0, 0].set_yticks(range(len(rivals)), rivals)
    axes[0, 0].invert_yaxis()
    figure.supxlabel(f"method minus rival, {measure_label(measure, v)}", fontsize="medium")
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    return figure


def convergence_curves(means: pd.DataFrame) -> Figure:
    """Draw AD and IC over the number of training steps, a row a backbone, a line a method, with 95 % intervals.

    Parameters
    ----------
    means : DataFrame
        As `statistics.means_table` returns it by ``backbone``, ``method`` and ``steps``.

    Returns
    -------
    Figure
    """
    known = means[means["measure"].isin(["ad", "ic"])]
    panels = list(known[["measure", "v"]].drop_duplicates().itertuples(index=False))
    backbones = list(known.groupby("backbone", sort=False))
    styles, lines = method_styles(known["method"].unique()), {}
    figure, axes = plt.subplots(
        len(backbones),
        len(panels),
        figsize=(3 * len(panels), 2.8 * len(backbones)),
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for row, (backbone, of_backbone) in zip(axes, backbones, strict=True):
        for axis, (measure, v) in zip(row, panels, strict=True):
            chosen = of_backbone[(of_backbone["measure"] == measure) & (of_backbone["v"] == v)]
            for method, line in chosen.groupby("method", sort=False):
                line = line.sort_values("steps")
                style = styles[str(method)]
                (drawn,) = axis.plot(line["steps"], line["mean"], marker="o", label=method, **style)
                band = (line["steps"], line["low"], line["high"])
                axis.fill_between(*band, color=style["color"], alpha=0.15)
                lines[method] = drawn
            axis.set_xscale("symlog", linthresh=10)
            axis.xaxis.set_major_formatter("{x:g}")
            axis.set(title=measure_label(measure, v))
        row[0].set_ylabel(backbone)
    for axis in axes[-1]:
        axis.set_xlabel("steps")
    handles = list(lines.values())  # of all backbones, as not every one has every method
    figure.legend(handles=handles, loc="outside upper center", ncols=len(panels) + 1)
    return figure
