"""Tangents pushed forward in time, and made orthonormal now and then."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, after, jit, leaves, map_tree, namespace
from lstmx.linear import push_through, steps_of, walk_forward
from lstmx.scans.chunks import scan_chunks


class Sizes(NamedTuple):
    """How a walk is cut: steps between two orthonormalisations, steps linearised at a time, steps of a window."""

    interval: int
    chunk: int
    window: int


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


@jit(static=("sizes", "determinants"))
def walk(system: Any, frame: Array, sizes: Sizes, determinants: bool) -> tuple[Array, Walked]:
    """Push a frame through a stretch of time, orthonormalising it every `sizes.interval` steps.

    Args:
        system: the stretch: a history, its `LinearSteps`, or Jacobians [T, *batch, S, S].
        frame: orthonormal tangents in rows, [*batch, k, S].
        sizes: how it is cut. Where lengths are no multiples, the first interval, chunk or window is shorter.
        determinants: sum up ln |det J_t| as well.

    Returns:
        The frame after the stretch, and what each window leaves, [windows, ...].
    """
    xp = namespace(frame, *leaves(system))

    def chunk(frame: Array, part: Any) -> tuple[Array, Any]:
        steps = steps_of(part)
        spread = steps.spread()

        def interval(frame: Array, rows: Any, own: None) -> tuple[Array, None, Any]:
            frame, logs, lost, wide = orthonormal(push_through(spread.at(rows), frame))
            return frame, None, (logs, lost.astype(logs.dtype), (wide > limit(logs.dtype)).astype(logs.dtype))

        length = next(leaves(spread.rows)).shape[0]
        frame, _, made = scan_chunks(interval, frame, spread.rows, min(sizes.interval, length))
        lu = closed = None
        if determinants:
            lu, closed = xp.linalg.slogdet(after(frame, steps.matrices()))[1], steps.log_determinant()
            frame = after(lu, frame)
        return frame, total((*made, lu, closed))

    def window(frame: Array, part: Any) -> tuple[Array, Walked]:
        frame, made = walk_forward(part, chunk, frame, sizes.chunk)
        logs, lost, wide, lu, closed = total(made)
        return frame, Walked(logs, lost, wide, 1 / xp.sum(frame**4, axis=-1), lu, closed)

    def total(rows: Any) -> Any:
        return map_tree(lambda x: xp.sum(x, axis=0), rows)

    return walk_forward(system, window, frame, sizes.window)


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
