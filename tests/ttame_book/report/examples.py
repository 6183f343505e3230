"""Small tables that several tests of reports read."""

import pandas as pd


def scores():
    rows = [
        (backbone, method, "ad", 15, f"i{i:02}", value + i % 4)
        for backbone in ("a", "b")
        for method, value in (("t-tame", 10.0), ("grad-cam", 20.0), ("all-ones", 0.0))
        for i in range(12)
    ]
    return pd.DataFrame(rows, columns=["backbone", "method", "measure", "v", "image_id", "value"])


COMPARED = pd.DataFrame(
    [
        ("a", "ad", 15, "t-tame", "t-tame-top", 500, -9.0, -10, -8, 0.01),
        ("a", "ad", 15, "t-tame", "rise", 100, -5.0, -6, -4, 0.01),  # less is better
        ("a", "ad", 15, "t-tame", "iia", 500, 5.0, 4, 6, 0.01),
        ("a", "ad", 15, "t-tame", "score-cam", 500, 5.0, -1, 6, 0.05),
        ("a", "ad", 15, "t-tame", "random", 500, -50.0, -51, -49, 0.0),  # a control
        ("a", "ad", 15, "t-tame-top", "rise", 100, 5.0, 4, 6, 0.01),
        ("a", "ad", 15, "t-tame-top", "random", 500, 5.0, 4, 6, 0.5),
        ("a", "ic", 15, "t-tame", "rise", 100, 5.0, 4, 6, 0.01),  # more is better
        ("b", "mean morf", 0, "t-tame", "attention-rollout", 200, 1.0, 0, 2, 0.5),
        ("b", "mean morf", 0, "t-tame", "iia", 200, -5.0, -6, -4, 0.01),
        ("b", "mean lerf", 0, "t-tame", "iia", 150, -5.0, -6, -4, 0.01),
    ],
    columns=["backbone", "measure", "v", "method", "rival", "n", "difference", "low", "high", "p"],
)
