"""How sure a mean over few runs is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVEL = 0.95
_RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A mean over runs, and the interval that it lies in."""

    mean: np.ndarray
    low: np.ndarray | None
    """Lower end of the 95 % percentile-bootstrap interval of the mean, shaped like it; None for one run."""
    high: np.ndarray | None
    """Its upper end."""


def estimate(values: np.ndarray, axis: int) -> Estimate:
    """The mean along an axis of runs, with its 95 % percentile-bootstrap interval.

    Of 10,000 resamples of the runs, drawn with replacement by a fixed generator, 95 % have their mean between
    the two ends. Of few runs such an interval is too narrow: of normal numbers it holds the true mean in 75 % of
    cases for three runs, where it is their range, in 84 % for five and in 92 % for ten.

    Args:
        values: [..., runs, ...].
        axis: that of the runs.

    Returns:
        Mean and ends without that axis; no ends for one run.

    References:
        Efron & Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.
    """
    values = np.moveaxis(np.asarray(values, np.float64), axis, -1)
    runs = values.shape[-1]
    mean = values.mean(axis=-1)
    if runs == 1:
        return Estimate(mean, None, None)
    drawn = np.random.default_rng(0).multinomial(runs, np.full(runs, 1 / runs), size=_RESAMPLES)
    low, high = np.quantile(values @ (drawn.T / runs), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    return Estimate(mean, low, high)
