"""Fixed points: their eigenvalues, and where they lie among the states."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.arrays import fetched, leaves
from lstmx.checks import require_history
from lstmx.dynamics import FixedPoints
from lstmx.dynamics.points import Points
from lstmx.history import History
from lstmx.layers import StackHistory
from lstmx.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 4000  # most states of a pass that are drawn
_FEW = 500  # states up to which their dots are larger


def eigenvalues(points: FixedPoints, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw the eigenvalues of the Jacobian at every fixed point in the complex plane, with the unit circle.

    Those at slow points and at outliers, which are no modes of a fixed point that was asked for, are crosses.

    Args:
        points: from `lstmx.fixed_points`.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The axes drawn on; fixed points with the same number of unstable modes share colour and marker.

    Raises:
        TypeError: an argument of another kind.
    """
    _check(points)
    ax = canvas.axes_for(ax, (7.5, 5.5))

    angle = np.linspace(0, 2 * np.pi, 400)
    ax.plot(np.cos(angle), np.sin(angle), color="0.6", linewidth=1)
    ax.axhline(0, color="0.6", alpha=0.5, linewidth=0.8, zorder=0)
    ax.axvline(0, color="0.6", alpha=0.5, linewidth=0.8, zorder=0)
    modes = points.fixed.unstable_modes
    for (count, number), (colour, marker) in zip(points.census.items(), canvas.styles(), strict=False):
        values = points.eigenvalues[modes == count].ravel()
        ax.plot(
            np.real(values),
            np.imag(values),
            marker,
            color=colour,
            markersize=4,
            alpha=0.7,
            markeredgewidth=0,
            label=_label(count, number),
        )
    for name, others, marker in _others(points):
        values = others.eigenvalues.ravel()
        look = {"color": canvas.ink(ax), "markersize": 4, "alpha": 0.7, "label": name}
        ax.plot(np.real(values), np.imag(values), marker, **look)
    ax.set(xlabel="real part", ylabel="imaginary part")
    ax.set_aspect("equal", adjustable="datalim")
    ax.locator_params(nbins=5)  # a number that depends on the width makes a layout swing
    if ax.get_legend_handles_labels()[0]:
        canvas.legend_above(ax)
    return canvas.finish(ax, f"eigenvalues at {_number(points)} (index sum {_word(points.index_sum)})", title)


def phase_portrait(
    points: FixedPoints, history: History | StackHistory, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw the states of a pass and the fixed points in the first two principal components of the states.

    The components are those of the joint state, of a stack that of all layers, over all steps that count and all
    sequences; fixed points are projected on them.

    Args:
        points: from `lstmx.fixed_points`.
        history: a pass of the same cell, or stack.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The axes drawn on, with the share of the states' variance at each axis. At most 4,000 states are drawn,
        evenly spaced.

    Raises:
        TypeError: an argument of another kind.
        ValueError: the joint states of the two differ in size, or are fewer than two.
    """
    _check(points)
    require_history(history, joint=True)
    lead = 1 + len(history.batch)
    states = _joint(history.states, lead)
    fixed = _joint(points.points, 1)
    counts = ... if history.counts is None else fetched(history.counts)
    states = states[counts].reshape(-1, states.shape[-1])
    if states.shape[-1] != fixed.shape[-1] or states.shape[-1] < 2:
        raise ValueError(
            f"the history's joint state has {states.shape[-1]} numbers and that of the points {fixed.shape[-1]}; "
            "expected the same number, at least 2"
        )
    ax = canvas.axes_for(ax, (6.5, 5))

    centre = states.mean(axis=0)
    if len(states) < states.shape[-1]:  # singular values of the states, with two components in any case
        padding = np.zeros((2, states.shape[-1]))
        _, roots, axes = np.linalg.svd(np.concatenate([states - centre, padding]), full_matrices=False)
        values = roots**2
    else:
        _, values, axes = np.linalg.svd(np.cov(states.T, bias=True))
    share = values / (values.sum() or 1.0)
    drawn = (states[:: canvas.block_size(len(states), _POINTS)] - centre) @ axes[:2].T
    size = 3 if len(drawn) <= _FEW else 1.5
    ax.plot(*drawn.T, "o", color="0.6", markersize=size, markeredgewidth=0, label="states of the pass", zorder=1)
    modes = points.fixed.unstable_modes
    for (count, number), (colour, marker) in zip(points.census.items(), canvas.styles(), strict=False):
        at = (fixed[modes == count] - centre) @ axes[:2].T
        ax.plot(*at.T, marker, color=colour, markersize=7, markeredgecolor="white", label=_label(count, number))
    for name, others, marker in _others(points):
        at = (_joint(others.states, 1) - centre) @ axes[:2].T
        ax.plot(*at.T, marker, color=canvas.ink(ax), markersize=5, label=name, zorder=1.5)
    ax.set(
        xlabel=f"first principal component ({share[0]:.0%} of the variance)",
        ylabel=f"second principal component ({share[1]:.0%})",
    )
    ax.locator_params(nbins=5)  # a number that depends on the width makes a layout swing
    canvas.legend_above(ax)
    return canvas.finish(ax, f"{_number(points)} among {len(states):,} states", title)


def _others(points: FixedPoints) -> list[tuple[str, Points, str]]:
    """What is no fixed point that was asked for, as a legend calls it, and its marker."""
    kinds = (("slow point", points.slow, "x"), ("outlier", points.outliers, "+"))
    return [(f"{len(x)} {name}{'s' * (len(x) != 1)}", x, marker) for name, x, marker in kinds if len(x)]


def _joint(tree: Any, lead: int) -> np.ndarray:
    """The arrays of a state with `lead` axes in front, flattened and side by side, NumPy float64 [*lead, S]."""
    arrays = [fetched(x, np.float64) for x in leaves(tree)]
    return np.concatenate([x.reshape(*x.shape[:lead], math.prod(x.shape[lead:])) for x in arrays], axis=-1)


def _label(modes: int, number: int) -> str:
    kind = "stable" if modes == 0 else f"{modes} unstable mode{'s' * (modes != 1)}"
    return f"{number} point{'s' * (number != 1)}, {kind}"


def _number(points: FixedPoints) -> str:
    return f"{len(points.fixed)} fixed point{'s' * (len(points.fixed) != 1)}"


def _word(index: int | None) -> str:
    return "undefined" if index is None else str(index)


def _check(points: Any) -> None:
    if not isinstance(points, FixedPoints):
        raise TypeError(f"points is a {type(points).__name__}; expected FixedPoints, as from lstmx.fixed_points")
