"""Functions of the user's that a recipe or a command names as ``module:function``.

Only what is named so is imported and run. The module is looked for in a folder first (the recipe's, or the current
one), then among what is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from edgec.ir.errors import EdgecError, InputError, UsageError, did_you_mean

FUNCTION = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""How a function is named: ``package.module:function``."""

FOREIGN = (Exception, SystemExit, GeneratorExit)
"""All that a user's code can raise; Ctrl-C alone is not its own."""

_modules: dict[Path, ModuleType] = {}


def run_foreign(call: Callable[[], Any], source: str, folder: Path) -> Any:
    """Calls a user's function with ``folder`` importable; what it raises becomes an InputError."""
    try:
        with importable(folder):
            return call()
    except EdgecError:
        raise
    except FOREIGN as error:
        raise InputError(source, f"failed with {named(error)}", "fix the function") from error


def named(error: BaseException) -> str:
    """An error's class and its message, on one line."""
    reason = " ".join(str(error).split())
    return type(error).__name__ + (f" ({reason})" if reason else "")


def find_function(
    function: str, folder: Path, where: str, source: str = "", beside: str = "beside the recipe"
) -> Callable[..., Any]:
    """``module:function``, the module taken from ``folder`` or from what is installed.

    Args:
        function: which one.
        folder: where modules are looked for first.
        where: the place of the mistake where there is no such function.
        source: what the function is called where its module fails; ``python: module:function`` by default.
        beside: where a module that is missing is to be put.

    Raises:
        UsageError: there is no such module or function.
        InputError: the module fails while it is imported.
    """
    module_name, name = function.split(":")
    source = source or f"python: {function}"
    try:
        with importable(folder):
            module = _load(module_name, folder)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise InputError(source, f"the module '{module_name}' needs '{error.name}'", "install it") from error
        raise UsageError(
            where, f"there is no module '{module_name}'", f"put {module_name.split('.')[0]}.py {beside}"
        ) from None
    except FOREIGN as error:
        raise InputError(
            source, f"the module '{module_name}' cannot be imported: {named(error)}", "fix the module"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = did_you_mean(name, public)
        raise UsageError(where, f"the module '{module_name}' has no function '{name}'", "correct the name" + near)
    return found


def _load(name: str, folder: Path) -> ModuleType:
    """A file in the folder is loaded by its path, so that two recipes' modules of one name stay apart."""
    file = folder.joinpath(*name.split(".")).with_suffix(".py").resolve()
    if not file.is_file():
        return importlib.import_module(name)
    if file not in _modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(name=name)
        module = importlib.util.module_from_spec(spec)
        # dataclasses look their module up by its name while it is being run.
        before = sys.modules.get(name)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        finally:
            if before is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = before
        _modules[file] = module
    return _modules[file]


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """The folder on ``sys.path``, and no byte code written into it; what is printed goes to stderr.

    stdout is for edgec's own: the report, or its summary.
    """
    entry, writes = str(folder.resolve()), sys.dont_write_bytecode
    sys.path.insert(0, entry)
    sys.dont_write_bytecode = True
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.dont_write_bytecode = writes
        if entry in sys.path:
            sys.path.remove(entry)
