"""The grid search: learning rates by numbers of steps."""

from dataclasses import replace

from ttame_book.editions.edition import Edition
from ttame_core.recipes import Recipe


def grid(edition: Edition, name: str) -> list[Recipe]:
    """List a backbone's grid search: learning rates by steps, the edition's own among them."""
    settings = {**edition.config["tune"], **edition.entry(name).get("tune", {})}
    recipe = edition.recipe(name)
    rates, lengths = (sorted({*settings[k], getattr(recipe, k)}) for k in ("max_lr", "steps"))
    return [replace(recipe, max_lr=rate, steps=steps) for steps in lengths for rate in rates]
