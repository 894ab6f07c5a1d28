"""The dashboard of one sequence: inputs, states and gates over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lstmx.editing import Edited
from lstmx.history import History
from lstmx.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_LINES = 6  # of units or features drawn as lines; more input features become a heat map
_BINS = 50
_GATE, _SIGNED = (0.0, 1.0), (-1.0, 1.0)


def dynamics(
    history: History | Edited, sequence: int | tuple[int, ...] = 0, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Draw what a cell did with one sequence, nine panels of it.

    The rows are: inputs, first hidden units and first cell-state units as lines; the gates of all units as
    heat maps over time; the gates' distribution, their means over units, and the states' L2 norms. A GRU has
    its candidate activation in place of the cell state and as its third heat map. A SimpleRNN has no gates:
    its six panels show the hidden state instead.

    At most 1000 points are drawn along an axis. Beyond, a line becomes block means within the blocks' range, a
    heat map becomes block means, and the axis says how many neighbours were joined. The gates of the whole
    sequence are held in memory at once.

    Args:
        history: the recorded pass, edited or not, in NumPy or JAX.
        sequence: which sequence of the batch: an integer, or a tuple of one per batch axis; 0 for a history
            without batch axes.
        figure: an empty figure or subfigure to draw on, best made with `layout="constrained"`; None for a new
            one, which belongs to no pyplot state and shows itself in a notebook.

    Returns:
        The figure drawn on.

    Raises:
        TypeError: history is no History, sequence no integers, or figure no figure.
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
    one = _one_sequence(history, sequence)
    gated = bool(one.cell.gate_names)
    figure = canvas.figure_for(figure, (13.5, 9.5 if gated else 6.5))

    panels = list(figure.subplots(3 if gated else 2, 3).flat)
    (_gated if gated else _ungated)(panels, one.to_numpy())

    where = f", sequence {sequence}" if history.batch else ""
    steps, units = _count(len(one), "step"), _count(one.cell.hidden_size, "unit")
    figure.suptitle(f"{type(one.cell).__name__} of {units} over {steps}{where}")
    return figure


def _one_sequence(history: Any, sequence: Any) -> Any:
    if not isinstance(history, (History, Edited)):
        raise TypeError(
            f"history is a {type(history).__name__}; expected a History, as from lstmx.record(cell, params, xs)"
        )
    return history.sequence(*canvas.sequence_index(sequence, history.batch, "history"))


def _gated(panels: list[Axes], one: Any) -> None:
    cell, states, activations = one.cell, one.states._asdict(), one.gates._asdict()
    gates = {name: activations.pop(name) for name in cell.gate_names}  # what is left are no gates

    _inputs(panels[0], one.inputs)
    _first_units(panels[1], "hidden_state", one.hidden_state)
    if "cell" in states:
        _first_units(panels[2], "cell_state", states["cell"])
    else:
        _first_units(panels[2], "candidate", activations["candidate"])

    retention_first = sorted(gates, key=lambda name: name != cell.retention_gate)
    maps = [(name, gates[name], _GATE) for name in retention_first]
    maps += [(name, values, _SIGNED) for name, values in activations.items()]
    for ax, (name, values, limits) in zip(panels[3:6], maps, strict=False):
        _unit_map(ax, name, values, limits)

    _distributions(panels[6], "gates", gates, _GATE)
    _means(panels[7], "gates", gates, _GATE)
    _norms(panels[8], states)


def _ungated(panels: list[Axes], one: Any) -> None:
    hidden = {"hidden_state": one.hidden_state}

    _inputs(panels[0], one.inputs)
    _first_units(panels[1], "hidden_state", one.hidden_state)
    limits = _SIGNED if one.cell.bounded else (0.0, float(one.hidden_state.max()) or 1.0)
    _unit_map(panels[2], "hidden_state", one.hidden_state, limits)

    _distributions(panels[3], "hidden state", hidden, limits)
    _means(panels[4], "hidden state", hidden, limits)
    _norms(panels[5], one.states._asdict())


# ----------------------------------------------------------------------------------------------- panels


def _inputs(ax: Axes, inputs: np.ndarray) -> None:
    features = inputs.shape[1]
    if features > _LINES:
        canvas.heat_map(ax, inputs, "feature", "value")
    else:
        canvas.lines(ax, inputs, [str(k) for k in range(features)])
        ax.set_ylabel("value")
    canvas.title(ax, "inputs, by feature" if 1 < features <= _LINES else "inputs")


def _first_units(ax: Axes, name: str, values: np.ndarray) -> None:
    units = values.shape[1]
    canvas.lines(ax, values[:, :_LINES], [str(k) for k in range(min(units, _LINES))])
    ax.set_ylabel("value")
    which = ", first units" if units > _LINES else ", by unit" if units > 1 else ""
    canvas.title(ax, _words(name) + which)


def _unit_map(ax: Axes, name: str, values: np.ndarray, limits: tuple[float, float]) -> None:
    canvas.heat_map(ax, values, "unit", "activation", limits)
    canvas.title(ax, _words(name))


def _distributions(ax: Axes, what: str, activations: dict[str, np.ndarray], limits: tuple[float, float]) -> None:
    edges = np.linspace(*limits, _BINS + 1)
    for (name, values), (colour, _) in zip(activations.items(), canvas.styles(), strict=False):
        fraction = np.histogram(values, edges)[0] / values.size
        ax.stairs(fraction, edges, color=colour, label=name.removesuffix("_gate"), linewidth=1.5)
    ax.set(xlabel="activation", xlim=limits, xticks=np.linspace(*limits, 5))
    ax.set_ylabel(f"fraction per bin of {edges[1] - edges[0]:.2g}")
    if len(activations) > 1:
        canvas.legend_above(ax)
    canvas.title(ax, f"{what}: distribution")


def _means(ax: Axes, what: str, activations: dict[str, np.ndarray], limits: tuple[float, float]) -> None:
    means = np.stack([values.mean(axis=1) for values in activations.values()], axis=1)
    canvas.lines(ax, means, [name.removesuffix("_gate") for name in activations])
    ax.set(ylabel="mean activation", ylim=limits)
    canvas.title(ax, f"{what}: mean over units")


def _norms(ax: Axes, states: dict[str, np.ndarray]) -> None:
    norms = np.stack([np.linalg.norm(state, axis=1) for state in states.values()], axis=1)
    canvas.lines(ax, norms, list(states), canvas.COLOURS[3:])
    ax.set_ylabel("L2 norm")
    canvas.start_at_zero(ax)
    canvas.title(ax, "states: norm" if len(states) > 1 else "hidden state: norm")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
