"""What gates do: saturation and time scales of all units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.plot import canvas
from lstmx.statistics import GateStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def saturation(
    statistics: GateStatistics,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    units: Sequence[int] | None = None,
) -> Axes:
    """Draw how often each unit's gates are nearly closed against how often they are nearly open.

    A unit at (x, y) spends a fraction x of the time below 0.1 and y above 0.9, so none lies above the line
    x + y = 1, and one on it is always saturated: a gate that acts as a switch.

    Args:
        statistics: from `lstmx.gate_statistics`.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        units: indices of the units drawn; None for all.

    Returns:
        The axes drawn on.

    Raises:
        TypeError: an argument of another kind.
        IndexError: units outside the layer.

    References:
        Karpathy, Johnson & Fei-Fei, "Visualizing and understanding recurrent networks", arXiv 1506.02078,
        figure 2.
    """
    _check(statistics)
    picked = {name: canvas.units_for(units, len(gate.left), name) for name, gate in statistics.gates.items()}
    ax = canvas.axes_for(ax, (5, 5))

    ax.plot([0, 1], [1, 0], color="0.6", linestyle="--", linewidth=1, label="always saturated")
    for (name, gate), style in zip(statistics.gates.items(), canvas.styles(), strict=False):
        colour, marker = style
        ax.plot(
            np.asarray(gate.left) if picked[name] is None else np.asarray(gate.left)[picked[name]],
            np.asarray(gate.right) if picked[name] is None else np.asarray(gate.right)[picked[name]],
            color=colour,
            marker=marker,
            linestyle="",
            markersize=5,
            markeredgewidth=0,
            alpha=0.6,
            label=name.replace("_", " "),
        )
    ax.set(
        xlabel="left saturation (fraction of time below 0.1)",
        ylabel="right saturation (fraction of time above 0.9)",
        xlim=(-0.03, 1.03),
        ylim=(-0.03, 1.03),
    )
    sizes = {len(gate.left) if units is None else len(units) for gate in statistics.gates.values()}
    canvas.legend_above(ax)
    return canvas.finish(ax, "gate saturation" + (f" of {max(sizes)} units" if len(sizes) == 1 else ""), title)


def timescales(
    statistics: GateStatistics,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    units: Sequence[int] | None = None,
) -> Axes:
    """Draw both estimators of every unit's time scale, units sorted by the geometric one.

    Args:
        statistics: from `lstmx.gate_statistics`.
        ax: axes to draw on; None for those of a new figure, `ax.figure`.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        units: indices of the units drawn; None for all.

    Returns:
        The axes drawn on, with a logarithmic ordinate. Units without a finite time scale are last, have no
        marker and are counted in the legend.

    Raises:
        TypeError: an argument of another kind.
        IndexError: units outside the layer.
        ValueError: the statistics have no time scale, as those of a step function.

    References:
        Mahto, Vo, Turek & Huth, "Multi-timescale representation learning in LSTM language models", ICLR 2021.
    """
    _check(statistics)
    if statistics.retention_gate is None:
        raise ValueError(
            "statistics.timescale is None: no gate multiplies the old state of this cell, so that none has a time "
            "scale; expected statistics of a cell with such a gate. lstmx.plot.saturation draws any gates"
        )
    geometric, arithmetic = np.asarray(statistics.timescale), np.asarray(statistics.timescale_arithmetic)
    picked = canvas.units_for(units, len(geometric), "layer")
    if picked is not None:
        geometric, arithmetic = geometric[picked], arithmetic[picked]
    ax = canvas.axes_for(ax, (6, 4))

    order = np.argsort(geometric)
    for name, values, colour in (
        ("arithmetic −1/ln⟨f⟩", arithmetic, canvas.COLOURS[1]),
        ("geometric −1/⟨ln f⟩", geometric, canvas.COLOURS[0]),
    ):
        infinite, unknown = np.count_nonzero(np.isinf(values)), np.count_nonzero(np.isnan(values))
        label = f"{name} ({infinite} of {len(values)} units infinite)" if infinite else name
        label = f"{name} ({unknown} of {len(values)} units unknown)" if unknown else label
        ax.plot(np.where(np.isfinite(values), values, np.nan)[order], ".", color=colour, label=label)
    _log_scale(ax, np.append(geometric, arithmetic))
    ax.set_ylabel("time scale (steps)")
    canvas.index_axis(ax.xaxis, "unit, sorted by geometric time scale", len(order))
    canvas.legend_above(ax)
    return canvas.finish(ax, f"time scales of the {statistics.retention_gate.replace('_', ' ')}", title)


def _log_scale(ax: Axes, values: np.ndarray) -> None:
    """A logarithmic ordinate of at least a decade around the finite values, so that its ticks differ."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (1.0, 1.0)
    middle = np.sqrt(low * high)
    canvas.log_axis(ax.yaxis, min(low, middle / 10**0.5), max(high, middle * 10**0.5))
    ax.update_datalim([(0, middle / 10**0.5), (0, middle * 10**0.5)], updatex=False)
    ax.autoscale_view(scalex=False)


def _check(statistics: Any) -> None:
    if isinstance(statistics, dict) and statistics:
        first = next(iter(statistics))
        raise TypeError(
            f"statistics is a dict, as of layers; expected the GateStatistics of one: statistics[{first!r}]"
        )
    if not isinstance(statistics, GateStatistics):
        raise TypeError(
            f"statistics is a {type(statistics).__name__}; expected GateStatistics, "
            "as from lstmx.gate_statistics(history)"
        )
