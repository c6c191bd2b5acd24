"""Finding the place in a model whose values are mixed: a module by path, by number, or by what it is for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from torch import nn
from torch.jit import ScriptModule

from mixops import MixTypeError, MixValueError

#: Bool masks of these names are True where a token is padding, as torch.nn has it.
PADDING_NAMES = (
    "src_key_padding_mask",
    "tgt_key_padding_mask",
    "memory_key_padding_mask",
    "key_padding_mask",
    "padding_mask",
)
#: Bool masks of these names are True where attention may look, as Transformers has it.
VISIBLE_NAMES = ("attention_mask", "encoder_attention_mask", "attn_mask", "mask", "input_mask")
#: Which query may look at which key, as torch.nn has it: True where it may not.
PAIR_NAMES = ("src_mask", "tgt_mask", "memory_mask")
#: Masks of another sequence than the one that the block itself works on.
CROSS_NAMES = ("encoder_attention_mask", "memory_key_padding_mask", "memory_mask")
MASK_NAMES = frozenset((*PADDING_NAMES, *VISIBLE_NAMES, *PAIR_NAMES))

_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_HIDDEN = "hidden:"


@dataclass(frozen=True)
class Place:
    """Where in a model values are mixed.

    Args:
        name: what errors call it.
        module: the module that is hooked.
        path: its path below the model, "" for the model itself.
        word: "input", "words", "sentence", or "" for a module that was named or counted.
        takes: True mixes what the module takes, False what it puts out.
    """

    name: str
    module: nn.Module
    path: str
    word: str = ""
    takes: bool = False


def parameters_of(module: nn.Module) -> tuple[str, ...]:
    """Names of what a module's forward takes by position, without self; of the wrapped module for a wrapper."""
    return _parameters(module)[0]


def takes_masks(module: nn.Module) -> bool:
    """Has a module's forward a parameter that is a mask by its name?"""
    return _parameters(module)[1]


def _parameters(module: nn.Module) -> tuple[tuple[str, ...], bool]:
    inner = core_of(module)
    if isinstance(inner, ScriptModule):
        return (), False  # compiled by torch.jit: nothing to read
    if "forward" in vars(inner):  # replaced on the instance, as accelerate does
        return _read(inspect.signature(inner.forward), 0)
    return _class_parameters(type(inner).forward)


@lru_cache(maxsize=1024)
def _class_parameters(forward: Callable[..., Any]) -> tuple[tuple[str, ...], bool]:
    return _read(inspect.signature(forward), 1)


def _read(signature: inspect.Signature, skip: int) -> tuple[tuple[str, ...], bool]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = tuple(name for name, parameter in signature.parameters.items() if parameter.kind in kinds)
    return names[skip:], not MASK_NAMES.isdisjoint(signature.parameters)


def core_of(model: nn.Module) -> nn.Module:
    """The model below DistributedDataParallel and other wrappers that pass their inputs on."""
    while True:
        inner = next((child for name, child in model.named_children() if name in _WRAPPERS), None)
        if inner is None or len(list(model.children())) != 1 or not _is_wrapper(model):
            return model
        model = inner


def _is_wrapper(model: nn.Module) -> bool:
    return type(model).__module__.startswith("torch.")


def plain_path(path: str) -> str:
    """A path without the parts that wrappers add: "module.bert.encoder" is "bert.encoder"."""
    return ".".join(part for part in path.split(".") if part not in _WRAPPERS)


# -- stacks of blocks ------------------------------------------------------------------------------------------------


def stacks_of(core: nn.Module) -> dict[str, list[nn.Module]]:
    """Lists of blocks by path: the outermost module lists of which every member takes a mask."""
    found: dict[str, list[nn.Module]] = {}

    def look(path: str, module: nn.Module) -> None:
        for name, child in module.named_children():
            at = f"{path}.{name}" if path else name
            members = list(child) if isinstance(child, (nn.ModuleList, nn.Sequential)) else []
            if members and all(takes_masks(member) for member in members):
                found[at] = members
            else:
                look(at, child)

    look("", core)
    return found


def mask_takers(core: nn.Module, stacks: dict[str, list[nn.Module]], layer: str) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of whatever takes a mask and is not made of blocks itself: the blocks, poolings beside them.

    What holds the layer runs already when that is mixed, so its parts are looked at instead. Blocks are not taken
    apart.
    """

    def look(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module.named_children():
            at = f"{path}.{name}" if path else name
            holds = any(stack == at or stack.startswith(at + ".") for stack in stacks)
            holds = holds or (path not in stacks and layer.startswith(plain_path(at) + "."))
            if not holds and takes_masks(child):
                yield at, child
            else:
                yield from look(at, child)

    yield from look("", core)


# -- the place ---------------------------------------------------------------------------------------------------------


def find_place(model: nn.Module, layer: Any) -> Place:
    """The place that a layer names.

    Args:
        model: the model, wrapped or not.
        layer: a module of it, the path of one, a whole number or "hidden:k", or "input", "words" or "sentence".

    Returns:
        The Place.

    Raises:
        MixError: if there is no such place, or more than one.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> find_place(model, "sentence").path
        '2'
    """
    place = _found(model, layer)
    if isinstance(place.module, (nn.ModuleList, nn.ModuleDict)):
        raise MixValueError(
            f"layer {place.name}: a {type(place.module).__name__} is never called itself: name one of its members"
        )
    return place


def _found(model: nn.Module, layer: Any) -> Place:
    core = core_of(model)
    if isinstance(layer, nn.Module):
        for path, module in model.named_modules():
            if module is layer:
                return Place(repr(plain_path(path) or type(module).__name__), module, path)
        raise MixValueError(
            f"layer is a {type(layer).__name__} that is no part of this {type(core).__name__}: expected one of its "
            "own modules, or the path of one"
        )
    if isinstance(layer, str):
        number = layer.removeprefix(_HIDDEN)
        if layer.startswith(_HIDDEN) and number.isdecimal():
            return _hidden(core, int(number))
        return _WORDS[layer](core) if layer in _WORDS else _by_path(model, layer)
    if hasattr(layer, "__index__") and not isinstance(layer, bool):
        return _hidden(core, int(layer))
    raise MixTypeError(
        f"layer is {type(layer).__name__}: expected the path of a module such as 'encoder.layer.3', a module, a whole "
        "number for a hidden state, 'input', 'words' or 'sentence'"
    )


def _hidden(core: nn.Module, k: int) -> Place:
    stacks = stacks_of(core)
    if len(stacks) != 1:
        have = f"several: {', '.join(stacks)}" if stacks else "none"
        fix = f"'{next(iter(stacks))}.0' say" if stacks else "'encoder.layer.3' say"
        raise MixValueError(
            f"layer {k}: expected one list of blocks that take an attention mask, {type(core).__name__} has {have}; "
            f"name a module by its path, {fix}"
        )
    [(path, blocks)] = stacks.items()
    if not 0 <= k <= len(blocks):
        raise MixValueError(
            f"layer {k}: {path} has {len(blocks)} block{'s' * (len(blocks) != 1)}, expected 0 (what the first takes) "
            f"to {len(blocks)} (what the last puts out)"
        )
    at = max(k - 1, 0)
    name = f"{_HIDDEN}{k} ({path}.{at})"
    return Place(name, blocks[at], f"{path}.{at}", takes=k == 0)


def _input(core: nn.Module) -> Place:
    return Place("'input'", core, "", "input", takes=True)


def _words(core: nn.Module) -> Place:
    for module in (core, *_outermost_with_embeddings(core)):
        embedding = _input_embeddings(module)
        if embedding is not None:
            path = _path_of(core, embedding)
            return Place(f"'words' ({path})", embedding, path, "words")
    tables = {path: module for path, module in core.named_modules() if isinstance(module, nn.Embedding)}
    if len(tables) != 1:
        have = f"has several: {', '.join(tables)}; name the one of the words" if tables else "has none"
        raise MixValueError(f"layer 'words': expected one nn.Embedding, {type(core).__name__} {have}")
    [(path, table)] = tables.items()
    return Place(f"'words' ({path})", table, path, "words")


def _outermost_with_embeddings(core: nn.Module) -> list[nn.Module]:
    """The one module below that knows its embeddings, where a model of one's own holds a pretrained one."""
    found: dict[str, nn.Module] = {}
    for path, module in core.named_modules():
        if path and hasattr(module, "get_input_embeddings") and not any(path.startswith(f + ".") for f in found):
            found[path] = module
    return list(found.values()) if len(found) == 1 else []


def _input_embeddings(module: nn.Module) -> nn.Module | None:
    encoder = _answer(module, "get_encoder")  # T5 and BART hold a table beside those that they run
    own = None if encoder is None or encoder is module else _answer(encoder, "get_input_embeddings")
    return own if own is not None else _answer(module, "get_input_embeddings")


def _answer(module: nn.Module, method: str) -> nn.Module | None:
    """The module that a method of this one names, if it has the method and has an answer."""
    ask = getattr(module, method, None)
    if ask is None:
        return None
    try:
        found = ask()
    except NotImplementedError:
        return None
    return found if isinstance(found, nn.Module) else None


def _path_of(core: nn.Module, wanted: nn.Module) -> str:
    return next((path for path, module in core.named_modules() if module is wanted), "")


def _sentence(core: nn.Module) -> Place:
    linears = [(path, module) for path, module in core.named_modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise MixValueError(f"layer 'sentence': {type(core).__name__} has no nn.Linear; name a module by its path")
    # A head may be registered before the encoder: those inside blocks come last in line.
    blocks = tuple(f"{path}." for path in stacks_of(core))
    path, last = next((one for one in reversed(linears) if not one[0].startswith(blocks)), linears[-1])
    return Place(f"'sentence' (what {path or 'the model'} takes)", last, path, "sentence", takes=True)


_WORDS = {"input": _input, "words": _words, "sentence": _sentence}


def _by_path(model: nn.Module, layer: str) -> Place:
    modules = {path: module for path, module in model.named_modules() if path}
    if layer in modules:
        return Place(repr(layer), modules[layer], layer)
    plain: dict[str, str] = {}
    for path in modules:
        plain.setdefault(plain_path(path), path)
    wanted = plain_path(layer)
    if wanted and wanted in plain:
        return Place(repr(layer), modules[plain[wanted]], plain[wanted])
    core = core_of(model)
    near = get_close_matches(layer, [p for p in plain if p], n=5, cutoff=0.5)
    top = [name for name, _ in core.named_children()]
    raise MixValueError(
        f"layer {layer!r}: {type(core).__name__} has no such module; "
        + (f"nearest: {', '.join(near)}; " if near else "")
        + f"at the top: {', '.join(top)}; or 'input', 'words', 'sentence', or a whole number"
    )


# -- what hooks cannot reach -------------------------------------------------------------------------------------------


def check_reachable(
    model: nn.Module,
    modules: list[nn.Module],
    owner: str = "mix_hidden",
    otherwise: str = ', or mix in forward: h = mx.mix(h, plan, "b t d")',
) -> None:
    """Raise if hooks on these modules would not see the batch, be ignored, or be kept for later plans.

    ``owner`` is who hooks them, and ``otherwise`` what else can be done, for the messages.

    A module that was wrapped by torch.compile(module) is called through its wrapper, whose hooks run: only what lies
    inside a compiled module is out of reach.
    """
    wanted = {id(module) for module in modules}

    def look(path: str, module: nn.Module, inside: str | None) -> None:
        own = path or type(module).__name__
        if isinstance(module, nn.DataParallel):
            raise MixTypeError(
                f"{owner}: DataParallel splits the batch between devices, and a plan is for the whole batch: use "
                "DistributedDataParallel, where each process draws the plan of its own batch"
            )
        if getattr(module, "_compiled_call_impl", None) is not None:
            inside = inside or own
        if inside is not None and id(module) in wanted:
            raise MixValueError(
                f"{owner}: {inside} is compiled, and compiled code keeps hooks as they were when it was made, or "
                f"leaves them out: compile the blocks one by one, blocks[i] = torch.compile(blocks[i]){otherwise}"
            )
        if type(module).__name__ == "OptimizedModule" and _is_wrapper(module):
            inside = inside or own
        for name, child in module.named_children():
            look(f"{path}.{name}" if path else name, child, inside)

    look("", model, None)
