"""Operators as text: what repr writes is read back, and everything else is refused with its place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mixops as mx

share = st.floats(0, 1)
until = st.none() | st.integers(0, 300)
per = st.sampled_from(["batch", "pair", "sample"])
row = st.sampled_from(["batch", "sample"])
pairing = st.sampled_from(["random", "derange", "roll", "flip", "same_class", "other_class"])
number = st.floats(-1e6, 1e6)
fill = number | st.tuples(number, number, number)

mixups = st.builds(mx.Mixup, st.floats(0, 1e6), per=per, pairing=pairing, fold=st.booleans(), p=share, until=until)
cutmixes = st.builds(
    mx.CutMix,
    st.floats(0, 100),
    minmax=st.none() | st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
    per=per,
    pairing=pairing,
    edge=st.sampled_from(["clip", "inside"]),
    p=share,
    until=until,
)
cutouts = st.builds(
    mx.Cutout,
    st.integers(1, 999) | st.tuples(st.integers(1, 99), st.integers(1, 99)),
    count=st.integers(1, 9),
    per=row,
    fill=fill,
    p=share,
)
erasings = st.builds(
    mx.RandomErasing,
    st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
    st.tuples(st.floats(0.1, 1), st.floats(1, 10)),
    noise=st.sampled_from(["none", "channel", "pixel"]),
    fill=fill,
    std=st.floats(0, 255),
)
plain = mixups | cutmixes | cutouts | erasings


def _combined(children: st.SearchStrategy[mx.Operator]) -> st.SearchStrategy[mx.Operator]:
    two = st.lists(children, min_size=2, max_size=2)
    return st.one_of(
        st.builds(mx.OneOf, st.lists(children, min_size=1, max_size=3), until=until),
        st.builds(mx.OneOf, two, p=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5))),
        st.builds(mx.Chain, st.lists(children, min_size=1, max_size=3), p=share),
        st.builds(mx.Sometimes, children, share, until=until),
    )


@given(st.recursive(plain, _combined, max_leaves=6))
@settings(deadline=None)
def test_repr_is_read_back_as_an_equal_operator(op: mx.Operator) -> None:
    assert mx.parse_op(repr(op)) == op


def test_bars_chain_in_order_and_brackets_change_nothing() -> None:
    chain = mx.Mixup(0.8) | mx.Cutout(4) | mx.Cutout(2)
    assert mx.parse_op(" Mixup(0.8) | Cutout(4) | Cutout(2)\n") == chain
    assert mx.parse_op("Mixup(0.8) | (Cutout(4) | Cutout(2))") == chain


def test_a_prefix_and_lines_are_read_as_in_python() -> None:
    text = "mx.OneOf([\n  mx.Mixup(0.8),\n  mixops.CutMix(),\n], p=[0.5, 0.25])"
    assert mx.parse_op(text) == mx.OneOf([mx.Mixup(0.8), mx.CutMix()], p=(0.5, 0.25))


def test_signed_numbers_are_read() -> None:
    assert mx.parse_op("Cutout(4, fill=(-0.5, +1, - 2.0))") == mx.Cutout(4, fill=(-0.5, 1.0, -2.0))


def test_a_long_chain_is_not_deep() -> None:
    op = mx.parse_op(" | ".join(["Cutout(3)"] * 200))
    assert isinstance(op, mx.Chain)
    assert len(op.ops) == 200


def test_every_operator_of_the_library_is_known() -> None:
    kinds = set(mx.operators().values())
    assert {mx.Mixup, mx.CutMix, mx.Cutout, mx.RandomErasing, mx.OneOf, mx.Chain, mx.Sometimes} <= kinds
    assert mx.Operator not in kinds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Cutuot(16)",
            ["character 1 ", "unknown operator Cutuot", "did you mean Cutout?", "CutMix, Cutoff, Cutout"],
        ),
        ("Mixup(0.8) | cutmix()", ["character 14 ", "unknown operator cutmix", "did you mean CutMix?"]),
        ("Operator()", ["unknown operator Operator"]),
        ("Mixup(alhpa=1)", ["no parameter 'alhpa'", "did you mean alpha?", "It takes alpha, per"]),
        ("Mixup(1, 2, 3, 4, 5, 6)", ["too many positional arguments", "it takes alpha, per"]),
        ("Mixup(1, alpha=2)", ["multiple values for argument 'alpha'"]),
        ("Sometimes()", ["missing a required argument: 'op'"]),
        ("Mixup(0.8) |\nMixup(0.8) | nothing", ["line 1"]),
        ("OneOf([Mixup(),\n  nothing])", ["line 2, character 3", "'nothing' is not allowed"]),
        ("é | Mixup()", ["character 1 ", "'é' is not allowed"]),
        ("('é', nothing)", ["character 7 ", "'nothing' is not allowed"]),
        ("Mixup(", ["character 6 ", "never closed"]),
        ("", ["character 1 ", "expected calls of operators"]),
        ("3", ["3 is no operator"]),
        ("Mixup() | 3", ["character 11 ", "'3' is no operator"]),
        ("Mixup() + Cutout(3)", ["joined with | only"]),
        ("Mixup(0.5 * 2)", ["joined with | only"]),
        ("Mixup(not 1)", ["only a number can have a sign"]),
        ("Mixup(-'a')", ["only a number can have a sign"]),
        ("Mixup(*[1])", ["'*[1]' is not allowed"]),
        ("Mixup(**{})", ["** is not allowed"]),
        ("Mixup(1j)", ["complex is not allowed"]),
        ("Mixup(b'1')", ["bytes is not allowed"]),
        ("Mixup(f'{1}')", ["is not allowed"]),
        ("Mixup(lambda: 1)", ["is not allowed"]),
        ("Mixup()()", ["cannot be called"]),
        ("os.Mixup()", ["'os.Mixup' cannot be called"]),
        ("Cutout(99999999999999999999)", ["beyond 2**63 - 1"]),
        ("\x00", ["expected calls of operators"]),
        ("[" * 100 + "]" * 100, ["nested more than 32 deep"]),
        ("(" * 300, ["too many nested parentheses"]),
        ("-" * 4000 + "1", ["expected calls of operators"]),
        ("a" + ".b" * 2000, ["is not allowed"]),
        ("Cutout(3) | " * 400 + "Cutout(3)", ["4809 characters", "at most 4096"]),
        ("Mixup(-1)", ["alpha=-1"]),
    ],
)
def test_other_text_is_refused_with_its_place_and_reason(text: str, words: list[str]) -> None:
    with pytest.raises(mx.MixError) as caught:
        mx.parse_op(text)
    for word in words:
        assert word in str(caught.value)


def test_something_else_than_text_is_refused() -> None:
    with pytest.raises(mx.MixTypeError, match="got Mixup, expected text"):
        mx.parse_op(mx.Mixup())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('written')",
        "Mixup(__import__('os').mkdir('written'))",
        "[c for c in ().__class__.__base__.__subclasses__()]",
        "(lambda: open('written', 'w'))()",
        "Mixup(alpha=(x := open('written', 'w')))",
        "mx.spell.ops.Mixup()",
    ],
)
def test_nothing_in_the_text_is_run(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mx.MixError):
        mx.parse_op(text)
    assert not list(tmp_path.iterdir())


words = r"(mx\.)?(Mixup|CutMix|Cutout|OneOf|Sometimes)|p=|size=|0\.5|16|'a'|None|True|é|1e999"
almost = rf"({words}|[()\[\],|=\-.\\ \n\r\f]){{0,25}}"


@given(st.from_regex(almost, fullmatch=True) | st.text(max_size=40))
@settings(deadline=None, max_examples=300)
def test_any_text_is_an_operator_or_a_mix_error(text: str) -> None:
    try:
        op = mx.parse_op(text)
    except mx.MixError:
        return
    assert isinstance(op, mx.Operator)
    ast.parse(repr(op), mode="eval")
