"""What gates do: means, saturation and time scales per gate and unit."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, overload

import numpy as np

from lstmx.arrays import Array, columns, fetched, gathered, jit, map_tree, namespace, result, sum_over_time
from lstmx.cells.activations import activated_and_slope
from lstmx.cells.base import Cell, P, S
from lstmx.checks import (
    door,
    finite,
    finite_history,
    finite_parameters,
    require_history,
    some_sequence,
    within_unit,
)
from lstmx.draws import Key
from lstmx.history import Controls, History, StoredHistory, controlled
from lstmx.history.controls import Lengths
from lstmx.layers import LayeredHistory, Layers
from lstmx.layers.base import Tree
from lstmx.passes.forward import advance, started
from lstmx.passes.run import record
from lstmx.scans.chunks import chunk_length, scan_chunks
from lstmx.strips import Strip, shown

_CHUNK_ELEMENTS = 2**22  # of pre-activations at a time: the memory that statistics take beside the history


@result
class UnitStatistics:
    """What one gate does, per unit, over all steps and sequences; each field is [H].

    Attributes:
        mean: mean activation.
        std: standard deviation of the activation.
        min: least activation.
        max: greatest activation.
        left: left saturation, the fraction of time below 0.1.
        right: right saturation, the fraction of time above 0.9.

    References:
        Karpathy, Johnson & Fei-Fei, "Visualizing and understanding recurrent networks", arXiv 1506.02078, for
        saturation.
    """

    mean: Array
    std: Array
    min: Array
    max: Array
    left: Array
    right: Array

    def __repr__(self) -> str:
        names = ", ".join(self._array_fields)  # type: ignore  # which `result` adds
        return f"UnitStatistics({names}: {self.mean.shape[-1]} units)"


@result(static=("retention_gate",))
class GateStatistics:
    """What the gates of a history do; `statistics["forget_gate"]` is one gate's `UnitStatistics`.

    Time scales are those of the gate f that multiplies the old state (an LSTM's forget gate, a GRU's update
    gate), in steps, and say how long a unit would remember if nothing but that gate acted on its state. Steps from
    an SLSTM's empty state, which has nothing to keep, do not count in them, and neither do those that start a
    sequence; NaN where there are no others. What a Zoneout keeps beside the gate is counted. A hard gate that is
    exactly 0 once has the geometric time scale 0: nothing outlives that step. None of a cell without such a gate,
    as of a step function.

    Attributes:
        gates: name of each sigmoid gate to its statistics.
        retention_gate: name of the gate that the time scales are of.
        timescale: geometric time scale −1/⟨ln f⟩, [H]: the decay that a state undergoes.
        timescale_arithmetic: −1/ln⟨f⟩, [H]: the estimator of Mahto et al. 2021, never the smaller one.
        half_life: ln 2 · `timescale`, [H].
    """

    gates: dict[str, UnitStatistics]
    retention_gate: str | None
    timescale: Array | None
    timescale_arithmetic: Array | None
    half_life: Array | None

    def __getitem__(self, name: str) -> UnitStatistics:
        if name not in self.gates:
            raise KeyError(f"no gate {name!r}; these statistics have {', '.join(self.gates)}")
        return self.gates[name]

    def __repr__(self) -> str:
        units = len(next(iter(self.gates.values())).mean)
        return f"GateStatistics({', '.join(self.gates)}: {units} units)"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table, and each gate's mean by unit."""
        strips = [Strip(name.replace("_", " "), gate.mean, (0, 1)) for name, gate in self.gates.items()]
        return shown(str(self), strips, "units, each the mean over steps and sequences,")

    def __str__(self) -> str:
        """A table: a row for each gate, averaged over units, and the time scales' spread over units."""
        head = f"{'gate':<12}  {'mean':>6}  {'std':>6}  {'min':>6}  {'max':>6}  {'< 0.1':>6}  {'> 0.9':>6}"
        lines = [f"{head}   (of each unit over time, then the mean over units; min and max over all)"]
        for name, gate in self.gates.items():
            mean, std, left, right = (np.mean(x) for x in (gate.mean, gate.std, gate.left, gate.right))
            low, high = np.min(fetched(gate.min)), np.max(fetched(gate.max))
            lines.append(
                f"{name.replace('_', ' '):<12}  {mean:6.3f}  {std:6.3f}  {low:6.3f}  {high:6.3f}"
                f"  {left:6.1%}  {right:6.1%}"
            )
        if self.retention_gate is None:
            return "\n".join(lines)
        lines += [
            "",
            f"{'time scale of the ' + self.retention_gate.replace('_', ' '):<33}  least   median  greatest",
        ]
        for label, scale in (
            ("geometric −1/⟨ln f⟩, steps", self.timescale),
            ("arithmetic −1/ln⟨f⟩, steps", self.timescale_arithmetic),
            ("half-life, steps", self.half_life),
        ):
            low, middle, high = (f(fetched(scale)) for f in (np.min, np.median, np.max))
            lines.append(f"{label:<33}  {low:<6.4g}  {middle:<6.4g}  {high:<.4g}")
        return "\n".join(lines)


class _Moments(NamedTuple):
    """Accumulated over a stretch of time and all sequences: of all gates side by side, of the retention gate."""

    count: Any
    mean: Array
    squares: Array
    min: Array
    max: Array
    left: Array
    right: Array
    retained: Array
    """Steps with something to keep, not from an empty state: only these count in the next two."""
    log_retention: Array
    """Sum where it is finite, since a running sum that is corrected for rounding cannot hold infinities."""
    closed: Array
    """Steps at which a hard gate leaves nothing of what there is to keep."""
    complement: Array
    """Sum of 1 − f: right for what is kept almost whole."""
    top: Array
    """Greatest log retention; −inf where nothing is kept."""
    kept: Array
    """Sum of f / e^`top`: right for what is kept in the smallest part."""


@overload
def gate_statistics(history: LayeredHistory) -> dict[str, GateStatistics]: ...
@overload
def gate_statistics(history: History | StoredHistory) -> GateStatistics: ...
def gate_statistics(history: Any) -> Any:
    """Mean, spread, saturation and time scales of every gate and unit.

    All steps and all sequences of the batch count alike. Works chunk by chunk, so a history with
    `keep="states"` is never expanded whole.

    Args:
        history: the recorded pass, in memory or on disk, of a cell or of layers.

    Returns:
        The statistics, of layers by name; `print` shows them as a table.

    Raises:
        TypeError: this is not a history.
        ValueError: the cell has no gates, a gate of a step function leaves [0, 1], or the history holds NaN or
            infinity (the first step and unit are named).

    References:
        Mahto, Vo, Turek & Huth, "Multi-timescale representation learning in LSTM language models", ICLR 2021,
        for the arithmetic time scale.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.zeros((5, 3), "float32"))
        >>> lstmx.gate_statistics(history).timescale.round(3)[0]  # of σ(1)
        np.float64(3.192)
    """
    require_history(history, layers=True, disk=True)
    if isinstance(history, LayeredHistory):
        return {name: gate_statistics(part) for name, (part, _) in history.cells().items()}
    cell = history.cell
    _gated(cell)
    finite_history(history)

    width = max(1, cell.preactivation_size * math.prod(history.batch))
    size = max(1, _CHUNK_ELEMENTS // width)
    moments = _moments_of(history[:size])
    for start in range(size, len(history), size):
        moments = _combine(moments, _moments_of(history[start : start + size]))
    return _statistics(cell, moments, _gate_sizes(cell, history.params))


@overload
def summarise(
    cell: Cell[P, S],
    params: P,
    xs: Array,
    state: S | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> GateStatistics: ...
@overload
def summarise(
    cell: Layers[Tree],
    params: Tree,
    xs: Array,
    state: Tree | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> dict[str, GateStatistics]: ...
def summarise(
    cell: Any,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> Any:
    """The statistics of `gate_statistics`, accumulated while the cell runs.

    No history is made: the memory beside the inputs does not depend on T.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1: time first, any number of batch axes.
        state: initial state, fields [*batch, H]; None for zeros.
        lengths: as for `run`; so the next three.
        mask: booleans [T, *batch].
        resets: booleans [T, *batch].
        key: of what is drawn.

    Returns:
        The statistics, over all steps and sequences, of layers by name; `print` shows them as a table. Through
        layers the states are kept while they run.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters.
        ValueError: an argument has the wrong shape or holds NaN or infinity, the cell has no gates, or a gate of a
            step function leaves [0, 1].

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> lstmx.summarise(cell, params, numpy.zeros((5, 3), "float32")).timescale.round(3)[0]  # of σ(1)
        np.float64(3.192)
    """
    if isinstance(cell, Layers):
        options = {"lengths": lengths, "mask": mask, "resets": resets, "key": key}
        return gate_statistics(record(cell, params, xs, state, keep="states", **options))  # type: ignore  # of layers
    params, xs, state = door(cell, params, xs, state)
    some_sequence("xs", tuple(xs.shape[1:-1]))
    xs, controls = controlled(cell, xs, lengths, mask, resets, key)
    _gated(cell)
    finite_parameters(params)
    finite("inputs", xs, "feature")
    for field, value in ({} if state is None else cell.named_fields(state)).items():
        finite(f"state.{field}", value[None])
    moments = _accumulated(cell, params, xs, state, controls)
    finite("the mean activation of a gate", moments.mean[None])
    return _statistics(cell, moments, _gate_sizes(cell, params))


def _gated(cell: Any) -> None:
    if not cell.gate_names:
        raise ValueError(f"a {type(cell).__name__} has no gates; gate statistics need a gated cell")


def _gate_sizes(cell: Any, params: Any) -> tuple[int, ...]:
    """Numbers of each gate: one for each unit, or as many as a step function shows."""
    if cell.closed_form:
        return (cell.hidden_size,) * len(cell.gate_names)
    shown = cell.shown_shapes(params)
    return tuple(math.prod(shown[name]) for name in cell.gate_names)


def _statistics(cell: Any, moments: _Moments, sizes: tuple[int, ...]) -> GateStatistics:
    xp, moments = namespace(moments.mean), gathered(moments)
    count = moments.count
    variance = moments.squares / count
    fields = (
        moments.mean,
        xp.sqrt(variance),
        moments.min,
        moments.max,
        moments.left / count,
        moments.right / count,
    )
    parts = zip(cell.gate_names, zip(*(columns(field, sizes) for field in fields), strict=True), strict=True)
    gates = {name: UnitStatistics(*found) for name, found in parts}
    if not cell.closed_form:
        for name, gate in gates.items():
            within_unit(name, gate.min, gate.max)
    steps = xp.where(moments.retained == 0, xp.nan, moments.retained)
    if cell.retention_gate is None:
        return GateStatistics(gates, None, None, None, None)
    geometric = _reciprocal(-moments.log_retention / steps)
    geometric = xp.where(moments.closed > 0, xp.zeros_like(geometric), geometric)
    lost, some = moments.complement / steps, moments.kept > 0
    much = lost > 0.5
    near_one = -xp.log1p(-xp.where(much, xp.zeros_like(lost), lost))
    share = xp.where(some, moments.kept, xp.ones_like(lost)) / steps
    near_zero = -xp.where(some, moments.top + xp.log(share), -math.inf)  # infinite for gates that are all 0
    arithmetic = _reciprocal(xp.where(much, near_zero, near_one))
    return GateStatistics(gates, cell.retention_gate, geometric, arithmetic, math.log(2) * geometric)


@jit()
def _moments_of(history: History) -> _Moments:
    return _moments(history)


@jit(static=("cell",))
def _accumulated(cell: Any, params: Any, xs: Array, state: Any, controls: Controls | None) -> _Moments:
    """Moments of a whole pass, chunk by chunk inside the loop."""

    def part_of(state: Any, xs: Array, controls: Controls | None) -> History:
        _, rows = advance(cell, params, state, xs, controls, lambda before, after, stored: (after, stored))
        return History(cell, params, state, xs, *rows, controls=controls)

    def chunk(carry: Any, cut: Any, own: None) -> tuple[Any, None, None]:
        state, moments, lost = carry
        part = part_of(state, *cut)
        here = _moments(part)
        given = map_tree(lambda x, y: x - y, here, lost)._replace(**_not_sums(here))
        both = _combine(moments, given)
        # What rounding took from each sum, to be given to the next: thousands of chunks would add up (Kahan).
        sums = (x._replace(**_not_sums(zero)) for x in (both, moments, given))
        lost = map_tree(lambda new, old, x: (new - old) - x, *sums)
        return (part.final, both, lost), None, None

    size = chunk_length(xs.shape[0], cell.preactivation_size * math.prod(xs.shape[1:-1]))
    params, state = started(cell, params, xs, state)
    start = _moments(part_of(state, *map_tree(lambda x: x[:1], (xs, controls))))
    zero = map_tree(namespace(start.mean).zeros_like, start)
    nothing = zero._replace(min=zero.min + math.inf, max=zero.max - math.inf, top=zero.top - math.inf)
    return scan_chunks(chunk, (state, nothing, zero), (xs, controls), size)[0][1]


def _not_sums(moments: _Moments) -> dict[str, Array]:
    return {name: getattr(moments, name) for name in ("mean", "squares", "min", "max", "top", "kept")}


def _moments(history: History) -> _Moments:
    """Moments of a stretch of time."""
    cell, xp = history.cell, namespace(history.inputs)

    def in_one_row(x: Array) -> Array:
        return xp.reshape(x, (-1, x.shape[-1]))

    active = None if history.counts is None else xp.reshape(history.counts, (-1,))
    if cell.closed_form:
        before, a = map_tree(in_one_row, (history.read_by_gates, history.preactivations))
        logits = [cell.gate_logit(name, before, a) for name in cell.gate_names]
        gates = activated_and_slope(cell.gate_activation, xp.concat(logits, axis=1))[0]
    else:
        axes = len(history.batch) + 1
        flat = (getattr(history, name) for name in cell.gate_names)
        gates = xp.concat([xp.reshape(x, (math.prod(x.shape[:axes]), -1)) for x in flat], axis=1)
    # What a step leaves of the old state; nothing is told of it without a retention gate.
    log_retention = in_one_row(history.log_retention) if cell.retention_gate else xp.zeros_like(gates)

    def counted(x: Array, otherwise: float = 0.0) -> Array:
        """`x` [N, ..., H] where the state moves."""
        if active is None:
            return x
        return xp.where(active.reshape(-1, *(1,) * (x.ndim - 1)), x, xp.full_like(x, otherwise))

    whole = sum_over_time(counted(gates))
    count = xp.asarray(len(gates), dtype=whole.dtype) if active is None else xp.sum(active.astype(whole.dtype))
    mean = whole / xp.maximum(count, xp.ones_like(count))
    accurate = gates.astype(mean.dtype)
    without = xp.isneginf(log_retention)
    empty, nothing = without, xp.zeros_like(log_retention)
    if cell.gate_activation != "sigmoid":  # only a start leaves nothing to keep: elsewhere −inf is a gate's
        empty = xp.zeros_like(without)
        if history.controls is not None and history.controls.reset is not None:
            empty = empty | xp.reshape(history.controls.reset, (-1, 1))
    relevant = counted(xp.where(empty, xp.full_like(nothing, -math.inf), log_retention), -math.inf)
    top = xp.max(relevant, axis=0)
    return _Moments(
        count=count,
        mean=mean,
        squares=sum_over_time(counted((accurate - mean) ** 2)),
        min=xp.min(counted(gates, math.inf), axis=0),
        max=xp.max(counted(gates, -math.inf), axis=0),
        left=sum_over_time(counted((gates < 0.1).astype(gates.dtype))),
        right=sum_over_time(counted((gates > 0.9).astype(gates.dtype))),
        retained=sum_over_time(counted((~empty).astype(gates.dtype))),
        log_retention=sum_over_time(counted(xp.where(without, nothing, log_retention))),
        closed=sum_over_time(counted((without & ~empty).astype(gates.dtype))),
        complement=sum_over_time(counted(xp.where(empty, nothing, -xp.expm1(log_retention)))),
        top=top.astype(mean.dtype),
        kept=sum_over_time(xp.exp(relevant - _finite(top))),
    )


def _combine(a: _Moments, b: _Moments) -> _Moments:
    """Moments of two stretches together (Chan, Golub & LeVeque's pairwise update)."""
    xp = namespace(a.mean)
    gap = b.mean - a.mean
    sums = map_tree(lambda x, y: x + y, a, b)
    whole = xp.maximum(sums.count, xp.ones_like(sums.count))  # 0 where both are padding
    top = xp.maximum(a.top, b.top)
    return sums._replace(
        mean=a.mean + gap * (b.count / whole),
        squares=a.squares + b.squares + gap**2 * (a.count * b.count / whole),
        min=xp.minimum(a.min, b.min),
        max=xp.maximum(a.max, b.max),
        top=top,
        kept=a.kept * xp.exp(a.top - _finite(top)) + b.kept * xp.exp(b.top - _finite(top)),
    )


def _finite(top: Array) -> Array:
    """The greatest of some logarithms, 0 where they are all −inf."""
    xp = namespace(top)
    return xp.where(xp.isneginf(top), xp.zeros_like(top), top)


def _reciprocal(rate: Array) -> Array:
    """1 / rate, infinite for a rate of exactly 0, without a warning."""
    xp = namespace(rate)
    still = rate == 0
    return xp.where(still, xp.inf, 1 / xp.where(still, xp.ones_like(rate), rate))
