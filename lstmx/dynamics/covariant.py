"""Covariant Lyapunov vectors: the directions that a pass carries along, each with its own exponent.

Forward, a frame of tangents is pushed from step to step and made orthonormal, J_t Q_{t-1} = Q_t R_t. Backward,
coefficients C_{t-1} = R_t⁻¹ C_t, whose columns are scaled to length 1, give the vectors V_t = Q_t C_t.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import (
    Array,
    fetched,
    is_traced,
    jit,
    leaves,
    namespace,
    ready,
    scan,
    to_numpy,
    triangular_inverse,
)
from lstmx.checks import finite, finite_history, flag, jacobian_array, positive, require_history, seeding, unreset
from lstmx.checks import path as checked_path
from lstmx.dynamics.passing import EXPECTED, count_of, whole_steps
from lstmx.dynamics.vectors import CovariantVectors
from lstmx.history import History, StoredHistory
from lstmx.layers import StackHistory
from lstmx.linear import CellSteps, ControlledSteps, FunctionSteps, LinearSteps, StackSteps, steps_of
from lstmx.scans.chunks import chunk_length, counting

_KEPT = 2**23  # numbers of vectors that are kept in memory


def covariant_vectors(
    history: History | StackHistory | StoredHistory | LinearSteps | Array,
    count: int | str | None = None,
    *,
    transient: int | None = None,
    every: int | None = None,
    path: str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> CovariantVectors:
    """Covariant Lyapunov vectors along a recorded pass: directions that the state map carries into each other.

    J_t v_t-1 = g_t v_t with J_t = ∂s_t/∂s_{t-1} of the joint state (h and c for an LSTM): a small change of the
    state along vector i stays along vector i, forward as well as backward in time, and the mean of ln g is the
    Lyapunov exponent λ_i. The orthonormal frames of `lyapunov_spectrum` are not carried along, but for the first.

    Each is found by the method of Ginelli et al.: a frame is pushed forward with a QR decomposition at every step,
    and coefficients with respect to it are solved for backward. Frames are kept at the ends of stretches of about
    √T steps, and made again from there on the way back, so that memory does not grow with T but for what is
    returned. What is within rounding of Q R goes into the vectors: J_t v_{t-1} points along v_t to
    rounding, times the norm of J_t over g_t.

    Where J_t is singular, the last vectors of the frame are lost in it: growth −inf. Such a vector is the one that
    step t takes to 0, made of itself and the vectors before it. Vectors that come behind one that is lost rarely
    lose their part along it there.

    In a padded batch each sequence counts up to its end; NaN stands behind.

    Args:
        history: the recorded pass, in memory or on disk; its `LinearSteps`; or Jacobians [T, *batch, S, S] of any
            map in the order of time.
        count: number of leading vectors, "all", or None for 8 (S where that is less).
        transient: steps at each end that do not count: at the start frames settle, at the end coefficients; None
            for a tenth of T (of the shortest sequence).
        every: vectors are kept at the last of so many steps, and growth is averaged over these; None for 1 where
            they take up to 8 million numbers, else as few as fit into that; with a path, 1. What is left over from
            whole blocks goes to the transient at the start.
        path: an .npy file that the vectors are written to, [blocks, *batch, count, S], and read from as they are
            asked for; it is overwritten. None for memory.
        seed: of the first frame.
        progress: show a progress bar; needs tqdm.

    Returns:
        The vectors with their growth, exponents, and what can be read off them; `print` shows a summary.

    Raises:
        TypeError: history is neither a history, nor LinearSteps, nor an array; a number is no integer; or what
            came is inside a JAX transformation.
        ValueError: count is over S; two transients and one block of `every` steps are longer than the pass (of the
            shortest sequence); the history has resets; path is no .npy file; or NaN or infinity in what came or in
            the vectors; or `LinearSteps` of a pass with mask, lengths or resets.

    References:
        Ginelli, Poggi, Turchi, Chaté, Livi & Politi, "Characterizing dynamics with covariant Lyapunov vectors",
        Physical Review Letters 99, 130601, 2007.
        Ginelli, Chaté, Livi & Politi, "Covariant Lyapunov vectors", J. Phys. A: Math. Theor. 46, 254005, 2013.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.random.default_rng(1).normal(size=(500, 3)).astype("float32")
        >>> found = lstmx.covariant_vectors(lstmx.record(cell, params, xs), 2)
        >>> found.vectors.shape, found.transient, bool(found.exponents[0] < 0)
        ((400, 2, 16), (50, 50), True)
    """
    flag("progress", progress)
    history, lengths = _opened(history)
    first = steps_of(history[:1])
    matrices = first.matrices()
    xp, dtype, size, batch = namespace(matrices), matrices.dtype, matrices.shape[-1], tuple(matrices.shape[1:-2])
    number = count_of(count, size, "vectors")
    plan = _planned(len(history), lengths, math.prod(batch) * number * size, transient, every, path is not None)
    generator = np.random.default_rng(seeding("seed", seed))
    vectors = None if path is None else _file(path)
    kept = _Kept(plan, (*batch, number, size), np.dtype(dtype), vectors)

    def start(rows: np.ndarray) -> Array:
        return xp.broadcast_to(xp.asarray(rows, dtype=dtype), (*batch, *rows.shape))

    frame, other = (start(np.linalg.qr(generator.standard_normal((size, size)))[0][:, :number]) for _ in range(2))
    triangle = np.triu(generator.standard_normal((number, number)), 1) + np.eye(number)
    frames = []
    with counting(2 * plan.length, "covariant vectors", progress) as advance:
        for a, b in plan.stretches:
            part = history[a:b]
            if a == plan.first:
                kept.compare_frames(*to_numpy((frame, other)))
            if a >= plan.first:
                frames.append(frame)
            else:
                other = pushed(part, other)
            frame = ready(pushed(part, frame))
            advance(b - a)
        coefficients = start(np.concat([np.eye(number), triangle / np.linalg.norm(triangle, axis=0)], axis=1))
        for a, b in reversed(plan.stretches):
            if a >= plan.first:
                if b == plan.alone:
                    kept.compare_coefficients(fetched(coefficients), b)
                    coefficients = coefficients[..., :number]
                counts = plan.every if b <= plan.last else 0
                coefficients, made = ready(solved(history[a:b], frames.pop(), coefficients, every=counts))
                kept.take(a, b, to_numpy(made))
            advance(b - a)
    return kept.result(first)


# ------------------------------------------------------------------------------------------- what is asked


def _opened(history: Any) -> tuple[Any, np.ndarray | None]:
    """What was given, once checked, its counted steps in front; and steps of each sequence, None for all."""
    if is_traced(history):
        raise TypeError(
            "history is inside a JAX transformation, where covariant_vectors cannot run: it writes results to "
            "NumPy stretch by stretch; take the vectors outside"
        )
    if isinstance(history, LinearSteps):
        whole_steps(history)
        return history, None
    if hasattr(history, "__array_namespace__"):
        jacobian_array(history)
        finite("a Jacobian's entry", history, "column")
        return history, None
    require_history(history, joint=True, disk=True, expected=EXPECTED)
    unreset(history, "covariant_vectors")
    finite_history(history)
    if history.counts is None:
        return history, None
    history = history.with_gaps(first=False)
    return history, fetched(history.lengths)


def _file(path: Any) -> Path:
    """The path of the file for the vectors."""
    found = checked_path("path", path, "the path of an .npy file")
    if found.suffix != ".npy":
        raise ValueError(f"path is {str(path)!r}; expected the path of an .npy file")
    if not found.parent.is_dir():
        raise FileNotFoundError(f"path is {path}, and there is no folder {found.parent} to write it into")
    return found


class _Plan(NamedTuple):
    """Which steps count, and how the pass is cut."""

    length: int
    """Steps of the pass, up to the end of the longest sequence."""
    lengths: np.ndarray | None
    """Steps of each sequence, [*batch]; None where all are whole."""
    first: int
    """The first step that counts."""
    last: int
    """The step after the last one that does."""
    alone: int
    """Where, on the way back, every sequence has settled: from here on there is one set of coefficients."""
    transient: int
    """Steps at the end of each sequence that do not count."""
    every: int
    """Steps of a block."""
    stretches: list[tuple[int, int]]
    """First step of each stretch, and the step after its last one."""

    def ends(self, batch: tuple[int, ...]) -> np.ndarray:
        """The step after the last that counts, of each sequence, [*batch]."""
        return np.broadcast_to(self.length if self.lengths is None else self.lengths, batch) - self.transient


def _planned(
    length: int, lengths: np.ndarray | None, numbers: int, transient: Any, every: Any, on_disk: bool
) -> _Plan:
    """The plan for a pass whose vectors are so many `numbers` at a step."""
    shortest = length
    if lengths is not None:
        length, shortest = int(lengths.max()), int(lengths.min())
    lengths = None if shortest == length else lengths
    which = "pass" if lengths is None else "shortest sequence"
    left_out = shortest // 10 if transient is None else positive("transient", transient, 0)
    counted = shortest - 2 * left_out
    if counted < 1:
        raise ValueError(
            f"transient is {transient}; expected less than half of the {shortest} steps of the {which}"
        )
    block = 1 if on_disk else min(counted, -(-numbers * (length - 2 * left_out) // _KEPT))
    if every is not None:
        block = positive("every", every)
        if block > counted:
            raise ValueError(f"every is {every}; expected at most the {counted} steps of the {which} that count")
    last = length - left_out
    blocks = (last - left_out) // block
    first = last - blocks * block
    alone = first + (shortest - left_out - first) // block * block
    if alone <= first:
        raise ValueError(
            f"every is {block}, and no block of so many steps lies within the shortest sequence; pass less"
        )
    wanted = max(math.isqrt(length), chunk_length(length, numbers)) // block
    wanted = max(1, min(wanted, blocks))
    stride = block * next((n for n in range(wanted, wanted // 2, -1) if blocks % n == 0), wanted)
    edges = {
        0,
        length,
        alone,
        *range(first, 0, -stride),
        *range(first, last, stride),
        *range(last, length, stride),
    }
    return _Plan(length, lengths, first, last, alone, left_out, block, list(itertools.pairwise(sorted(edges))))


# ------------------------------------------------------------------------------------------- the two walks


@jit()
def pushed(part: Any, frame: Array) -> Array:
    """A frame in columns, [*batch, S, k], after a stretch, made orthonormal at each step."""
    xp = namespace(frame, *leaves(part))
    rows, push = _maps(part, frame)
    return scan(lambda frame, at: (xp.linalg.qr(push(at, frame))[0], None), frame, rows)[0]


def _maps(part: Any, frame: Array) -> tuple[Any, Callable[[Any, Array], Array]]:
    """Rows of all steps of a stretch for a loop, and what pushes a frame through the step of one of these."""
    steps = steps_of(part)
    if 2 * frame.shape[-1] >= frame.shape[-2]:
        return steps.matrices(), lambda matrix, frame: matrix @ frame
    spread, xp = steps.spread(), namespace(frame)

    def push(rows: Any, frame: Array) -> Array:
        return xp.swapaxes(spread.at(rows).push(xp.swapaxes(frame, -1, -2)), -1, -2)

    return spread.rows, push


class _Made(NamedTuple):
    """What a stretch gives, block by block; in a transient the last of these alone."""

    vectors: Any
    """[n, *batch, k, S]"""
    growth: Any
    """Mean of ln of the factor, [n, *batch, k]."""
    frames: Any
    """Mean of ln |R_ii|, [n, *batch, k]."""
    lost: Any
    """Share of steps in which a vector is lost, [n, *batch, k]."""
    ways: Any
    """What each way adds to the factor of a block's last step, a tuple of [n, *batch, k]; None without parts."""
    apart: Any
    """Angle between the vectors of two starts after each step, [steps, *batch, k]; None with one start."""


@jit(static=("every",))
def solved(part: Any, frame: Array, coefficients: Array, every: int) -> tuple[Array, _Made]:
    """Take coefficients [*batch, k, k], of two starts [*batch, k, 2k], from the end of a stretch to its start.

    Args:
        part: the stretch.
        frame: the frame at its start, from which those inside are made again.
        coefficients: at its end, of each vector in a column.
        every: steps of a block; 0 in a transient.
    """
    xp, number = namespace(frame, *leaves(part)), frame.shape[-1]
    rows, push = _maps(part, frame)

    def onward(frame: Array, at: Any) -> tuple[Array, Any]:
        frame, r = xp.linalg.qr(push(at, frame))
        return frame, (frame, r)

    _, (q, r) = scan(onward, frame, rows)
    diagonal = xp.abs(xp.diagonal(r, axis1=-2, axis2=-1))
    noise = frame.shape[-2] * float(np.finfo(np.dtype(frame.dtype)).eps)
    lost = diagonal <= noise * xp.max(xp.abs(r), axis=(-2, -1))[..., None]
    unit = xp.eye(number, dtype=r.dtype)
    starts = coefficients.shape[-1] // number
    # A vector that is lost is the one that this step takes to 0, with no part of the others that are; those that
    # are not have no part of one that is.
    inverse = triangular_inverse(xp.where(lost[..., :, None], unit, r))
    wide, units = xp.concat([lost] * starts, axis=-1), xp.concat([unit] * starts, axis=-1)

    def right(c: Array, lost: Array, wide: Array) -> Array:
        return xp.where(wide[..., None, :], units, xp.where(lost[..., :, None], xp.zeros_like(c), c))

    def back(c: Array, at: Any) -> tuple[Array, Any]:
        inverse, lost, wide = at
        before = inverse @ right(c, lost, wide)
        norms = xp.sqrt(xp.sum(before**2, axis=-2))
        return before / norms[..., None, :], (c, norms)

    before, (c, norms) = scan(back, coefficients, (inverse, lost, wide), reverse=True)
    apart = None if starts == 1 else angles(c[..., :number], c[..., number:])
    if not every:
        return before, _Made(None, None, None, None, None, apart)
    zero = diagonal == 0
    logs = xp.where(zero, -xp.inf, xp.log(xp.where(zero, xp.ones_like(diagonal), diagonal)))
    kept = xp.sqrt(xp.sum(right(c, lost, wide)[..., :number] ** 2, axis=-2))
    growth = xp.where(lost, logs, xp.log(kept) - xp.log(norms[..., :number]))

    def blocks(x: Array) -> Array:
        return x.reshape(-1, every, *x.shape[1:])

    q, c = xp.concat([frame[None], q]), xp.concat([before[None], c])[..., :number]
    after, ahead = (
        xp.swapaxes(q[at] @ c[at], -1, -2) for at in (slice(every, None, every), slice(every - 1, -1, every))
    )
    growth, logs, many = (xp.mean(blocks(x.astype(r.dtype)), axis=1) for x in (growth, logs, lost))
    return before, _Made(after, growth, logs, many, _ways(part, after, ahead, every), apart)


def angles(one: Array, other: Array) -> Array:
    """Angles between the lines along the unit columns of two arrays [..., k, k], [..., k]."""
    xp = namespace(one, other)
    sign = xp.where(xp.sum(one * other, axis=-2, keepdims=True) < 0, -1.0, 1.0).astype(one.dtype)
    chord = xp.sqrt(xp.sum((one - sign * other) ** 2, axis=-2))
    return 2 * xp.arcsin(xp.minimum(chord / 2, xp.ones_like(chord)))


def _ways(part: Any, after: Array, before: Array, every: int) -> Any:
    """v_tᵀ J_t^(way) v_{t-1} of the last step of each block, by way, [n, *batch, k]; None without parts."""
    steps = steps_of(part)
    if not way_names(steps):
        return None
    spread = steps[every - 1 :: every].spread()
    ways = spread.by_gate(spread.drive_vjp(after))
    if steps.retention_gate is not None:
        ways["straight"] = spread.along_state(after)
    xp = namespace(after)
    return tuple(xp.sum(ways[name] * before, axis=-1) for name in way_names(steps))


# ------------------------------------------------------------------------------------------- what is kept


class _Kept:
    """The results of stretches, put together.

    Args:
        plan: of the pass.
        shape: of the vectors of a step, [*batch, k, S].
        dtype: of the pass.
        path: of a file for the vectors; None for memory.
    """

    def __init__(self, plan: _Plan, shape: tuple[int, ...], dtype: np.dtype, path: Path | None):
        self.plan, self.path = plan, path
        blocks, (*batch, number, size) = (plan.last - plan.first) // plan.every, shape
        self.ends = plan.ends(tuple(batch))
        if path is None:
            self.vectors = np.empty((blocks, *shape), dtype)
        else:
            self.vectors = np.lib.format.open_memmap(path, "w+", dtype, (blocks, *shape))
        self.growth, self.frames, self.lost = (np.empty((blocks, *batch, number)) for _ in range(3))
        self.ways: list[np.ndarray] = []
        self.settled = np.zeros((2, number))
        self.shares, self.participation = np.zeros((number, size)), np.zeros(number)

    def compare_frames(self, one: np.ndarray, other: np.ndarray) -> None:
        """Measure how far the spans of two frames are apart."""
        overlap = np.swapaxes(one, -1, -2) @ other
        for i in range(one.shape[-1]):
            beyond = other[..., : i + 1] - one[..., : i + 1] @ overlap[..., : i + 1, : i + 1]
            sines = np.linalg.norm(beyond, ord=2, axis=(-2, -1))
            self.settled[0, i] = np.arcsin(np.minimum(sines, 1.0)).max()

    def compare_coefficients(self, both: np.ndarray, stop: int) -> None:
        """Measure how far the vectors of two starts are apart, of the sequences that end to count at `stop`."""
        number = both.shape[-2]
        self._apart(fetched(angles(both[..., :number], both[..., number:]))[None], stop - 1)

    def _apart(self, apart: Any, start: int) -> None:
        """Take angles [steps, *batch, k], from step `start` on, at the last step of a sequence that counts."""
        at = self.ends - 1 - start
        inside = (at >= 0) & (at < len(apart))
        found = np.take_along_axis(apart, np.where(inside, at, 0)[None, ..., None], axis=0)[0]
        self.settled[1] = np.maximum(
            self.settled[1], found[inside].reshape(-1, found.shape[-1]).max(axis=0, initial=0)
        )

    def take(self, start: int, stop: int, made: _Made) -> None:
        """Take what a stretch gave."""
        plan = self.plan
        if made.apart is not None:
            self._apart(made.apart, start)
        if made.vectors is None:
            return
        if np.isnan(made.vectors).any():
            raise ValueError(
                f"the vectors left the range of {self.vectors.dtype} within a step of {start} to {stop - 1}; the "
                "history's steps stretch or shrink too much for it: expected smaller Jacobians, or float64"
            )
        at = slice((start - plan.first) // plan.every, (stop - plan.first) // plan.every)
        ends = np.arange(start + plan.every, stop + 1, plan.every)
        whole = ends.reshape(-1, *(1,) * self.ends.ndim) <= self.ends
        blank = ~whole[..., None]
        self.vectors[at] = np.where(blank[..., None], np.nan, made.vectors) if blank.any() else made.vectors
        for into, found in ((self.growth, made.growth), (self.frames, made.frames), (self.lost, made.lost)):
            into[at] = np.where(blank, np.nan, found)
        if made.ways is not None:
            self.ways = self.ways or [np.empty(self.growth.shape) for _ in made.ways]
            for into, found in zip(self.ways, made.ways, strict=True):
                into[at] = np.where(blank, np.nan, found)
        squares = made.vectors[np.broadcast_to(whole, made.vectors.shape[:-2])].astype(np.float64) ** 2
        self.shares += squares.sum(axis=0)
        self.participation += (1 / (squares**2).sum(axis=-1)).sum(axis=0)

    def result(self, first: LinearSteps) -> CovariantVectors:
        """All of it, of a pass whose first step is `first`."""
        plan, vectors = self.plan, self.vectors
        if self.path is not None:
            vectors.flush()  # type: ignore  # a memmap
            vectors = np.load(self.path, mmap_mode="r")
        number = np.count_nonzero(~np.isnan(self.growth[..., 0]))
        names, fields = way_names(first), fields_of(first)
        return CovariantVectors(
            vectors=vectors,
            growth=self.growth,
            steps=np.arange(plan.first + plan.every - 1, plan.last, plan.every),
            frame_exponents=np.nanmean(self.frames, axis=0),
            lost=np.nanmean(self.lost, axis=0),
            settled=self.settled,
            shares=self.shares / number,
            participation=self.participation / number,
            ways=dict(zip(names, self.ways, strict=True)) if self.ways else None,
            size=self.shares.shape[-1],
            every=plan.every,
            transient=(plan.first, plan.transient),
            fields=fields,
            output=output_of(first),
        )


# ------------------------------------------------------------------------------------------- names


def way_names(steps: LinearSteps) -> tuple[str, ...]:
    """The ways through the cell from state to state; () where the maps have no parts by gate."""
    if isinstance(steps, ControlledSteps):
        return way_names(steps.inner)
    if not isinstance(steps, CellSteps):
        return ()
    return (*steps.cell.way_names, *["straight"] * (steps.retention_gate is not None))


def fields_of(steps: LinearSteps) -> tuple[tuple[str, int], ...]:
    """Names and sizes of the fields of the joint state."""
    if isinstance(steps, ControlledSteps):
        return fields_of(steps.inner)
    if isinstance(steps, StackSteps):
        layers = zip(steps.names, steps.layers, strict=True)
        return tuple((f"{layer} {name}", size) for layer, own in layers for name, size in fields_of(own))
    if isinstance(steps, (CellSteps, FunctionSteps)):
        return tuple(zip(steps.cell.named_fields(steps.before), steps.cell.field_sizes, strict=True))
    return (("state", steps.size),)


def output_of(steps: LinearSteps) -> tuple[int, int] | None:
    """The first number of the joint state that is an output, and the one behind the last; None for none."""
    if isinstance(steps, ControlledSteps):
        return output_of(steps.inner)
    if isinstance(steps, StackSteps):
        own, before = output_of(steps.layers[-1]), steps.size - steps.layers[-1].size
        return None if own is None else (own[0] + before, own[1] + before)
    if isinstance(steps, CellSteps):
        return 0, steps.cell.output_size
    at = steps.cell.output_at if isinstance(steps, FunctionSteps) else None
    return None if at is None else (at.start, at.stop)
