"""Samples from a Python function that the recipe names: ``python: module:function``.

Only such keys let a recipe run code. The module is looked for in the recipe's folder first. The function takes no
argument and returns the samples, as :class:`~edgec.frontends.datasets_iterable.IterableData` takes them.
"""

from __future__ import annotations

from pathlib import Path

from edgec.frontends.datasets_iterable import IterableData
from edgec.frontends.datasets_signature import Inputs
from edgec.frontends.python_functions import find_function


class PythonData(IterableData):
    """The samples that a function returns.

    Attributes:
        source: ``python: module:function``.

    Raises:
        UsageError: there is no such module or function.
        InputError: the function failed, or returned what is no data set for the model.
    """

    def __init__(
        self, function: str, folder: Path, inputs: Inputs, *, samples: int | None = None, where: str = ""
    ) -> None:
        call = find_function(function, folder, where)
        super().__init__(call, inputs, source=f"python: {function}", folder=folder, samples=samples)
