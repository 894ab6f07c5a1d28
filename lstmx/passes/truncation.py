"""`truncated`: a pass whose gradient is cut every few steps."""

from __future__ import annotations

import functools
from typing import Any, overload

from lstmx.arrays import Array, constant_tree, map_tree, namespace, scan
from lstmx.cells.base import Cell, P, S
from lstmx.checks import array, cells_of, door, positive
from lstmx.draws import Key
from lstmx.history import Controls, controlled
from lstmx.history.controls import Lengths
from lstmx.layers import Layers, layered_door, outputs_passing
from lstmx.layers.base import Tree
from lstmx.passes.run import outputs_of


@overload
def truncated(
    cell: Cell[P, S],
    params: P,
    xs: Array,
    state: S | None = None,
    *,
    steps: int,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> tuple[Array, S]: ...
@overload
def truncated(
    cell: Layers[Tree],
    params: Tree,
    xs: Array,
    state: Tree | None = None,
    *,
    steps: int,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> tuple[Array, Tree]: ...
def truncated(
    cell: Any,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    steps: int,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> tuple[Array, Any]:
    """`run`, with its gradient cut every `steps` steps: truncated backpropagation through time.

    The outputs are those of `run`; the state is carried from one stretch to the next as a constant, so that no
    gradient flows from a stretch to the one before. The first stretch is the shorter one where T is no multiple.
    In a stack the state of every layer is; a backward direction counts its stretches in the order in which it
    reads.

    Args:
        cell: as for `run`.
        params: as for `run`.
        xs: as for `run`.
        state: as for `run`; its gradient is that of the first stretch.
        steps: steps that a gradient flows back at most, at most T; those that do not count are counted, too.
        lengths: as for `run`; so the next three.
        mask: booleans [T, *batch].
        resets: booleans [T, *batch].
        key: of what is drawn.

    Returns:
        As `run`. The final state's gradient is that of the last stretch.

    Raises:
        TypeError: as for `run`.
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
    cells_of("cell", cell)
    positive("steps", steps)
    if array("xs", xs).ndim and steps > xs.shape[0]:
        raise ValueError(f"steps is {steps}; expected at most the {xs.shape[0]} steps of xs")
    if isinstance(cell, Layers):
        params, xs, state, timing, masks = layered_door(cell, params, xs, state, (lengths, mask, resets), key)
        one = outputs_passing(functools.partial(truncated, steps=steps))
        return tuple(cell.passed(one, params, xs, state, timing, masks))  # type: ignore  # a pair
    params, xs, state = door(cell, params, xs, state)
    xs, controls = controlled(cell, xs, lengths, mask, resets, key)
    return _stretches(cell, params, xs, state, controls, steps)


def _stretches(
    cell: Cell, params: Any, xs: Array, state: Any, controls: Controls | None, steps: int
) -> tuple[Array, Any]:
    """Outputs and final state, stretch by stretch."""
    rows, head = (xs, controls), xs.shape[0] % steps or steps
    outputs, state = outputs_of(cell, params, state, *map_tree(lambda x: x[:head], rows))
    if head == xs.shape[0]:
        return outputs, state

    def stretch(carried: Any, part: Any) -> tuple[Any, Array]:
        made, after = outputs_of(cell, params, constant_tree(carried), *part)
        return after, made

    count = (xs.shape[0] - head) // steps
    state, made = scan(stretch, state, map_tree(lambda x: x[head:].reshape(count, steps, *x.shape[1:]), rows))
    return namespace(outputs).concat([outputs, made.reshape(count * steps, *made.shape[2:])]), state
