"""One look at a network: a pass over the probe, and every reading of it as numbers of fixed shapes.

Under JAX each analysis is compiled once, for all looks alike, so that a look takes milliseconds.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, all_finite, fetched, jit, leaves, map_tree, namespace, to_numpy
from lstmx.dynamics import lyapunov_spectrum
from lstmx.gradients import gradient_flow, path_spectrum
from lstmx.gradients.summary import DecaySummary
from lstmx.history import History
from lstmx.layers import Layers
from lstmx.linear import state_size
from lstmx.passes.run import record, run
from lstmx.scaling import log_hypot, tree_norm
from lstmx.statistics import GateStatistics, gate_statistics

EXPONENTS = 4
QUANTILES = (0.1, 0.5, 0.9)
BINS = 20
GIVEN = ("training_loss", "gradient_norm", "update_norm")
SHUT, OPEN = 1e-3, 1 - 1e-3  # what a gate of a unit stays below, or above, on the whole probe

# Name of each reading: its axes beside that of the looks, and what it is.
READINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "finite": ((), "1 where parameters and states were finite, else 0; then all else is NaN"),
    "given_finite": (("given",), "1 where what was handed in of the training was finite, else 0; NaN without"),
    "training_loss": ((), "loss of the training, as it was handed in"),
    "decay_rate": (("sequence",), "fitted decay of the gradient going back, nats per step"),
    "horizon": (("sequence",), "steps back at which 1 % of the gradient is left"),
    "log_norm": (("lag",), "ln of the gradient's norm against that at the loss, median over sequences"),
    "mean_order": (("sequence",), "mean number of crossings of h on the gradient's paths from the first step"),
    "exponents": (("exponent",), "leading Lyapunov exponents, nats per step"),
    "share": (("layer", "way"), "share of each way back of the gradient, mean over steps and sequences"),
    "gate_mean": (("layer", "gate"), "mean activation"),
    "left": (("layer", "gate"), "fraction of time below 0.1, mean over units"),
    "right": (("layer", "gate"), "fraction of time above 0.9, mean over units"),
    "shut": (("layer", "gate"), "share of the units whose gate stays below 0.001 on the whole probe"),
    "open": (("layer", "gate"), "share of the units whose gate stays above 0.999 on the whole probe"),
    "distribution": (("layer", "gate", "bin"), "share of the activations in each of 20 bins from 0 to 1"),
    "timescale": (("layer", "quantile"), "geometric time scale of the retention gate, over units, steps"),
    "weight_norm": (("layer",), "norm of the parameters"),
    "gradient_norm": (("layer",), "norm of the training's gradient, as it was handed in"),
    "update_norm": (("layer",), "norm of the last update, as it was handed in"),
    "jump": ((), "ln of the outputs' growth where the last update is made again or taken back, the greater one"),
}


class Axes(NamedTuple):
    """The names along the axes of readings."""

    sequence: Sequence[int]
    lag: Sequence[int]
    exponent: Sequence[int]
    layer: Sequence[str]
    way: Sequence[str]
    gate: Sequence[str]
    quantile: Sequence[float]
    bin: Sequence[float]
    """Lower edges."""
    given: Sequence[str]
    """What may be handed in of the training."""


def axes_of(cell: Any, probe: Array) -> Axes:
    """The axes of the readings of a cell, or of layers, on a probe."""
    cells = list(parts_of(cell).values())
    ways = [
        (*one.core.way_names, *["straight"] * (one.retention_gate is not None)) for one in cells if one.closed_form
    ]
    return Axes(
        sequence=range(int(np.prod(probe.shape[1:-1], dtype=int))),
        lag=range(len(probe)),
        exponent=range(1, EXPONENTS + 1),
        layer=list(parts_of(cell)),
        way=list(dict.fromkeys(way for one in ways for way in one)),
        gate=list(dict.fromkeys(gate for one in cells for gate in one.gate_names)),
        quantile=QUANTILES,
        bin=[k / BINS for k in range(BINS)],
        given=GIVEN,
    )


def parts_of(cell: Any) -> dict[str, Any]:
    """The cells inside, by name: of one cell it alone, under the name of its class."""
    return cell.parts if isinstance(cell, Layers) else {type(cell).__name__: cell}


def by_part(cell: Any, tree: Any) -> tuple[Any, ...]:
    """Parameters, or what has their form, of each of `parts_of`."""
    return tuple(tree) if isinstance(cell, Layers) else (tree,)


def blank(axes: Axes) -> dict[str, np.ndarray]:
    """A look of NaN."""
    lengths = {name: len(along) for name, along in axes._asdict().items()}
    return {name: np.full([lengths[axis] for axis in own], np.nan) for name, (own, _) in READINGS.items()}


def look(cell: Any, params: Any, probe: Array, loss: Any, axes: Axes) -> dict[str, np.ndarray]:
    """Every reading of a network but those that are handed in.

    Args:
        cell: the cell, or a stack.
        params: its parameters.
        probe: the inputs, [T, *batch, D].
        loss: as for `gradient_flow`.
        axes: of `axes_of(cell, probe)`.
    """
    found = blank(axes)
    found["weight_norm"] = norms(by_part(cell, params))
    with np.errstate(over="ignore", invalid="ignore"):  # which `finite` tells
        history = record(cell, params, probe)
    found["finite"] = fetched(float(all(map(all_finite, leaves((params, history.states))))))
    if not found["finite"]:
        return found
    array, word = (loss, None) if hasattr(loss, "__array_namespace__") else (None, loss)
    log_norm, log_direct, shares = to_numpy(_flow(history, array, word))
    decay = _Decay(log_norm, log_direct)
    found["decay_rate"], found["horizon"] = decay.decay_rate.rate.ravel(), decay.horizon().ravel()
    found["log_norm"] = decay.by_lag
    parts = list(parts_of(history.cell).values())
    if all(one.closed_form and "cell" in one.state_type._fields for one in parts):
        found["mean_order"] = fetched(_mean_order(history), np.float64).ravel()
    exponents = _exponents(history)
    found["exponents"][: len(exponents)] = exponents
    for k, (one, share) in enumerate(zip(_histories(history), shares, strict=True)):
        for way, value in share.items():
            found["share"][k, axes.way.index(way)] = value
        if not one.cell.gate_names:
            continue
        statistics, distribution = to_numpy(_gates(one))
        for name, gate in statistics.gates.items():
            at = k, axes.gate.index(name)
            found["gate_mean"][at], found["left"][at] = gate.mean.mean(), gate.left.mean()
            found["right"][at] = gate.right.mean()
            found["shut"][at], found["open"][at] = (gate.max < SHUT).mean(), (gate.min > OPEN).mean()
            found["distribution"][at] = distribution[name]
        if statistics.timescale is not None:  # the nearest, since an infinite one has no other between
            found["timescale"][k] = np.quantile(statistics.timescale, QUANTILES, method="nearest")
    return found


def jump(cell: Any, params: Any, update: Any, probe: Array) -> np.ndarray:
    """Ln of how many times as large the outputs on the probe are where an update is made once more, or taken back.

    The greater of both; NaN where the outputs are 0 or not finite.

    Args:
        cell: the cell, or a stack.
        params: its parameters.
        update: what is added to these.
        probe: the inputs, [T, *batch, D].
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        more, less = (map_tree(add, params, update) for add in (operator.add, operator.sub))
        size, larger, smaller = (np.float64(_log_size(cell, one, probe)) for one in (params, more, less))
        return fetched(np.nanmax([larger, smaller, -np.inf]) - size if np.isfinite(size) else np.nan)


@jit(static=("cell",))
def _log_size(cell: Any, params: Any, probe: Array) -> Array:
    """Ln of the L2 norm of all outputs; infinite where one is beyond the float range, NaN where all are 0."""
    outputs = run(cell, params, probe)[0]
    xp = namespace(outputs)
    greatest = xp.max(xp.abs(outputs))
    size = xp.log(greatest) + 0.5 * xp.log(xp.sum((outputs / greatest) ** 2))
    return xp.where(xp.all(xp.isfinite(outputs)), size, xp.inf)


@jit()
def _norms(trees: tuple[Any, ...]) -> Array:
    return namespace(*leaves(trees)).stack([tree_norm(tree) for tree in trees])


def norms(trees: tuple[Any, ...]) -> np.ndarray:
    """The L2 norm of each of several trees of arrays, [trees]."""
    with np.errstate(over="ignore"):
        return fetched(_norms(trees), np.float64)


class _Decay(DecaySummary):
    """Readings of norms [T, *batch] in NumPy, of one cell or of all layers together."""

    def __init__(self, log_norm: np.ndarray, log_direct: np.ndarray):
        self.log_norm, self.log_direct = log_norm.astype(np.float64), log_direct.astype(np.float64)

    @property
    def _norms(self) -> tuple[np.ndarray, np.ndarray]:
        return self.log_norm, self.log_direct

    @property
    def by_lag(self) -> np.ndarray:
        """The median over sequences of the log norm so many steps before the loss less that at it, [T].

        NaN before the first step, and where the loss enters at many steps or none.
        """
        length = len(self.log_norm)
        norm, enters = (x.reshape(length, -1) for x in (self.log_norm, self.log_direct > -np.inf))
        last = length - 1 - enters[::-1].argmax(axis=0)
        steps = last - np.arange(length)[:, None]
        there = (steps >= 0) & (enters.sum(axis=0) == 1)
        at_loss = np.take_along_axis(norm, last[None], axis=0)
        return np.median(
            np.where(there, np.take_along_axis(norm, steps % length, axis=0) - at_loss, np.nan), axis=1
        )


def _histories(history: Any) -> list[History]:
    return [history] if isinstance(history, History) else [part for part, _ in history.cells().values()]


@jit(static=("loss",))
def _flow(history: Any, direct: Array | None, loss: Any) -> tuple[Array, Array, list[dict[str, Array]]]:
    """Log norms of the gradient and of its direct part, [T, *batch], and the mean shares of the ways back."""
    flow = gradient_flow(history, loss if direct is None else direct)
    xp = namespace(history.outputs)
    single = isinstance(history, History)
    shares = [
        {way: xp.nanmean(each.share) for way, each in (one.gates or {}).items()}
        for one in ((flow,) if single else flow.flows)  # type: ignore  # of layers
    ]
    return flow.log_norm if single else log_hypot(flow.log_norm, axis=0), flow.log_direct, shares


@jit()
def _mean_order(history: Any) -> Array:
    return path_spectrum(history).mean_order[0]


def _exponents(history: Any) -> np.ndarray:
    """The leading exponents, [k]."""
    try:
        with warnings.catch_warnings():  # which JAX, where this is compiled, does not give either
            warnings.simplefilter("ignore", RuntimeWarning)
            return fetched(_spectrum(history), np.float64)
    except ValueError:  # in NumPy, of tangents that one step takes out of the float range
        return np.full(EXPONENTS, np.nan)


@jit()
def _spectrum(history: Any) -> Array:
    transient = len(history) // 10
    return lyapunov_spectrum(
        history,
        min(EXPONENTS, state_size(history)),
        transient=transient,
        reorthonormalise=1,
        window=len(history) - transient,
        check=False,
    ).exponents


@jit()
def _gates(history: History) -> tuple[GateStatistics, dict[str, Array]]:
    """Statistics of the gates, and how their activations are distributed, each [BINS]."""
    xp = namespace(history.inputs)

    def shares(gate: Array) -> Array:
        below = [xp.mean(gate < k / BINS, dtype=gate.dtype) for k in range(1, BINS)]
        return xp.diff(xp.stack([xp.zeros_like(below[0]), *below, xp.ones_like(below[0])]))

    return gate_statistics(history), {name: shares(getattr(history, name)) for name in history.cell.gate_names}
