"""`truncated`: a pass whose gradient is cut every few steps."""

from __future__ import annotations

from typing import Any, overload

from lstmx.arrays import Array, constant_tree, namespace, scan
from lstmx.cells.base import Cell, P, S
from lstmx.checks import array, one_direction, positive
from lstmx.layers import Layers
from lstmx.layers.base import Tree
from lstmx.passes.run import run


@overload
def truncated(
    cell: Cell[P, S], params: P, xs: Array, state: S | None = None, *, steps: int
) -> tuple[Array, S]: ...
@overload
def truncated(
    cell: Layers[Tree], params: Tree, xs: Array, state: Tree | None = None, *, steps: int
) -> tuple[Array, Tree]: ...
def truncated(cell: Any, params: Any, xs: Array, state: Any = None, *, steps: int) -> tuple[Array, Any]:
    """`run`, with its gradient cut every `steps` steps: truncated backpropagation through time.

    The outputs are those of `run`; the state is carried from one stretch to the next as a constant, so that no
    gradient flows from a stretch to the one before. The first stretch is the shorter one where T is no multiple.

    Args:
        cell: as for `run`.
        params: as for `run`.
        xs: as for `run`.
        state: as for `run`; its gradient is that of the first stretch.
        steps: steps that a gradient flows back at most, at most T.

    Returns:
        As `run`. The final state's gradient is that of the last stretch.

    Raises:
        TypeError: as for `run`; or a layer reads time in both directions, which a stretch has no end of.
        ValueError: as for `run`; or steps below 1 or over T.

    Example:
        >>> import lstmx, jax, jax.numpy as jnp
        >>> cell = lstmx.LSTM(3, 8)
        >>> params, xs = cell.init(0), jnp.ones((20, 3), "float32")
        >>> last = lambda xs: lstmx.truncated(cell, params, xs, steps=5)[0][-1].sum()
        >>> gradient = jax.grad(last)(xs)
        >>> bool(gradient[:15].any()), bool(gradient[15:].all())
        (False, True)
    """
    array("xs", xs)
    one_direction(cell)
    if positive("steps", steps) > xs.shape[0]:
        raise ValueError(f"steps is {steps}; expected at most the {xs.shape[0]} steps of xs")
    batch = tuple(xs.shape[1:-1])
    outputs, state = run(
        cell, params, xs[:steps] if xs.shape[0] % steps == 0 else xs[: xs.shape[0] % steps], state
    )
    done, parts = outputs.shape[0], [outputs]
    if done < xs.shape[0]:
        rest = xs[done:].reshape(-1, steps, *batch, xs.shape[-1])

        def stretch(carried: Any, part: Array) -> tuple[Any, Array]:
            made, after = run(cell, params, part, constant_tree(carried))
            return after, made

        state, made = scan(stretch, state, rest)
        parts.append(made.reshape(-1, *made.shape[2:]))
    return namespace(*parts).concat(parts), state
