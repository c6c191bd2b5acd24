"""Models of the user's own, named MODULE:FUNCTION on the command line."""

from __future__ import annotations

import sys
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from mixops import MixError, MixTypeError, MixValueError


def given_model(spelled: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names; modules of the working folder are found too.

    The module is run, as ``import`` runs it: it is the user who names it.

    Returns:
        The function. What it raises becomes a MixError, and so do a network with nothing to train and one with weights
        that a network which it made before has too: each training begins at weights of its own.

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
    before: list[weakref.ref[Any]] = []

    @wraps(made)
    def make(*args: Any) -> Any:
        try:
            net = made(*args)
        except Exception as error:  # whatever a function of the user's may raise
            told = ", ".join(map(str, args))
            raise MixValueError(
                f"--model {spelled} failed for ({told:.200}): {type(error).__name__}: {error}"
            ) from error
        before[:] = map(weakref.ref, _fresh_weights(spelled, net, before))
        return net

    return make


def _fresh_weights(spelled: str, net: Any, before: list[weakref.ref[Any]]) -> list[Any]:
    """The parameters of a network that train, if it is one and none of them is of a network that was made before."""
    from torch import nn

    if not isinstance(net, nn.Module):
        return []  # the task refuses it
    trained = [p for p in net.parameters() if p.requires_grad]
    if not trained:
        raise MixValueError(f"--model {spelled} made a network with no parameter that trains: nothing to try on it")
    old = {id(p) for ref in before if (p := ref()) is not None}
    if any(id(p) in old for p in trained):
        raise MixValueError(
            f"--model {spelled} made a network with weights of one that it made before: expected a new network at each "
            "call, since each training begins at first weights of its own"
        )
    return trained


def file_sum(spelled: str) -> str:
    """Checksum of the file of a given model's module: who changes the model has runs of another one."""
    file = getattr(sys.modules[spelled.partition(":")[0]], "__file__", None)
    return "" if file is None else f"{zlib.crc32(Path(file).read_bytes()):08x}"


@contextmanager
def training_of(model: str) -> Iterator[None]:
    """Errors of a training, where the model is the user's own, as one that names it: it may fail in any way."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MixError) or ":" not in model:
            raise
        raise MixValueError(f"--model {model} failed in training: {type(error).__name__}: {error}") from error
