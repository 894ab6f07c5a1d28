"""What a gradient flow comes to: a rate, a half-life, a horizon and a word."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np


class DecayRate(NamedTuple):
    """Fitted decay of the gradient going back in time, in nats per step; positive where it vanishes."""

    rate: np.ndarray
    """Least-squares slope of `log_norm` against time, [*batch]."""
    standard_error: np.ndarray
    """From means of the steps' increments over √T blocks, [*batch]: neighbouring increments are correlated, and
    the textbook error of a regression would be far too small. NaN for fewer than 8 finite steps."""


class FlowSummary:
    """Readings of `log_norm` [T, *batch]; meant for a loss at the last step, whose gradient only travels back.

    Numbers are NumPy float64, [*batch].
    """

    log_norm: Any
    log_highway: Any
    gates: Any

    @property
    def decay_rate(self) -> DecayRate:
        """Fitted slope of `log_norm` and its standard error; exact zeros (−inf) are left out."""
        log_norm = np.asarray(self.log_norm, np.float64)
        fits = [_fit(column) for column in log_norm.reshape(len(log_norm), -1).T]
        return DecayRate(*(np.array(x).reshape(log_norm.shape[1:]) for x in zip(*fits, strict=True)))

    @property
    def half_life(self) -> np.ndarray:
        """Steps back in which the gradient halves, ln 2 / rate; infinite where it does not decay."""
        rate = self.decay_rate.rate
        decays = rate > 0
        return np.where(
            decays, math.log(2) / np.where(decays, rate, 1.0), np.where(np.isnan(rate), np.nan, np.inf)
        )

    def horizon(self, fraction: float = 0.01) -> np.ndarray:
        """Least number of steps back at which the norm is at most `fraction` of its value at the last step.

        Infinite where it never gets there within the history.

        Raises:
            ValueError: fraction is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction!r}; expected a number between 0 and 1")
        log_norm = np.asarray(self.log_norm, np.float64)
        back, past = log_norm[::-1], np.isnan(log_norm).sum(axis=0)
        below = back <= _last(log_norm) + math.log(fraction)
        return np.where(below.any(axis=0), below.argmax(axis=0) - past, np.inf)

    @property
    def verdict(self) -> np.ndarray:
        """One of "vanishing", "exploding" and "steady" for each sequence, [*batch].

        Vanishing: the rate is more than two standard errors above 0 and the norm at the first step is below
        1 % of that at the last. Exploding: more than two below 0, and above 100 times.
        """
        rate, error = self.decay_rate
        log_norm = np.asarray(self.log_norm, np.float64)
        ends = log_norm[0], _last(log_norm)
        first, last = (np.nan_to_num(end, neginf=-np.finfo(float).max / 4) for end in ends)
        change = first - last
        vanishing = (rate > 2 * error) & (change < math.log(0.01))
        exploding = (rate < -2 * error) & (change > math.log(100))
        vanishing |= np.isneginf(ends[0]) & np.isfinite(ends[1])  # too few finite steps for a rate
        return np.where(vanishing, "vanishing", np.where(exploding, "exploding", "steady"))

    def __str__(self) -> str:
        log_norm = np.asarray(self.log_norm, np.float64)
        rate, error = self.decay_rate
        middle = "" if log_norm.ndim == 1 else f" (medians of {log_norm[0].size} sequences)"
        words, counts = np.unique(self.verdict, return_counts=True)
        verdict = ", ".join(
            str(word) if log_norm.ndim == 1 else f"{count} {word}"
            for word, count in zip(words, counts, strict=True)
        )
        lines = [
            f"gradient over {len(log_norm)} steps{middle}: {verdict}",
            f"  ln of the joint-state norm: {np.median(_last(log_norm)):.4g} at the last step, "
            f"{np.median(log_norm[0]):.4g} at the first",
            f"  decay going back: {np.median(rate):.4g} ± {np.median(error):.2g} nats per step, "
            f"half-life {np.median(self.half_life):.4g} steps, below 1 % after {np.median(self.horizon()):.4g}",
        ]
        if self.log_highway is not None:
            highway = np.asarray(self.log_highway, np.float64)
            lines.append(f"  along the retention gates alone: {np.median(highway[0]):.4g} at the first step")
        if self.gates is not None:
            shares = {name: _mean(way.share) for name, way in self.gates.items()}
            listed = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in shares.items())
            lines.append(f"  mean share of each way back: {listed}")
        lines.append(
            "  (vanishing: rate > 2 standard errors and first norm < 1 % of last; exploding: rate < −2 and > 100×)"
        )
        return "\n".join(lines)


def _last(log_norm: np.ndarray) -> np.ndarray:
    """The value at each sequence's last step, [*batch]: what follows its end is NaN."""
    steps = np.maximum(len(log_norm) - 1 - np.isnan(log_norm).sum(axis=0), 0)
    return np.take_along_axis(log_norm, steps[None], axis=0)[0]


def _mean(values: Any) -> float:
    """Mean of what is a number; NaN where nothing is, without a warning."""
    values = np.asarray(values, np.float64)
    return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else math.nan


def _fit(log_norm: np.ndarray) -> tuple[float, float]:
    """Slope of a column over time, and its standard error."""
    steps = np.flatnonzero(np.isfinite(log_norm))
    if len(steps) < 2:
        return math.nan, math.nan
    values = log_norm[steps]
    centred = steps - steps.mean()
    slope = float(centred @ (values - values.mean()) / (centred @ centred))
    if len(steps) < 8:
        return slope, math.nan
    edges = np.linspace(0, len(steps) - 1, math.isqrt(len(steps)) + 1).round().astype(int)
    blocks = np.diff(values[edges]) / np.diff(steps[edges])
    # A least-squares slope through a random walk has 6/5 the variance of its mean increment.
    return slope, float(np.sqrt(1.2) * blocks.std(ddof=1) / math.sqrt(len(blocks)))
