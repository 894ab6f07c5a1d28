"""`online`: gradients forward in time, by real-time recurrent learning and its approximations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, overload

import numpy as np

from lstmx.arrays import (
    Array,
    dtype_of,
    is_jax,
    is_traced,
    jax,
    jit,
    leaves,
    map_tree,
    namespace,
    result,
    scan,
    varying_as,
)
from lstmx.cells.base import Cell, P, S
from lstmx.checks import array, cells_of, door, flag, one_direction, one_of, positive, shaped
from lstmx.draws import Key
from lstmx.gradients.sparsity import Plan, Weights, flat, plan_of, unflat
from lstmx.history import Controls, controlled, where_held
from lstmx.history.controls import Lengths
from lstmx.layers import Layers, Stack, layered_door
from lstmx.linear import StackSteps, steps_at
from lstmx.passes.forward import controlled_step

METHODS = ("rtrl", "snap1", "sparse", "truncated")

OnlineLoss: TypeAlias = "str | Array | Callable[[Array, Array], Array]"


@result(static=("method", "entries", "whole", "products", "memory"))
class OnlineGradients(Generic[P, S]):
    """Gradients of a loss that were carried forward in time.

    Attributes:
        parameters: ∂L/∂θ, like the cell's parameters, summed over steps and sequences; with an approximation what
            it makes of it.
        by_step: what the loss of each step adds to it, like the parameters with time in front, [T, ...]; None
            where it was not asked for.
        loss: L, a scalar; None where the loss was given by its derivative.
        final: the state after the last step, fields [*batch, H]; of a stack those of its layers.
        carried: what the next stretch of a stream takes up: `online(..., after=this)`.
        method: as asked for.
        entries: numbers of the influence ∂s_t/∂θ that are carried for each sequence; 0 for "truncated".
        whole: S · P, the numbers of the whole influence, of S numbers of the state and P parameters.
        products: multiplications that a step of one sequence takes to move the influence; 0 for "truncated".
        memory: bytes that are carried from step to step: state, influence or window, and gradient.
    """

    parameters: P
    by_step: P | None
    loss: Array | None
    final: S
    carried: Any
    method: str
    entries: int
    whole: int
    products: int
    memory: int

    def __str__(self) -> str:
        norm = math.sqrt(sum(float((np.asarray(x, np.float64) ** 2).sum()) for x in leaves(self.parameters)))
        lines = [f"{self!r}", f"  norm of the gradient: {norm:.4g}"]
        if self.method != "truncated":
            lines.append(
                f"  influence: {self.entries:,} numbers of {self.whole:,} a sequence, moved by {self.products:,} "
                "multiplications a step"
            )
        lines.append(f"  carried from step to step: {self.memory:,} bytes, at any length")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"OnlineGradients({self.method!r}, parameters={type(self.parameters).__name__})"


@overload
def online(
    cell: Cell[P, S],
    params: P,
    xs: Array,
    loss: OnlineLoss,
    method: str = "rtrl",
    *,
    order: int | None = None,
    pattern: Any = None,
    window: int | None = None,
    by_step: bool = False,
    after: OnlineGradients[P, S] | None = None,
    state: S | None = None,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> OnlineGradients[P, S]: ...
@overload
def online(
    cell: Stack,
    params: tuple[Any, ...],
    xs: Array,
    loss: OnlineLoss,
    method: str = "rtrl",
    *,
    order: int | None = None,
    pattern: Any = None,
    window: int | None = None,
    by_step: bool = False,
    after: OnlineGradients[Any, Any] | None = None,
    state: tuple[Any, ...] | None = None,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> OnlineGradients[tuple[Any, ...], tuple[Any, ...]]: ...
def online(
    cell: Any,
    params: Any,
    xs: Array,
    loss: OnlineLoss,
    method: str = "rtrl",
    *,
    order: int | None = None,
    pattern: Any = None,
    window: int | None = None,
    by_step: bool = False,
    after: Any = None,
    state: Any = None,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> OnlineGradients[Any, Any]:
    """The gradient of a loss forward in time, step by step, in memory that does not grow with it.

    With s_t the state, θ the parameters and M_t = ∂s_t/∂θ their influence, [S, P],

        M_t = J_t M_{t-1} + ∂⁺s_t/∂θ,        ∂L_t/∂θ = (∂L_t/∂s_t)ᵀ M_t,

    where J_t and ∂⁺s_t/∂θ, at a fixed state before, are those of `linearise`: columns of J_t by `jvp`.

    - "rtrl" carries M_t, and is exact: what `backward` gives, without a pass back. Of dense recurrent weights it
      takes S² P multiplications a step, H⁴ · 16 of an LSTM. Entries that are zero in any pass are left out: with
      the diagonal Jacobian of a MinLSTM or MinGRU it takes O(P), and a stack's upper layers reach no lower one.
    - "snap1" keeps of each M_t the entries of the numbers of the state that a parameter reaches within the step
      itself, SnAp-1: those of its own unit in most cells, for O(P) multiplications. Through a layer
      normalisation, the reset gate of a GRU with reset before, or a layer above, a parameter reaches more at once,
      and more is kept; with layer normalisation everything.
    - "sparse" keeps those that it reaches within `order` steps, SnAp-n, of the recurrent weights that there are.
      Of dense weights that is everything from order 2 on. What it saves is what the pattern leaves out,
      `products` beside S² P: worth it where units reach a small part of the others; on the way there NumPy and XLA
      gather, which no multiplication counts.
    - "truncated" takes each L_t back by `window` steps, its own among them, through a window of steps that are
      kept: truncated backpropagation, for comparison. `lstmx.truncated` cuts at every so many steps instead, at
      less cost.

    All but "truncated" at a large window and "rtrl" are biased: `credit_error` says by how much. The parameters
    stand still within a call; between the calls of a stream they may change, and then M_t is that of parameters
    that were, as in any online training.

    Args:
        cell: the cell, or a `Stack`, whose joint state is that of all layers.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1. Each sequence of a batch has an influence of its own.
        loss: dL/dh_t at fixed other outputs, an array [T, *batch, H]; "last" for the sum of the last output of
            each sequence; "sum" for that of all outputs; or, under JAX, a function of the outputs of one step
            [*batch, H] and of the number of the step that gives a scalar, L_t: L is their sum. At a step that does
            not count it gets zeros.
        method: "rtrl", "snap1", "sparse" or "truncated", as above.
        order: n of SnAp-n, with "sparse" alone; None for 2.
        pattern: which weights there are, booleans like the parameters, with "sparse" alone; None for all that are
            not exactly 0 in arrays of two axes or more, and for all of the others. The gradient of one that is
            not there is 0.
        window: steps that a gradient flows back at most, with "truncated" alone, which needs it; those that do not
            count are counted, too.
        by_step: keep what the loss of each step adds, which takes T times the memory of the parameters.
        after: what this returned of the stretch of time before, with the same method: its state and influence are
            taken up. "last" is then of this stretch.
        state: initial state, fields [*batch, H], of a stack those of its layers; None for zeros, or with `after`
            for where that ended. No gradient flows into it.
        lengths: as for `run`; so the next three.
        mask: booleans [T, *batch].
        resets: booleans [T, *batch]. No gradient flows from a sequence to the one before.
        key: of what a Zoneout, or the dropout of a stack, draws.

    Returns:
        The gradient, and what it cost; `print` shows it in words.

    Raises:
        TypeError: an argument is of the wrong kind or dtype; layers with two directions, of which the later one
            reads the end first; or a function as loss in NumPy.
        ValueError: a wrong shape or word, an option of another method, or weights whose zeros cannot be read
            inside a JAX transformation.

    References:
        Williams & Zipser, "A learning algorithm for continually running fully recurrent neural networks", Neural
        Computation 1, 1989.
        Menick, Elsen, Evci, Osindero, Simonyan & Graves, "Practical Real Time Recurrent Learning with a Sparse
        Approximation", ICLR 2021, for SnAp.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> found = lstmx.online(cell, params, numpy.ones((50, 3), "float32"), "sum", "snap1")
        >>> found.parameters.recurrent_kernel.shape, found.entries, found.whole
        ((8, 32), 672, 6144)
    """
    one_of("method", method, METHODS)
    flag("by_step", by_step)
    cells_of("cell", cell)
    one_direction(cell)
    cells = cell.cells if isinstance(cell, Stack) else (cell,)
    params, xs, states, controls, dropped = _opened(cell, params, xs, state, (lengths, mask, resets), key)
    plan = plan_for(cell, params, method, order, pattern, window, len(xs))
    batch, own = tuple(xs.shape[1:-1]), params if isinstance(cell, Stack) else (params,)
    rows = map_tree(lambda x: x.reshape(len(x), -1, *x.shape[1 + len(batch) :]), (xs, controls, dropped))
    direct = _direct(loss, xs, batch, cell.output_size, rows[1][0])
    if states is None:
        states = tuple(one.initial_state(p, batch) for one, p in zip(cells, own, strict=True))
    states = map_tree(lambda x: x.reshape(-1, *x.shape[len(batch) :]), states)
    carried = _opening(rows, plan, own, states, cells=cells, window=window)
    if after is not None:
        carried = _taken_up(after, method, state, carried)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite inputs give NaN, without a warning
        carried, gradient, value, each = _forward(
            rows,
            direct,
            plan,
            own,
            carried,
            cells=cells,
            loss=loss if callable(loss) or isinstance(loss, str) else None,
            batch=batch,
            by_step=bool(by_step),
        )
    final = map_tree(lambda x: x.reshape(*batch, *x.shape[1:]), carried[0])
    count = sum(math.prod(x.shape) for x in leaves(params))
    return OnlineGradients(
        unflat(gradient, params),
        unflat(each, params, (len(xs),)) if by_step else None,
        value,
        final if isinstance(cell, Stack) else final[0],
        carried,
        method=method,
        entries=0 if plan is None else plan.entries,
        whole=sum(one.state_size for one in cells) * count,
        products=0 if plan is None else plan.products,
        memory=sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves((carried, gradient))),
    )


def _opened(
    cell: Any, params: Any, xs: Array, state: Any, timing: tuple[Any, Any, Any], key: Any
) -> tuple[Any, Array, Any, tuple[Controls | None, ...], Any]:
    """Arguments of a pass, checked: parameters, inputs, states by layer, controls by layer, and dropout masks."""
    if not isinstance(cell, Layers):
        params, xs, state = door(cell, params, xs, state)
        if not cell.core.closed_form:
            params = jax.tree.map(lambda x: x, params)  # dicts in the order that they have in a compiled function
        xs, controls = controlled(cell, xs, *timing, key)
        return params, xs, None if state is None else (state,), (controls,), None
    params, xs, state, said, masks = layered_door(cell, params, xs, state, timing, key)
    for layer, own in zip(cell.cells, params, strict=True):  # type: ignore  # a stack
        if not layer.closed_form and not is_jax(namespace(*leaves((own, xs)))):
            raise TypeError(f"{layer.name} is a step function, which runs in JAX; params and xs are NumPy")
    if is_jax(namespace(xs)):
        params = jax.tree.map(lambda x: x, params)
    made = [controlled(layer, xs, None, **said.options(layer)) for layer in cell.cells]  # type: ignore  # a stack
    return params, made[0][0], state, tuple(controls for _, controls in made), masks


def plan_for(
    cell: Any, params: Any, method: str, order: Any, pattern: Any, window: Any, length: int
) -> Plan | None:
    """What of the influence a method carries, in the library of the parameters; None for "truncated".

    Raises:
        TypeError: an option is of the wrong kind.
        ValueError: it belongs to another method, or has another value.
    """
    for name, value, owner in (
        ("order", order, "sparse"),
        ("pattern", pattern, "sparse"),
        ("window", window, "truncated"),
    ):
        if value is not None and method != owner:
            raise ValueError(f"{name} is given with method={method!r}; it is for {owner!r} alone: expected None")
    if method == "truncated":
        if positive("window", window) > length:
            raise ValueError(f"window is {window}; expected at most the {length} steps of the pass")
        return None
    order = {"rtrl": None, "snap1": 1, "sparse": 2}[method] if order is None else positive("order", order)
    every = map_tree(lambda x: np.ones(x.shape, bool), params)
    there = weights_of(params, pattern) if method == "sparse" else every
    plan = plan_of(cell, Weights(there), order, str(dtype_of(params)))
    xp, dtype = namespace(*leaves(params)), dtype_of(params)
    return map_tree(lambda x: xp.asarray(x, dtype=None if x.dtype.kind == "i" else dtype), plan)


def weights_of(params: Any, pattern: Any) -> Any:
    """Which weights there are."""
    if pattern is None:
        if is_traced(params):
            raise ValueError(
                "pattern is None inside a JAX transformation, where the zeros of the weights cannot be read; "
                "expected booleans like the parameters"
            )
        return map_tree(lambda x: np.asarray(x) != 0 if x.ndim > 1 else np.ones(x.shape, bool), params)
    pairs: list[tuple[Any, Any]] = []
    try:
        map_tree(lambda *pair: pairs.append(pair), params, pattern)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TypeError(
            f"pattern is a {type(pattern).__name__}; expected booleans like the parameters, in a "
            f"{type(params).__name__}"
        ) from error
    for x, there in pairs:
        array("pattern", there, "bool")
        if is_traced(there):
            raise ValueError("pattern is inside a JAX transformation; expected booleans of NumPy")
        if there.dtype != bool or tuple(there.shape) != tuple(x.shape):
            raise ValueError(
                f"pattern holds {there.dtype} {tuple(there.shape)}; expected booleans {tuple(x.shape)}, as the "
                "parameters have"
            )
    return map_tree(lambda x, there: np.asarray(there), params, pattern)


def _direct(loss: Any, xs: Array, batch: tuple[int, ...], size: int, controls: Controls | None) -> Array:
    """What of the loss each step is told: dL/dh_t [T, B, H]; for a word 0 or 1 [T, B, 1]; or its own number."""
    xp, length = namespace(xs), len(xs)
    hold = None if controls is None else controls.hold
    if callable(loss):
        if not is_jax(xp):
            raise TypeError(
                "loss is a function, which takes JAX to differentiate; params and xs are NumPy. Pass dL/dh_t "
                "as an array [T, *batch, H]"
            )
        shown = jax.ShapeDtypeStruct((*batch, size), xs.dtype), jax.ShapeDtypeStruct((), xp.arange(1).dtype)
        made = jax.eval_shape(loss, *shown)
        known = hasattr(made, "dtype")
        if not known or made.shape != () or not jax.numpy.issubdtype(made.dtype, jax.numpy.floating):
            came = f"an array {made.shape} of {made.dtype}" if known else f"a {type(made).__name__}"
            raise ValueError(f"loss gives {came} of the outputs of a step; expected a real scalar")
        return xp.arange(length)
    if not isinstance(loss, str):
        if not hasattr(loss, "__array_namespace__"):
            raise TypeError(
                f'loss is a {type(loss).__name__}; expected "last", "sum", an array of dL/dh_t [T, *batch, H], or '
                "under JAX a function of the outputs of a step [*batch, H] and its number that gives a scalar"
            )
        shaped("loss", loss, (length, *batch, size), xs.dtype, "dL/dh_t [T, *batch, hidden_size]")
        return where_held(hold, xp.asarray(loss).reshape(length, -1, size))
    one_of("loss", loss, ("last", "sum"))
    counts = where_held(hold, xp.ones((length, math.prod(batch)), dtype=xs.dtype))
    if loss == "last":
        later = xp.cumsum(counts[::-1], axis=0)[::-1]
        counts = xp.where(later == 1, counts, xp.zeros_like(counts))
    return counts[..., None]


def _taken_up(after: Any, method: str, state: Any, made: Any) -> Any:
    """What the stretch before carried, checked against what this one would start with."""
    if not isinstance(after, OnlineGradients):
        raise TypeError(f"after is a {type(after).__name__}; expected what online gave of the stretch before")
    if state is not None:
        raise ValueError("state is given with after, which has one: expected None")
    if after.method != method:
        raise ValueError(f"after was made with method={after.method!r}; this call has {method!r}")
    forms = [[(tuple(x.shape), x.dtype) for x in leaves(carried)] for carried in (after.carried, made)]
    if forms[0] != forms[1]:
        raise ValueError(
            "after was made with another cell, batch, dtype, order, pattern or window than this call has"
        )
    return after.carried


# ----------------------------------------------------------------------------------------------------- the loop


def moving(cells: Any, params: Any) -> Callable[..., tuple[Any, Any]]:
    """One step of a stack, `(states, x, controls, dropped) -> (states after, maps)`, all [B, ...]."""
    moves = [controlled_step(cell, own, hoisted=False) for cell, own in zip(cells, params, strict=True)]
    names = tuple(f"layer {k}" for k in range(len(cells)))

    def step(states: Any, x: Array, controls: Any, dropped: Any) -> tuple[Any, Any]:
        found, layers = [], []
        for k, (cell, own, move) in enumerate(zip(cells, params, moves, strict=True)):
            before, after, stored = move(states[k], x, controls[k])
            stored = stored if cell.core.closed_form else None
            layers.append(steps_at(cell, own, before, x, stored, after, controls[k]))
            found.append(after)
            x = cell.output(after)
            if dropped is not None and k < len(dropped):
                x = x * dropped[k]
        return tuple(found), StackSteps(tuple(layers), dropped, names)

    return step


@jit(static=("cells", "window"))
def _opening(rows: Any, plan: Plan | None, params: Any, states: Any, cells: Any, window: int | None) -> Any:
    """What is carried before the first step: states, and the influence, or the window and what is in it."""
    xs, xp = rows[0], namespace(rows[0])
    if plan is not None:
        return states, plan.nothing(xs.shape[1], xs.dtype)
    _, steps = moving(cells, params)(states, *map_tree(lambda x: x[0], rows))
    kept = map_tree(lambda x: xp.broadcast_to(x, (window, *x.shape)), steps.rows)  # numbers that a step may have
    return states, (kept, xp.zeros((), dtype=int))


@jit(static=("cells", "loss", "batch", "by_step"))
def _forward(
    rows: Any,
    direct: Array,
    plan: Plan | None,
    params: Any,
    carried: Any,
    cells: Any,
    loss: Any,
    batch: tuple[int, ...],
    by_step: bool,
) -> tuple[Any, Array, Any, Any]:
    """The loop over time: what is carried on, the gradient [P], the loss, and what each step adds [T, P]."""
    xs, xp = rows[0], namespace(rows[0])
    move = moving(cells, params)
    count = sum(math.prod(x.shape) for x in leaves(params))

    def told(outputs: Array, direct: Array) -> tuple[Array, Array]:
        """∂L_t/∂h_t [B, H], and L_t, of outputs at fixed other outputs."""
        if loss is None:
            return direct, xp.zeros((), dtype=xs.dtype)
        if isinstance(loss, str):
            return xp.broadcast_to(direct, outputs.shape), xp.sum(direct * outputs)
        value, slope = jax.value_and_grad(loss)(outputs.reshape(*batch, -1), direct)
        return slope.reshape(outputs.shape), value.astype(xs.dtype)

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        (states, held), gradient, whole = carry
        (x, controls, dropped), direct = row
        states, steps = move(states, x, controls, dropped)
        hold = None if controls[0] is None else controls[0].hold
        slope, value = told(where_held(hold, cells[-1].output(states[-1])), direct)
        cotangent = steps.inject(where_held(hold, slope))
        if plan is None:
            held, own = _within_window(steps, cotangent, *held)
        else:
            held = influence(plan, steps, held)
            own = plan.gradient(cotangent, held)
        return ((states, held), gradient + own, whole + value), own if by_step else None

    zero = xp.zeros((count,), dtype=xs.dtype), xp.zeros((), dtype=xs.dtype)
    start = varying_as(xs, (carried, *zero))
    (carried, gradient, whole), each = scan(step, start, (rows, direct))
    return carried, gradient, None if loss is None else whole, each


def influence(plan: Plan, steps: Any, before: list[Array]) -> list[Array]:
    """The influence after a step, M_t = J_t M_{t-1} + ∂⁺s_t/∂θ, of what is carried."""
    moved = plan.jacobians(steps)
    return [j @ m + i for j, m, i in zip(moved, before, plan.immediate(steps), strict=True)]


def _within_window(steps: Any, cotangent: Array, kept: Any, seen: Array) -> tuple[Any, Array]:
    """The window with this step in it, and the gradient [P] of a cotangent that is taken back through it."""
    xp = namespace(cotangent)
    kept = map_tree(lambda old, new: xp.concat([old[1:], new[None]]), kept, steps.rows)
    seen = seen + 1
    window = next(leaves(kept)).shape[0]
    there = xp.arange(window) >= window - seen

    def back(cotangent: Array, row: Any) -> tuple[Array, Array]:
        rows, known = row
        before, drive = steps.at(rows).pull(cotangent)
        return before, xp.where(known, drive, xp.zeros_like(drive))

    _, drives = scan(back, cotangent, (kept, there), reverse=True)
    return (kept, seen), flat(steps.at(kept).parameter_vjp(drives))
