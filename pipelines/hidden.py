"""mix_hidden: mix what a module of a model puts out, with gradients to both rows and attention to the tokens of both.

It is sugar for a line in a model's own forward, which works everywhere and hides nothing:

    h = mx.mix(h, plan, "b t d")
    attention_mask = mx.mix(attention_mask, plan, "b t", "valid")

torch.compile breaks its graph at such a line and is right.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch.utils.module_tracker import ModuleTracker

import mixops as mx
from mixops import MixTypeError, MixValueError

from .attention import MASKS, Masks, given_masks, hides_tokens, with_masks
from .layers import CROSS_NAMES, Place, check_reachable, core_of, find_place, mask_takers, plain_path, stacks_of
from .mixed_rows import Rows, steps_of
from .plan_collate import leaves_all

__all__ = ["mix_hidden"]


@contextmanager
def mix_hidden(
    model: nn.Module,
    layer: str | int | nn.Module | None,
    plan: mx.Plan | mx.PlanSequence,
    layout: str | None = None,
    *,
    mask: str = "union",
) -> Iterator[None]:
    """Mix the output of one module in every call of the model inside the block: h ← (1 - o)·h + o·h[partner].

    o is the plan's opacity. Later blocks then attend to the tokens of both rows. Hooks do the work; they are gone when
    the block is left.

    Args:
        model: any torch model; a DistributedDataParallel wrapper or a model with compiled blocks too.
        layer: where to mix; None takes ``plan.layer``, and does nothing where the plan names none and changes nothing.
            The path of a module ("encoder.layer.3", with or without the names that wrappers add), a module, a whole
            number k or "hidden:k" (the k-th hidden state: 0 is what the first block takes, k what block k puts out),
            "input" (what the model is called with), "words" (what the word embedding puts out) or "sentence" (what
            the Linear takes that was registered last).
        plan: for as many rows as the batch has.
        layout: axis names of what is mixed, "b c h w"; None for whole rows, batch axis first. Recurrent networks and
            transformers of torch.nn say themselves where theirs is.
        mask: attention masks of what runs after the mixing. "union": own OR the partner's tokens. "own": left as they
            are. "ones": padding is open to attention, order and distance stay. With "words" and "input" the mask that
            the model is called with is changed, before the model makes anything of it; elsewhere those that blocks
            are given, so that what the model itself does with its mask (a mean over tokens, say) sees the own one.
            Where the model makes its mask itself, of ids say, "words" changes those of blocks too.

    Yields:
        Nothing.

    Raises:
        MixError: on entering, if there is no such layer, the plan is none or for several layers, a layout is needed,
            or torch.compile or DataParallel keep hooks from working; in the model, if what is mixed has no batch
            axis of the plan's rows where it is expected, the layer runs twice, or a mask cannot be united; on
            leaving, if the layer never ran, or ran inside activation checkpointing and was not recomputed: there
            ``backward()`` belongs inside the block.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> x = torch.eye(2)
        >>> with mix_hidden(model, "0", plan):
        ...     mixed = model(x)
        >>> bool(torch.allclose(mixed, model(0.75 * x + 0.25 * x.flip(0))))
        True

    Source: Manifold Mixup (Verma et al. 2019) and TMix (Chen et al. 2020). The official TMix sends the partners
    through the lower layers as a second stream; here a row is its partner's partner already, at no further cost, and
    both rows then share one dropout mask.
    """
    if layer is None and isinstance(plan, mx.Plan) and leaves_all(plan):
        yield  # OneOf and Sometimes draw such plans where they leave all rows alone
        return
    mixing = _Mixing(model, layer, plan, layout, mask)
    try:
        mixing.attach()
        yield
    finally:
        mixing.detach()
    mixing.check_done()


@dataclass
class _Call:
    """One call of the model, or of some of its modules where the model itself is not called.

    Args:
        grad: are gradients recorded outside of it?
        given: masks that the model was called with.
        whole: is it a call of the model?
        masks: changes the masks of what runs later.
        outer: path of the module around the layer whose masks were changed before it ran, "" for the model itself.
        fired: has the layer run?
        extents: of the axes of what was mixed there.
        later: has anything that takes a mask run after that?
        received: was one of them given a mask that could be changed?
        again: will backward() run a hook of ours again?
        backward: has a gradient arrived at its output?
    """

    grad: bool
    given: dict[str, Any]
    whole: bool
    masks: Masks
    outer: str | None = None
    fired: bool = False
    extents: Collection[int] = ()
    later: bool = False
    received: bool = False
    again: bool = False
    backward: bool = False


@dataclass(frozen=True)
class _Taker:
    """A module that takes a mask; ``cross`` if only its masks of another sequence speak of what is mixed."""

    path: str
    module: nn.Module
    cross: bool


class _Mixing:
    """The hooks of one mix_hidden block, and what they have seen."""

    def __init__(self, model: nn.Module, layer: Any, plan: Any, layout: str | None, mask: str) -> None:
        _check(model, plan, layout, mask)
        self.place = find_place(model, _layer_of(plan) if layer is None else layer)
        self.core, self.plan, self.how = core_of(model), plan, mask
        self.rows = Rows(self.place, plan, layout)
        self.idle = self.rows.idle
        leaves_masks = self.idle or mask == "own"
        self.at_model = self.place.word in ("input", "words") and not leaves_masks
        self.takers = [] if leaves_masks or self.place.word else _takers(self.core, self.place)
        check_reachable(model, [self.core, self.place.module, *(taker.module for taker in self.takers)])
        self.handles: list[RemovableHandle] = []
        self.mask_handles: dict[str, RemovableHandle] = {}
        self.tracker, self.grad = ModuleTracker(), torch.is_grad_enabled()
        self.call: _Call | None = None
        self.batched = False  # was the model called with masks?
        self.ran = self.ordered = False
        self.earlier: set[str] = set()  # paths of what takes a mask and runs before the mixing
        self.later: set[str] = set()  # and of that whose masks change
        self.waiting: list[_Call] = []
        self.again = 0  # calls that must be run again and put out nothing a gradient arrives at
        self.active = True

    def __deepcopy__(self, memo: Any) -> _Mixing:
        return self  # a copy of the model, made inside the block, has hooks that are over when the block is

    # -- entering and leaving ------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Register all hooks."""
        core, module = self.core, self.place.module
        self.handles.append(core.register_forward_pre_hook(self._begin, with_kwargs=True))
        for path, around in _around(core, self.place) if self.at_model else ():
            self.handles.append(around.register_forward_pre_hook(partial(self._outer_mask, path), with_kwargs=True))
        if self.place.takes:
            self.handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
        else:
            self.handles.append(module.register_forward_hook(self._after))
        self.handles.append(core.register_forward_hook(self._end))
        self._attach_masks()

    def _attach_masks(self) -> None:
        """Register the hooks on masks, or move them behind those that other blocks have registered."""
        running = self.place.module if self.mask_handles else None  # torch walks its hooks: they stay
        for taker in self.takers:
            if taker.module is running:
                continue
            if taker.path in self.mask_handles:
                self.mask_handles[taker.path].remove()
            hook = partial(self._mask, taker)
            self.mask_handles[taker.path] = taker.module.register_forward_pre_hook(hook, with_kwargs=True)

    def detach(self) -> None:
        """Remove all hooks."""
        self.active = False
        for handle in (*self.handles, *self.mask_handles.values()):
            handle.remove()

    def check_done(self) -> None:
        """Raise if the block is left with work undone."""
        if not self.ran:
            raise MixValueError(
                f"mix_hidden: layer {self.place.name} did not run inside the block: call the model there; a branch "
                "that is not taken, or a compiled model around this one, leaves hooks out"
            )
        if self.again or not all(call.backward for call in self.waiting):
            raise MixValueError(self._late())

    # -- hooks of the model --------------------------------------------------------------------------------------

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self.active or self.tracker.is_bw:
            return
        given = given_masks(module, args, kwargs)
        self.batched = bool(given)
        self.call = self._new_call(torch.is_grad_enabled() or (self.grad and _in_checkpoint()), given, True)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        call = self.call
        if not self.active or self.tracker.is_bw or call is None:
            return
        self.call = None
        if call.again:
            self._await(call, output)
        # Nothing attends any more where blocks are known and none of them ran after the mixing.
        if self.idle or self.how == "own" or self.place.word or call.received or (self.takers and not call.later):
            return
        for name, value in call.given.items():
            if hides_tokens(name, value, self.plan.n, call.extents):
                raise MixValueError(
                    f"mix_hidden: {type(module).__name__} was called with {name} that hides tokens, and nothing after "
                    f'layer {self.place.name} was given a mask to unite with that of the partners: pass mask="own" to '
                    f'leave it so, or call the model with the union, mx.mix({name}, plan, "b t", "valid")'
                )

    def _new_call(self, grad: bool, given: dict[str, Any], whole: bool) -> _Call:
        return _Call(grad, given, whole, Masks(self.plan, self.plan.n, self.how))

    # -- hooks of the layer --------------------------------------------------------------------------------------

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:
        if not self.active:
            return None
        self._fire()
        return self._seen(self.rows.put_out(module, output))

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if not self.active:
            return None
        self._fire()
        return self._seen(self.rows.taken(module, args, kwargs))

    def _seen(self, mixed: Any) -> Any:
        if self.call is not None:
            self.call.extents = self.rows.extents
        return mixed

    def _fire(self) -> None:
        self.ran = True
        if self.tracker.is_bw:
            self.again = max(self.again - 1, 0)
            return
        if self.call is None or (self.call.fired and not self.call.whole):
            self.call = self._new_call(torch.is_grad_enabled(), {}, False)
        if self.call.fired:
            raise MixValueError(
                f"mix_hidden: layer {self.place.name} runs more than once in a call of the model (shared weights, or a "
                "module used in several places), and would mix each time: name a module that runs once"
            )
        self.call.fired = True
        self._note()
        if self.place.word == "words" and self.at_model and self.call.outer is None and not self.takers:
            self.takers = _takers(self.core, self.place)  # the model makes its mask itself, of ids say
            check_reachable(self.core, [taker.module for taker in self.takers])
            self.ordered = False
        if not self.ordered:  # where blocks are nested, masks change in the order in which layers mix
            self.ordered = True
            self._attach_masks()

    # -- hooks of what takes a mask ------------------------------------------------------------------------------

    def _outer_mask(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Change the masks that the model is called with, or else the outermost module around the layer."""
        if not self.active:
            return None
        given = given_masks(module, args, kwargs)
        if self.tracker.is_bw:
            if path not in self.later:
                return None
        else:
            call = self.call
            if call is None or (not call.whole and (call.fired or call.outer == path)):
                call = self.call = self._new_call(torch.is_grad_enabled(), given, False)
                self.batched = bool(given)
            if call.outer is not None or not given:
                return None
            call.outer = path
            self.later.add(path)
        return self._with_changed(module, args, kwargs, given, path or type(module).__name__)

    def _mask(self, taker: _Taker, module: nn.Module, args: Any, kwargs: Any) -> Any:
        call = self.call
        if not self.active:
            return None
        if self.tracker.is_bw:
            if taker.path not in self.later:
                return None
        elif call is None or not call.fired:
            self.earlier.add(taker.path)
            return None
        elif not call.whole and taker.path in self.earlier:
            self.call = None  # parts of the model are called once more
            return None
        elif call.outer is not None:
            return None  # made of masks that are changed already
        else:
            self.later.add(taker.path)
            call.later = True
        given = given_masks(module, args, kwargs)
        given = {name: value for name, value in given.items() if (name in CROSS_NAMES) == taker.cross}
        return self._with_changed(module, args, kwargs, given, taker.path)

    def _with_changed(self, module: nn.Module, args: Any, kwargs: Any, given: dict[str, Any], where: str) -> Any:
        """The arguments of a call with its masks changed, or None where none is."""
        call = None if self.tracker.is_bw else self.call
        masks = call.masks if call else Masks(self.plan, self.plan.n, self.how)
        changed: dict[str, Any] = {}
        for name, value in given.items():
            new = masks.changed(value, module, name, where, self.batched)
            if new is not None:
                changed[name] = new
        if not changed:
            return None
        if call:
            call.received = True
            self._note()
        return with_masks(module, args, kwargs, changed)

    # -- activation checkpointing --------------------------------------------------------------------------------

    def _note(self) -> None:
        """Remember that what a hook does now is to be done again in backward()."""
        call = self.call
        if call is None or call.again or not (call.grad or torch.is_grad_enabled()) or not _in_checkpoint():
            return
        if any(p.requires_grad for p in self.core.parameters()):
            call.again = True
            self.again += not call.whole

    def _await(self, call: _Call, output: Any) -> None:
        """Wait for a gradient at what the model puts out: all that lies before has then been run again."""
        found = [tensor for tensor in _tensors(output) if tensor.requires_grad]
        for tensor in found:
            tensor.register_hook(partial(self._arrived, call))  # type: ignore[no-untyped-call]  # torch leaves it bare
        if found:
            self.waiting.append(call)
        else:
            self.again += 1

    def _arrived(self, call: _Call, gradient: Tensor) -> None:
        if not self.active:
            raise MixValueError(self._late())
        call.backward = True

    def _late(self) -> str:
        return (
            f"mix_hidden: layer {self.place.name} ran inside activation checkpointing, which runs it again in "
            "backward(), and the mixing must be there then: keep backward() inside the with block"
        )


# -- small things ------------------------------------------------------------------------------------------------------


def _check(model: Any, plan: Any, layout: Any, mask: Any) -> None:
    if not isinstance(model, nn.Module):
        raise MixTypeError(f"mix_hidden: model is {type(model).__name__}, expected a torch.nn.Module")
    if not isinstance(plan, (mx.Plan, mx.PlanSequence)):
        raise MixTypeError(f"mix_hidden: plan is {type(plan).__name__}, expected a Plan (an operator's draw)")
    if mask not in MASKS:
        raise MixValueError(f"mix_hidden: mask={mask!r}, expected one of {', '.join(MASKS)}")
    layers = {step.layer for step in steps_of(plan)}
    if len(layers) > 1:
        raise MixValueError(
            f"mix_hidden: the plans are for the layers {sorted(map(str, layers))}: enter one block for each of them"
        )
    if layout is None:
        boxed = next((step for step in steps_of(plan) if step.rank), None)
        if boxed is not None:
            raise MixValueError(
                f"mix_hidden: the plan has boxes on extents {boxed.shape}: name the axes, layout='b t d' say"
            )
    else:
        mx.Spec.like(np.zeros((1,) * len(str(layout).split())), layout)  # refuses a layout that is none


def _layer_of(plan: mx.Plan | mx.PlanSequence) -> str:
    if plan.layer is None:
        raise MixValueError(
            "mix_hidden: layer is None and the plan names none: draw it with ManifoldMixup([...]) or TMix(), or name a "
            "layer"
        )
    return plan.layer


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _in_checkpoint() -> bool:
    """Are we inside a function that torch.utils.checkpoint runs? Its two kinds have only their frames in common."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
        frame = frame.f_back
    return False


def _around(core: nn.Module, place: Place) -> Iterator[tuple[str, nn.Module]]:
    """The model and all modules in it that hold a place, the outermost first."""
    parts = place.path.split(".") if place.path else []
    for i in range(max(len(parts), 1)):
        path = ".".join(parts[:i])
        yield path, core.get_submodule(path)


def _takers(core: nn.Module, place: Place) -> list[_Taker]:
    """Whatever takes a mask of the tokens that are mixed.

    Where a model has several lists of blocks, an encoder and a decoder, the mixed tokens are those of the list nearest
    to the layer; blocks of the others look at them through their cross-attention only.
    """
    stacks = stacks_of(core)
    layer = plain_path(place.path).split(".")
    near = {stack: _shared_parts(plain_path(stack).split("."), layer) for stack in stacks}
    nearest = max(near.values(), default=0)
    takers = []
    for path, module in mask_takers(core, stacks, ".".join(layer)):
        own = [depth for stack, depth in near.items() if path.startswith(stack + ".")]
        takers.append(_Taker(path, module, cross=bool(own) and own[0] < nearest))
    return takers


def _shared_parts(a: list[str], b: list[str]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
