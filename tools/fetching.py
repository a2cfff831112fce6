"""What passes may ask for that a recipe names, and what long passes leave between runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgec.frontends.model import open_model
from edgec.frontends.python_functions import find_function
from edgec.frontends.recipe import Recipe
from edgec.ir.errors import InputError
from edgec.ir.graph import Graph

_CHECKPOINTS = "*.training.pt"


class Fetched:
    """A recipe's functions and models.

    Args:
        recipe: whose folder they are looked for in.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._folder = recipe.folder

    def function(self, spec: str, where: str) -> Callable[..., Any]:
        """See :class:`edgec.passes.framework.context.RecipeResolver`."""
        return find_function(spec, self._folder, where)

    def model(self, path: str, where: str) -> Graph:
        """See :class:`edgec.passes.framework.context.RecipeResolver`."""
        try:
            return open_model(self._folder / path, {}, ())
        except InputError as error:
            raise InputError(f"{where}: {error.where}", error.what, error.fix) from error


def clear(folder: Path) -> None:
    """Removes the checkpoints of a run that is done, and their folder where nothing else lies in it."""
    if not folder.is_dir():
        return
    for path in folder.glob(_CHECKPOINTS):
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
