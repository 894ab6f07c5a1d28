"""What a gradient flow comes to: a rate, a half-life, a horizon and a word."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import fetched, is_traced
from lstmx.checks import finite_number

_LEAST_STEPS = 8  # for a standard error
_LEAST_BLOCKS = 4  # for two rates
_FALSE_ALARMS = 0.002  # of the test for two rates, with increments that forget within a block


class DecayRate(NamedTuple):
    """Fitted decay of the gradient going back in time, in nats per step; positive where it vanishes."""

    rate: np.ndarray
    """Least-squares slope of the log norm against time, from the loss back, [*batch]."""
    standard_error: np.ndarray
    """From means of the steps' increments over √n blocks of the n finite steps, [*batch]: neighbouring increments
    are correlated, and the textbook error of a regression would be far too small. Where there are two rates, each
    block counts by its distance from the mean of its own part. NaN for fewer than 8 finite steps."""


class Rates(NamedTuple):
    """The two rates of a decay that is not one exponential, in nats per step; NaN where it is one."""

    near: np.ndarray
    """Least-squares rate from the loss back to `lag`, [*batch]."""
    far: np.ndarray
    """Least-squares rate from `lag` back to the first step, [*batch]."""
    lag: np.ndarray
    """Steps back from the loss at which the two meet, [*batch]."""


class DecaySummary:
    """How the norm of a gradient decays from the step at which its loss enters to the first one.

    All readings are taken from that step, whichever it is, in each sequence of a batch; steps that do not count
    are as if they were not there. They are readings of one gradient only where the loss enters at a single step.
    Where it enters at many, the norm at a step is that of a sum of gradients of different ages, and its course
    over time is not a decay: rates, half-life and horizon are NaN then, and the verdict is "undefined".

    Numbers are NumPy float64, [*batch].
    """

    log_direct: Any

    @property
    def _norms(self) -> tuple[np.ndarray, np.ndarray]:
        """Log norms of the gradient and of its direct part, [T, *batch]: −inf for zero.

        Each sequence's steps that count come first, then NaN for the others.
        """
        raise NotImplementedError

    @property
    def decay_rate(self) -> DecayRate:
        """Fitted slope of the log norm from the loss back, and its standard error; exact zeros are left out."""
        return DecayRate(*_fits(*self._norms)[:2])

    @property
    def rates(self) -> Rates:
        """The rate near the loss, the rate far from it and the lag at which they meet, where they differ.

        The increments are averaged over √n blocks of the n finite steps. There are two rates where the best split
        of these blocks into an earlier and a later part is significant by a t-test at 0.2 %, corrected for the
        choice among all splits, and the straight line from end to end misses the log norm by ln 2 or more where
        the parts meet: at the step near that split between whose two sides the mean increments differ most. NaN
        for one exponential, and for fewer than 16 finite steps.
        """
        return Rates(*_fits(*self._norms)[2:])

    @property
    def half_life(self) -> np.ndarray:
        """Steps back in which the gradient halves, ln 2 / rate; infinite where it does not decay."""
        rate = self.decay_rate.rate
        decays = rate > 0
        return np.where(
            decays, math.log(2) / np.where(decays, rate, 1.0), np.where(np.isnan(rate), np.nan, np.inf)
        )

    def horizon(self, fraction: float = 0.01) -> np.ndarray:
        """Least number of steps back at which the norm is at most `fraction` of its value where the loss enters.

        Infinite where it never gets there within the history; NaN where the loss enters at many steps or none.

        Raises:
            ValueError: fraction is not between 0 and 1.
        """
        finite_number("fraction", fraction, "a number between 0 and 1", lambda x: 0 < x < 1)
        log_norm, log_direct = self._norms
        count, last = _entries(log_direct)
        steps = np.arange(len(log_norm)).reshape(-1, *(1,) * last.ndim)
        below = (log_norm <= _at(log_norm, last) + math.log(fraction)) & (steps <= last)
        lag = last - (len(log_norm) - 1 - below[::-1].argmax(axis=0))
        return np.where(count == 1, np.where(below.any(axis=0), lag, np.inf), np.nan)

    @property
    def verdict(self) -> np.ndarray:
        """One of "vanishing", "exploding", "steady" and "undefined" for each sequence, [*batch].

        Vanishing: the rate is more than two standard errors above 0 and the norm at the first step is below 1 % of
        that where the loss enters. Exploding: more than two below 0, and above 100 times. Fewer than 8 finite
        steps have no standard error; there the norms alone decide. Undefined: the loss enters at many steps, at
        none, or at the first step only, before which there is nothing.
        """
        log_norm, log_direct = self._norms
        count, last = _entries(log_direct)
        rate, error = self.decay_rate
        error = np.nan_to_num(error)
        ends = log_norm[0], _at(log_norm, last)
        first, entry = (np.nan_to_num(end, neginf=-np.finfo(float).max / 4) for end in ends)
        vanishing = (rate > 2 * error) & (first - entry < math.log(0.01))
        exploding = (rate < -2 * error) & (first - entry > math.log(100))
        vanishing |= np.isneginf(ends[0])  # too few finite steps for a rate
        word = np.where(vanishing, "vanishing", np.where(exploding, "exploding", "steady"))
        return np.where((count == 1) & (last > 0), word, "undefined")

    @property
    def _verdicts(self) -> str:
        """The verdict, or of a batch how many there are of each, behind a colon; nothing where it is traced."""
        if is_traced(self):
            return ""
        words, counts = np.unique(self.verdict, return_counts=True)
        alone = self.verdict.ndim == 0
        return ": " + ", ".join(str(w) if alone else f"{n} {w}" for w, n in zip(words, counts, strict=True))

    def _sentences(self) -> list[str]:
        """The readings in words, a line each; of a batch in medians over the sequences that have them."""
        log_norm, log_direct = self._norms
        count, last = _entries(log_direct)
        total = count.size

        def some(which: np.ndarray) -> str:
            number = int(which.sum())
            return "" if number == total else f"in {number} of {total} sequences "

        middle = f" (medians of {total} sequences)" if log_norm.ndim > 1 else ""
        lines = [f"gradient over {len(log_norm)} steps{middle}{self._verdicts}"]
        if (enters := count > 0).any():
            steps = np.unique(_entries(fetched(self.log_direct))[1][enters])
            where = f" (step {steps[0]})" if len(steps) == 1 else ""
            lines.append(
                f"  ln of the joint-state norm: {_median(_at(log_norm, last)[enters])} at the last loss{where}, "
                f"{_median(log_norm[0][enters])} at the first step"
            )
        single = (count == 1) & (last > 0)
        rate, error, near, far, lag = _fits(log_norm, log_direct)
        if (fitted := ~np.isnan(rate)).any():
            known = error[~np.isnan(error)]
            half_life, horizon = np.median(self.half_life[fitted]), np.median(self.horizon()[single])
            halves = f"{half_life:.4g} steps" if np.isfinite(half_life) else "infinite"
            lines.append(
                f"  decay going back: {_median(rate[fitted])}"
                + (f" ± {np.median(known):.2g}" if len(known) else "")
                + f" nats per step, half-life {halves}, "
                + (f"below 1 % after {horizon:.4g}" if np.isfinite(horizon) else "never below 1 %")
            )
        elif single.any():
            lines.append("  the gradient is exactly zero at every step before the loss")
        if (two := ~np.isnan(lag)).any():
            lines.append(
                f"  not one exponential: {some(two)}{_median(near[two])} nats per step up to {_median(lag[two])} "
                f"steps back, {_median(far[two])} beyond"
            )
        if (many := count > 1).any():
            lines.append(
                f"  {some(many)}losses enter at {'up to ' if np.ptp(count[many]) else ''}{count.max()} steps, so "
                "that the norms mix gradients of different ages and tell of no decay: pass a loss at one step, or "
                "see lstmx.influence(history).lag_profile for the decay with each lag"
            )
        if (at_first := (count == 1) & (last == 0)).any():
            lines.append(f"  {some(at_first)}the loss enters at the first step: one step, no decay to speak of")
        if (nothing := count == 0).any():
            lines.append(f"  {some(nothing)}no loss enters: the gradient is zero at every step")
        return lines


class FlowSummary(DecaySummary):
    """Readings of `log_norm` and `log_direct`, [T, *batch]: the decay from the step at which the loss enters."""

    log_norm: Any
    log_direct: Any
    log_highway: Any
    gates: Any

    @property
    def _norms(self) -> tuple[np.ndarray, np.ndarray]:
        log_norm, log_direct = (fetched(x, np.float64) for x in (self.log_norm, self.log_direct))
        held = np.isnan(log_norm)
        return counted_first(log_norm, held), counted_first(log_direct, held)

    def __str__(self) -> str:
        lines = self._sentences()
        if self.log_highway is not None:
            highway = counted_first(fetched(self.log_highway, np.float64), np.isnan(fetched(self.log_norm)))[0]
            lines.append(f"  along the retention gates alone: {_median(highway)} at the first step")
        if self.gates is not None:
            shares = {name: fetched(way.share, np.float64) for name, way in self.gates.items()}
            known = {name: share[~np.isnan(share)] for name, share in shares.items()}
            listed = ", ".join(
                f"{name.replace('_', ' ')} {share.mean():.1%}" for name, share in known.items() if len(share)
            )
            lines += [f"  mean share of each way back: {listed}"] if listed else []
        if (self.verdict != "undefined").any():
            lines.append(
                "  (vanishing: rate > 2 standard errors and first norm < 1 % of that at the loss; exploding: "
                "rate < −2 and > 100×)"
            )
        return "\n".join(lines)


def counted_first(rows: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Rows [T, *batch], those of the steps where `held` is true behind the others, sequence by sequence."""
    return np.take_along_axis(rows, np.argsort(held, axis=0, stable=True), axis=0)


def _median(values: np.ndarray) -> str:
    return f"{np.median(values):.4g}"


def _entries(log_direct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At how many steps a loss enters each sequence, and the last of them (T − 1 for none), [*batch]."""
    enters = log_direct > -np.inf
    return enters.sum(axis=0), len(enters) - 1 - enters[::-1].argmax(axis=0)


def _at(rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Rows [T, *batch] at a step of each sequence, [*batch]."""
    return np.take_along_axis(rows, steps[None], axis=0)[0]


def _fits(log_norm: np.ndarray, log_direct: np.ndarray) -> list[np.ndarray]:
    """Rate, standard error, near rate, far rate and the lag where they meet, each [*batch]."""
    count, last = _entries(log_direct)
    columns = log_norm.reshape(len(log_norm), -1).T
    single = count.ravel() == 1
    fits = [
        _fit(column[step::-1]) if alone else (math.nan,) * 5
        for column, step, alone in zip(columns, last.ravel(), single, strict=True)
    ]
    return [np.array(x).reshape(last.shape) for x in zip(*fits, strict=True)]


def _fit(back: np.ndarray) -> tuple[float, float, float, float, float]:
    """What `_fits` gives, of one sequence's log norms from the loss back."""
    lags = np.flatnonzero(np.isfinite(back))
    values = back[lags]
    if len(lags) < 2:
        return math.nan, math.nan, math.nan, math.nan, math.nan
    rate = _rate(lags, values)
    if len(lags) < _LEAST_STEPS:
        return rate, math.nan, math.nan, math.nan, math.nan
    edges = np.linspace(0, len(lags) - 1, math.isqrt(len(lags)) + 1).round().astype(int)
    blocks = np.diff(values[edges]) / np.diff(lags[edges])
    near = far = lag = math.nan
    split = _split(blocks) if len(blocks) >= _LEAST_BLOCKS else 0
    corner = _corner(lags, values, edges[split - 1 : split + 2]) if split else 0
    if corner:
        near, far = _rate(lags[: corner + 1], values[: corner + 1]), _rate(lags[corner:], values[corner:])
        lag, rest, freedom = float(lags[corner]), _rest(blocks, split), len(blocks) - 2
    else:
        rest, freedom = _rest(blocks, 0), len(blocks) - 1
    # A least-squares slope through a random walk has 6/5 the variance of its mean increment.
    return rate, math.sqrt(1.2 * rest / freedom / len(blocks)), near, far, lag


def _rate(lags: np.ndarray, values: np.ndarray) -> float:
    """The least-squares slope, positive where the values fall with the lag."""
    centred = lags - lags.mean()
    return float(centred @ (values.mean() - values) / (centred @ centred))


def _rest(blocks: np.ndarray, split: int) -> float:
    """Sum of squares about the means of the blocks before and from `split`; 0 for one mean."""
    parts = np.split(blocks, [split] if split else [])
    return float(sum(((part - part.mean()) ** 2).sum() for part in parts))


def _split(blocks: np.ndarray) -> int:
    """Number of blocks before the one place at which their mean changes significantly; 0 where there is none."""
    count, freedom = len(blocks), len(blocks) - 2
    before = np.arange(1, count)
    sums = np.cumsum(blocks)[:-1]
    gaps = sums / before - (blocks.sum() - sums) / (count - before)
    between = gaps**2 * before * (count - before) / count
    split = int(between.argmax()) + 1
    if not between[split - 1]:
        return 0
    rest = _rest(blocks, split)
    left = rest / (rest + between[split - 1])  # 1 / (1 + t² / degrees of freedom)
    # Wallace's normal deviate of Student's t, and Bonferroni's correction for all splits.
    deviate = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(-freedom * math.log(left)) if left else math.inf
    return split if (count - 1) * math.erfc(deviate / math.sqrt(2)) < _FALSE_ALARMS else 0


def _corner(lags: np.ndarray, values: np.ndarray, around: np.ndarray) -> int:
    """Index within `around` where the mean increment changes most; 0 where that bends the line by below ln 2."""
    at = np.arange(max(around[0], 1), min(around[-1], len(lags) - 2) + 1)
    near, far = lags[at] - lags[0], lags[-1] - lags[at]
    gaps = (values[at] - values[0]) / near - (values[-1] - values[at]) / far
    best = (gaps**2 * near * far).argmax()
    bend = abs(gaps[best]) * near[best] * far[best] / (near[best] + far[best])  # from the line from end to end
    return int(at[best]) if bend >= math.log(2) else 0
