"""Models of the user's own, named MODULE:FUNCTION on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from mixops import MixTypeError, MixValueError


def given_model(spelled: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names; modules of the working folder are found too.

    The module is run, as ``import`` runs it: it is the user who names it.

    Raises:
        MixError: if it is not of this form, the module cannot be imported, or there is no such function in it.

    Example:
        >>> given_model("mixops.pipelines.small_net:small_network").__name__
        'small_network'
    """
    module, _, name = spelled.partition(":")
    if not module or not name:
        raise MixValueError(f"--model {spelled}: expected small, or MODULE:FUNCTION such as my_nets:make")
    here = str(Path.cwd())
    if here not in sys.path:  # a command is not run from there, unlike python -m
        sys.path.append(here)
    try:
        found = import_module(module)
    except Exception as error:  # a module may fail in any way
        raise MixValueError(
            f"--model {spelled}: {module} cannot be imported: {type(error).__name__}: {error}; expected a module that "
            "is installed or lies in the working folder"
        ) from error
    if not hasattr(found, name):
        close = get_close_matches(name, dir(found), 1)
        raise MixValueError(
            f"--model {spelled}: {module} has no {name!r}{f'; did you mean {close[0]}?' if close else ''}"
        )
    made: Any = getattr(found, name)
    if not callable(made):
        raise MixTypeError(
            f"--model {spelled}: {name} is {type(made).__name__}, expected a function that makes a network"
        )

    @wraps(made)
    def make(*args: Any) -> Any:
        try:
            return made(*args)
        except Exception as error:  # whatever a function of the user's may raise
            told = ", ".join(map(str, args))
            raise MixValueError(
                f"--model {spelled} failed for ({told:.200}): {type(error).__name__}: {error}"
            ) from error

    return make
