"""The dashboard of one sequence: inputs, states and gates over time, of a cell or layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.checks import require_history
from lstmx.editing import Edited
from lstmx.history import History
from lstmx.layers import LayeredPass
from lstmx.plot import canvas
from lstmx.plot.canvas import Look
from lstmx.plot.passes import Pass, Shown, one_pass, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_LINES = 6  # of units or features drawn as lines; more input features become a heat map
_BINS = 50
_GATE, _SIGNED = (0.0, 1.0), (-1.0, 1.0)

_Panel = Callable[["Axes"], None]


def dynamics(
    history: History | Edited | LayeredPass,
    sequence: int | tuple[int, ...] = 0,
    *,
    figure: Figure | SubFigure | None = None,
    title: str | None = None,
    cmap: Any = None,
    labels: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
) -> Figure | SubFigure:
    """Draw what a cell, or each of several layers, did with one sequence.

    Of a cell there are nine panels: inputs, first hidden units and first cell-state units as lines; the gates of
    all units as heat maps over time; the gates' distribution, their means over units, and the states' L2 norms. A
    cell without a cell state has its candidate activation in place of it, and where it has fewer than three gates,
    the candidate and the hidden state are heat maps too. A SimpleRNN has no gates: its six panels show the hidden
    state instead.

    Of a step function each array of the state, each gate and whatever else it shows has a panel of its own: a heat
    map of its flattened numbers, or a line of a single one.

    Of layers there is a row for each cell, the top layer at the top: its states, and the gate that multiplies the
    old state, as heat maps in the order of time; below these the inputs, and the norms of the layers' outputs. For
    all panels of one layer pass its own history, `history.parts["layer 0"]`.

    Steps that do not count are left blank, in heat maps hatched, and are in no mean or distribution. At most 1000
    points are drawn along an axis. Beyond, a line becomes block means within the blocks' range, a heat map becomes
    block means, and the axis says how many neighbours were joined; several units over more than 300 steps have a
    lane each. The panels stand in as many columns, up to three, as the width of the figure has room for. The gates
    of the whole sequence are held in memory at once.

    Args:
        history: the recorded pass, edited or not, of a cell or of layers, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a history
            without batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.
        title: what stands above; None for what the figure says by itself, "" for nothing.
        cmap: the colour map of all heat maps, as matplotlib takes it; None for the figure's own.
        labels: tokens, one str for each step, shown at the steps in place of their numbers; None for the numbers.
        units: indices of the units drawn, the first six of them as lines; None for all. Distributions, means and
            norms are of all in any case.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: history is no history in memory, sequence or units no integers, figure no figure, title no str,
            or labels no sequence of them.
        ValueError: not one index per batch axis, not one label per step, units of a step function, or the figure
            already holds axes.
        IndexError: sequence is outside the batch, or units outside the layer.

    Example:
        >>> import lstmx, lstmx.plot, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.ones((50, 3), "float32"))
        >>> figure = lstmx.plot.dynamics(history)  # figure.savefig("dynamics.png") writes it
        >>> [ax.get_title("left") for ax in figure.axes[:3]]
        ['inputs, by feature', 'hidden state, first units', 'cell state, first units']
    """
    if not isinstance(history, (History, Edited, LayeredPass)):
        require_history(history)
    canvas.colour_map(cmap)
    index = canvas.sequence_index(sequence, history.batch, "history")
    where = f", sequence {sequence}" if history.batch else ""
    look = Look(canvas.tokens_for(labels, len(history), "history"), cmap)
    if isinstance(history, LayeredPass):
        layers = {name: one_pass(part, index, turn) for name, (part, turn) in history.cells().items()}
        looks = {name: look._replace(units=units_of(one, units, name)) for name, one in layers.items()}
        figure = _draw_layers(layers, looks, figure)
        own = f"{len(layers)} layers over {layers[next(iter(layers))].steps}{where}"
        return canvas.finish(figure, own, title)

    one = one_pass(history, index)
    look = look._replace(units=units_of(one, units, "history"))
    if not one.closed_form:
        panels = _of_step_function(one, look)
    else:
        panels = _gated(one, look) if one.gates else _ungated(one, history.cell.bounded, look)
    figure = canvas.figure_for(figure, (13.5, 0.5 + 3 * math.ceil(len(panels) / 3)))
    width = canvas.columns(figure, 3, 17)
    grid = figure.add_gridspec(math.ceil(len(panels) / width), width)
    axes = [figure.add_subplot(grid[divmod(k, width)]) for k in range(len(panels))]
    for panel, ax in zip(panels, axes, strict=True):
        panel(ax)
    if width < 3:  # panels of the same steps above each other name these once
        for ax, below in zip(axes, axes[width:], strict=False):
            if ax.get_xlabel() == below.get_xlabel():
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
    number = one.output.shape[1] if one.closed_form else sum(x.values.shape[1] for x in one.states.values())
    of = f"of {_count(number, 'unit')}" if one.closed_form else f"with a state of {_count(number, 'number')}"
    return canvas.finish(figure, f"{one.kind} {of} over {one.steps}{where}", title)


def _gated(one: Pass, look: Look) -> list[_Panel]:
    hidden, counts = one.states["hidden_state"].values, one.counts
    second = next((name for name in ("cell_state", "candidate") if name in one.states | one.activations), None)
    maps = [(name, one.gates[name], _GATE) for name in sorted(one.gates, key=lambda n: n != one.retention_gate)]
    maps += [(name, shown, _signed(shown.values, counts)) for name, shown in one.activations.items()]
    maps += [("hidden_state", one.states["hidden_state"], _signed(hidden, counts))]
    panels: list[_Panel] = [
        lambda ax: _inputs(ax, one, look),
        lambda ax: _first_units(ax, "hidden_state", hidden, counts, look),
    ]
    if second is not None:
        values = (one.states | one.activations)[second].values
        panels.append(lambda ax: _first_units(ax, second, values, counts, look))
    panels += [_map_panel(*each, "activation", counts, look) for each in maps[: 6 - len(panels)]]
    return [
        *panels,
        lambda ax: _distributions(ax, "gates", one.gates, _GATE, counts),
        lambda ax: _means(ax, "gates", one.gates, _GATE, counts, look),
        lambda ax: _norms(ax, one, look),
    ]


def _ungated(one: Pass, bounded: bool, look: Look) -> list[_Panel]:
    hidden, counts = one.states["hidden_state"], one.counts
    finite = np.isfinite(canvas.blank_rows(hidden.values, counts))
    limits = _SIGNED if bounded else (0.0, float(np.max(hidden.values, where=finite, initial=0)) or 1.0)
    only = {"hidden_state": hidden}
    return [
        lambda ax: _inputs(ax, one, look),
        lambda ax: _first_units(ax, "hidden_state", hidden.values, counts, look),
        _map_panel("hidden_state", hidden, limits, "activation", counts, look),
        lambda ax: _distributions(ax, "hidden state", only, limits, counts),
        lambda ax: _means(ax, "hidden state", only, limits, counts, look),
        lambda ax: _norms(ax, one, look),
    ]


def _of_step_function(one: Pass, look: Look) -> list[_Panel]:
    counts = one.counts
    panels: list[_Panel] = [lambda ax: _inputs(ax, one, look)]
    panels += [_map_panel(name, shown, None, "value", counts, look) for name, shown in one.states.items()]
    panels += [_map_panel(name, shown, _GATE, "activation", counts, look) for name, shown in one.gates.items()]
    panels += [_map_panel(name, shown, None, "value", counts, look) for name, shown in one.activations.items()]
    if one.gates:
        panels.append(lambda ax: _distributions(ax, "gates", one.gates, _GATE, counts))
        panels.append(lambda ax: _means(ax, "gates", one.gates, _GATE, counts, look))
    return [*panels, lambda ax: _norms(ax, one, look)]


def _draw_layers(
    layers: dict[str, Pass], looks: dict[str, Look], figure: Figure | SubFigure | None
) -> Figure | SubFigure:
    """A row for each cell, the last one at the top, and one for inputs and norms."""
    columns: dict[str, list[tuple[str, Shown, tuple[float, float] | None]]] = {}
    for name, one in layers.items():
        columns[name] = [(state, shown, None) for state, shown in one.states.items()]
        gate = one.retention_gate or next(iter(one.gates), None)
        columns[name] += [] if gate is None else [(gate, one.gates[gate], _GATE)]
    width = max(2, *(len(maps) for maps in columns.values()))
    figure = canvas.figure_for(figure, (4.5 * width, 0.6 + 2.2 * (len(layers) + 1)))
    grid = figure.add_gridspec(len(layers) + 1, width)
    for row, (name, one) in enumerate(reversed(layers.items())):
        for k, (what, shown, limits) in enumerate(columns[name]):
            ax = figure.add_subplot(grid[row, k])
            _array(ax, what, shown, limits, "activation" if limits else "value", one.counts, looks[name])
            ax.set_title(f"{name} ({one.kind}): {_words(what)}", loc="left")
            ax.set_xlabel("")
    first = next(iter(layers))
    _inputs(figure.add_subplot(grid[-1, 0]), layers[first], looks[first])
    ax = figure.add_subplot(grid[-1, 1])
    norms = np.stack([np.linalg.norm(one.output, axis=1) for one in layers.values()], axis=1)
    canvas.lines(ax, norms, list(layers), counts=layers[first].counts, tokens=looks[first].tokens)
    ax.set_ylabel("L2 norm")
    canvas.start_at_zero(ax)
    ax.set_title("outputs: norm", loc="left")
    return figure


# ----------------------------------------------------------------------------------------------- panels


def _inputs(ax: Axes, one: Pass, look: Look) -> None:
    features = one.inputs.shape[1]
    if features > _LINES:
        canvas.heat_map(ax, one.inputs, "feature", "value", counts=one.counts, look=look)
    else:
        canvas.traces(ax, one.inputs, [str(k) for k in range(features)], "feature", one.counts, look)
    ax.set_title("inputs, by feature" if 1 < features <= _LINES else "inputs", loc="left")


def _first_units(ax: Axes, name: str, values: np.ndarray, counts: np.ndarray | None, look: Look) -> None:
    units = np.arange(values.shape[1]) if look.units is None else look.units
    shown = units[:_LINES]
    canvas.traces(ax, values[:, shown], [str(unit) for unit in shown], "unit", counts, look)
    which = ", first units" if len(units) > _LINES else ", by unit" if len(units) > 1 else ""
    ax.set_title(_words(name) + which, loc="left")


def _map_panel(
    name: str, shown: Shown, limits: tuple[float, float] | None, label: str, counts: np.ndarray | None, look: Look
) -> _Panel:
    """A panel of an array, with its name as the title."""

    def draw(ax: Axes) -> None:
        _array(ax, name, shown, limits, label, counts, look)
        ax.set_title(_words(name), loc="left")

    return draw


def _array(
    ax: Axes,
    name: str,
    shown: Shown,
    limits: tuple[float, float] | None,
    label: str,
    counts: np.ndarray | None,
    look: Look,
) -> None:
    """A heat map of an array over time, or of a single number of a step function a line."""
    if shown.values.shape[1] == 1 and shown.row != "unit":
        canvas.lines(ax, shown.values, [name], counts=counts, tokens=look.tokens)
        ax.set_ylabel(label)
    else:
        canvas.heat_map(ax, shown.values, shown.row, label, limits, counts, look)


def _signed(values: np.ndarray, counts: np.ndarray | None) -> tuple[float, float] | None:
    """From −1 to 1 for what lies there, as a tanh; None for other limits."""
    beyond = np.abs(values if counts is None else values[counts]) > 1
    return None if beyond.any() else _SIGNED


def _distributions(
    ax: Axes, what: str, shown: dict[str, Shown], limits: tuple[float, float], counts: np.ndarray | None
) -> None:
    edges = np.linspace(*limits, _BINS + 1)
    for (name, (values, _)), (colour, _) in zip(shown.items(), canvas.styles(), strict=False):
        counted = values if counts is None else values[counts]
        fraction = np.histogram(counted, edges)[0] / counted.size
        ax.stairs(fraction, edges, color=colour, label=name.removesuffix("_gate"), linewidth=1.5)
    ax.set(xlabel="activation", xlim=limits)
    ax.set_ylabel("fraction per bin")
    if len(shown) > 1:
        canvas.legend_above(ax)
    ax.set_title(f"{what}: distribution", loc="left")


def _means(
    ax: Axes,
    what: str,
    shown: dict[str, Shown],
    limits: tuple[float, float],
    counts: np.ndarray | None,
    look: Look,
) -> None:
    means = np.stack([one.values.mean(axis=1) for one in shown.values()], axis=1)
    canvas.lines(ax, means, [name.removesuffix("_gate") for name in shown], counts=counts, tokens=look.tokens)
    ax.set(ylabel="mean activation", ylim=limits)
    ax.set_title(f"{what}: mean over units", loc="left")


def _norms(ax: Axes, one: Pass, look: Look) -> None:
    norms = np.stack([np.linalg.norm(shown.values, axis=1) for shown in one.states.values()], axis=1)
    names = [name.removesuffix("_state") for name in one.states]
    canvas.lines(ax, norms, names, canvas.COLOURS[3:], one.counts, look.tokens)
    ax.set_ylabel("L2 norm")
    canvas.start_at_zero(ax)
    ax.set_title("states: norm" if len(names) > 1 else f"{_words(next(iter(one.states)))}: norm", loc="left")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
