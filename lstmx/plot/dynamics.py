"""The dashboard of one sequence: inputs, states and gates over time, of a cell or layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lstmx.checks import require_history
from lstmx.editing import Edited
from lstmx.history import History
from lstmx.layers import LayeredPass
from lstmx.plot import canvas
from lstmx.plot.passes import Pass, Shown, one_pass

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
    block means, and the axis says how many neighbours were joined. The gates of the whole sequence are held in
    memory at once.

    Args:
        history: the recorded pass, edited or not, of a cell or of layers, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a history
            without batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: history is no history in memory, sequence no integers, or figure no figure.
        ValueError: not one index per batch axis, or the figure already holds axes.
        IndexError: sequence is outside the batch.

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
    index = canvas.sequence_index(sequence, history.batch, "history")
    where = f", sequence {sequence}" if history.batch else ""
    if isinstance(history, LayeredPass):
        layers = {name: one_pass(part, index, turn) for name, (part, turn) in history.cells().items()}
        figure = _draw_layers(layers, figure)
        figure.suptitle(f"{len(layers)} layers over {layers[next(iter(layers))].steps}{where}")
        return figure

    one = one_pass(history, index)
    if not one.closed_form:
        panels = _of_step_function(one)
    else:
        panels = _gated(one) if one.gates else _ungated(one, history.cell.bounded)
    rows = math.ceil(len(panels) / 3)
    figure = canvas.figure_for(figure, (13.5, 0.5 + 3 * rows))
    grid = figure.add_gridspec(rows, 3)
    for panel, ax in zip(
        panels, [figure.add_subplot(grid[k // 3, k % 3]) for k in range(len(panels))], strict=True
    ):
        panel(ax)
    units = one.output.shape[1] if one.closed_form else sum(state.values.shape[1] for state in one.states.values())
    of = f"of {_count(units, 'unit')}" if one.closed_form else f"with a state of {_count(units, 'number')}"
    figure.suptitle(f"{one.kind} {of} over {one.steps}{where}")
    return figure


def _gated(one: Pass) -> list[_Panel]:
    hidden, counts = one.states["hidden_state"].values, one.counts
    second = next((name for name in ("cell_state", "candidate") if name in one.states | one.activations), None)
    maps = [(name, one.gates[name], _GATE) for name in sorted(one.gates, key=lambda n: n != one.retention_gate)]
    maps += [(name, shown, _signed(shown.values, counts)) for name, shown in one.activations.items()]
    maps += [("hidden_state", one.states["hidden_state"], _signed(hidden, counts))]
    panels: list[_Panel] = [
        lambda ax: _inputs(ax, one),
        lambda ax: _first_units(ax, "hidden_state", hidden, counts),
    ]
    if second is not None:
        panels.append(lambda ax: _first_units(ax, second, (one.states | one.activations)[second].values, counts))
    panels += [_map_panel(*each, "activation", counts) for each in maps[: 6 - len(panels)]]
    return [
        *panels,
        lambda ax: _distributions(ax, "gates", one.gates, _GATE, counts),
        lambda ax: _means(ax, "gates", one.gates, _GATE, counts),
        lambda ax: _norms(ax, one),
    ]


def _ungated(one: Pass, bounded: bool) -> list[_Panel]:
    hidden, counts = one.states["hidden_state"], one.counts
    finite = np.isfinite(canvas.blank_rows(hidden.values, counts))
    limits = _SIGNED if bounded else (0.0, float(np.max(hidden.values, where=finite, initial=0)) or 1.0)
    only = {"hidden_state": hidden}
    return [
        lambda ax: _inputs(ax, one),
        lambda ax: _first_units(ax, "hidden_state", hidden.values, counts),
        _map_panel("hidden_state", hidden, limits, "activation", counts),
        lambda ax: _distributions(ax, "hidden state", only, limits, counts),
        lambda ax: _means(ax, "hidden state", only, limits, counts),
        lambda ax: _norms(ax, one),
    ]


def _of_step_function(one: Pass) -> list[_Panel]:
    counts = one.counts
    panels: list[_Panel] = [lambda ax: _inputs(ax, one)]
    panels += [_map_panel(name, shown, None, "value", counts) for name, shown in one.states.items()]
    panels += [_map_panel(name, shown, _GATE, "activation", counts) for name, shown in one.gates.items()]
    panels += [_map_panel(name, shown, None, "value", counts) for name, shown in one.activations.items()]
    if one.gates:
        panels.append(lambda ax: _distributions(ax, "gates", one.gates, _GATE, counts))
        panels.append(lambda ax: _means(ax, "gates", one.gates, _GATE, counts))
    return [*panels, lambda ax: _norms(ax, one)]


def _draw_layers(layers: dict[str, Pass], figure: Figure | SubFigure | None) -> Figure | SubFigure:
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
            _array(ax, what, shown, limits, "activation" if limits else "value", one.counts)
            canvas.title(ax, f"{name} ({one.kind}): {_words(what)}")
            ax.set_xlabel("")
    first = next(iter(layers.values()))
    _inputs(figure.add_subplot(grid[-1, 0]), first)
    ax = figure.add_subplot(grid[-1, 1])
    norms = np.stack([np.linalg.norm(one.output, axis=1) for one in layers.values()], axis=1)
    canvas.lines(ax, norms, list(layers), counts=first.counts)
    ax.set_ylabel("L2 norm")
    canvas.start_at_zero(ax)
    canvas.title(ax, "outputs: norm")
    return figure


# ----------------------------------------------------------------------------------------------- panels


def _inputs(ax: Axes, one: Pass) -> None:
    features = one.inputs.shape[1]
    if features > _LINES:
        canvas.heat_map(ax, one.inputs, "feature", "value", counts=one.counts)
    else:
        canvas.lines(ax, one.inputs, [str(k) for k in range(features)], counts=one.counts)
        ax.set_ylabel("value")
    canvas.title(ax, "inputs, by feature" if 1 < features <= _LINES else "inputs")


def _first_units(ax: Axes, name: str, values: np.ndarray, counts: np.ndarray | None) -> None:
    units = values.shape[1]
    canvas.lines(ax, values[:, :_LINES], [str(k) for k in range(min(units, _LINES))], counts=counts)
    ax.set_ylabel("value")
    which = ", first units" if units > _LINES else ", by unit" if units > 1 else ""
    canvas.title(ax, _words(name) + which)


def _map_panel(
    name: str, shown: Shown, limits: tuple[float, float] | None, label: str, counts: np.ndarray | None
) -> _Panel:
    """A panel of an array, with its name as the title."""

    def draw(ax: Axes) -> None:
        _array(ax, name, shown, limits, label, counts)
        canvas.title(ax, _words(name))

    return draw


def _array(
    ax: Axes,
    name: str,
    shown: Shown,
    limits: tuple[float, float] | None,
    label: str,
    counts: np.ndarray | None,
) -> None:
    """A heat map of an array over time, or of a single number of a step function a line."""
    if shown.values.shape[1] == 1 and shown.row != "unit":
        canvas.lines(ax, shown.values, [name], counts=counts)
        ax.set_ylabel(label)
    else:
        canvas.heat_map(ax, shown.values, shown.row, label, limits, counts)


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
    ax.set(xlabel="activation", xlim=limits, xticks=np.linspace(*limits, 5))
    ax.set_ylabel(f"fraction per bin of {edges[1] - edges[0]:.2g}")
    if len(shown) > 1:
        canvas.legend_above(ax)
    canvas.title(ax, f"{what}: distribution")


def _means(
    ax: Axes, what: str, shown: dict[str, Shown], limits: tuple[float, float], counts: np.ndarray | None
) -> None:
    means = np.stack([one.values.mean(axis=1) for one in shown.values()], axis=1)
    canvas.lines(ax, means, [name.removesuffix("_gate") for name in shown], counts=counts)
    ax.set(ylabel="mean activation", ylim=limits)
    canvas.title(ax, f"{what}: mean over units")


def _norms(ax: Axes, one: Pass) -> None:
    norms = np.stack([np.linalg.norm(shown.values, axis=1) for shown in one.states.values()], axis=1)
    names = [name.removesuffix("_state") for name in one.states]
    canvas.lines(ax, norms, names, canvas.COLOURS[3:], one.counts)
    ax.set_ylabel("L2 norm")
    canvas.start_at_zero(ax)
    canvas.title(ax, "states: norm" if len(names) > 1 else f"{_words(next(iter(one.states)))}: norm")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
