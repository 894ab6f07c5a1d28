"""Where units are on together, and which units follow a signal, over passes in memory and on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from lstmx.arrays import Array, fetched, is_traced, result
from lstmx.checks import LARGEST, finite, finite_number, positive, require_history, seeding
from lstmx.history import History, StoredHistory
from lstmx.layers import LayeredHistory

_ELEMENTS = 2**20  # of a field of a pass in memory, worked on at a time
_STEPS = 2**14  # most steps that a signal is shifted over at a time
_INDEPENDENT = 15  # independent steps below which shifts do not tell chance: random walks are found by mistake


@result(static=("field", "above"))
class Stretches:
    """Stretches of time in which units are on together, those with most of it first.

    Attributes:
        units: the units, [K].
        start: first step of each stretch, [N].
        stop: the step after its last, [N].
        sequence: its index in the batch, [N, number of batch axes].
        share: how many of the units are on, on the mean over its steps and as a share of K, [N].
        field: the name of what the units were measured by.
        above: the least value at which a unit is on.
    """

    units: Array
    start: Array
    stop: Array
    sequence: Array
    share: Array
    field: str
    above: float

    def __len__(self) -> int:
        return len(self.start)

    def __repr__(self) -> str:
        units = "1 unit" if len(self.units) == 1 else f"{len(self.units)} units"
        return f"Stretches({len(self)} of {units}, {self.field} of at least {self.above:g})"

    def __str__(self) -> str:
        """A row for each of the first twenty stretches."""
        what = f"{len(self.units)} units"
        if len(self.units) <= 8:
            what = f"unit{'s' if len(self.units) > 1 else ''} {', '.join(map(str, self.units))}"
        lines = [f"{what}: {self.field.replace('_', ' ')} of at least {self.above:g}", ""]
        if not len(self):
            return "\n".join([*lines, "nowhere else"])
        batched = self.sequence.shape[1] > 0
        lines.append(f"{'first step':>10}  {'steps':>6}  {'units on':>8}{'  sequence' if batched else ''}")
        rows = zip(self.start, self.stop, self.share, self.sequence, strict=True)
        for start, stop, share, index in list(rows)[:20]:
            where = f"  {', '.join(map(str, index))}" if batched else ""
            lines.append(f"{start:>10}  {stop - start:>6}  {share:>8.0%}{where}")
        if len(self) > 20:
            lines.append(f"and {len(self) - 20} more")
        return "\n".join(lines)


@result(static=("field", "level", "shifts"))
class UnitsLike:
    """Units whose values follow a signal, and how sure that is.

    Attributes:
        correlation: Pearson's correlation of each unit with the signal, [H]; 0 for a unit that does not move.
        p_value: how often a signal shifted in time, which has nothing to do with the units, correlates as much,
            [H]; 1 for a unit that is not judged, which does not move or has too few `independent_steps`.
        independent_steps: as how many independent steps the pass counts for a unit and the signal, 1 over the mean
            square of correlations with shifted signals, [H]; 0 for a unit that does not move. Both change slowly
            where there are few.
        found: the units that follow the signal, the greatest correlation first, [F]: among such, the expected
            share of false ones is at most `level`.
        field: the name of what the units were measured by.
        level: the expected share of false discoveries.
        shifts: how many shifts of the signal the p-values come from.
    """

    correlation: Array
    p_value: Array
    independent_steps: Array
    found: Array
    field: str
    level: float
    shifts: int

    def __repr__(self) -> str:
        return f"UnitsLike({len(self.found)} of {len(self.correlation)} units by their {self.field})"

    def __str__(self) -> str:
        """How many units follow the signal, and a row for each of the first twenty."""
        lines = [
            f"{len(self.found)} of {len(self.correlation)} units follow the signal with their "
            f"{self.field.replace('_', ' ')}; of these an expected {self.level:.0%} at most by chance, "
            f"judged by {self.shifts} shifts of the signal in time."
        ]
        slow = int(((self.independent_steps > 0) & (self.independent_steps < _INDEPENDENT)).sum())
        if slow:
            lines.append(
                f"Of {slow} of the units it cannot be said: with the signal they change so slowly that the pass "
                f"counts as fewer than {_INDEPENDENT} independent steps."
            )
        if len(self.found):
            lines += ["", f"{'unit':>6}  {'correlation':>11}  {'p':>8}"]
            lines += [f"{u:>6}  {self.correlation[u]:>+11.3f}  {self.p_value[u]:>8.2g}" for u in self.found[:20]]
        return "\n".join(lines)


def search(
    history: Any,
    *,
    units: Any = None,
    stretch: tuple[int, int] | None = None,
    sequence: int | tuple[int, ...] | None = None,
    above: float = 0.5,
    field: str | None = None,
    share: float = 1.0,
    most: int = 50,
) -> Stretches:
    """Find the stretches of time in which the same units are on.

    A unit is on where its value is at least `above`. Either the units are named, or they are those that are on
    throughout a stretch that one has marked, at its steps that count; stretches that touch the marked one are then
    left out. Steps that do not count end a stretch, as the ends of sequences do.

    Args:
        history: the pass of one cell, in memory or on disk; from disk it is read stretch by stretch.
        units: indices of units, [K].
        stretch: first step, and the one after the last, that `units` are taken from; instead of these.
        sequence: which sequence of a batch `stretch` is in: an integer, or a tuple of one per batch axis; None for
            the first.
        above: the least value of a unit that is on.
        field: what the units are measured by, such as "hidden_state", "cell_state" or a gate; None for the cell
            state, or where there is none for the hidden state.
        share: the least share of the units that have to be on at each step of a stretch.
        most: how many stretches to give.

    Returns:
        The stretches, those with the greatest product of steps and units on first; `print` shows a table.

    Raises:
        TypeError: history is no such pass, or inside a JAX transformation; units or steps are no integers.
        ValueError: not one of `units` and `stretch` is given, or `sequence` without `stretch`; a unit, step or
            share outside its range; no step of the stretch counts, or no unit is on throughout; the cell has no
            such field, or it holds NaN or infinity at a step that counts.

    References:
        Strobelt, Gehrmann, Pfister & Rush, "LSTMVis: a tool for visual analysis of hidden state dynamics in
        recurrent neural networks", arXiv 1606.07461, for marking a stretch and asking where else.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(1, 4)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.zeros((60, 1), "float32")
        >>> xs[10:15] = xs[40:45] = 3
        >>> history = lstmx.record(cell, params, xs)
        >>> found = lstmx.search(history, stretch=(12, 15), above=0.3)
        >>> found.units.tolist(), found.start.tolist(), found.stop.tolist()
        ([0, 1], [41], [58])
    """
    name, total = _field(history, field)
    finite_number("above", above)
    positive("most", most)
    finite_number("share", share, "a number above 0 and at most 1", lambda x: 0 < x <= 1)
    if (units is None) == (stretch is None):
        raise ValueError(
            "expected units=, indices of units, or stretch=, the steps to take them from: one of both"
        )
    if stretch is None and sequence is not None:
        raise ValueError(f"sequence is {sequence!r} without stretch; expected both, or units= alone")
    batch = history.batch
    counts = np.ones((len(history), *batch), bool) if history.counts is None else fetched(history.counts)
    marked = None
    if stretch is not None:
        sequence = (0,) * len(batch) if sequence is None else sequence
        index = sequence_within(f"sequence is {sequence!r}", sequence, batch)
        start, stop = _steps(stretch, len(history))
        marked = start, stop, index
        at = (slice(start, stop), *index)
        values = _read(history, name, start, stop)[(slice(None), *index)][counts[at]]
        if not len(values):
            raise ValueError(f"stretch is {(start, stop)}, where no step of the sequence counts; expected some")
        units = np.flatnonzero((values >= above).all(axis=0))
        if not len(units):
            raise ValueError(
                f"no unit's {name} is at least {above:g} throughout steps {start} to {stop - 1}; the most that "
                f"one keeps up is {values.min(axis=0).max():.3g}: lower above, or mark a shorter stretch"
            )
    else:
        units = units_within(units, total)
    on = np.zeros((len(history), *batch), np.int32)
    for start, values in _finite_values(history, name, counts):
        on[start : start + len(values)] = (values[..., units] >= above).sum(axis=-1)
    on[~counts] = 0
    least = math.ceil(share * len(units) - 1e-9)
    starts, stops, sequences, sums = _runs(on.reshape(len(on), -1), least)
    index = np.stack(np.unravel_index(sequences, batch), axis=-1) if batch else np.zeros((len(starts), 0), int)
    kept = np.ones(len(starts), bool)
    if marked is not None:
        kept = (starts >= marked[1]) | (stops <= marked[0]) | (index != np.array(marked[2], int)).any(axis=-1)
    order = np.flatnonzero(kept)
    order = order[np.lexsort((starts[order], sequences[order], -sums[order]))][:most]
    shares = sums[order] / ((stops - starts)[order] * len(units))
    return Stretches(units, starts[order], stops[order], index[order], shares, name, float(above))


def _runs(on: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where a column of [T, B] is at least `least` for a while: starts, stops, columns, and sums of values."""
    hit = np.zeros((len(on) + 2, on.shape[1]), bool)
    hit[1:-1] = on >= least
    edges = hit[1:] != hit[:-1]
    columns, at = np.nonzero(edges.T)
    starts, stops, columns = at[::2], at[1::2], columns[::2]
    before = np.concatenate([np.zeros((1, on.shape[1]), np.int64), np.cumsum(on, axis=0, dtype=np.int64)])
    return starts, stops, columns, before[stops, columns] - before[starts, columns]


def units_like(
    history: Any,
    signal: Any,
    *,
    field: str | None = None,
    level: float = 0.05,
    shifts: int = 200,
    key: int = 0,
) -> Any:
    """Find the units whose values go with a signal, and say which of them could be chance.

    Values of units and most signals change slowly, so that two that have nothing to do with each other correlate.
    Therefore the signal is shifted in time, around the end of each sequence, by many lags; a unit's correlation
    counts as much as it exceeds those with shifted signals. Correlations with shifted signals, each in units of
    their root mean square for that unit, are pooled over units, as many units and one pass are enough for small
    p-values then. Of the units that pass, an expected share of at most `level` is false whatever the units have
    to do with each other (Benjamini & Yekutieli). A trend over the whole sequence, which no shift preserves, is
    no signal for this; and a unit that changes, with the signal, so slowly that the pass counts as fewer than 15
    independent steps is not judged, as shifts do not tell chance there.

    Args:
        history: the pass, in memory or on disk; from disk it is read stretch by stretch.
        signal: numbers or booleans, an array or list, [T] for all sequences or [T, *batch]; what it is at steps
            that do not count is not read.
        field: what the units are measured by, such as "hidden_state", "cell_state" or a gate; None for the cell
            state, or where there is none for the hidden state.
        level: the expected share of false discoveries.
        shifts: how many lags; all there are in a shorter sequence.
        key: an int that the lags are drawn by.

    Returns:
        A `UnitsLike`, of layers by name; `print` shows the units that follow the signal.

    Raises:
        TypeError: history is no pass, or inside a JAX transformation; or signal holds no real numbers.
        ValueError: signal has another shape, does not change, or is not finite; fewer than three steps count;
            level or shifts are outside their ranges; or the cell has no such field, or it holds NaN or infinity
            at a step that counts.

    References:
        Benjamini & Yekutieli, "The control of the false discovery rate in multiple testing under dependency",
        Annals of Statistics 29 (2001): the modification for every form of dependency.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(1, 4)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.random.default_rng(1).normal(size=(500, 1)).astype("float32")
        >>> history = lstmx.record(cell, params, xs)
        >>> lstmx.units_like(history, xs[:, 0], field="hidden_state").found.tolist()
        [3, 0, 1, 2]
    """
    if isinstance(history, LayeredHistory):
        require_history(history, layers=True)
        given = _signal(history, signal)
        options: dict[str, Any] = {"field": field, "level": level, "shifts": shifts, "key": key}
        return {
            name: units_like(part, fetched(in_time(given)), **options)
            for name, (part, in_time) in history.cells().items()
        }
    name, _ = _field(history, field)
    finite_number("level", level, "a number between 0 and 1", lambda x: 0 < x < 1)
    positive("shifts", shifts, 19, LARGEST)
    seeding("key", key)
    count = math.prod(history.batch)
    signal = _signal(history, signal).reshape(len(history), count)
    counts = history.counts
    counts = np.ones(signal.shape, bool) if counts is None else fetched(counts).reshape(signal.shape)
    if counts.sum() < 3:
        raise ValueError(f"{counts.sum()} of the history's steps count; expected at least 3, to correlate over")
    if not np.isfinite(signal[counts]).all():
        step = int(np.flatnonzero((~np.isfinite(signal) & counts).any(axis=1))[0])
        raise ValueError(f"signal holds NaN or infinity, first at step {step}")
    signal = np.where(counts, signal, 0.0)
    signal = np.where(counts, signal - signal.sum() / counts.sum(), 0.0)
    size = math.sqrt((signal**2).sum())
    if size <= 1e-12 * max(1.0, float(np.abs(signal).max())):
        raise ValueError("signal is the same at every step that counts; a correlation with it is not defined")
    lags = _lags(counts.sum(axis=0), shifts, key)
    products, total, squares = _sums(history, name, signal / size, counts, lags)
    spread = np.sqrt(np.maximum(squares - total**2 / counts.sum(), 0.0))
    moving = spread > 1e-6 * np.sqrt(np.maximum(squares, 1e-300))
    correlations = np.where(moving[:, None], products / np.where(moving, spread, 1.0)[:, None], 0.0)
    observed, shifted = correlations[:, 0], correlations[:, 1:]
    independent = np.where(moving, shifted.shape[1] / np.maximum((shifted**2).sum(axis=1), 1e-300), 0.0)
    judged = independent >= _INDEPENDENT
    p_values = np.ones(len(observed))
    if judged.any():
        scale = np.sqrt((correlations[judged] ** 2).mean(axis=1))
        pooled = np.sort((np.abs(shifted[judged]) / scale[:, None]).ravel())
        more = len(pooled) - np.searchsorted(pooled, np.abs(observed[judged]) / scale - 1e-12)
        p_values[judged] = (1 + more) / (1 + len(pooled))
    found = _discoveries(p_values, observed, level)
    return UnitsLike(observed, p_values, independent, found, name, level, shifted.shape[1])


def _discoveries(p_values: np.ndarray, correlation: np.ndarray, level: float) -> np.ndarray:
    """The units that Benjamini and Yekutieli's step-up procedure passes, the greatest correlation first."""
    count = len(p_values)
    order = np.argsort(p_values)
    bound = level * np.arange(1, count + 1) / (count * (1 / np.arange(1, count + 1)).sum())
    passed = np.flatnonzero(p_values[order] <= bound)
    found = order[: passed[-1] + 1] if len(passed) else order[:0]
    return found[np.argsort(-np.abs(correlation[found]), kind="stable")]


def _lags(lengths: np.ndarray, shifts: int, key: int) -> np.ndarray:
    """How far the signal of each sequence is shifted, [1 + shifts, sequences]; first not at all."""
    longest = int(lengths.max())
    if longest - 1 <= shifts:
        share = np.arange(longest) / longest
    else:  # one in each of so many parts of the sequence
        drawn = np.random.default_rng(key).uniform(size=shifts)
        share = np.concatenate([[0.0], (1 + (longest - 2) * (np.arange(shifts) + drawn) / shifts) / longest])
    lags = np.floor(share[:, None] * lengths + 1e-9).astype(int)
    lags[1:] = np.where(lengths > 1, np.clip(lags[1:], 1, np.maximum(lengths - 1, 1)), 0)
    return lags


def _sums(
    history: Any, name: str, signal: np.ndarray, counts: np.ndarray, lags: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over steps and sequences: of each unit times each shifted signal [H, 1 + shifts], of it, of its square.

    A unit counts from its mean over the first part. The signal adds up to 0, so that its products are the same.
    """
    doubled = [np.tile(signal[counts[:, b], b], 2) for b in range(signal.shape[1])]
    lengths, done = counts.sum(axis=0), np.zeros(signal.shape[1], int)
    products, total, squares, origin = 0.0, 0.0, 0.0, None
    for start, part in _finite_values(history, name, counts.reshape(len(counts), *history.batch)):
        values = part.reshape(len(part), signal.shape[1], -1)
        here = counts[start : start + len(part)]
        if origin is None:
            origin = values[here].mean(axis=0) if here.any() else np.zeros(values.shape[-1], values.dtype)
        for b in range(signal.shape[1]):
            rows = values[here[:, b], b] - origin
            if not len(rows):
                continue
            windows = np.lib.stride_tricks.sliding_window_view(doubled[b].astype(rows.dtype), len(rows))
            products = products + (windows[lengths[b] + done[b] - lags[:, b]] @ rows).T.astype(np.float64)
            total = total + rows.sum(axis=0, dtype=np.float64)
            squares = squares + np.einsum("tu,tu->u", rows, rows, dtype=np.float64)
            done[b] += len(rows)
    return fetched(products), fetched(total), fetched(squares)


# ------------------------------------------------------------------------------------------- what is searched


def _field(history: Any, field: str | None) -> tuple[str, int]:
    """The name of a field of a pass, and how many units it has.

    Raises:
        TypeError: history is no pass of one cell, or inside a JAX transformation.
        ValueError: the cell has no such field.
    """
    require_history(history, disk=True)
    if is_traced(history if isinstance(history, History) else ()):
        raise TypeError("history is inside a JAX transformation, and has no numbers to search; call this outside")
    first = history[:1]
    if field is None:
        field = "cell_state" if "cell" in first.cell.named_fields(first.states) else "hidden_state"
    known = fields_of(first)
    if not isinstance(field, str) or field not in known:
        raise ValueError(f"field is {field!r}; expected one of {', '.join(map(repr, known))}")
    return field, getattr(first, field).shape[-1]


def fields_of(history: History) -> list[str]:
    """The states and gates of a pass that have a number for each unit."""
    cell = history.cell
    states = [f"{name}_state" for name in cell.named_fields(history.states)]
    shown = list(cell.gate_type._fields if cell.closed_form else history.kept_rows)
    lead = len(history.batch) + 1
    return [
        name
        for name in dict.fromkeys(["hidden_state", *states, *shown])
        if getattr(history[:1], name).ndim == lead + 1
    ]


def values_of(history: Any, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """The first step of each part of a pass, and its field [steps, *batch, H]."""
    if isinstance(history, StoredHistory):
        size = history.at_once
    else:
        width = math.prod(history.batch) * max(1, history.cell.hidden_size)
        size = max(1, _ELEMENTS // width)
    size = min(size, _STEPS)
    for start in range(0, len(history), size):
        yield start, _read(history, name, start, min(start + size, len(history)))


def _finite_values(history: Any, name: str, counts: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """As `values_of`; a ValueError at the first NaN or infinity at a step that counts, [T, *batch]."""
    for start, values in values_of(history, name):
        if not np.isfinite(values.sum()):
            finite(name, np.where(counts[start : start + len(values), ..., None], values, 0), start=start)
        yield start, values


def _read(history: Any, name: str, start: int, stop: int) -> np.ndarray:
    """A field from one step to another, [steps, *batch, H]."""
    if isinstance(history, StoredHistory) and name in history.store.fields:
        return history.store.read(name, start, stop)
    return fetched(getattr(history[start:stop], name))


def _signal(history: Any, signal: Any) -> np.ndarray:
    """The signal as [T, *batch] of float64."""
    shape = (len(history), *history.batch)
    found = real_numbers("signal", signal)
    if found.shape not in (shape, shape[:1]):
        raise ValueError(f"signal has shape {found.shape}; expected [T] or [T, *batch], {shape}")
    return np.broadcast_to(found.reshape(*found.shape, *(1,) * (len(shape) - found.ndim)), shape)


def real_numbers(name: str, value: Any) -> np.ndarray:
    """An array, or a list, of real numbers or booleans as float64; else a TypeError."""
    try:
        found = fetched(value)
    except (TypeError, ValueError):  # of what is no sequence, and of lists of several lengths
        found = fetched(None)
    if found.dtype.kind not in "biuf":
        what = f"an array of {value.dtype}" if hasattr(value, "dtype") else f"a {type(value).__name__}"
        raise TypeError(f"{name} is {what}; expected real numbers or booleans, as an array or a list")
    return found.astype(np.float64)


def units_within(units: Any, total: int) -> np.ndarray:
    """Indices of units that are there.

    Raises:
        TypeError: they are no integers.
        ValueError: none, one twice, or outside 0 to `total` − 1.
    """
    found = fetched(units)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise TypeError(f"units is {units!r}; expected a list of indices of units, such as [3, 7]")
    if not len(found) or len(set(found.tolist())) < len(found):
        raise ValueError(f"units is {found.tolist()}; expected at least one unit, none twice")
    if found.min() < 0 or found.max() >= total:
        raise ValueError(f"units is {found.tolist()}; expected indices from 0 to {total - 1}")
    return found


def _steps(stretch: Any, length: int) -> tuple[int, int]:
    """First step of a stretch and the one after its last."""
    if not isinstance(stretch, (tuple, list)) or len(stretch) != 2:
        raise TypeError(f"stretch is {stretch!r}; expected its first step and the one after its last, as (12, 20)")
    start, stop = (positive("stretch", end, 0) for end in stretch)
    if not start < stop <= length:
        raise ValueError(f"stretch is {stretch}; expected two steps in order, from 0 to {length}")
    return start, stop


def sequence_within(came: str, sequence: Any, batch: tuple[int, ...]) -> tuple[int, ...]:
    """The index of a sequence in the batch; `came` says what came, for the error's words.

    Raises:
        TypeError: no integers.
        ValueError: not one for each batch axis, or one outside its axis.
    """
    index = sequence if isinstance(sequence, tuple) else (sequence,)
    if any(isinstance(one, (bool, np.bool_)) or not hasattr(one, "__index__") for one in index):
        raise TypeError(f"{came}; expected integers, one for each of the batch axes {batch}")
    if len(index) != len(batch):
        raise ValueError(f"{came}; expected an integer for each of the batch axes {batch}")
    if any(not 0 <= one < size for one, size in zip(index, batch, strict=True)):
        raise ValueError(f"{came}; expected indices within the batch axes {batch}")
    return tuple(map(int, index))
