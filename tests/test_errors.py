"""Bad input: one clear MixError with what came, what was expected and what to do; nothing is half done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Engine, data

import mixops as mx

X = data("float32", (4, 3, 6, 5))
IDS = data("int64", (4, 7))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


MIXUP = mx.Mixup().draw(rng(), mx.Spec(4), lam=0.37, partner=[1, 2, 3, 0])
PAIRS = mx.Mixup().draw(rng(), mx.Spec(4), lam=0.37, partner=[3, 2, 1, 0])
CUTMIX = mx.CutMix().draw(rng(), mx.Spec(4, (6, 5)), box=[1, 3, 1, 4], partner=[1, 2, 3, 0])
CUTOUT = mx.Cutout(3, fill=(1, 2, 3)).draw(rng(), mx.Spec(4, (6, 5)))
TWO_DONORS = mx.Plan(
    np.arange(4),
    [[1, 2]] * 4,
    [[[0, 2, 0, 2], [3, 5, 3, 5]]] * 4,
    [[[0, 2, 0, 2], [3, 5, 3, 5]]] * 4,
    np.ones((4, 2)),
    np.zeros((4, 2)),
    (6, 5),
)
RESIZED = mx.Plan([0], [[1]], [[[0, 2, 0, 2]]], [[[0, 4, 0, 4]]], [[1]], [[0]], (6, 5))

#: What is wrong: the array, the call, and words that the message must have.
BAD_MIX: dict[str, tuple[np.ndarray, Any, str, dict[str, Any], list[str]]] = {
    "layout too short": (X, MIXUP, "b c h", {}, ["names 3 axes", "has 4", "name every axis"]),
    "layout too long": (X, MIXUP, "b c h w d", {}, ["names 5 axes", "has 4"]),
    "layout without b": (X, MIXUP, "n c h w", {}, ["'n c h w'", '"b"']),
    "layout without spaces": (X, MIXUP, "NCHW", {}, ["'NCHW'", 'did you mean "b c h w"?']),
    "layout of channels last": (X, MIXUP, "bhwc", {}, ["'bhwc'", 'did you mean "b h w c"?']),
    "layout of one sample": (X, MIXUP, "chw", {}, ["'chw'", 'such as "b c h w"']),
    "layout with an axis twice": (X, MIXUP, "b c h h", {}, ["'b c h h'", "different axis names"]),
    "layout that is no text": (X, MIXUP, ("b", "c", "h", "w"), {}, ["string of axis names"]),  # type: ignore[dict-item]
    "an axis that the plan needs": (X, CUTMIX, "b c y x", {}, ["no axis 'h'", "boxes on"]),
    "another extent": (X, CUTMIX.rescaled((12, 5)), "b c h w", {}, ["extent 6", "drawn for 12", "rescaled"]),
    "a plan of more rows": (X[:3], MIXUP, "b c h w", {}, ["row 3", "for 3 source rows", "of 4 rows", "draw it"]),
    "a partner out of range": (X[:2], MIXUP[:2], "b c h w", {}, ["partner out of range", "2 source rows"]),
    "no plan": (X, "Mixup", "b c h w", {}, ["plan is str", "expected a Plan"]),
    "an operator for a plan": (X, mx.Mixup(), "b c h w", {}, ["plan is Mixup", "draw"]),
    "an unknown kind": (X, MIXUP, "b c h w", {"kind": "mask"}, ["'mask'", "continuous, discrete, valid"]),
    "an unknown backend": (X, MIXUP, "b c h w", {"backend": "gpu"}, ["'gpu'", "reference"]),
    "threads below 1": (X, MIXUP, "b c h w", {"threads": 0}, ["threads=0", "1 or more"]),
    "threads of text": (X, MIXUP, "b c h w", {"threads": "all"}, ["threads='all'", "1 or more"]),
    "ids that would blend": (IDS, MIXUP, "b t", {}, ["int64", "0.63", "cannot be averaged", "CutMix", "embeddings"]),
    "images of whole numbers": (X.astype(np.int32), MIXUP, "b c h w", {}, ["int32", "cast them to uint8 or float32"]),
    "a discrete blend": (X, MIXUP, "b c h w", {"kind": "discrete"}, ["discrete", "0.63", "paste", "on_blend"]),
    "a mask that is filled": (X, CUTOUT, "b c h w", {"kind": "valid", "fill": 0}, ["valid", "leave fill out"]),
    "fills of other channels": (X[:, :2], CUTOUT, "b c h w", {}, ["3 fill values", "axis c of 2", "one number"]),
    "fills without channels": (X[:, 0], CUTOUT, "b h w", {}, ["3 fill values", "no axis c"]),
    "a broken id": (
        IDS,
        replace(MIXUP, partner=[[-1]] * 4, opacity=np.ones((4, 1)), weight=np.zeros((4, 1)), fills=0.5),
        "b t",
        {},
        ["0.5", "whole numbers"],
    ),
    "an id beyond its type": (
        X.astype(np.uint8),
        CUTOUT,
        "b c h w",
        {"kind": "discrete", "fill": -100},
        ["uint8", "-100", "0 to 255"],
    ),
    "a byte beyond its type": (X.astype(np.uint8), CUTOUT, "b c h w", {"fill": 300}, ["uint8", "300", "0 to 255"]),
    "a byte below 0": (X.astype(np.uint8), CUTOUT, "b c h w", {"fill": (1, -2, 3)}, ["uint8", "-2", "0 to 255"]),
    "an infinite fill": (X, CUTOUT, "b c h w", {"fill": np.inf}, ["inf", "finite"]),
    "a fill of text": (X, CUTOUT, "b c h w", {"fill": "red"}, ["'red'", "mean"]),
    "the mean without a tail": (X, CUTOUT, "b c h w", {"fill": "mean"}, ["'mean'", "Output(mean=...)"]),
    "a resized donor": (X, RESIZED, "b c h w", {}, ["donor and box differ in size"]),
    "a tail for ids": (IDS, mx.Plan.identity(4), "b t", {"to": mx.Output("b t")}, ["int64", "float32"]),
    "a tail for a mask": (X, MIXUP, "b c h w", {"kind": "valid", "to": mx.Output("b c h w")}, ["valid", "continuous"]),
    "a tail of other axes": (X, MIXUP, "b c h w", {"to": mx.Output("b h w")}, ["b h w", "same axes"]),
    "a mean of other channels": (
        X,
        MIXUP,
        "b c h w",
        {"to": mx.Output("b c h w", mean=(1, 2))},
        ["mean=(1.0, 2.0)", "each channel"],
    ),
    "uint8 out of floats": (X, MIXUP, "b c h w", {"to": mx.Output("b c h w", "uint8")}, ["uint8", "float32"]),
}


def check(error: mx.MixError, words: list[str]) -> None:
    assert isinstance(error, (ValueError, TypeError))
    missing = [w for w in words if w not in str(error)]
    assert not missing, f"{missing} not in {str(error)!r}"


@pytest.mark.parametrize("bad", BAD_MIX)
def test_a_bad_mix_is_a_clear_error_and_writes_nothing(writer: Engine, bad: str) -> None:
    array, plan, layout, options, words = BAD_MIX[bad]
    for given_out in (False, True, "in place"):
        x, out = writer.array(array.copy()), writer.array(np.full(array.shape, 7, array.dtype))
        more = {"out": x if given_out == "in place" else out} if given_out else {}
        with pytest.raises(mx.MixError) as caught:
            writer.mix(x, plan, layout, **options, **more)
        check(caught.value, words)
        np.testing.assert_array_equal(writer.numpy(x), array)
        assert (writer.numpy(out) == 7).all()


BAD_OUT: dict[str, tuple[Callable[[np.ndarray], np.ndarray], list[str]]] = {
    "another shape": (lambda x: np.zeros((4, 3, 5, 6), x.dtype), ["(4, 3, 5, 6)", "expected", "(4, 3, 6, 5)"]),
    "another dtype": (lambda x: np.zeros(x.shape, np.float64), ["float64", "expected float32"]),
    "one row more": (lambda x: np.zeros((5, 3, 6, 5), x.dtype), ["(5, 3, 6, 5)", "(4, 3, 6, 5)"]),
}


@pytest.mark.parametrize("bad", BAD_OUT)
def test_an_out_that_does_not_fit_is_refused(writer: Engine, bad: str) -> None:
    make, words = BAD_OUT[bad]
    x, out = writer.array(X.copy()), writer.array(make(X))
    with pytest.raises(mx.MixError) as caught:
        writer.mix(x, CUTMIX, "b c h w", out=out)
    check(caught.value, words)
    np.testing.assert_array_equal(writer.numpy(x), X)
    assert not writer.numpy(out).any()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_an_out_that_cannot_be_written_is_refused(backend: str) -> None:
    out = np.zeros_like(X)
    out.setflags(write=False)
    with pytest.raises(mx.MixError, match="read-only"):
        mx.mix(X, CUTMIX, "b c h w", out=out, backend=backend)
    for wrong in (torch.zeros(4, 3, 6, 5), [[0]], "out"):
        with pytest.raises(mx.MixError, match="expected a NumPy array"):
            mx.mix(X, CUTMIX, "b c h w", out=wrong, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_an_out_that_is_no_plain_tensor_is_refused(backend: str) -> None:
    x = torch.from_numpy(X.copy())
    for wrong in (
        np.zeros_like(X),
        torch.zeros(4, 3, 6, 5, device="meta"),
        torch.zeros(4, 3, 6, 5, requires_grad=True),
    ):
        with pytest.raises(mx.MixError, match="out"):
            mx.mix(x, CUTMIX, "b c h w", out=wrong, backend=backend)
    repeated = torch.zeros(1, 3, 6, 5).expand(4, 3, 6, 5)
    with pytest.raises(mx.MixError, match="out"):
        mx.mix(x, CUTMIX, "b c h w", out=repeated, backend=backend)
    assert not repeated.any()


def test_out_that_overlaps_its_source_otherwise_is_refused(writer: Engine) -> None:
    before = data("float32", (5, 3, 6, 5))
    memory = writer.array(before.copy())
    for x, out in ((memory[:4], memory[1:]), (memory[1:], memory[:4])):
        with pytest.raises(mx.MixError, match="overlaps"):
            writer.mix(x, CUTMIX, "b c h w", out=out)
    with pytest.raises(mx.MixError, match="overlaps"):
        writer.mix(list(memory[:4]), CUTMIX, "b c h w", out=memory[1:])
    x = memory[:4]
    with pytest.raises(mx.MixError, match="overlaps"):
        writer.mix(x, CUTMIX, "b c h w", out=x, to=mx.Output("b c h w"))
    np.testing.assert_array_equal(writer.numpy(memory), before)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (TWO_DONORS, ["several donors", "out="]),
        (MIXUP[[1, 0, 2, 3]], ["moves rows", "out="]),
        (MIXUP[:3], ["moves rows", "out="]),
        (mx.PlanSequence((PAIRS, TWO_DONORS)), ["several donors"]),
        (mx.PlanSequence((PAIRS, MIXUP[[1, 0, 2, 3]])), ["moves rows"]),
        (mx.PlanSequence((PAIRS, CUTMIX.rescaled((12, 10)))), ["extent"]),
    ],
)
def test_in_place_refuses_what_needs_more_than_one_row_kept(writer: Engine, plan: Any, words: list[str]) -> None:
    x = writer.array(X.copy())
    with pytest.raises(mx.MixError) as caught:
        writer.mix(x, plan, "b c h w", out=x)
    if plan.n == 4:
        check(caught.value, words)
    np.testing.assert_array_equal(writer.numpy(x), X)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([X[0], X[1], X[2], X[3][:, :4]], ["sample 3", "(3, 4, 5)", "(3, 6, 5)"]),
        ([X[0], X[1], X[2], X[3].astype(np.float64)], ["sample 3", "float64", "float32"]),
        ([], ["empty list"]),
        ([[1.0], [2.0]], ["list of list"]),
        ("abcd", ["list of str", "expected arrays"]),
    ],
)
def test_samples_of_different_sizes_or_types_are_named(engine: Engine, samples: Any, words: list[str]) -> None:
    given_samples = [engine.array(np.ascontiguousarray(s)) if isinstance(s, np.ndarray) else s for s in samples]
    with pytest.raises(mx.MixError) as caught:
        engine.mix(samples if isinstance(samples, str) else given_samples, MIXUP, "b c h w")
    check(caught.value, words)


@pytest.mark.parametrize("x", [None, 3, "text", {"a": 1}, object()])
def test_what_is_no_array_is_refused(x: Any) -> None:
    with pytest.raises(mx.MixError, match="expected"):
        mx.mix(x, MIXUP, "b c h w")


def test_a_backend_says_which_arrays_it_takes() -> None:
    with pytest.raises(mx.MixError, match="expected a torch tensor"):
        mx.mix(X, MIXUP, "b c h w", backend="torch")
    with pytest.raises(mx.MixError, match="expected a NumPy array"):
        mx.mix(torch.zeros(4, 3), MIXUP, "b d", backend="reference")


BAD_MADE: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "alpha below 0": (lambda: mx.Mixup(-0.1), ["Mixup(alpha=-0.1)", "from 0"]),
    "alpha NaN": (lambda: mx.CutMix(np.nan), ["CutMix(alpha=nan)", "number"]),
    "alpha infinite": (lambda: mx.Mixup(np.inf), ["alpha=inf"]),
    "alpha of text": (lambda: mx.Mixup("high"), ["alpha='high'", "number"]),  # type: ignore[arg-type]
    "alpha of truth": (lambda: mx.Mixup(True), ["alpha=True", "number"]),
    "alpha beyond floats": (lambda: mx.Mixup(10**400), ["alpha=<integer of 1329 bits>", "number"]),
    "alpha beyond what Python spells": (lambda: mx.Mixup(10**5000), ["alpha=<integer", "number"]),
    "fold of text": (lambda: mx.Mixup(fold="no"), ["fold='no'", "True or False"]),  # type: ignore[arg-type]
    "a size beyond any image": (lambda: mx.Cutout(10**30), ["size=<integer of 100 bits>", "2**31 - 1"]),
    "a count beyond any image": (lambda: mx.Cutout(3, count=1 << 31), ["count=2147483648", "2**31 - 1"]),
    "a fill beyond floats": (lambda: mx.Cutout(3, fill=10**400), ["fill", "float32"]),
    "p above 1": (lambda: mx.CutMix(p=1.1), ["p=1.1", "0 to 1"]),
    "p below 0": (lambda: mx.Cutout(3, p=-0.1), ["p=-0.1"]),
    "p NaN": (lambda: mx.RandomErasing(p=np.nan), ["p=nan"]),
    "per": (lambda: mx.Mixup(per="row"), ["per='row'", "'batch', 'pair', 'sample'"]),
    "per of Cutout": (lambda: mx.Cutout(3, per="pair"), ["per='pair'", "'batch', 'sample'"]),
    "per of no text": (lambda: mx.Mixup(per=["batch"]), ["per=['batch']"]),  # type: ignore[arg-type]
    "pairing": (lambda: mx.Mixup(pairing="shuffle"), ["pairing='shuffle'", "'derange'"]),
    "edge": (lambda: mx.CutMix(edge="wrap"), ["edge='wrap'", "'inside'"]),
    "label": (lambda: mx.CutMix(label="true"), ["label='true'", "'area'"]),
    "minmax the wrong way": (lambda: mx.CutMix(minmax=(0.8, 0.2)), ["minmax", "low <= high"]),
    "minmax beyond 1": (lambda: mx.CutMix(minmax=(0.2, 1.2)), ["minmax=1.2"]),
    "minmax of one": (lambda: mx.CutMix(minmax=0.5), ["minmax", "two numbers"]),  # type: ignore[arg-type]
    "minmax with nominal": (lambda: mx.CutMix(minmax=(0.2, 0.5), label="nominal"), ["nominal", "area"]),
    "until below 0": (lambda: mx.Mixup(until=-1), ["until=-1", "0 or more"]),
    "until a half": (lambda: mx.Mixup(until=1.5), ["until=1.5"]),  # type: ignore[arg-type]
    "no size": (lambda: mx.Cutout(), ["size", "fraction", "one of the two"]),
    "both sizes": (lambda: mx.Cutout(3, fraction=0.5), ["one of the two"]),
    "size 0": (lambda: mx.Cutout(0), ["size=0", "1 or more"]),
    "size of a half": (lambda: mx.Cutout(2.5), ["size=2.5", "whole number"]),  # type: ignore[arg-type]
    "sizes of text": (lambda: mx.Cutout(("a", 2)), ["size='a'"]),  # type: ignore[arg-type]
    "fraction 0": (lambda: mx.Cutout(fraction=0), ["fraction=0"]),
    "fraction above 1": (lambda: mx.Cutout(fraction=1.5), ["fraction=1.5"]),
    "count 0": (lambda: mx.Cutout(3, count=0), ["count=0", "1 or more"]),
    "a fill of text": (lambda: mx.Cutout(3, fill="red"), ["'red'", "number"]),  # type: ignore[arg-type]
    "a fill NaN": (lambda: mx.RandomErasing(fill=np.nan), ["nan", "finite"]),
    "area beyond 1": (lambda: mx.RandomErasing(area=(0.1, 1.1)), ["area=1.1", "0 to 1"]),
    "area of nothing": (lambda: mx.RandomErasing(area=(0, 0)), ["area", "above 0"]),
    "aspect 0": (lambda: mx.RandomErasing(aspect=(0, 1)), ["aspect", "above 0"]),
    "aspect infinite": (lambda: mx.RandomErasing(aspect=(1, np.inf)), ["aspect=inf"]),
    "tries 0": (lambda: mx.RandomErasing(tries=0), ["tries=0"]),
    "noise": (lambda: mx.RandomErasing(noise="salt"), ["noise='salt'", "'pixel'"]),
    "spread below 0": (lambda: mx.RandomErasing(std=-1), ["std=-1"]),
    "no operators": (lambda: mx.OneOf([]), ["OneOf", "one or more operators"]),  # type: ignore[arg-type]
    "one operator alone": (lambda: mx.OneOf(mx.Mixup()), ["OneOf", "Mixup", "list of operators"]),  # type: ignore[arg-type]
    "operators without a list": (
        lambda: mx.OneOf(mx.Mixup(0.8), mx.CutMix()),  # type: ignore[arg-type,call-arg]
        ["2 operators", "pass a list, OneOf([Mixup(alpha=0.8), CutMix()])"],
    ),
    "a chain without a list": (
        lambda: mx.Chain(mx.Mixup(), mx.CutMix(), mx.Cutout(3)),  # type: ignore[arg-type,call-arg]
        ["3 operators", "pass a list, Chain([Mixup(), CutMix(), Cutout(size=3)])"],
    ),
    "something else": (lambda: mx.Chain([mx.Mixup(), "CutMix"]), ["Chain", "str"]),  # type: ignore[arg-type,list-item]
    "a class for an operator": (lambda: mx.OneOf([mx.Mixup]), ["OneOf", "operators"]),  # type: ignore[arg-type,list-item]
    "too few shares": (lambda: mx.OneOf([mx.Mixup(), mx.CutMix()], p=[1.0]), ["2 probabilities"]),  # type: ignore[arg-type]
    "shares above 1": (lambda: mx.OneOf([mx.Mixup(), mx.CutMix()], p=[0.7, 0.7]), ["sum to at most 1"]),  # type: ignore[arg-type]
    "a share NaN": (lambda: mx.OneOf([mx.Mixup()], p=[np.nan]), ["p=nan"]),  # type: ignore[arg-type]
    "a share below 0": (lambda: mx.OneOf([mx.Mixup(), mx.CutMix()], p=[-0.5, 1.0]), ["p=-0.5"]),  # type: ignore[arg-type]
    "one share for two": (lambda: mx.OneOf([mx.Mixup(), mx.CutMix()], p=0.5), ["2 probabilities"]),  # type: ignore[arg-type]
    "rows of steps": (lambda: mx.OneOf([mx.Mixup() | mx.Mixup()], per="sample"), ["row by row", '"batch"']),  # type: ignore[arg-type]
    "steps sometimes": (lambda: mx.Sometimes(mx.Mixup() | mx.Mixup(), per="sample"), ['"batch"']),
    "sometimes p": (lambda: mx.Sometimes(mx.Mixup(), 1.5), ["p=1.5"]),
    "sometimes nothing": (lambda: mx.Sometimes("Mixup"), ["str"]),  # type: ignore[arg-type]
    "a bar and something else": (lambda: mx.Mixup() | 3, ["Chain", "int"]),  # type: ignore[operator]
    "rows below 0": (lambda: mx.Spec(-1), ["n=-1", "0 or more"]),
    "rows of a half": (lambda: mx.Spec(1.5), ["n=1.5"]),  # type: ignore[arg-type]
    "an extent of 0": (lambda: mx.Spec(2, (0, 3)), ["(0, 3)", "1 or more"]),
    "a broken extent": (lambda: mx.Spec(2, (2.5, 3)), ["(2.5, 3)", "whole"]),  # type: ignore[arg-type]
    "an endless extent": (lambda: mx.Spec(2, (np.inf,)), ["inf"]),  # type: ignore[arg-type]
    "four extents": (lambda: mx.Spec(2, (1, 2, 3, 4)), ["at most three"]),
    "extents of one number": (lambda: mx.Spec(2, 224), ["224", "(224, 224)"]),  # type: ignore[arg-type]
    "lengths of another size": (lambda: mx.Spec(2, (5,), lengths=np.array([1])), ["lengths", "(2,)"]),
    "float lengths": (lambda: mx.Spec(2, (5,), lengths=np.array([1.0, 2.0])), ["float64", "integers"]),
    "lengths beyond the extent": (lambda: mx.Spec(2, (5,), lengths=np.array([1, 6])), ["6", "0 to 5"]),
    "lengths below 0": (lambda: mx.Spec(2, (5,), lengths=np.array([-1, 2])), ["-1"]),
    "ragged lengths": (lambda: mx.Spec(2, (5,), lengths=[[1], [2, 3]]), ["lengths"]),  # type: ignore[arg-type]
    "an epoch of text": (lambda: mx.Spec(2, epoch="last"), ["epoch='last'", "whole number"]),  # type: ignore[arg-type]
    "an epoch below 0": (lambda: mx.Spec(2, epoch=-1), ["epoch=-1"]),
    "a spec of another layout": (lambda: mx.Spec.like(X, "b h w"), ["names 3 axes", "has 4"]),
    "an unknown output": (lambda: mx.Output("b d", "int64"), ["int64", "float32"]),
    "an output of no dtype": (lambda: mx.Output("b d", 3), ["dtype=3", "float32"]),  # type: ignore[arg-type]
    "a std of 0": (lambda: mx.Output("b d", std=0), ["std", "above 0"]),
    "a std NaN": (lambda: mx.Output("b d", std=np.nan), ["nan"]),
    "a mean of text": (lambda: mx.Output("b d", mean="imagenet"), ["imagenet", "number"]),
    "a normalised byte": (lambda: mx.Output("b d", "uint8", mean=0.5), ["uint8", "float"]),
    "an output without b": (lambda: mx.Output("c h w"), ["c h w", '"b"']),
}


@pytest.mark.parametrize("bad", BAD_MADE)
def test_what_is_made_wrong_is_refused_when_it_is_made(bad: str) -> None:
    make, words = BAD_MADE[bad]
    with pytest.raises(mx.MixError) as caught:
        make()
    check(caught.value, words)


SPEC = mx.Spec(4, (6, 5))
BAD_DRAW: dict[str, tuple[mx.Operator, dict[str, Any], list[str]]] = {
    "lam above 1": (mx.Mixup(), {"lam": 1.2}, ["lam", "1.2", "0 to 1"]),
    "lam below 0": (mx.CutMix(), {"lam": -0.2}, ["lam", "0 to 1"]),
    "lam NaN": (mx.Mixup(), {"lam": np.nan}, ["lam", "nan"]),
    "lam of text": (mx.Mixup(), {"lam": "half"}, ["lam", "'half'", "number"]),
    "lam of another size": (mx.Mixup(), {"lam": [0.5, 0.5]}, ["lam", "(2,)", "(4,)"]),
    "partner of floats": (mx.Mixup(), {"partner": [1.0, 0.0, 3.0, 2.0]}, ["partner", "float64", "row numbers"]),
    "partner out of range": (mx.CutMix(), {"partner": [1, 0, 4, 2]}, ["partner", "4", "0 to 3"]),
    "partner below 0": (mx.Mixup(), {"partner": [1, 0, -1, 2]}, ["partner", "-1"]),
    "partner of another size": (mx.Mixup(), {"partner": [1, 0]}, ["partner", "(2,)", "(4,)"]),
    "partner that comes in no pairs": (mx.Mixup(per="pair"), {"partner": [1, 2, 3, 0]}, ["pair", "flip"]),
    "roll in pairs": (mx.CutMix(per="pair", pairing="roll"), {}, ["pair", "flip"]),
    "a box outside": (mx.CutMix(), {"box": [0, 7, 0, 5]}, ["box", "(6, 5)"]),
    "a box of floats": (mx.CutMix(), {"box": [0.0, 1.0, 0.0, 1.0]}, ["box", "float64", "integers"]),
    "a box of another rank": (mx.Cutout(3), {"box": [0, 3]}, ["box", "(2,)"]),
    "a place of floats": (mx.CutMix(), {"at": [0.5, 0.5]}, ["at", "whole pixel"]),
    "a place of another rank": (mx.Cutout(3), {"at": [1, 2, 3]}, ["at", "(3,)"]),
    "ragged lam": (mx.Mixup(), {"lam": [[0.1], [0.2, 0.3]]}, ["lam"]),
    "ragged partner": (mx.Mixup(), {"partner": [[1], [2, 3]]}, ["partner"]),
    "ragged box": (mx.CutMix(), {"box": [[1], [2, 3]]}, ["box"]),
    "ragged place": (mx.CutMix(), {"at": [[1], [2, 3]]}, ["at"]),
    "labels that are missing": (mx.Mixup(pairing="same_class"), {}, ["labels", "pass labels="]),
    "labels deep in a chain": (
        mx.Chain([mx.Cutout(2), mx.Sometimes(mx.CutMix(pairing="other_class"))]),
        {},
        ["labels"],
    ),
    "labels of floats": (mx.Mixup(pairing="same_class"), {"labels": np.ones(4)}, ["labels", "float64", "ids"]),
    "labels of another size": (mx.Mixup(pairing="same_class"), {"labels": [0, 1]}, ["labels", "(2,)", "(4,)"]),
    "labels of several classes": (mx.Mixup(pairing="other_class"), {"labels": np.ones((4, 3))}, ["one class a row"]),
    "ragged labels": (mx.Mixup(pairing="other_class"), {"labels": [[1], [2, 3], [1], [1]]}, ["labels"]),
    "an unknown keyword": (mx.Mixup(), {"box": [0, 1]}, ["box=", "partner, lam"]),
    "a misspelt keyword": (mx.CutMix(), {"lamda": 0.5}, ["lamda=", "lam"]),
    "a keyword of a child": (mx.OneOf([mx.Mixup()]), {"lam": 0.5}, ["lam="]),  # type: ignore[arg-type]
    "a size of another rank": (mx.Cutout((2, 2, 2)), {}, ["2 axes"]),
}


@pytest.mark.parametrize("bad", BAD_DRAW)
def test_what_a_draw_cannot_use_is_refused(bad: str) -> None:
    op, evidence, words = BAD_DRAW[bad]
    with pytest.raises(mx.MixError) as caught:
        op.draw(rng(), SPEC, **evidence)
    check(caught.value, words)


@pytest.mark.parametrize(
    ("op", "shape"), [(mx.CutMix(), ()), (mx.Cutout(3), ()), (mx.RandomErasing(), ()), (mx.RandomErasing(), (2, 3, 4))]
)
def test_a_spec_without_the_axes_to_cut_is_refused(op: mx.Operator, shape: tuple[int, ...]) -> None:
    with pytest.raises(mx.MixError, match="expected"):
        op.draw(rng(), mx.Spec(2, shape))


def test_a_draw_wants_a_generator_and_a_spec() -> None:
    with pytest.raises(mx.MixError, match=r"np\.random\.default_rng\(7\)"):
        mx.Mixup().draw(7, SPEC)  # type: ignore[arg-type]
    with pytest.raises(mx.MixError, match=r"got ndarray, .*Spec\.like\(x, layout\)"):
        mx.Mixup().draw(rng(), X)  # type: ignore[arg-type]
    for wrong in (0, None, np.random.RandomState(0), "seed"):
        with pytest.raises(mx.MixError, match=r"numpy\.random\.Generator"):
            mx.Mixup().draw(wrong, SPEC)  # type: ignore[arg-type]
    for wrong in (4, (4, (6, 5)), X):
        with pytest.raises(mx.MixError, match="expected a Spec"):
            mx.Mixup().draw(rng(), wrong)  # type: ignore[arg-type]


def test_the_family_is_one() -> None:
    assert issubclass(mx.MixValueError, (mx.MixError, ValueError))
    assert issubclass(mx.MixTypeError, (mx.MixError, TypeError))
    assert issubclass(mx.MixValueError, mx.MixError)
    assert issubclass(mx.MixTypeError, mx.MixError)
