"""Lyapunov spectra: exponents with their errors, and over time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.checks import positive
from lstmx.dynamics import LyapunovSpectrum
from lstmx.plot import canvas, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOCAL = 120  # most points of a local exponent's line: windows beyond that are joined


def spectrum(spectrum: LyapunovSpectrum, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw the exponents in descending order, with their standard errors.

    Of a batch, bars reach from the 10th to the 90th percentile of the sequences' own exponents.

    Args:
        spectrum: from `lstmx.lyapunov_spectrum`, in NumPy or JAX.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The axes drawn on. Exponents of −inf have no marker and are counted in the legend. Where the published
        recipes were computed too (audit=True), they are drawn beside.

    Raises:
        TypeError: an argument of another kind.
    """
    _check(spectrum)
    ax = canvas.axes_for(ax, (6, 4))

    exponents = np.asarray(spectrum.exponents, np.float64)
    errors = np.nan_to_num(spectrum.standard_errors)
    small = len(exponents) <= canvas.SHORT
    look: dict[str, Any] = {"color": canvas.COLOURS[0], "marker": "o" if small else ".", "linestyle": ""}
    ax.plot([], [], label=_counted(exponents), **look)  # a legend has lines before error bars
    ax.errorbar(
        np.arange(1, len(exponents) + 1),
        parts.blank(exponents),
        yerr=errors,
        capsize=2,
        **look,
    )
    _, band = parts.over_sequences(np.moveaxis(np.asarray(spectrum.per_sequence), -1, 0))
    if band is not None:
        low, high = map(parts.blank, band)
        ax.vlines(np.arange(1, len(low) + 1), low, high, colors=canvas.COLOURS[0], alpha=0.3, linewidth=5)
    if spectrum.audit is not None:
        recipes = (
            ("∂h/∂h at fixed c (not the spectrum)", spectrum.audit.hidden_only),
            ("the same, transposed, base 2", spectrum.audit.transposed_base2),
            ("Jacobians averaged over the batch", spectrum.audit.batch_mean),
        )
        styles = itertools.islice(canvas.styles(), 1, None)
        for (label, values), (colour, marker) in zip(recipes, styles, strict=False):
            if values is not None:
                found = np.asarray(values, np.float64)
                at = np.arange(1, len(found) + 1)
                ax.plot(at, parts.blank(found), marker, color=colour, fillstyle="none", label=label)
    ax.axhline(0, color="0.4", linestyle="--", linewidth=1)
    canvas.index_axis(ax.xaxis, "index", len(exponents) + 1)
    ax.set_xlim(0.5 - 0.02 * len(exponents), len(exponents) + 0.5 + 0.02 * len(exponents))
    ax.set_ylabel("Lyapunov exponent (nats per step)")
    first = f"λ₁ = {parts.number(exponents[0])}"
    canvas.legend_above(ax)
    own = f"{len(exponents)} of {spectrum.size} exponents from {spectrum.steps:,} steps: {first}"
    return canvas.finish(ax, own, title)


def local_exponents(
    spectrum: LyapunovSpectrum, count: int = 4, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw the finite-time exponents over successive windows, averaged over the sequences of a batch.

    Of a batch, bands reach from the 10th to the 90th percentile of the sequences.

    A level that drifts says that the exponents are those of a transient.

    Args:
        spectrum: from `lstmx.lyapunov_spectrum`, in NumPy or JAX.
        count: number of leading exponents drawn.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The axes drawn on: a line for each exponent over the step at which its window ends, and its mean dashed. At
        most 120 points are drawn; beyond, means of neighbouring windows.

    Raises:
        TypeError: an argument of another kind.
        ValueError: count is below 1.
    """
    _check(spectrum)
    positive("count", count)
    ax = canvas.axes_for(ax, (8, 4))

    local = spectrum.over_sequences[:, :count]
    head = spectrum.steps % spectrum.window
    ends = np.arange(len(local)) * spectrum.window + (head or spectrum.window) + spectrum.transient
    size = canvas.block_size(len(local), _LOCAL)
    at, drawn = canvas.block_means(ends, size), canvas.block_means(local, size)
    for k, colour in zip(range(local.shape[1]), itertools.cycle(canvas.COLOURS), strict=False):
        canvas.line(ax, at, parts.blank(drawn[:, k]), color=colour, label=f"λ{k + 1}")
        middle, band = parts.over_sequences(np.asarray(spectrum.local, np.float64)[..., k])
        if band is not None:
            low, high = (canvas.block_means(parts.blank(edge[~np.isnan(middle)]), size) for edge in band)
            ax.fill_between(at, low, high, color=colour, alpha=0.25, linewidth=0)
        mean = float(np.asarray(spectrum.exponents)[k])
        if np.isfinite(mean):
            ax.axhline(mean, color=colour, linestyle="--", linewidth=1)
    ax.set(xlabel="step", ylabel=f"exponent over {spectrum.window * size:,} steps (nats per step)")
    canvas.legend_above(ax)
    told = "stationary" if spectrum.stationary else "NOT stationary"
    word = told if len(local) >= 32 else "too few windows to tell"
    return canvas.finish(ax, f"local exponents: {word}", title)


def _counted(exponents: np.ndarray) -> str:
    gone = int(np.isneginf(exponents).sum())
    return f"λ ± standard error ({gone} are −inf)" if gone else "λ ± standard error"


def _check(spectrum: Any) -> None:
    if not isinstance(spectrum, LyapunovSpectrum):
        raise TypeError(
            f"spectrum is a {type(spectrum).__name__}; expected a LyapunovSpectrum, "
            "as from lstmx.lyapunov_spectrum(history)"
        )
