"""The walk of a frame of tangents over a whole pass: its options, its sizes, and its sums."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import (
    Array,
    all_finite,
    fetched,
    is_traced,
    leaves,
    map_tree,
    namespace,
    ready,
    require,
    to_numpy,
)
from lstmx.checks import flag, positive, seeding
from lstmx.dynamics.spectrum import LyapunovSpectrum, SumRule
from lstmx.dynamics.walk import Sizes, Walked, limit, walk
from lstmx.linear import ControlledSteps, LinearSteps, StackSteps
from lstmx.scans.chunks import chunk_length

EXPECTED = (
    "a History, as made by record(cell, params, xs), its LinearSteps, or Jacobians [T, *batch, S, S] as one array"
)
PROBED = 64  # first steps, from which the interval between two QR decompositions is chosen
_LONGEST_INTERVAL = 32  # beyond, the decompositions cost little
_WINDOWS = 1000  # about as many are kept
_LEAST_WINDOWS = 64  # that a chosen interval leaves
_OFTEN = 0.01  # share of intervals


class Options(NamedTuple):
    """What `lyapunov_spectrum` takes by these names."""

    count: Any
    transient: Any = None
    reorthonormalise: Any = None
    window: Any = None
    check: Any = None
    seed: int = 0


class Walk:
    """One walk over a pass of `length` steps: its options, once checked, and the sizes that `prepare` chose.

    Args:
        length: steps of the pass.
        like: an array [*batch, ...] in the library and dtype of the pass.
        batch: its batch axes.
        size: S, the dimension of the joint state.
        options: as the user gave them.
        lengths: steps of each sequence, [*batch]; None where all are whole.
    """

    sizes: Sizes
    found: np.ndarray  # which directions single steps tell from those before them

    def __init__(
        self,
        length: int,
        like: Array,
        batch: tuple[int, ...],
        size: int,
        options: Options,
        lengths: np.ndarray | None = None,
    ):
        self.length, self.size, self.batch, self.options, self.lengths = length, size, batch, options, lengths
        shortest = length if lengths is None else int(lengths.min())
        self.count = count_of(options.count, size, "exponents")
        if options.check is not None:
            flag("check", options.check)
        if options.check and self.count < size:
            raise ValueError(f"check needs all {size} exponents, not {self.count}: pass count='all'")
        self.check = self.count == size if options.check is None else options.check
        given = options.transient
        self.transient = shortest // 10 if given is None else positive("transient", given, 0)
        counted = length - self.transient
        if self.transient >= shortest:
            which = "pass" if lengths is None else "shortest sequence"
            raise ValueError(f"transient is {given}; expected less than the {shortest} steps of the {which}")
        for name in ("reorthonormalise", "window"):
            value = getattr(options, name)
            if value is not None and positive(name, value) > counted:
                raise ValueError(f"{name} is {value}; expected at most the {counted} steps that count")
        interval, window = options.reorthonormalise, options.window
        if interval is not None and window is not None and interval > window:
            raise ValueError(f"window is {window}; expected at least the {interval} steps of reorthonormalise")
        self.traced = is_traced(like)
        xp = namespace(like)
        generator = np.random.default_rng(seeding("seed", options.seed))
        orthogonal = np.linalg.qr(generator.standard_normal((size, size)))[0]
        rows = xp.asarray(orthogonal.T[: self.count], dtype=like.dtype)
        self.frame = xp.broadcast_to(rows, (*batch, self.count, size))

    def prepare(self, first: Any) -> None:
        """Choose what was not given, from the first steps (a history, linear steps or matrices)."""
        counted = self.length - self.transient
        longest, self.found = self._probed(first)
        interval = self.options.reorthonormalise or max(1, min(longest, counted // _LEAST_WINDOWS))
        width = math.prod(self.batch) * self.size * max(3, self.count)
        chunk = interval * max(1, chunk_length(2**30, width) // interval)
        window = self.options.window
        if window is None:
            window = -(-counted // _WINDOWS)
            unit = chunk if window > chunk else interval
            window = min(counted, -(-window // unit) * unit)
        self.sizes = Sizes(min(interval, window), min(chunk, window), window)
        if self.options.transient is None:
            self.transient = self.length - counted // window * window
            if self.lengths is not None and self.transient >= self.lengths.min():
                raise ValueError(
                    f"a sequence has {self.lengths.min()} steps, and windows of {window} leave the first "
                    f"{self.transient} of the pass uncounted; pass transient"
                )

    def _probed(self, first: Any) -> tuple[int, np.ndarray]:
        """From single steps: the longest interval that leaves digits enough, and which directions are found."""
        if self.traced:
            return 1, np.ones(self.count, bool)
        with np.errstate(over="ignore", invalid="ignore"):
            walked = to_numpy(walk(first, self.frame, Sizes(1, len(first), 1), determinants=False)[1])
        later = slice(len(walked.logs) // 2, None)
        logs, lost = walked.logs[later].astype(np.float64), walked.lost[later] > 0
        known = np.isfinite(logs) & ~lost
        greatest = np.where(known, logs, -np.inf).max(axis=-1)
        least = np.where(known, logs, np.inf).min(axis=-1)
        spread = np.where(known.any(axis=-1), greatest - least, 0.0)
        growth = float(np.abs(np.where(known, logs, 0.0)).max())
        mean, deviation = float(spread.mean(axis=0).max()), float(spread.std(axis=0).max())

        def fits(steps: int) -> bool:
            condition = steps * mean + 3 * math.sqrt(steps) * deviation
            return condition < 0.6 * limit(self.frame.dtype) and steps * growth < 40

        longest = next((steps for steps in range(_LONGEST_INTERVAL, 1, -1) if fits(steps)), 1)
        return longest, ~lost.reshape(-1, self.count).any(axis=0)

    def spectrum(self, part: Callable[[int, int], Any], most: int, progress: bool = False) -> LyapunovSpectrum:
        """Walk over the parts that `part(start, stop)` gives, and sum up.

        Args:
            part: gives a stretch of the pass, in the order of time.
            most: steps of a stretch, but for what completes its last window.
            progress: show a progress bar.
        """
        stride = -(-most // self.sizes.window) * self.sizes.window
        counted, before = range(self.length, self.transient, -stride), range(self.transient, 0, -stride)
        edges = sorted({0, *before, *counted})
        stretches: Any = list(itertools.pairwise(edges))
        if progress:
            stretches = require("tqdm.auto", "progress=True").tqdm(stretches, unit="stretch", desc="spectrum")
        frame, kept = self.frame, []
        for start, stop in stretches:
            counts = start >= self.transient
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is told in words
                frame, walked = ready(
                    walk(part(start, stop), frame, self.sizes, determinants=self.check and counts)
                )
            if counts:
                kept.append(walked if self.traced else to_numpy(walked))
        return self._summed(map_tree(lambda *rows: namespace(*rows).concat(rows), *kept))

    def _summed(self, walked: Walked) -> LyapunovSpectrum:
        """The spectrum from what the windows left."""
        if not self.traced:
            walked = map_tree(lambda x: x.astype(np.float64), walked)
        xp = namespace(walked.logs)
        steps = self.length - self.transient
        head, whole = steps % self.sizes.window, steps // self.sizes.window
        counts = np.array([head] * (head > 0) + [self.sizes.window] * whole)
        moving = self._moving(counts)
        intervals = (-(-moving // self.sizes.interval)).sum(axis=0)
        weights = xp.asarray(moving, dtype=walked.logs.dtype)
        own = xp.sum(weights, axis=0)  # steps of each sequence
        often = xp.asarray(_OFTEN * intervals[..., None], dtype=walked.logs.dtype)
        gone = xp.sum(walked.lost, axis=0) > often
        if not self.traced:
            self._judge(walked, fetched(gone), int(intervals.max()))
        moves = weights[..., None] > 0
        local = walked.logs / xp.where(moves, weights[..., None], 1.0)
        local = xp.where(gone & moves, -xp.inf, xp.where(moves, local, xp.nan))
        sequences = tuple(range(gone.ndim - 1))
        per_sequence = xp.sum(walked.logs, axis=0) / own[..., None]
        exponents = xp.mean(xp.where(gone, -xp.inf, per_sequence), axis=sequences)
        order = xp.argsort(-exponents)
        rule = None
        if self.check:
            lu, closed = (
                None if x is None else xp.mean(xp.sum(x, axis=0) / own)
                for x in (walked.log_determinant, walked.closed)
            )
            rule = SumRule(xp.sum(exponents), lu, closed)  # type: ignore  # determinants were asked for
        seen = (weights > 0).astype(weights.dtype)[..., None]
        every = tuple(range(walked.participation.ndim - 1))
        participation = xp.sum(walked.participation * seen, axis=every) / xp.sum(seen, axis=every)
        return LyapunovSpectrum(
            exponents[order],
            local[..., order],
            participation[order],
            rule,
            None,
            self.size,
            steps,
            self.transient,
            self.sizes.interval,
            self.sizes.window,
            None if self.lengths is None else moving,
        )

    def _moving(self, counts: np.ndarray) -> np.ndarray:
        """Steps of each window of `counts` steps in which each sequence moves, [windows, *batch]."""
        starts = self.transient + np.cumsum(counts) - counts
        lengths = np.broadcast_to(self.length if self.lengths is None else self.lengths, self.batch)
        over = (-1, *(1,) * len(self.batch))
        return np.clip(lengths - starts.reshape(over), 0, counts.reshape(over))

    def _judge(self, walked: Walked, gone: np.ndarray, intervals: int) -> None:
        """Raise where tangents left the float range; warn where the interval was too long."""
        interval, dtype = self.sizes.interval, self.frame.dtype
        if np.isnan(walked.logs).any() or np.isposinf(walked.logs).any():
            raise ValueError(
                f"the tangents left the range of {dtype} within the {interval} steps between QR decompositions; "
                f"pass a smaller reorthonormalise{'' if interval > 1 else ', or use float64'}"
            )
        wide = float(walked.wide.sum(axis=0).max()) / intervals
        known = np.isfinite(walked.logs).all(axis=0)
        lost = (gone & known).reshape(-1, self.count).any(axis=0) & self.found & (interval > 1)
        if wide <= _OFTEN and not lost.any():
            return
        condition = f"the condition of the tangents was over {math.exp(limit(dtype)):.0e}"
        often = f"{condition} at {wide:.1%} of the QR decompositions"
        if lost.any():
            often += f", and {int(lost.sum())} directions that a single step tells apart were lost"
        if interval > 1:
            advice = (
                f"{interval} steps from one to the next are too many for {dtype}; pass a smaller reorthonormalise"
            )
        elif dtype == np.float32:
            advice = "a single step is too much for float32; use float64"
        else:
            advice = "a single step is too much for float64"
        warnings.warn(
            f"the least exponents have fewer than two digits: {often}; {advice}", RuntimeWarning, stacklevel=5
        )


def whole_steps(steps: LinearSteps) -> None:
    """Check `LinearSteps` that came as the history: along time, finite, each of them a step of the dynamics."""
    if not steps.lead or 0 in steps.lead:
        raise ValueError(f"history is {steps!r}; expected steps along time, [T, *batch], at least one")
    for part in steps.layers if isinstance(steps, StackSteps) else (steps,):
        if isinstance(part, ControlledSteps) and (part.hold is not None or part.reset is not None):
            raise ValueError(
                f"history is {steps!r} of a pass with mask, lengths or resets, which do not say what steps count; "
                "expected the history itself"
            )
    if not is_traced(steps) and not all(map(all_finite, leaves(steps))):
        raise ValueError("history holds NaN or infinity in its LinearSteps; expected finite numbers")


def count_of(count: Any, size: int, what: str) -> int:
    """The number of leading exponents or vectors; `what` they are in words."""
    if count is None:
        return min(8, size)
    if isinstance(count, str):
        if count != "all":
            raise ValueError(f"count is {count!r}; expected an integer, 'all' or None")
        return size
    if positive("count", count) > size:
        raise ValueError(f"count is {count}; the joint state has {size} numbers, and as many {what}")
    return int(count)
