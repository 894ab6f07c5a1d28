"""Branches of fixed points against what the network depends on, and where they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.arrays import leaves
from lstmx.checks import positive
from lstmx.dynamics import Branch, Continuation
from lstmx.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {"fold": "o", "branch point": "D", "flip": "s", "Neimark–Sacker point": "^"}


def bifurcation(
    result: Continuation,
    unit: int | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw branches of fixed points: lines where they are stable, broken lines where they are not.

    Args:
        result: from `lstmx.continue_fixed_points`.
        unit: the unit of the output whose state is drawn; None for the first principal component of the joint
            states of all branches, which is the state itself where that is one number.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The axes drawn on, with a marker for each bifurcation.

    Raises:
        TypeError: an argument of another kind.
        ValueError: there is no such unit.
    """
    if not isinstance(result, Continuation):
        raise TypeError(
            f"result is a {type(result).__name__}; expected a Continuation, as from lstmx.continue_fixed_points"
        )
    states = [_joint(branch.states, 1) for branch in result.branches]
    label, project = _projection(result, states, unit)
    ax = canvas.axes_for(ax, (6.5, 4.5))

    ink, lines = canvas.ink(ax), ({"linestyle": "-"}, {"linestyle": (0, (3, 2)), "alpha": 0.6})
    named: set[str] = set()
    for branch, points in zip(result.branches, states, strict=True):
        shown = project(points)
        for start, stop, stable in _stretches(branch):
            name = "stable" if stable else "unstable"
            look = {"color": canvas.COLOURS[0] if stable else ink, "linewidth": 1.3, **lines[not stable]}
            label_once = name if name not in named else None
            ax.plot(branch.values[start:stop], shown[start:stop], label=label_once, **look)
            named.add(name)
    for colour, (kind, marker) in zip(canvas.COLOURS[1:], _MARKERS.items(), strict=False):
        at = [point for point in result.bifurcations if point.kind == kind]
        if at:
            height = project(np.stack([_joint(point.state, 0) for point in at]))
            name = f"{len(at)} {kind}{'s' * (len(at) != 1)}"
            look = {"color": colour, "markersize": 6, "markeredgecolor": "white", "label": name}
            ax.plot([point.value for point in at], height, marker, **look)
    ax.set(xlabel="value", ylabel=label)
    ax.locator_params(axis="x", nbins=5)
    ax.locator_params(axis="y", nbins=3)  # a number that depends on the width makes a layout swing
    canvas.legend_above(ax)
    number = len(result.branches)
    return canvas.finish(ax, f"{number} branch{'es' * (number != 1)} of fixed points", title)


def _projection(result: Continuation, states: list[np.ndarray], unit: Any) -> tuple[str, Any]:
    """What is drawn of joint states [n, S], and its name."""
    if unit is not None:
        first = next(leaves(result.branches[0].states))
        size = int(np.prod(first.shape[1:]))
        at = positive("unit", unit, 0, size - 1)
        return f"state of unit {at}", lambda points: points[:, at]
    every = np.concatenate(states)
    if every.shape[1] == 1:
        return "state", lambda points: points[:, 0]
    centre = every.mean(axis=0)
    axis = np.linalg.svd(every - centre, full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    return "first component", lambda points: (points - centre) @ axis


def _stretches(branch: Branch) -> list[tuple[int, int, bool]]:
    """Where a branch is stable and where not, as (start, stop, stable), which share the point between them."""
    off = np.abs(np.abs(branch.eigenvalues) - 1).min(axis=1)
    changes = np.flatnonzero(np.diff(branch.stable))
    shared = [int(k) if off[k] <= off[k + 1] else int(k) + 1 for k in changes]
    kinds = [*branch.stable[changes], branch.stable[-1]]
    starts, stops = [0, *shared], [*(k + 1 for k in shared), len(branch)]
    return [(a, b, bool(kind)) for a, b, kind in zip(starts, stops, kinds, strict=True)]


def _joint(tree: Any, lead: int) -> np.ndarray:
    """The arrays of a state with `lead` axes in front, side by side, NumPy float64 [*lead, S]."""
    arrays = [np.asarray(x, np.float64) for x in leaves(tree)]
    return np.concatenate([x.reshape(*x.shape[:lead], -1) for x in arrays], axis=-1)
