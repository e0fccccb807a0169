"""Where a worker imports the modules from whose functions it calls: the directory and the path of its own start.

As for `python -m`: whoever starts the worker decides what its modules are, whoever submits names them.
"""

import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import NamedTuple

from tq import limits
from tq.errors import BadRequest, ConfigurationError


class Imports(NamedTuple):
    """`path` as in sys.path, `directory` where functions run. Bytes: who reads them may have another locale."""

    path: tuple[bytes, ...]
    directory: bytes


def imports(modules: Iterable[str]) -> Imports:
    """Return where these modules are imported from. Raises ConfigurationError if one is not there, as far as one sees.

    Nothing of them is run here: of `a.b` only `a` is looked for.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise ConfigurationError("the current directory no longer exists", hint="start the worker elsewhere") from error
    for module in modules:
        top = module.partition(".")[0]
        if not _is_known(top) and PathFinder.find_spec(top, [here]) is None:
            raise ConfigurationError(
                f"there is no module {top} to allow", hint=f"start the worker where it is ({here}), or set PYTHONPATH"
            )
    return Imports(tuple(os.fsencode(place) for place in (here, *sys.path) if place), os.fsencode(here))


def check_modules(modules: tuple[str, ...]) -> None:
    """Raise BadRequest for what cannot be the name of a module."""
    if len(modules) > limits.modules_max:
        raise BadRequest(f"more than {limits.modules_max} modules (modules_max)", hint="allow their package")
    for module in modules:
        if len(module) > limits.function_chars_max or not all(part.isidentifier() for part in module.split(".")):
            raise BadRequest(f"{module!r} is no name of a module", hint="write --allow PACKAGE.MODULE")
        if len(module.encode()) > limits.offer_word_bytes_max:
            raise BadRequest(f"the module {module!r} is longer than offer_word_bytes_max", hint="allow its package")


def _is_known(top: str) -> bool:
    try:
        return find_spec(top) is not None
    except ValueError:  # __main__
        return False
