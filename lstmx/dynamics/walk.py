"""Tangents pushed forward in time, and made orthonormal now and then."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, columns, jit, leaves, map_tree, namespace, scan
from lstmx.chunks import scan_chunks
from lstmx.history import History


class Sizes(NamedTuple):
    """How a walk is cut: steps between two orthonormalisations, steps linearised at a time, steps of a window."""

    interval: int
    chunk: int
    window: int


class Steps(NamedTuple):
    """A stretch of steps as linear maps, and how these are applied.

    A frame is k tangents in rows, [*batch, k, S].
    """

    data: Any
    """A tree of arrays [T, ...]."""
    start: Any
    """What `factors` needs of the time before the stretch."""
    factors: Callable[[Any, Any], tuple[Any, Any]]
    """From `start` and a chunk of the data: the factors of its steps [T, ...], and `start` of the next chunk."""
    push: Callable[[Any, Array], Array]
    """From the factors of a step and a frame: the frame after it."""
    matrices: Callable[[Any], Array]
    """From factors: the Jacobians, [T, *batch, S, S]."""
    log_determinant: Callable[[Any], Array | None]
    """From factors: ln |det J_t| in closed form, [T, *batch], or None."""


def steps_of_history(cell: Any, params: Any, initial: Any, inputs: Array, states: Any, stored: Any) -> Steps:
    """The steps of a recorded pass."""

    def factors(initial: Any, cut: Any) -> tuple[Any, Any]:
        part = History(cell, params, initial, *cut)
        return map_tree(lambda x: x[..., None, :], part.slopes), part.final

    def push(slopes: Any, frame: Array) -> Array:
        tangent = cell.state_type(*columns(frame, cell.field_sizes))
        return namespace(frame).concat(cell.push(params, slopes, tangent, None), axis=-1)

    def flat(slopes: Any) -> Any:
        return map_tree(lambda x: x[..., 0, :], slopes)

    return Steps(
        (inputs, states, stored),
        initial,
        factors,
        push,
        lambda slopes: cell.jacobian(params, flat(slopes)),
        lambda slopes: cell.log_determinant(params, flat(slopes)),
    )


def steps_of_matrices(matrices: Array) -> Steps:
    """The steps of a product of given matrices [T, *batch, S, S]."""
    xp = namespace(matrices)
    return Steps(
        matrices,
        None,
        lambda start, cut: (cut, start),
        lambda matrix, frame: frame @ xp.swapaxes(matrix, -1, -2),
        lambda cut: cut,
        lambda cut: None,
    )


class Walked(NamedTuple):
    """What a window of a walk leaves."""

    logs: Array
    """Σ ln |R_ii|, [*batch, k]; −inf where one is exactly 0."""
    lost: Array
    """Intervals at whose end a direction was lost: no digit of the arithmetic tells it from the span of those
    before it, [*batch, k]."""
    wide: Array
    """Intervals at whose end the directions that were not lost had a condition above `limit`, [*batch]."""
    participation: Array
    """1 / Σ q⁴ of each tangent at the window's end, [*batch, k]."""
    log_determinant: Array | None
    """Σ ln |det J_t| by LU decomposition, [*batch]."""
    closed: Array | None
    """Σ ln |det J_t| by the cell's closed form, [*batch]."""


def limit(dtype: Any) -> float:
    """The ln of a frame's condition that leaves two digits to its least direction."""
    return -math.log(100 * float(np.finfo(np.dtype(dtype)).eps))


def walk(steps: Steps, frame: Array, sizes: Sizes, determinants: bool) -> tuple[Array, Walked]:
    """Push a frame through a stretch of time, orthonormalising it every `sizes.interval` steps.

    Args:
        steps: the stretch.
        frame: orthonormal tangents in rows, [*batch, k, S].
        sizes: how it is cut. Where lengths are no multiples, the first interval, chunk or window is shorter.
        determinants: sum up ln |det J_t| as well.

    Returns:
        The frame after the stretch, and what each window leaves, [windows, ...].
    """
    xp = namespace(frame, *leaves(steps.data))

    def interval(frame: Array, factors: Any, own: None) -> tuple[Array, None, Any]:
        frame, _ = scan(lambda frame, now: (steps.push(now, frame), None), frame, factors)
        frame, logs, lost, spread = orthonormal(frame)
        return frame, None, (logs, lost.astype(logs.dtype), (spread > limit(logs.dtype)).astype(logs.dtype))

    def chunk(carry: Any, cut: Any, own: None) -> tuple[Any, None, Any]:
        frame, start = carry
        factors, start = steps.factors(start, cut)
        size = min(sizes.interval, next(leaves(factors)).shape[0])
        frame, _, made = scan_chunks(interval, frame, factors, size)
        lu = closed = None
        if determinants:
            lu, closed = xp.linalg.slogdet(steps.matrices(factors))[1], steps.log_determinant(factors)
        return (frame, start), None, total((*made, lu, closed))

    def window(carry: Any, cut: Any, own: None) -> tuple[Any, None, Walked]:
        size = min(sizes.chunk, next(leaves(cut)).shape[0])
        carry, _, made = scan_chunks(chunk, carry, cut, size)
        logs, lost, wide, lu, closed = total(made)
        return carry, None, Walked(logs, lost, wide, 1 / xp.sum(carry[0] ** 4, axis=-1), lu, closed)

    def total(rows: Any) -> Any:
        return map_tree(lambda x: xp.sum(x, axis=0), rows)

    size = min(sizes.window, next(leaves(steps.data)).shape[0])
    (frame, _), _, walked = scan_chunks(window, (frame, steps.start), steps.data, size)
    return frame, walked


def orthonormal(frame: Array) -> tuple[Array, Array, Array, Array]:
    """The frame's QR decomposition.

    Returns:
        The orthonormal frame; ln |R_ii|, [*batch, k]; whether a direction is lost, [*batch, k]; and ln of the
        condition of those that are not, max |R_ii| / min |R_ii|, [*batch].
    """
    xp = namespace(frame)
    q, r = xp.linalg.qr(xp.swapaxes(frame, -1, -2))
    diagonal = xp.abs(xp.diagonal(r, axis1=-2, axis2=-1))
    noise = frame.shape[-1] * float(np.finfo(np.dtype(frame.dtype)).eps)
    lost = diagonal <= noise * xp.max(xp.abs(r), axis=(-2, -1))[..., None]
    zero = diagonal == 0
    logs = xp.where(zero, -xp.inf, xp.log(xp.where(zero, xp.ones_like(diagonal), diagonal)))
    greatest = xp.max(xp.where(lost, -xp.inf, logs), axis=-1)
    least = xp.min(xp.where(lost, xp.inf, logs), axis=-1)
    return xp.swapaxes(q, -1, -2), logs, lost, xp.where(least <= greatest, greatest - least, 0.0)


@jit(static=("cell", "sizes", "determinants"))
def walk_history(
    cell: Any,
    params: Any,
    initial: Any,
    inputs: Array,
    states: Any,
    stored: Any,
    frame: Array,
    sizes: Sizes,
    determinants: bool,
) -> tuple[Array, Walked]:
    """`walk` over a history's data."""
    return walk(steps_of_history(cell, params, initial, inputs, states, stored), frame, sizes, determinants)


@jit(static=("sizes", "determinants"))
def walk_matrices(matrices: Array, frame: Array, sizes: Sizes, determinants: bool) -> tuple[Array, Walked]:
    """`walk` over given matrices."""
    return walk(steps_of_matrices(matrices), frame, sizes, determinants)


def walker(system: Any) -> Callable[[Array, Sizes, bool], tuple[Array, Walked]]:
    """`(frame, sizes, determinants) -> (frame after, what each window leaves)` of a history or of matrices."""
    if isinstance(system, History):
        return functools.partial(walk_history, system.cell, *system.data)
    return functools.partial(walk_matrices, system)
