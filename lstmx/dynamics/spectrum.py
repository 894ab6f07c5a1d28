"""`LyapunovSpectrum`: exponents with their errors, and what can be read off them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from lstmx.arrays import Array, fetched, is_traced, namespace, result
from lstmx.checks import array, positive
from lstmx.strips import Strip, shown

_LEAST_BLOCKS = 16  # of the longest blocks that a standard error is taken from
_LEAST_WINDOWS = 32  # from which quarters can be compared
_APART = 6  # standard errors of a difference


@result
class SumRule:
    """The sum of all exponents, which is the mean of ln |det J_t|, computed in ways that share no code.

    Attributes:
        exponents: Σ λ_i, [].
        log_determinant: ⟨ln |det J_t|⟩ by LU decomposition of every J_t, [].
        closed_form: the same from gates and states alone, []: for an LSTM ⟨Σ ln f + Σ ln(|tanh c| o (1 − o))⟩ +
            ln |det U_o|, for a SimpleRNN ⟨Σ ln(1 − h²)⟩ + ln |det U|; None for a GRU and for matrices.
    """

    exponents: Array
    log_determinant: Array
    closed_form: Array | None

    @property
    def discrepancy(self) -> float:
        """Greatest distance of the sum of exponents from the other two; NaN where an exponent is −inf."""
        others = (self.log_determinant, *(() if self.closed_form is None else (self.closed_form,)))
        with np.errstate(invalid="ignore"):
            return float(max(abs(np.float64(self.exponents) - np.float64(other)) for other in others))

    def __str__(self) -> str:
        closed = "" if self.closed_form is None else f", in closed form {float(self.closed_form):.10g}"
        found = "nothing to compare" if math.isnan(self.discrepancy) else f"discrepancy {self.discrepancy:.1e}"
        return (
            f"sum of all exponents {float(self.exponents):.10g}; mean ln |det J| "
            f"{float(self.log_determinant):.10g}{closed}: {found}"
        )

    def __repr__(self) -> str:
        return f"SumRule(exponents, log_determinant{'' if self.closed_form is None else ', closed_form'})"


@result
class PublishedRecipes:
    """What recipes of published code give on the same pass, for comparison with published numbers only.

    None of these is the spectrum of a network with a cell state or of a batch.

    Attributes:
        hidden_only: exponents of ∂h_t/∂h_{t-1} at fixed c_{t-1}, natural logs, [at most H]. It is the right matrix
            for a GRU and a SimpleRNN.
        transposed_base2: the same with every matrix transposed, yet multiplied forward in time, and logs to the
            base of 2, [at most H].
        batch_mean: exponents of the Jacobians averaged over the batch at each step, natural logs, [k]; None
            without batch axes.
    """

    hidden_only: Array
    transposed_base2: Array
    batch_mean: Array | None

    def __str__(self) -> str:
        mean = "" if self.batch_mean is None else f"; {float(self.batch_mean[0]):+.5g} from means over the batch"
        return (
            f"published recipes, for comparison only, give as λ₁ {float(self.hidden_only[0]):+.5g} from ∂h/∂h at "
            f"fixed c, {float(self.transposed_base2[0]):+.5g} with it transposed and in base 2{mean}"
        )

    def __repr__(self) -> str:
        kinds = "hidden_only, transposed_base2" + ("" if self.batch_mean is None else ", batch_mean")
        return f"PublishedRecipes({kinds}: {len(self.hidden_only)} exponents)"


@result(static=("size", "steps", "transient", "interval", "window"))
class LyapunovSpectrum:
    """Lyapunov exponents, in nats per step, greatest first. NumPy float64 unless traced.

    Attributes:
        exponents: λ_i, [k], averaged over time and the sequences of a batch, in the order of these averages. −inf
            where a direction is lost in over 1 % of the intervals: the state map is rank-deficient, or contracts
            so far beyond the leading direction that no digit tells. A rarer loss counts with the rounding error
            that it leaves, unless it leaves an exact 0.
        local: finite-time exponents, over successive windows of `window` steps, [windows, *batch, k]; the first
            window holds what is left over.
        participation: 1 / Σ q⁴ of each tangent, [k], averaged over windows and sequences: about how many numbers
            of the joint state take part in it, from 1 to S.
        sum_rule: the sum of the exponents against ⟨ln |det J_t|⟩; None where it was not checked.
        audit: what published recipes give; None where it was not asked for.
        size: S, the dimension of the joint state.
        steps: that count.
        transient: steps before them that do not.
        interval: steps from one QR decomposition to the next.
        window: steps of a window.
        moving: steps of each window before a sequence's end, [windows, *batch]; None where all are whole.
            `local` is NaN where there are none.
    """

    exponents: Array
    local: Array
    participation: Array
    sum_rule: SumRule | None
    audit: PublishedRecipes | None
    size: int
    steps: int
    transient: int
    interval: int
    window: int
    moving: np.ndarray | None = None

    @property
    def per_sequence(self) -> Array:
        """Exponents of each sequence, [*batch, k]; NumPy float64 unless traced by JAX."""
        local = self.local if is_traced(self.local) else fetched(self.local, np.float64)
        xp = namespace(local)
        moving = self._lengths.reshape(-1, *(1,) * (local.ndim - 2)) if self.moving is None else self.moving
        weights = xp.asarray(moving, dtype=local.dtype)[..., None]
        return xp.sum(xp.where(weights > 0, local, 0.0) * weights, axis=0) / xp.sum(weights, axis=0)

    @property
    def over_sequences(self) -> np.ndarray:
        """Means of `local` over the sequences that move in a window, [windows, k]; without windows of none."""
        local = fetched(self.local, np.float64)
        axes = tuple(range(1, local.ndim - 1))
        if self.moving is None:
            return local.mean(axis=axes)
        moves = (fetched(self.moving) > 0)[..., None]
        known = fetched(moves.any(axis=(*axes, moves.ndim - 1)))
        return (np.where(moves, local, 0.0).sum(axis=axes) / np.maximum(moves.sum(axis=axes), 1))[known]

    @property
    def standard_errors(self) -> np.ndarray:
        """Standard errors of `exponents` from block averages over time, [k].

        Neighbouring windows are correlated: their means are joined to longer and longer blocks, down to 16 of
        these, and the greatest error that results is taken. NaN for fewer than 8 windows and for an exponent of
        −inf.
        """
        return block_error(self.over_sequences[int(self.steps % self.window > 0) :])

    @property
    def quarters(self) -> np.ndarray:
        """Exponents over four successive quarters of the pass, [4, k]; NaN for fewer than 4 windows."""
        return _quarters(*self._windows)

    @property
    def stationary(self) -> bool:
        """Whether the four quarters agree: chaos, above all, can be a transient.

        False where two quarters' values of an exponent differ by more than six standard errors of the difference,
        1 % of the exponent and 10 / steps together; and for fewer than 32 windows, where that cannot be told. A
        quarter's error counts up to the median of all four, so that a transient in it is not judged by the spread
        that it makes itself. It is the greater one of the block averages' and of what the correlation of
        neighbours gives for an exponential one. Of stationary series of 250 windows or more, correlated over up
        to 10 of these, fewer than 1 in 100 are called NOT stationary by one exponent, and 4 in 100 by one of
        eight.
        """
        return _steady(*self._windows)

    @property
    def settled(self) -> np.ndarray:
        """Exponents over the longest later part that is stationary by itself, [k].

        The whole pass, its last three quarters or its last half; NaN where none of these is `stationary`.
        """
        first = self._settled_from
        if first is None:
            return np.full(len(self.exponents), np.nan)
        local, lengths = self._windows
        return _mean(local[first:], lengths[first:])

    @property
    def _settled_from(self) -> int | None:
        """The first window of that part."""
        local, lengths = self._windows
        starts = [part[0] for part in np.array_split(np.arange(len(local)), 4)[:3] if len(part)]
        return next((int(first) for first in starts if _steady(local[first:], lengths[first:])), None)

    @property
    def _windows(self) -> tuple[np.ndarray, np.ndarray]:
        """`over_sequences` and the steps of each of its windows."""
        local = self.over_sequences
        return local, self._lengths[: len(local)]

    @property
    def timescale(self) -> float:
        """−1/λ₁ in steps: how long the joint state remembers; infinite where λ₁ is not below 0."""
        first = float(fetched(self.exponents)[0])
        return -1 / first if first < 0 else math.inf

    @property
    def kaplan_yorke(self) -> float:
        """Kaplan–Yorke dimension; NaN where more exponents are needed to tell."""
        return kaplan_yorke(self.exponents, self.size)

    @property
    def entropy_rate(self) -> float:
        """Sum of the positive exponents, in nats per step: an upper bound of the entropy rate.

        Equal to it where Pesin's formula holds; NaN where exponents that were not computed may be positive.
        """
        exponents = fetched(self.exponents, np.float64)
        if exponents[-1] > 0 and len(exponents) < self.size:
            return math.nan
        return float(exponents[exponents > 0].sum())

    @property
    def _lengths(self) -> np.ndarray:
        """Steps of each window."""
        head = self.steps % self.window
        return np.array(([head] if head else []) + [self.window] * (self.steps // self.window), np.float64)

    def _repr_html_(self) -> str:
        """What a notebook shows: the summary, and the greatest exponents over time."""
        local = self.over_sequences
        strips = [Strip(f"exponent {k + 1}", local[:, k]) for k in range(min(3, local.shape[1]))]
        return shown(str(self), strips, f"windows of {self.window:,} steps")

    def __str__(self) -> str:
        exponents, errors = fetched(self.exponents, np.float64), self.standard_errors
        batch = tuple(self.local.shape[1:-1])
        number = math.prod(batch)
        shown = ", ".join(
            f"{value:+.5g}" + ("" if np.isnan(error) else f" ± {error:.1g}")
            for value, error in zip(exponents[:4], errors[:4], strict=True)
        )
        unsure = np.isnan(errors[np.isfinite(exponents)]).any()
        more = f'needs more than these {len(exponents)} exponents (count="all")'
        dimension, rate = self.kaplan_yorke, self.entropy_rate
        lines = [
            f"Lyapunov spectrum of a joint state of {self.size}: {len(exponents)} exponents from "
            + ("" if self.moving is None else "at most ")
            + f"{self.steps:,} steps"
            + (f" of {number} sequence{'s' * (number != 1)}" if batch else "")
            + ("" if self.moving is None else ", those of each that count,")
            + f" after {self.transient:,}, a QR decomposition every {self.interval}",
            f"  greatest, in nats per step: {shown}{', …' if len(exponents) > 4 else ''}"
            + (" (fewer than 8 windows: no standard errors)" if unsure else ""),
            "  time scale −1/λ₁: "
            + (f"{self.timescale:.4g} steps" if exponents[0] < 0 else "none, for λ₁ is not below 0"),
            "  Kaplan–Yorke dimension" + (f": {more}" if np.isnan(dimension) else f" {dimension:.4g}"),
            "  entropy rate" + (f": {more}" if np.isnan(rate) else f" at most {rate:.4g} nats per step"),
            f"  participation of the first direction: {float(fetched(self.participation)[0]):.3g} numbers",
            f"  {self._steadiness()}",
        ]
        gone = int(np.isneginf(exponents).sum())
        if gone:
            lines.append(f"  {gone} exponents are −inf: the state map is rank-deficient")
        if self.sum_rule is not None:
            lines.append(f"  {self.sum_rule}")
        if self.audit is not None:
            lines.append(f"  {self.audit}")
        return "\n".join(lines)

    def _steadiness(self) -> str:
        windows, first = len(self.over_sequences), self._settled_from
        quarters = "λ₁ by quarters " + ", ".join(f"{value:+.4g}" for value in self.quarters[:, 0])
        if windows < _LEAST_WINDOWS:
            known = f"; {quarters}" if windows >= 4 else ""
            return f"fewer than {_LEAST_WINDOWS} windows: whether it is stationary cannot be told{known}"
        if first == 0:
            return f"stationary: {quarters}"
        if first is None:
            return f"NOT stationary: {quarters}; nor is the last half alone, so that a longer pass is needed"
        part = "last three quarters are" if first < windows // 2 else "last half is"
        return f"NOT stationary: {quarters}; the {part}, with λ₁ {self.settled[0]:+.5g}"

    def __repr__(self) -> str:
        return f"LyapunovSpectrum({len(self.exponents)} of {self.size} exponents, {self.steps} steps)"


def kaplan_yorke(exponents: Any, size: int | None = None) -> float:
    """The Kaplan–Yorke dimension k + Σ_{i≤k} λ_i / |λ_{k+1}|.

    Here k is the greatest number of leading exponents whose sum is at least 0.

    Args:
        exponents: λ_i, in any order.
        size: number of all exponents, where these are only the leading ones; None for no others.

    Returns:
        The dimension: 0 where all exponents are negative, `size` where all partial sums are at least 0; NaN where
        exponents that were not given decide it.

    Raises:
        ValueError: no exponents, or NaN among them.

    References:
        Kaplan & Yorke, "Chaotic behavior of multidimensional difference equations", 1979.
    """
    if size is not None:
        positive("size", size)
    if not isinstance(exponents, (int, float, list, tuple)):
        array("exponents", exponents)
    try:
        ordered = np.sort(fetched(exponents, np.float64).ravel())[::-1]
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"exponents is {exponents!r}; expected numbers") from error
    if not len(ordered) or np.isnan(ordered).any():
        raise ValueError(f"exponents are {ordered}; expected at least one number, and no NaN")
    if ordered[0] < 0:
        return 0.0
    sums = np.cumsum(ordered)
    above = int(np.flatnonzero(sums >= 0)[-1]) + 1
    if above < len(ordered):
        return above + float(sums[above - 1] / abs(ordered[above]))
    return float(above) if size in (None, above) else math.nan


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over axis 0."""
    return np.average(values, axis=0, weights=weights)


def _quarters(local: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Means of rows [n, k] over four successive quarters, [4, k]; NaN for fewer than 4 rows."""
    if len(local) < 4:
        return np.full((4, local.shape[-1]), np.nan)
    parts = zip(np.array_split(local, 4), np.array_split(lengths, 4), strict=True)
    return np.stack([_mean(part, length) for part, length in parts])


def _steady(local: np.ndarray, lengths: np.ndarray) -> bool:
    """Whether the four quarters of rows [n, k], of so many steps each, agree, as `stationary` says."""
    if len(local) < _LEAST_WINDOWS:
        return False
    local = local[:, np.isfinite(local).all(axis=0)]
    quarters = _quarters(local, lengths)
    errors = [np.maximum(block_error(part), _correlated_error(part)) for part in np.array_split(local, 4)]
    errors = np.minimum(errors, np.median(errors, axis=0))
    for i, j in itertools.combinations(range(4), 2):
        noise = _APART * np.hypot(errors[i], errors[j]) + 10 / lengths.sum()
        greater = np.maximum(np.abs(quarters[i]), np.abs(quarters[j]))
        if (np.abs(quarters[i] - quarters[j]) > noise + 0.01 * greater).any():
            return False
    return True


def block_error(rows: np.ndarray) -> np.ndarray:
    """Standard error of the mean of correlated rows [n, k], from block averages; NaN for fewer than 8."""
    error = np.full(rows.shape[-1], np.nan)
    if len(rows) < 8:
        return error
    with np.errstate(invalid="ignore"):  # of −inf: NaN
        error = rows.std(axis=0, ddof=1) / math.sqrt(len(rows))
        while len(rows) >= 2 * _LEAST_BLOCKS:
            rows = rows[len(rows) % 2 :]
            rows = 0.5 * (rows[::2] + rows[1::2])
            error = np.maximum(error, rows.std(axis=0, ddof=1) / math.sqrt(len(rows)))
    return error


def _correlated_error(rows: np.ndarray) -> np.ndarray:
    """Standard error of the mean of rows [n, k] whose correlation falls exponentially, over up to n / 4 rows.

    That correlation is taken from neighbours, and its bias in a short series (Kendall's) is made up for.
    """
    count, centred = len(rows), rows - rows.mean(axis=0)
    square = (centred**2).sum(axis=0)
    correlation = (centred[1:] * centred[:-1]).sum(axis=0) / np.where(square > 0, square, 1.0)
    correlation = np.clip(correlation + (1 + 3 * correlation) / count, 0, math.exp(-4 / count))
    return np.sqrt(square / count / (count - 1) * (1 + correlation) / (1 - correlation))
