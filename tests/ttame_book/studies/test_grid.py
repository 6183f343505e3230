"""The grid search: what is trained."""

from dataclasses import replace

from ttame_book.studies.grid import grid


def test_the_grid_is_rates_by_steps_and_the_editions_own(edition):
    recipes = grid(edition, "demo_vit")
    grid_of = [(0.03, 2), (0.1, 2), (0.03, 3), (0.1, 3)]  # the last is the edition's own
    assert [(r.max_lr, r.steps) for r in recipes] == grid_of
    edition.config["tune"] |= {"steps": [3], "max_lr": [0.1]}
    assert grid(edition, "demo_vit") == [edition.recipe("demo_vit")]


def test_the_rest_of_the_grid_is_the_editions(edition):
    recipes = grid(edition, "demo_vit")
    assert {replace(r, max_lr=0.1, steps=3) for r in recipes} == {edition.recipe("demo_vit")}
