"""What gates do: means, saturation and time scales per gate and unit."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import (
    Array,
    jit,
    log_sigmoid,
    map_tree,
    namespace,
    result,
    sigmoid_and_slope,
    sum_over_time,
)
from lstmx.checks import finite, finite_parameters, finite_stretches
from lstmx.chunks import chunk_length, scan_chunks
from lstmx.history import History, StoredHistory
from lstmx.loops import advance, masked_door, started

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


@result(static=("retention_gate",))
class GateStatistics:
    """What the gates of a history do; `statistics["forget_gate"]` is one gate's `UnitStatistics`.

    Time scales are those of the gate f that multiplies the old state (an LSTM's forget gate, a GRU's update
    gate), in steps, and say how long a unit would remember if nothing but that gate acted on its state. Steps from
    an SLSTM's empty state, which has nothing to keep, do not count in them; NaN where there are no others.

    Attributes:
        gates: name of each sigmoid gate to its statistics.
        retention_gate: name of the gate that the time scales are of.
        timescale: geometric time scale −1/⟨ln f⟩, [H]: the decay that a state undergoes.
        timescale_arithmetic: −1/ln⟨f⟩, [H]: the estimator of Mahto et al. 2021, never the smaller one.
        half_life: ln 2 · `timescale`, [H].
    """

    gates: dict[str, UnitStatistics]
    retention_gate: str
    timescale: Array
    timescale_arithmetic: Array
    half_life: Array

    def __getitem__(self, name: str) -> UnitStatistics:
        if name not in self.gates:
            raise KeyError(f"no gate {name!r}; these statistics have {', '.join(self.gates)}")
        return self.gates[name]

    def __repr__(self) -> str:
        return f"GateStatistics({', '.join(self.gates)}: {len(self.timescale)} units)"

    def __str__(self) -> str:
        """A table: a row for each gate, averaged over units, and the time scales' spread over units."""
        head = f"{'gate':<12}  {'mean':>6}  {'std':>6}  {'min':>6}  {'max':>6}  {'< 0.1':>6}  {'> 0.9':>6}"
        lines = [f"{head}   (mean over units; min and max over all)"]
        for name, gate in self.gates.items():
            mean, std, left, right = (np.mean(x) for x in (gate.mean, gate.std, gate.left, gate.right))
            low, high = np.min(np.asarray(gate.min)), np.max(np.asarray(gate.max))
            lines.append(
                f"{name.replace('_', ' '):<12}  {mean:6.3f}  {std:6.3f}  {low:6.3f}  {high:6.3f}"
                f"  {left:6.1%}  {right:6.1%}"
            )
        lines += [
            "",
            f"{'time scale of the ' + self.retention_gate.replace('_', ' '):<33}  least   median  greatest",
        ]
        for label, scale in (
            ("geometric −1/⟨ln f⟩, steps", self.timescale),
            ("arithmetic −1/ln⟨f⟩, steps", self.timescale_arithmetic),
            ("half-life, steps", self.half_life),
        ):
            low, middle, high = (f(np.asarray(scale)) for f in (np.min, np.median, np.max))
            lines.append(f"{label:<33}  {low:<6.4g}  {middle:<6.4g}  {high:<.4g}")
        return "\n".join(lines)


class _Moments(NamedTuple):
    """Accumulated over a stretch of time and all sequences; per gate [gates, H], of the retention gate [H]."""

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
    complement: Array


def gate_statistics(history: History | StoredHistory) -> GateStatistics:
    """Mean, spread, saturation and time scales of every gate and unit.

    All steps and all sequences of the batch count alike. Works chunk by chunk, so a history with
    `keep="states"` is never expanded whole.

    Args:
        history: the recorded pass, in memory or on disk.

    Returns:
        The statistics; `print` shows them as a table.

    Raises:
        ValueError: the cell has no gates, or the history holds NaN or infinity (the first step and unit are
            named).

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
    cell = history.cell
    _gated(cell)
    finite_stretches(history)

    width = max(1, cell.preactivation_size * math.prod(history.batch))
    size = max(1, _CHUNK_ELEMENTS // width)
    moments = _moments_of(cell, *history[:size].data)
    for start in range(size, len(history), size):
        moments = _combine(moments, _moments_of(cell, *history[start : start + size].data))
    return _statistics(cell, moments)


def summarise(
    cell: Any, params: Any, xs: Array, state: Any = None, *, lengths: Any = None, resets: Any = None
) -> GateStatistics:
    """The statistics of `gate_statistics`, accumulated while the cell runs.

    No history is made: the memory beside the inputs does not depend on T.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1: time first, any number of batch axes.
        state: initial state, fields [*batch, H]; None for zeros.
        lengths: as for `run`; steps past a sequence's end do not count.
        resets: as for `run`.

    Returns:
        The statistics, over all steps and sequences; `print` shows them as a table.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters.
        ValueError: an argument has the wrong shape or holds NaN or infinity, or the cell has no gates.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> lstmx.summarise(cell, params, numpy.zeros((5, 3), "float32")).timescale.round(3)[0]  # of σ(1)
        np.float64(3.192)
    """
    cell, params, xs, state = masked_door(cell, params, xs, state, lengths, resets)
    _gated(cell)
    finite_parameters(params)
    finite("inputs", xs, "feature")
    for field, value in ({} if state is None else state._asdict()).items():
        finite(f"state.{field}", value[None])
    moments = _accumulated(cell, params, xs, state)
    finite("the mean activation of a gate", moments.mean)
    return _statistics(cell, moments)


def _gated(cell: Any) -> None:
    if cell.retention_gate is None:
        raise ValueError(f"a {type(cell).__name__} has no gates; gate statistics need a gated cell")


def _statistics(cell: Any, moments: _Moments) -> GateStatistics:
    xp = namespace(moments.mean)
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
    gates = {name: UnitStatistics(*(field[k] for field in fields)) for k, name in enumerate(cell.gate_names)}
    steps = xp.where(moments.retained == 0, xp.nan, moments.retained)
    geometric = _reciprocal(-moments.log_retention / steps)
    arithmetic = _reciprocal(-xp.log1p(-moments.complement / steps))
    return GateStatistics(gates, cell.retention_gate, geometric, arithmetic, math.log(2) * geometric)


@jit(static=("cell",))
def _moments_of(
    cell: Any, params: Any, initial: Any, inputs: Array, states: Any, stored: Array | None
) -> _Moments:
    history = History(cell, params, initial, inputs, states, stored)
    return _moments(cell, history.read_by_gates, history.preactivations)


@jit(static=("cell",))
def _accumulated(cell: Any, params: Any, xs: Array, state: Any) -> _Moments:
    """Moments of a whole pass, chunk by chunk inside the loop."""

    def readable(before: Any, after: Any, a: Array) -> tuple[Any, Array]:
        return before if cell.gates_read_state else None, a

    def chunk(carry: Any, xs: Array, own: None) -> tuple[Any, None, None]:
        state, moments, lost = carry
        state, read = advance(cell, params, state, xs, readable)
        here = _moments(cell, *read)
        given = map_tree(lambda x, y: x - y, here, lost)._replace(**_not_sums(here))
        both = _combine(moments, given)
        # What rounding took from each sum, to be given to the next: thousands of chunks would add up (Kahan).
        lost = map_tree(lambda new, old, x: (new - old) - x, both, moments, given)._replace(**_not_sums(zero))
        return (state, both, lost), None, None

    size = chunk_length(xs.shape[0], cell.preactivation_size * math.prod(xs.shape[1:-1]))
    state = started(cell, params, xs, state)
    start = _moments(cell, *readable(state, *cell.step(params, state, xs[0])))
    zero = map_tree(namespace(start.mean).zeros_like, start)
    nothing = zero._replace(min=zero.min + math.inf, max=zero.max - math.inf)
    return scan_chunks(chunk, (state, nothing, zero), xs, size)[0][1]


def _not_sums(moments: _Moments) -> dict[str, Array]:
    return {name: getattr(moments, name) for name in ("mean", "squares", "min", "max")}


def _moments(cell: Any, before: Any, a: Array) -> _Moments:
    """Moments of a stretch of time, from what gates are read of: states before, or None, and pre-activations."""
    xp = namespace(a)
    before, a = map_tree(lambda x: xp.reshape(x, (-1, x.shape[-1])), (before, a))
    active = cell.active(a)
    logits = {name: cell.gate_logit(name, before, a) for name in cell.gate_names}
    retention = logits[cell.retention_gate]
    gates = sigmoid_and_slope(xp, xp.stack(list(logits.values()), axis=1))[0]

    def counted(x: Array, otherwise: float = 0.0) -> Array:
        """`x` [N, ..., H] where the state moves."""
        if active is None:
            return x
        return xp.where(active.reshape(-1, *(1,) * (x.ndim - 1)), x, xp.full_like(x, otherwise))

    whole = sum_over_time(counted(gates))
    count = xp.asarray(len(a), dtype=whole.dtype) if active is None else xp.sum(active.astype(whole.dtype))
    mean = whole / xp.maximum(count, xp.ones_like(count))
    accurate = gates.astype(mean.dtype)
    log_retention = log_sigmoid(retention)
    empty = xp.isneginf(log_retention)
    nothing = xp.zeros_like(log_retention)
    return _Moments(
        count=count,
        mean=mean,
        squares=sum_over_time(counted((accurate - mean) ** 2)),
        min=xp.min(counted(gates, math.inf), axis=0),
        max=xp.max(counted(gates, -math.inf), axis=0),
        left=sum_over_time(counted((gates < 0.1).astype(gates.dtype))),
        right=sum_over_time(counted((gates > 0.9).astype(gates.dtype))),
        retained=sum_over_time(counted((~empty).astype(gates.dtype))),
        log_retention=sum_over_time(counted(xp.where(empty, nothing, log_retention))),
        complement=sum_over_time(counted(xp.where(empty, nothing, sigmoid_and_slope(xp, -retention)[0]))),
    )


def _combine(a: _Moments, b: _Moments) -> _Moments:
    """Moments of two stretches together (Chan, Golub & LeVeque's pairwise update)."""
    xp = namespace(a.mean)
    gap = b.mean - a.mean
    sums = map_tree(lambda x, y: x + y, a, b)
    whole = xp.maximum(sums.count, xp.ones_like(sums.count))  # 0 where both are padding
    return sums._replace(
        mean=a.mean + gap * (b.count / whole),
        squares=a.squares + b.squares + gap**2 * (a.count * b.count / whole),
        min=xp.minimum(a.min, b.min),
        max=xp.maximum(a.max, b.max),
    )


def _reciprocal(rate: Array) -> Array:
    """1 / rate, infinite for a rate of exactly 0, without a warning."""
    xp = namespace(rate)
    still = rate == 0
    return xp.where(still, xp.inf, 1 / xp.where(still, xp.ones_like(rate), rate))
