"""`page`: a recorded pass as one HTML file to explore, which needs no server, no network and no package."""

from __future__ import annotations

import html
import itertools
import json
import math
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmx import checks
from lstmx.arrays import is_traced
from lstmx.gradients import GradientFlow, LayeredFlow
from lstmx.history import History, StoredHistory
from lstmx.layers import LayeredHistory
from lstmx.pages.signals import text_signals
from lstmx.statistics import gate_statistics
from lstmx.units import fields_of, sequence_within, units_within, values_of

_LEVELS = 254  # codes 0 to 254 for numbers, 255 for none
_BESIDE_CODES = 200_000  # bytes kept for the script, the words and the lines
_SEQUENCES = 4  # of a batch, where it is not said which
_NORMS = {
    "joint state": "log_norm",
    "h": "log_norm_hidden",
    "c": "log_norm_cell",
    "retention gates alone": "log_highway",
}
_GRADIENTS = {"gradient of h, log₁₀": "hidden", "gradient of c, log₁₀": "cell"}


class _Pass(NamedTuple):
    """One sequence of one cell, as the page has it."""

    name: str
    history: Any
    """Of this sequence alone, in NumPy; or on disk, of the whole batch."""
    sequence: tuple[int, ...]
    in_time: Any
    """Brings rows into the order of time."""
    flow: GradientFlow | None
    """Of the whole batch."""
    timescale: list[float | None] | None
    """The geometric time scale of each unit; None of a cell without a gate that keeps its state."""
    tokens: Sequence[str] | None


def page(
    history: Any,
    path: str | Path,
    *,
    text: Any = None,
    flow: Any = None,
    signals: Mapping[str, Any] | None = None,
    units: Any = None,
    fields: Sequence[str] | None = None,
    sequences: Sequence[int | tuple[int, ...]] | None = None,
    title: str | None = None,
    size: int = 3_000_000,
) -> Path:
    """Write a recorded pass as one HTML file to explore in a browser, from disk, by mail or beside a paper.

    The page has a strip of steps, coloured by one unit's gate, state or gradient, with the text that was read; a
    heat map of units and steps of any field; a unit's values and the gradient's log norms, all over one axis of
    time. One moves over them by mouse or keys, zooms, sorts the units, marks a stretch, and searches where else
    the same units are on. Two passes, as of an LSTM and a SimpleRNN, can be set beside each other.

    Numbers are stored in 8 bits for each unit: at most 1/508 of the range of that unit and field from the truth.
    A pass too long for `size` is shown at every k-th step, and the page says so.

    Args:
        history: the recorded pass, of a cell or of layers, in memory or on disk; or several by name, over the same
            steps.
        path: the file, such as "gates.html"; one that is there is written over.
        text: what was read at each step: a str of T characters, or T strings; of a batch one such for each of
            `sequences`.
        flow: the flow of a gradient through the pass, from `gradient_flow`; of several histories by their names.
            With outputs="all", the gradients of each unit are fields, too.
        signals: numbers [T] by name that units can be sorted by, beside those that a text has.
        units: indices of the units shown; None for all.
        fields: names of states and gates shown, such as "forget_gate"; None for all.
        sequences: which sequences of a batch: integers, or tuples of one per batch axis; None for the first four.
        title: the page's title; None for one that names the cells.
        size: most bytes of the file, about.

    Returns:
        The path.

    Raises:
        TypeError: an argument is of another kind, or the history is inside a JAX transformation.
        ValueError: names of fields or histories that are not there, units or sequences that are not, a text or
            signal of another length, or a size that is too small for one step.
        OSError: the file cannot be written.

    Example:
        >>> import lstmx, numpy, tempfile, pathlib
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.ones((50, 3), "float32"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = lstmx.page(history, pathlib.Path(folder) / "gates.html", flow=lstmx.gradient_flow(history))
        ...     made.stat().st_size < 60_000
        True
    """
    path = checks.path("path", path)
    checks.positive("size", size)
    named = dict(history) if isinstance(history, Mapping) else {"": history}
    flows = _flows(flow, named, several=isinstance(history, Mapping))
    passes = _passes(named, flows, text, sequences)
    length = len(passes[0].history)
    shown = [_shown(one, units, fields) for one in passes]
    cells = sum(len(picked) for sizes in shown for picked in sizes.values())
    budget = (size - _BESIDE_CODES) * 3 / 4
    every = max(1, math.ceil(length * cells / max(1.0, budget)))
    if budget < cells:
        raise ValueError(
            f"size is {size:,} bytes; one step of {cells:,} numbers and the page itself take more: name fewer "
            "fields or units"
        )
    steps = np.arange(0, length, every)
    own = _signals(signals, length)
    series = [_series(one, sizes, steps, every, own) for one, sizes in zip(passes, shown, strict=True)]
    names = list(dict.fromkeys(repr(one.history.cell) for one in passes))
    about = f"{', '.join(names)}: {length:,} steps."
    if every > 1:
        about += f"\nOne step in {every} is shown: fewer fields, fewer units or a larger size show more of them."
    if sequences is None and any(math.prod(one.batch) > _SEQUENCES for one in named.values()):
        about += f"\nOf the batch, {_SEQUENCES} sequences are shown: sequences= names others."
    files = {
        name: resources.files("lstmx.pages").joinpath(f"page.{name}").read_text("utf-8")
        for name in ("html", "css", "js")
    }
    written = {
        "title": html.escape(
            title or f"gates of {', '.join(type(one.history.cell).__name__ for one in passes[:2])}"
        ),
        "style": files["css"],
        "summary": html.escape(about),
        "data": json.dumps({"about": about, "series": series}, ensure_ascii=False, allow_nan=False).replace(
            "<", "\\u003c"
        ),
        "script": files["js"],
    }
    path.write_text(re.sub(r"\{\{(\w+)\}\}", lambda place: written[place[1]], files["html"]), encoding="utf-8")
    return path


def _flows(flow: Any, named: dict[str, Any], several: bool) -> dict[str, Any]:
    """The flows by the names of the histories."""
    if flow is None:
        return {}
    if isinstance(flow, Mapping) != several:
        raise TypeError("flow and history are to be of one kind: one of each, or both by the same names")
    flows = dict(flow) if several else {"": flow}
    for name, one in flows.items():
        if name not in named:
            raise ValueError(f"flow has the name {name!r}; the histories are {', '.join(map(repr, named))}")
        expected = LayeredFlow if isinstance(named[name], LayeredHistory) else GradientFlow
        if not isinstance(one, expected):
            raise TypeError(f"flow is a {type(one).__name__}; expected the {expected.__name__} of this history")
    return flows


def _passes(named: dict[str, Any], flows: dict[str, Any], text: Any, sequences: Any) -> list[_Pass]:
    """What the page shows: each sequence of each cell of each history."""
    if not named:
        raise ValueError("history is empty; expected a history, or several by name")
    lead = None
    passes = []
    for name, history in named.items():
        checks.require_history(history, layers=True, disk=True)
        if is_traced(history if isinstance(history, (History, LayeredHistory)) else ()):
            raise TypeError(
                "history is inside a JAX transformation, and has no numbers to show; call this outside"
            )
        if lead not in (None, (len(history), history.batch)):
            raise ValueError(f"histories are of {lead} and {(len(history), history.batch)} steps and batch axes")
        lead = len(history), history.batch
        indices = _indices(sequences, history.batch)
        texts = _texts(text, len(history), history.batch, indices)
        flow = flows.get(name)
        layered = isinstance(history, LayeredHistory)
        cells = history.cells() if layered else {"": (history, lambda x: x)}
        for part, (one, in_time) in cells.items():
            own_flow = flow[part] if layered and flow is not None else flow
            timescale = None
            if one.cell.retention_gate is not None and one.cell.gate_names:
                timescale = _numbers(np.asarray(gate_statistics(one).timescale))
            one = one if isinstance(one, StoredHistory) else one.to_numpy()
            for index, tokens in zip(indices, texts, strict=True):
                which = f"sequence {', '.join(map(str, index))}" if index else ""
                full = ", ".join(filter(None, (name, part, which))) or type(one.cell).__name__
                alone = one if isinstance(one, StoredHistory) else one.sequence(*index)
                passes.append(_Pass(full, alone, index, in_time, own_flow, timescale, tokens))
    return passes


def _indices(sequences: Any, batch: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The sequences shown, as indices into the batch axes."""
    if sequences is None:
        return list(itertools.islice(np.ndindex(*batch), _SEQUENCES))
    if not batch:
        raise ValueError(f"sequences is {sequences!r}; this history has no batch axes: expected None")
    indices = (one if isinstance(one, tuple) else (one,) for one in sequences)
    found = [sequence_within(f"sequences has {index!r}", index, batch) for index in indices]
    if not found:
        raise ValueError("sequences is empty; expected at least one")
    return found


def _texts(text: Any, length: int, batch: tuple[int, ...], indices: list[Any]) -> list[Any]:
    """The tokens of each sequence shown; None without a text."""
    if text is None:
        return [None] * len(indices)
    texts = [text] if not batch else text
    if not isinstance(texts, (list, tuple)) or len(texts) != len(indices):
        raise ValueError(
            f"text is a {type(text).__name__}; expected one text for each of {len(indices)} sequences"
        )
    for one in texts:
        if not isinstance(one, (str, list, tuple)) or not all(isinstance(token, str) for token in one):
            raise TypeError(f"text is a {type(one).__name__}; expected a str, or a list of str")
        if len(one) != length:
            what = "characters" if isinstance(one, str) else "tokens"
            raise ValueError(f"text has {len(one)} {what}; the history has {length} steps")
    return list(texts)


def _signals(signals: Any, length: int) -> dict[str, np.ndarray]:
    """The caller's signals as float64 [T]."""
    found = {}
    for name, value in ({} if signals is None else dict(signals)).items():
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" or array.shape != (length,):
            raise ValueError(
                f"signals[{name!r}] is {array.dtype} of shape {array.shape}; expected real numbers, ({length},)"
            )
        found[str(name)] = array.astype(np.float64)
    return found


def _shown(one: _Pass, units: Any, fields: Any) -> dict[str, np.ndarray]:
    """The fields that are shown of a pass, each with its units; a projected state has fewer than the gates."""
    first = one.history[:1]
    sizes = {name: getattr(first, name).shape[-1] for name in fields_of(first)}
    sizes |= {name: value.shape[-1] for name, value in _gradients(one.flow).items()}
    if fields is not None:
        if isinstance(fields, str) or not len(fields):
            raise TypeError(f"fields is {fields!r}; expected a list of names, such as ['forget_gate']")
        missing = [name for name in fields if name not in sizes]
        if missing:
            raise ValueError(f"fields has {missing[0]!r}; {one.name} has {', '.join(sizes)}")
        sizes = {
            name: sizes[name] for name in (*fields, *(own for own in _gradients(one.flow) if own not in fields))
        }
    if units is None:
        return {name: np.arange(size) for name, size in sizes.items()}
    picked = units_within(units, max(sizes.values()))
    within = {name: picked[picked < size] for name, size in sizes.items()}
    return {name: some for name, some in within.items() if len(some)}


def _gradients(flow: GradientFlow | None) -> dict[str, Any]:
    """The gradients of each unit that a flow has, by the names that the page gives them."""
    if flow is None:
        return {}
    named = {name: getattr(flow, field) for name, field in _GRADIENTS.items()}
    return {name: value for name, value in named.items() if value is not None}


def _series(
    one: _Pass, shown: dict[str, np.ndarray], steps: np.ndarray, every: int, own: dict[str, np.ndarray]
) -> dict[str, Any]:
    """A pass as the script reads it, in the order of time."""
    history, at = one.history, (slice(None), *one.sequence)
    stored = isinstance(history, StoredHistory)

    def rows(array: Any, own: bool = False) -> np.ndarray:
        """The steps shown of an array [T, *batch, ...], or of this sequence's own [T, ...], in order of time."""
        return np.asarray(one.in_time(np.asarray(array) if own else np.asarray(array)[at]))[steps]

    counts = history.counts
    counted = np.ones(len(steps), bool) if counts is None else rows(counts, own=not stored)
    gradients, gates = _gradients(one.flow), {} if stored else history.gates._asdict()
    made = []
    for name, picked in shown.items():
        if name in gradients:
            with np.errstate(divide="ignore"):
                values, limits = np.log10(np.abs(rows(gradients[name]).astype(np.float64))), "range"
        elif stored:  # whose order is that of time
            parts = (part[at][(-start) % every :: every] for start, part in values_of(history, name))
            values, limits = np.concatenate(list(parts)), _limits(history, name)
        else:
            field = gates[name] if name in gates else getattr(history, name)
            values, limits = rows(field, own=True), _limits(history, name)
        made.append(_coded(name, np.where(counted[:, None], values[:, picked], np.nan), limits, picked))
    norms = []
    for name, attribute in _NORMS.items():
        value = None if one.flow is None else getattr(one.flow, attribute)
        if value is not None:
            norms.append({"name": name, "values": _numbers(rows(value) / math.log(10))})
    tokens = None
    signals = dict(own)
    if one.tokens is not None:
        tokens = ["".join(one.tokens[step : step + every]) for step in steps]
        signals = text_signals(one.tokens) | own if isinstance(one.tokens, str) else own
    return {
        "name": one.name,
        "steps": steps.tolist(),
        "tokens": tokens,
        "fields": made,
        "norms": norms,
        "timescale": one.timescale,
        "signals": {name: _numbers(values[steps]) for name, values in signals.items()},
    }


def _limits(history: Any, name: str) -> str:
    """What the colours of a field span: "unit" for [0, 1], "signed" for ± the greatest magnitude."""
    return "unit" if name in history.cell.gate_names else "signed"


def _coded(name: str, values: np.ndarray, limits: str, units: np.ndarray) -> dict[str, Any]:
    """A field [steps, units] as 8-bit codes, unit after unit, with the scale of each."""
    finite = np.isfinite(values)
    low = np.where(finite, values, np.inf).min(axis=0, initial=np.inf).astype(np.float64)
    high = np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf).astype(np.float64)
    low, high = np.where(low > high, 0.0, low), np.where(low > high, 0.0, high)
    width = np.where(high > low, high - low, 1.0)
    codes = np.where(finite, np.rint((np.where(finite, values, low) - low) / width * _LEVELS), _LEVELS + 1)
    most = float(max(abs(low).max(), abs(high).max())) or 1.0
    spans = {"unit": (0.0, 1.0), "signed": (-most, most), "range": (float(low.min()), float(high.max()))}
    return {
        "name": name.replace("_", " "),
        "units": units.tolist(),
        "low": [float(f"{x:.7g}") for x in low],
        "high": [float(f"{x:.7g}") for x in high],
        "limits": spans[limits],
        "kind": "diverging" if limits == "signed" else "sequential",
        "codes": b64encode(codes.astype(np.uint8).T.tobytes()).decode("ascii"),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """Numbers as JSON has them, to five digits; None where there is none."""
    return [float(f"{x:.5g}") if math.isfinite(x) else None for x in values.astype(np.float64)]
