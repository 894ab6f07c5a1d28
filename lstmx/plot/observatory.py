"""How a network changes while it is trained: as far as its gradient reaches, its exponents, its gates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.checks import path as checked_path
from lstmx.observatory import Observatory
from lstmx.plot import canvas, parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_LEFT = (0.5, 0.1, 0.01)  # what is left of the gradient at the steps back that are drawn
_RIDGES = 10  # most looks of which gates are drawn
_OVERLAP = 1.8  # height of the highest ridge, in rows
_WRITERS = {".gif": "pillow", ".mp4": "ffmpeg"}
_LEAST = -12  # log₁₀ of the gradient down to which a film shows it
_WIDE = 30  # greatest over least loss from which on the ordinate is logarithmic


def observatory(
    observatory: Observatory,
    layer: str | None = None,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
) -> Figure | SubFigure:
    """Draw how a network changed over a training: loss, reach of its gradient, exponents, updates and gates.

    From above: the training loss where it was handed in; the steps back at which 50 %, 10 % and 1 % of the
    gradient are left, medians over the sequences of the probe, on the line of the whole probe where more is left
    at its first step; the leading Lyapunov exponents; the norm of an update against that of the weights by layer,
    where it was handed in. Lines are broken where looks are missing. Dashed lines are alarms. Below, for each gate
    of a layer a ridge of the distributions of its activations, the first look at the bottom.

    Args:
        observatory: an `lstmx.Observatory` that has looked.
        layer: the layer whose gates are drawn, by its name in `observatory.axes["layer"]`; None for the top one.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new one,
            which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: an argument of another kind.
        ValueError: there is no look yet, no such layer, or the figure already holds axes.
    """
    of, layers = _layer(observatory, layer), observatory.axes["layer"]
    ratio = observatory["update_norm"] / observatory["weight_norm"]
    panels = [(_reach, 1.6), (_exponents, 1.0)]
    if not np.isnan(observatory["training_loss"]).all():
        panels.insert(0, (_loss, 1.0))
    if not np.isnan(ratio).all():
        panels.append((_updates, 1.0))
    means = observatory["gate_mean"][:, of]
    gates = [k for k in range(means.shape[1]) if not np.isnan(means[:, k]).all()]

    figure = canvas.figure_for(figure, (8, 2 + 1.5 * len(panels) + 2.5 * bool(gates)))
    across = canvas.columns(figure, len(gates), 11) if gates else 1
    rows = -(-len(gates) // across)
    heights = [height for _, height in panels] + [1.6] * rows
    grid = figure.add_gridspec(len(heights), across, height_ratios=heights)
    above: list[Axes] = []
    for k, (draw, _) in enumerate(panels):
        ax = figure.add_subplot(grid[k, :], sharex=above[0] if above else None)
        draw(ax, observatory)
        for number, (kind, step, _) in enumerate(observatory.alarms):
            label = f"alarm: {kind}, step {step}" if not above else None
            ax.axvline(step, color=canvas.COLOURS[-1 - number % 7], linestyle="--", linewidth=1, label=label)
        if ax.get_legend_handles_labels()[1]:
            canvas.legend_above(ax)
        above.append(ax)
    for k, ax in enumerate(above):
        canvas.index_axis(ax.xaxis, "training step", int(observatory.steps[-1]) + 1)
        if k < len(above) - 1:
            ax.tick_params(labelbottom=False)
            ax.set_xlabel("")
    figure.align_ylabels(above)
    for number, gate in enumerate(gates):
        ax = figure.add_subplot(grid[len(panels) + number // across, number % across])
        _ridge(ax, observatory, of, gate, number)
        if number % across:
            ax.tick_params(labelleft=False)
        else:
            ax.set_ylabel("training step")
    where = "" if len(layers) == 1 else f", gates of {layers[of]}"
    return canvas.finish(figure, f"{_looks(observatory)} at a training{where}", title)


def animation(
    observatory: Observatory,
    path: str | Path,
    layer: str | None = None,
    *,
    figure: Figure | None = None,
    title: str | None = None,
) -> Figure:
    """Write a film of a training, a frame for each look: the gradient by its lag, and the gates' distributions.

    Args:
        observatory: an `lstmx.Observatory` that has looked.
        path: the file; one ending in .gif is written by Pillow, .mp4 by ffmpeg where that is installed. One that
            is there is replaced.
        layer: the layer whose gates are drawn, by its name in `observatory.axes["layer"]`; None for the top one.
        figure: an empty figure to draw on, best made with `layout="constrained"`; None for a new one, which
            belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.

    Returns:
        The figure, with the last look.

    Raises:
        TypeError: an argument of another kind.
        ValueError: there is no look yet, no such layer, the file ends otherwise, or the figure already holds axes.
        RuntimeError: ffmpeg is asked for and is not installed.
    """
    from matplotlib.animation import writers

    of = _layer(observatory, layer)
    place = checked_path("path", path)
    if place.suffix not in _WRITERS:
        raise ValueError(f"path is {str(path)!r}; expected a file that ends in {' or '.join(_WRITERS)}")
    name = _WRITERS[place.suffix]
    if not writers.is_available(name):
        raise RuntimeError(f"{place.suffix} takes {name}, which is not installed; write a .gif")
    sheet: Any = canvas.figure_for(figure, (8, 4))
    left, right = canvas.pair(sheet, (1, 1))
    norms = observatory["log_norm"] / math.log(10)
    finite = norms[np.isfinite(norms)]
    (reach,) = left.plot(norms[-1], color=canvas.COLOURS[0])
    if observatory.lag is not None:
        left.axvline(observatory.lag, color="0.6", linestyle=":")
    canvas.index_axis(left.xaxis, "steps back", norms.shape[1])
    low = max(finite.min(initial=0), _LEAST)
    left.set(ylabel="log₁₀ of what is left", ylim=(low - 0.5, finite.max(initial=0) + 0.5))
    left.set_title("gradient", loc="left")
    where = left.text(0.98, 0.97, _told(observatory, -1), transform=left.transAxes, ha="right", va="top")

    shares = observatory["distribution"][:, of]
    edges = np.append(observatory.axes["bin"], 1.0)
    gates = [k for k in range(shares.shape[1]) if not np.isnan(shares[:, k]).all()]
    drawn = []
    for number, gate in enumerate(gates):
        colour, label = canvas.COLOURS[number % 7], observatory.axes["gate"][gate].replace("_", " ")
        drawn.append(right.stairs(shares[-1, gate], edges, color=colour, label=label))
    right.set(
        xlabel="activation",
        ylabel="share",
        xlim=(0, 1),
        ylim=(0, 1.05 * np.nanmax(shares[:, gates], initial=0.05)),
    )
    right.set_title("gates", loc="left")
    if gates:
        canvas.legend_above(right)
    canvas.finish(sheet, f"{_looks(observatory)} at a training", title)
    writer = writers[name](fps=min(20, 2 + len(observatory) // 8))
    with writer.saving(sheet, str(place), dpi=sheet.dpi):
        for look in range(len(observatory)):
            reach.set_ydata(parts.blank(norms[look]))
            where.set_text(_told(observatory, look))
            for stairs, gate in zip(drawn, gates, strict=True):
                stairs.set_data(shares[look, gate])
            writer.grab_frame()
    return sheet


def _looks(observatory: Observatory) -> str:
    return f"{len(observatory)} look{'s' * (len(observatory) != 1)}"


def _told(observatory: Observatory, look: int) -> str:
    """Step and loss of a look, in words."""
    loss = observatory["training_loss"][look]
    return f"step {observatory.steps[look]:,}" + ("" if np.isnan(loss) else f"\nloss {loss:.3g}")


def _layer(observatory: Any, layer: str | None) -> int:
    """The number of a layer of an observatory that has looked."""
    if not isinstance(observatory, Observatory):
        raise TypeError(f"observatory is a {type(observatory).__name__}; expected an lstmx.Observatory")
    if not len(observatory):
        raise ValueError("observatory has not looked yet; expected at least one look")
    layers = observatory.axes["layer"]
    if layer is not None and layer not in layers:
        raise ValueError(f"layer is {layer!r}; expected one of {', '.join(map(repr, layers))}, or None")
    return len(layers) - 1 if layer is None else layers.index(layer)


def _line(ax: Axes, observatory: Observatory, values: np.ndarray, **look: Any) -> None:
    """A line of a reading [looks], broken where looks are missing."""
    steps = observatory.steps
    holes = np.flatnonzero(np.diff(steps) > observatory.every) + 1
    canvas.line(ax, np.insert(steps, holes, steps[holes - 1]), np.insert(values, holes, np.nan), **look)


def _loss(ax: Axes, observatory: Observatory) -> None:
    loss = observatory["training_loss"]
    finite = loss[np.isfinite(loss)]
    _line(ax, observatory, np.where(np.isfinite(loss), loss, np.nan), color=canvas.ink(ax))
    if finite.size and finite.min() > 0 and finite.max() > _WIDE * finite.min():
        ax.set_yscale("log")
    ax.set_ylabel("loss")
    ax.set_title("training loss", loc="left")


def _reach(ax: Axes, observatory: Observatory) -> None:
    norms = observatory["log_norm"]
    length = norms.shape[1]
    for share, colour in zip(_LEFT, canvas.COLOURS, strict=False):
        below = norms <= math.log(share)
        lags = np.where(below.any(axis=1), below.argmax(axis=1), length)
        known = ~np.isnan(norms).all(axis=1)
        _line(ax, observatory, np.where(known, lags, np.nan), color=colour, label=f"{share:.0%} of it left")
    ax.axhline(length, color="0.6", linewidth=0.8)
    if observatory.lag is not None:
        ax.axhline(observatory.lag, color="0.6", linestyle=":", label=f"lag that is needed, {observatory.lag}")
    ax.set_ylabel("steps back")
    ax.set_ylim(0, 1.05 * length)
    ax.set_title("how far the gradient reaches", loc="left")


def _exponents(ax: Axes, observatory: Observatory) -> None:
    exponents = observatory["exponents"]
    drawn = np.where(np.isfinite(exponents), exponents, np.nan)
    ax.axhline(0, color="0.6", linewidth=0.8)
    for k, alpha in enumerate((1, 0.7, 0.5, 0.35)):
        _line(ax, observatory, drawn[:, k], color=canvas.COLOURS[0], alpha=alpha)
    ax.set_ylabel("nats per step")
    ax.set_title("leading Lyapunov exponents", loc="left")


def _updates(ax: Axes, observatory: Observatory) -> None:
    ratio = observatory["update_norm"] / observatory["weight_norm"]
    with np.errstate(divide="ignore"):
        logs = np.log10(ratio)
    layers = observatory.axes["layer"]
    for name, values, (colour, _) in zip(layers, logs.T, canvas.styles(), strict=False):
        _line(ax, observatory, parts.blank(values), color=colour, label=name if len(layers) > 1 else None)
    ax.set_ylabel("log₁₀")
    ax.set_title("update against weights", loc="left")


def _ridge(ax: Axes, observatory: Observatory, layer: int, gate: int, number: int) -> None:
    """The distributions of a gate at some looks, one above the other."""
    shares = observatory["distribution"][:, layer, gate]
    looks = np.flatnonzero(~np.isnan(shares[:, 0]))
    looks = looks[np.unique(np.linspace(0, len(looks) - 1, _RIDGES).round().astype(int))]
    edges = np.append(observatory.axes["bin"], 1.0)
    highest = shares[looks].max()
    colour = canvas.COLOURS[number % len(canvas.COLOURS)]
    look: dict[str, Any] = {"antialiased": True, "linewidth": 0.8}
    for row in range(len(looks))[::-1]:  # the lower ones in front
        tops = row + _OVERLAP * shares[looks[row]] / highest
        order = len(looks) - row
        ax.stairs(tops, edges, baseline=row, fill=True, color=ax.get_facecolor(), zorder=order, **look)
        ax.stairs(tops, edges, baseline=row, fill=True, color=colour, alpha=0.5, zorder=order + 0.2, linewidth=0)
        ax.stairs(tops, edges, baseline=None, color=colour, zorder=order + 0.4, **look)
    ticks = np.unique(np.linspace(0, len(looks) - 1, 4).round().astype(int))
    ax.set_yticks(ticks, [f"{observatory.steps[looks[tick]]:,}" for tick in ticks])
    ax.set(xlim=(0, 1), ylim=(0, len(looks) - 1 + _OVERLAP + 0.1), xlabel="activation")
    ax.set_title(observatory.axes["gate"][gate].replace("_", " "), loc="left")
