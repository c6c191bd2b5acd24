"""mix: one verb for every array. It checks everything first, chooses a backend and lets that do the work."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .adjoint import adjoint_of
from .backends import (
    backend_for,
    held_mix,
    is_tensor,
    launched_again,
    load_kernels,
    pasted_tokens,
    repeats,
    same_memory,
    share_memory,
    traced,
    untraced,
    was_written,
)
from .device_plan import DevicePlan
from .dlpack import Loan, is_foreign
from .errors import MixTypeError, MixValueError
from .exchange import check_stays
from .fills import Fills
from .layout import check_box_axes, check_rank, parse_layout
from .output import Output
from .plan import Plan
from .sequence import PlanSequence
from .spec import shape_of
from .traced import has_tracers, known, replaced

KINDS = ("continuous", "discrete", "valid")


class Job(NamedTuple):
    """What a backend is asked to do; everything in it has been checked.

    Args:
        x: the source: an array of the backend's kind, or a list of equally sized samples.
        plan: with opacity 0 wherever a patch does not concern this array.
        names: axis names of x.
        kind: "continuous", "discrete" or "valid".
        out: array to write, or None for a new one; the very array ``x`` for in place.
        to: the fused tail, or None.
        threads: how many threads may work, None for the backend's choice.
        in_place: the result replaces the input: out is x, or a view of exactly the same elements.
        back: the plan of the gradient, where autograd will ask for one and the backend is not made of its operations.
    """

    x: Any
    plan: Plan
    names: tuple[str, ...]
    kind: str
    out: Any
    to: Output | None
    threads: int | None
    in_place: bool = False
    back: Plan | None = None


def mix(
    x: Any,
    plan: Plan | PlanSequence | DevicePlan,
    layout: str,
    kind: str = "continuous",
    *,
    fill: float | tuple[float, ...] | str | None = None,
    out: Any = None,
    to: Output | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Any:
    """Apply a plan to an array: out[n] = x[base[n]], then each patch blended in with its opacity, in order.

    Args:
        x: the source rows: a NumPy array, a torch tensor, a JAX array, traced ones too, an array of another library
            (CuPy, those of the array API standard) that DLPack lends, or a list of equally sized samples of these; read
            only if you like. float64/32/16, bfloat16 and uint8 blend; any dtype pastes.
        plan: what to do; it may name rows of a source larger than the batch (``plan.on(rows)``). A DevicePlan is for
            launches that are recorded: CUDA graphs and torch.compile.
        layout: axis names, "b c h w". The plan's axes are found by name: t, or h and w, or t, h and w.
        kind: "continuous" (values blend), "discrete" (ids, class masks: patches paste, a blend is an error) or
            "valid" (attention masks: own OR donor inside a patch).
        fill: paints this instead of the plan's fills, in units of x: a number, one for each channel, or "mean" (of
            ``to``: 0 after it). None: the plan's fills for continuous arrays; others are left as they are.
        out: array to write into, of the result's shape and dtype. ``out=x`` mixes in place, where every row stays in
            its place and has one donor at most.
        to: Output: normalise, cast and change layout in the same pass.
        threads: how many may work; None: torch's number if torch is loaded, else the CPUs of this process; always 1
            in a DataLoader worker.
        backend: "reference", "cpu", "cuda", "jax" or "torch"; None chooses by the type of x.

    Returns:
        The mixed rows: a new array of the kind of x (channels_last kept), or ``out``.

    Raises:
        MixError: if layout, plan, kind, fill, out or to do not fit x or one another; nothing has been written then.

    Example:
        >>> import mixops as mx
        >>> plan = mx.Mixup().draw(np.random.default_rng(0), mx.Spec(2), lam=0.75, partner=[1, 0])
        >>> mx.mix(np.array([[0.0, 4.0], [4.0, 0.0]]), plan, "b d")
        array([[1., 3.],
               [3., 1.]])
    """
    if isinstance(plan, (Plan, PlanSequence)) and plan.form is not None:
        plan = known(plan)
    if backend != "jax" and is_foreign(x, anywhere=backend == "cuda") and not _is_traced(plan):
        loan = Loan(x, out, tensors=backend == "cuda")
        options: dict[str, Any] = {"fill": fill, "to": to, "threads": threads, "backend": backend}
        return loan.settled(mix(loan.x, plan, layout, kind, out=loan.out, **options))
    if isinstance(plan, DevicePlan):
        _check_held(x, kind, fill, backend)
        return held_mix(x, plan, layout, kind, to, out)
    do = untraced(_mixed) if traced() else _mixed
    return do(x, plan, layout, kind, fill=fill, out=out, to=to, threads=threads, backend=backend)


def _mixed(x: Any, plan: Plan | PlanSequence, layout: str, kind: str, **options: Any) -> Any:
    if _is_traced(plan):
        return prepare(x, plan, layout, kind, **options).run()
    if kind == "discrete" and layout == "b t" and isinstance(plan, Plan) and plan.rank == 1:
        done = pasted_tokens(x, plan) if all(option is None for option in options.values()) else None
        if done is not None:
            return done
    if isinstance(plan, Plan):
        done = launched_again(x, plan, layout, kind, options)
        if done is not None:
            return done
    return prepare(x, plan, layout, kind, **options).run()


def _is_traced(plan: Any) -> bool:
    """Are the numbers of the plan those of a JAX function that is being transformed or compiled?"""
    return isinstance(plan, (Plan, PlanSequence)) and plan.form is not None and has_tracers(plan)


class Prepared(NamedTuple):
    """A mix that has passed every check; all that is left is to run it.

    Args:
        engine: the backend module.
        x: the source.
        plans: what to do, step by step, as this array sees it.
        names: axis names of x.
        kind: see mix.
        out: see mix.
        to: see mix.
        threads: see mix.
        in_place: see Job.
        backs: see Job's back; one for each plan.
    """

    engine: Any
    x: Any
    plans: tuple[Plan, ...]
    names: tuple[str, ...]
    kind: str
    out: Any
    to: Output | None
    threads: int | None
    in_place: bool
    backs: tuple[Plan | None, ...]

    def run(self) -> Any:
        """One plan after the other: the tail belongs to the last, and a list becomes an array at the first."""
        x, last = self.x, len(self.plans) - 1
        for i, (plan, back) in enumerate(zip(self.plans, self.backs, strict=True)):
            target = self.out if self.in_place or i == last else None
            to = self.to if i == last else None
            x = self.engine.run(Job(x, plan, self.names, self.kind, target, to, self.threads, self.in_place, back))
        if self.out is not None:
            was_written(self.out)
        return x


def prepare(
    x: Any,
    plan: Plan | PlanSequence,
    layout: str,
    kind: str = "continuous",
    *,
    fill: float | tuple[float, ...] | str | None = None,
    out: Any = None,
    to: Output | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Prepared:
    """Check a mix, every step of it, without touching a value: what comes back runs without a complaint.

    Args and Raises: those of ``mix``.
    """
    if not isinstance(plan, (Plan, PlanSequence)):
        raise MixTypeError(
            f"mix: plan is {type(plan).__name__}, expected a Plan (an operator's draw) or a PlanSequence"
        )
    names = parse_layout(layout)
    shape = shape_of(x, names)
    check_rank(names, len(shape))
    _check_kind(kind)
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise MixValueError(f"threads={threads!r}: expected a whole number of 1 or more")
    plan = known(plan)
    traced_plan = _is_traced(plan)
    if traced_plan and backend not in (None, "jax"):
        raise MixTypeError(f'backend={backend!r} with a plan that JAX traces: only "jax" reads it; leave backend= away')
    engine = backend_for(x, "jax" if traced_plan else backend)
    dtype, batch = engine.dtype_name(x), names.index("b")
    plans: list[Plan] = []
    rows = shape[batch]
    for step in plan.plans if isinstance(plan, PlanSequence) else (plan,):
        here = (*shape[:batch], rows, *shape[batch + 1 :])
        if traced_plan:
            plans.append(_for_traced(step, names, here, kind, fill, dtype, to))
            rows = step.n
            continue
        step.check_rows(rows)
        _check_axes(step, names, here)
        step = _for_field(step, names, here, kind, fill, dtype, to)
        _check_values(step, kind, dtype)
        plans.append(step)
        rows = step.n
    if to is not None:
        to.check(names, shape, kind, dtype)
    if out is not None:
        engine.check_out(x, out)
    in_place = out is not None and to is None and same_memory(x, out)
    backs: tuple[Plan | None, ...] = (None,) * len(plans)
    if hasattr(engine, "differentiated") and engine.differentiated(x):
        backs = _backs(plans, shape[batch], kind)
        if None in backs:
            engine = _with_autograd(x, backend, kind)
            backs = (None,) * len(plans)
    ready = Prepared(engine, x, tuple(plans), names, kind, out, to, threads, in_place, backs)
    if out is not None:
        _check_out(ready, shape, dtype)
    return ready


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise MixValueError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")


def _check_held(x: Any, kind: str, fill: Any, backend: str | None) -> None:
    """What is asked of a mix by a DevicePlan before anything else."""
    _check_kind(kind)
    if fill is not None:
        raise MixValueError("fill= with a DevicePlan: its fills were sent with it; give them to its operator")
    if backend not in (None, "cuda"):
        raise MixValueError(
            f"backend={backend!r} with a DevicePlan: only the CUDA kernel reads it; leave backend= away"
        )
    if not is_tensor(x):
        raise MixTypeError(
            f"{type(x).__name__} with a DevicePlan: expected an array on its device; mix others by the Plan itself"
        )


def _backs(plans: list[Plan], rows: int, kind: str) -> tuple[Plan | None, ...]:
    """The plans of the gradients, None for one that there is not."""
    if kind == "valid":  # the larger of two numbers, and no sum
        return (None,) * len(plans)
    sources = (rows, *(plan.n for plan in plans))
    return tuple(adjoint_of(plan) if plan.n == n else None for plan, n in zip(plans, sources, strict=False))


def _with_autograd(x: Any, backend: str | None, kind: str) -> Any:
    """The backend made of torch's own operations, for gradients that are no mixing by a plan."""
    why = "the larger of two numbers is kept" if kind == "valid" else "rows give more than they take"
    if backend is not None:
        raise MixValueError(
            f"backend={backend!r} on a tensor that requires gradients: the gradient of this plan is no mixing by a "
            f'plan ({why}); backend="torch" has it, and so has a draw with per="batch"'
        )
    _say(f"a mix that requires gradients goes to plain torch operations: its gradient is no mixing by a plan ({why})")
    return backend_for(x, "torch")


@cache
def _say(what: str) -> None:
    """Log it, once in a process."""
    logging.getLogger("mixops").info(what)


def _check_axes(plan: Plan, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
    check_box_axes(plan.shape, names, shape)
    if plan.facts.resized is not None:
        row = int(np.argwhere(plan.facts.resized)[0][0])
        raise MixValueError(
            f"plan row {row}: donor and box differ in size, and resampling is not there yet: make them equal"
        )


def _for_field(
    plan: Plan, names: tuple[str, ...], shape: tuple[int, ...], kind: str, fill: Any, dtype: str, to: Output | None
) -> Plan:
    """The plan as this array sees it: its fills in place, or its fill patches switched off."""
    if not plan.facts.paints:
        return plan
    painted = plan.facts.painted
    if fill is None and kind != "continuous":
        return Plan.trusted(plan, opacity=np.where(painted, 0, plan.opacity))
    given = _given_fill(fill, kind, dtype, to)
    fills = given or plan.fills
    if given is not None:
        plan = Plan.trusted(plan, partner=np.where(plan.partner < 0, -1, plan.partner), fills=fills)
    _check_channels(fills, names, shape)
    if dtype.startswith(("int", "uint", "bool")) and (kind == "discrete" or dtype != "uint8"):
        _check_whole(fills, np.unique(-1 - plan.partner[painted]), dtype)
    elif dtype == "uint8" and (fills.value.min() < 0 or fills.value.max() > 255):  # noise around such a mean saturates
        which = np.unique(-1 - plan.partner[painted])
        _check_range(fills.value[which][fills.noise[which] == 0], dtype, 0, 255)
    return plan


def _check_whole(fills: Fills, which: Any, dtype: str) -> None:
    """Raise unless an array of whole numbers can hold these fills."""
    used = fills.value[which]
    if (used != np.floor(used)).any() or fills.noise[which].any():
        raise MixTypeError(f"{dtype} array with a fill of {used.ravel()[0]:g}: ids take whole numbers and no noise")
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    _check_range(used, dtype, low, high)


def _for_traced(
    plan: Plan, names: tuple[str, ...], shape: tuple[int, ...], kind: str, fill: Any, dtype: str, to: Output | None
) -> Plan:
    """The same for a plan whose numbers JAX traces: what can be told by its shapes is checked."""
    if plan.partner.ndim != 2:
        raise MixValueError(
            f"a plan whose partners have shape {plan.partner.shape}, expected (N, K): several plans stacked go through "
            "jax.vmap(lambda plan: mx.mix(x, plan, layout))(plans)"
        )
    check_box_axes(plan.shape, names, shape)
    if fill is None and kind != "continuous":
        return replaced(plan, opacity=plan.opacity * (plan.partner >= 0))
    given = _given_fill(fill, kind, dtype, to)
    if given is not None:
        if dtype.startswith(("int", "uint", "bool")) and (kind == "discrete" or dtype != "uint8"):
            _check_whole(given, slice(None), dtype)
        elif dtype == "uint8":
            _check_range(given.value[given.noise == 0], dtype, 0, 255)
        plan = replaced(plan, partner=plan.partner.clip(-1), fills=given)
    _check_channels(plan.fills, names, shape)
    return plan


def _given_fill(fill: Any, kind: str, dtype: str, to: Output | None) -> Fills | None:
    """What ``fill=`` asks for; None where it is not given."""
    if fill is None:
        return None
    if kind == "valid":
        raise MixValueError('fill= on kind="valid": a mask is never painted; leave fill out')
    if isinstance(fill, str):
        if fill != "mean" or to is None or to.mean is None:
            raise MixValueError(
                f'fill={fill!r}: expected a number, one for each channel, or "mean" with to=Output(mean=...)'
            )
        fill = to.mean_fill(dtype)
    return Fills.of(tuple(fill) if isinstance(fill, list) else fill)


def _check_channels(fills: Fills, names: tuple[str, ...], shape: tuple[int, ...]) -> None:
    channels = fills.value.shape[1]
    if channels > 1 and ("c" not in names or shape[names.index("c")] != channels):
        have = f"axis c of {shape[names.index('c')]}" if "c" in names else "no axis c"
        raise MixValueError(
            f'{channels} fill values for layout "{" ".join(names)}" with {have}: expected one number, or one for each '
            "channel"
        )


def _check_range(fill: np.ndarray, dtype: str, low: float, high: float) -> None:
    wrong = fill[(fill < low) | (fill > high)]
    if wrong.size:
        raise MixValueError(f"{dtype} array with a fill of {wrong[0]:g}: expected {low} to {high}")


def _check_values(plan: Plan, kind: str, dtype: str) -> None:
    if not plan.facts.blends or kind == "valid" or (kind == "continuous" and dtype in BLENDS):
        return
    opacity = plan.opacity[plan.facts.used & (plan.opacity < 1)][0]
    if kind == "discrete":
        raise MixTypeError(
            f"discrete {dtype} array with opacity {opacity:.2g}: ids and class masks cannot be averaged; paste "
            '(CutMix), or let Field(on_blend="heavier" or "planes") decide'
        )
    raise MixTypeError(
        f"{dtype} array with opacity {opacity:.2g}: {dtype} values cannot be averaged. Ids: paste them (CutMix), or "
        f"mix their embeddings; images: cast them to uint8 or float32 (these blend: {', '.join(BLENDS)})"
    )


def preload() -> None:
    """Load the CPU kernels now rather than at the first mix.

    Worker processes that are forked later inherit them instead of loading Numba one by one; MixCollator calls it.

    Example:
        >>> preload()
    """
    load_kernels()


#: Dtypes whose values can be averaged.
BLENDS = ("float64", "float32", "float16", "bfloat16", "uint8")


def _check_out(ready: Prepared, shape: tuple[int, ...], dtype: str) -> None:
    engine, x, out, to, batch = ready.engine, ready.x, ready.out, ready.to, ready.names.index("b")
    wanted, want_dtype = (*shape[:batch], ready.plans[-1].n, *shape[batch + 1 :]), dtype
    if to is not None:
        wanted, want_dtype = to.shape(ready.names, wanted), to.dtype
    if tuple(out.shape) != wanted or engine.dtype_name(out) != want_dtype:
        raise MixValueError(
            f"out is {engine.dtype_name(out)} of shape {tuple(out.shape)}, expected {want_dtype} of shape {wanted}"
        )
    if repeats(out):
        raise MixValueError("out holds several elements in one place (a broadcast view): give an array of its own")
    if ready.in_place:
        refuse = getattr(engine, "check_in_place", None)
        for plan in ready.plans:
            check_stays(plan, shape[batch])
            if refuse is not None:
                refuse(plan)
    elif share_memory(x, out):
        raise MixValueError("out overlaps x without being x: give an array of its own, or out=x to mix in place")
