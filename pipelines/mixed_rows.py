"""Mixing what a module takes or puts out: a tensor, the first of a tuple, tensors of a dict, the states of an LSTM."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import mixops as mx
from mixops import MixTypeError, MixValueError

from .attention import TORCH_BLOCKS, given_masks
from .layers import Place, parameters_of


class Rows:
    """Mixes values by one plan, after a look at their shape.

    Args:
        place: where the values are, for errors and for what it means.
        plan: what the rows are mixed by.
        layout: axis names, or None for whole rows with the batch axis first.
    """

    def __init__(self, place: Place, plan: mx.Plan | mx.PlanSequence, layout: str | None) -> None:
        self.place, self.plan, self.layout = place, plan, layout
        self.idle = all(_does_nothing(step) for step in steps_of(plan))  # True if no value changes; labels may
        self.extents: set[int] = set()  # of all axes of what was mixed last, where a row is more than one vector

    def taken(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """The arguments of a call with the one that holds the rows mixed."""
        self.extents = set()
        where = self._which(module, args, kwargs)
        layout = self.layout or _usual_layout(module)
        if isinstance(where, int):
            return (*args[:where], self._mixed(args[where], layout), *args[where + 1 :]), kwargs
        return args, {**kwargs, where: self._mixed(kwargs[where], layout)}

    def put_out(self, module: nn.Module, output: Any) -> Any:
        """What a module puts out, mixed: a tensor, the first of several, or each that has a name."""
        self.extents = set()
        layout = self.layout or _usual_layout(module)
        if isinstance(output, Mapping):
            return self._of_mapping(output)
        if isinstance(output, PackedSequence) or not isinstance(output, (tuple, list)) or not output:
            return self._mixed(output, layout)
        if isinstance(module, nn.RNNBase) and isinstance(output[0], Tensor):
            last = self._mixed(output[0], layout)
            state = output[1]
            if isinstance(state, tuple):
                return last, tuple(self._mixed(one, "l b d") for one in state)
            return last, self._mixed(state, "l b d")
        items = [self._mixed(output[0], layout), *output[1:]]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)

    def _of_mapping(self, output: Mapping[Any, Any]) -> Any:
        mixed: Any = copy.copy(output)
        rows = {
            name: value
            for name, value in output.items()
            if isinstance(value, Tensor) and value.is_floating_point() and value.shape[:1] == (self.plan.n,)
        }
        for name, value in rows.items():
            fits = self.layout is not None and len(self.layout.split()) == value.ndim
            mixed[name] = self._mixed(value, self.layout if fits else _rows_first(value))
        if not rows:
            shapes = {name: tuple(value.shape) for name, value in output.items() if isinstance(value, Tensor)}
            raise MixValueError(
                f"layer {self.place.name} puts out {shapes}: expected floats of {self.plan.n} rows, batch axis first"
            )
        return mixed

    def _which(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str:
        """Which argument of a call is mixed."""
        for i, value in enumerate(args):
            if isinstance(value, (Tensor, PackedSequence)):
                return i
        masks = given_masks(module, (), kwargs)
        tensors = {name: v for name, v in kwargs.items() if isinstance(v, Tensor) and name not in masks}
        floats = [name for name, v in tensors.items() if v.is_floating_point()]
        for names in (("inputs_embeds", "pixel_values"), parameters_of(module)[:1]):
            known = [name for name in names if name in floats]
            if known:
                return known[0]
        if len(floats) == 1:
            return floats[0]
        if not floats and tensors:
            return next(iter(tensors))  # ids, which are refused by their dtype
        raise MixValueError(
            f"layer {self.place.name}: the call has {', '.join(floats) or 'no tensor'}, expected one tensor to mix: "
            "pass it by position, or name a module by its path"
        )

    def _mixed(self, value: Any, layout: str | None) -> Any:
        what = "takes" if self.place.takes else "puts out"
        self._check(value, what)
        names = self._names(value, what, layout)
        self.extents.update(value.shape if value.ndim > 2 else ())
        return value if self.idle else mx.mix(value, self.plan, names)

    def _check(self, value: Any, what: str) -> None:
        place = self.place
        if isinstance(value, PackedSequence):
            raise MixTypeError(
                f"layer {place.name} {what} a PackedSequence, which has no batch axis: call it on padded rows, without "
                "pack_padded_sequence, or mix before or after it"
            )
        if not isinstance(value, Tensor):
            raise MixTypeError(
                f"layer {place.name} {what} {type(value).__name__}, expected a tensor, or a tuple or dict of tensors: "
                "name a module inside it"
            )
        if value.is_nested:
            raise MixTypeError(
                f"layer {place.name} {what} a nested tensor, which has no batch axis: make nn.TransformerEncoder with "
                "enable_nested_tensor=False, or pad the rows"
            )
        if place.word == "sentence" and value.ndim != 2:
            raise MixValueError(
                f"layer {place.name}: got {tuple(value.shape)}, expected one vector for each row, (B, D): this model "
                "puts its last Linear on every token; mix a hidden state, layer=k, or what pools them"
            )
        if place.word == "input" and not value.is_floating_point() and value.dtype != torch.uint8:
            raise MixTypeError(
                f"layer 'input': the model is called with {value.dtype}, and ids cannot be averaged: mix 'words' "
                "instead"
            )

    def _names(self, value: Tensor, what: str, layout: str | None) -> str:
        shape, n = tuple(value.shape), self.plan.n
        text = layout or _rows_first(value)
        names = text.split()
        if len(names) != len(shape):
            raise MixValueError(
                f"layer {self.place.name} {what} {shape}, layout {text!r} names {len(names)} axes: name every axis"
            )
        if shape[names.index("b")] != n:
            fix = "draw the plan for this batch, Spec(n=len(x))"
            if layout is None and n in shape[1:]:
                axes = ["t", "d", "e", "f", "g"][: len(shape) - 1]
                axes.insert(shape.index(n, 1), "b")
                fix = f"layout='{' '.join(axes)}'"
            elif layout is not None and n in shape:
                fix = f"name the axis of {n} 'b' in the layout, which is {text!r}"
            raise MixValueError(f"layer {self.place.name} {what} {shape}, the plan is for {n} rows: {fix}")
        return text


def steps_of(plan: mx.Plan | mx.PlanSequence) -> tuple[mx.Plan, ...]:
    """The plans that a plan is made of."""
    return plan.plans if isinstance(plan, mx.PlanSequence) else (plan,)


def _does_nothing(plan: mx.Plan) -> bool:
    return not plan.opacity.any() and bool((plan.base == np.arange(plan.n)).all())


def _usual_layout(module: nn.Module) -> str | None:
    """Where a module of torch.nn has its rows, if it was made to choose."""
    if not isinstance(module, (nn.RNNBase, *TORCH_BLOCKS)):
        return None
    chosen = (one.batch_first for one in module.modules() if isinstance(one, (nn.RNNBase, nn.MultiheadAttention)))
    return "b t d" if next(chosen, True) else "t b d"


def _rows_first(value: Tensor) -> str:
    return " ".join(["b", *(f"a{i}" for i in range(1, value.ndim))])
