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
from lstmx.arrays import fetched, is_traced, leaves
from lstmx.attribution import Attribution
from lstmx.files import written_whole
from lstmx.gradients import GradientFlow, LayeredFlow
from lstmx.history import History, StoredHistory
from lstmx.layers import LayeredHistory
from lstmx.pages.signals import text_signals
from lstmx.statistics import gate_statistics
from lstmx.units import fields_of, real_numbers, sequence_within, units_within, values_of

_LEVELS = 254  # codes 0 to 254 for numbers, 255 for none
_SCALE_BYTES = 40  # at least those of the least and greatest number of a unit, such as -1.234567e-308
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
    contribution: np.ndarray | None
    """Of each step to a target, [T], in the order of time."""
    timescale: list[float | None] | None
    """The geometric time scale of each unit; None of a cell without a gate that keeps its state."""
    text: int | None
    """Which of the texts was read."""


def page(
    history: Any,
    path: str | Path,
    *,
    text: Any = None,
    flow: Any = None,
    attribution: Any = None,
    signals: Mapping[str, Any] | None = None,
    units: Any = None,
    fields: Sequence[str] | None = None,
    sequences: Sequence[int | tuple[int, ...]] | None = None,
    title: str | None = None,
    size: int = 3_000_000,
) -> Path:
    """Write a recorded pass as one HTML file to explore in a browser, from disk, by mail or beside a paper.

    The page has a strip of steps, coloured by one unit's gate, state or gradient, or by a signal or what each step
    contributes to a target, with the text that was read; a heat map of units and steps of any field; a unit's
    values and the gradient's log norms, all over one axis of time. One moves over them by mouse or keys, zooms,
    sorts the units, marks a stretch, and searches where else the same units are on. Two passes, as of an LSTM and
    a SimpleRNN, can be set beside each other.

    Numbers are stored in 8 bits for each unit: at most 1/508 of the range of that unit and field from the truth.
    A pass too long for `size` is shown at every k-th step, and the page says so; its text is there in full. A file
    that is there already is replaced when the new one is whole.

    Args:
        history: the recorded pass, of a cell or of layers, in memory or on disk; or several by name, over the same
            steps.
        path: the file, such as "gates.html".
        text: what was read at each step: a str of T characters, or T strings; of a batch one such for each of
            `sequences`.
        flow: the flow of a gradient through the pass, from `gradient_flow`; of several histories by their names.
            With outputs="all", the gradients of each unit are fields, too.
        attribution: what each step contributes to a target, from `attribute`; of several histories by their names.
            Text and strip can be coloured by it.
        signals: numbers or booleans [T], an array or list, by name, that units can be sorted by and the text
            coloured by, beside those that a text has.
        units: indices of the units shown; None for all.
        fields: names of states and gates shown, such as "forget_gate"; None for all.
        sequences: which sequences of a batch: integers, or tuples of one per batch axis; None for the first four.
        title: the page's title; None for one that names the cells.
        size: most bytes of the file.

    Returns:
        The path.

    Raises:
        TypeError: an argument is of another kind, or the history is inside a JAX transformation.
        ValueError: names of fields or histories that are not there, units or sequences that are not, a text or
            signal of another length, a signal with NaN or infinity, the flow or attribution of another pass, words
            that are no Unicode, or a size that is too small for one step and the text.
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
    name = "the name of a file, such as 'gates.html'"
    target = checks.path("path", path, name)
    if not target.name or target.is_dir():
        raise ValueError(f"path is {str(path)!r}; expected {name}")
    checks.positive("size", size)
    if title is not None:
        _words("title", title)
    several = isinstance(history, Mapping)
    named = dict(history) if several else {"": history}
    indices = _checked(named, sequences)
    flows = _flows(flow, named, several)
    attributions = _attributions(attribution, named, several)
    first = next(iter(named.values()))
    length, batch = len(first), first.batch
    texts = _texts(text, length, batch, indices)
    passes = _passes(named, flows, attributions, indices, texts is not None)
    shown = [_shown(one, units, fields) for one in passes]
    about = [f"{', '.join(dict.fromkeys(repr(one.cell) for one in named.values()))}: {_number(length, 'step')}."]
    if units is not None:
        about.append(f"Of the units, {_number(len(units), 'is', 'are')} shown.")
    if len(indices) < math.prod(batch):
        about.append(f"{len(indices)} of {math.prod(batch)} sequences are shown: sequences= names others.")
    kinds = dict.fromkeys(type(one.cell).__name__ for one in named.values())
    heading = title or f"gates of {', '.join(kinds)}"
    data = {"about": about, "texts": texts or [], "signals": _signals(signals, length)}
    every = _every(data, passes, shown, heading, length, size)
    frame = _frame(data, passes, shown, every, length)
    for one, series, picked in zip(passes, frame["series"], shown, strict=True):
        for made, (name, some) in zip(series["fields"], picked.items(), strict=True):
            made |= _coded(one, name, some, every)
    with written_whole(target) as file:
        file.write(_file(frame, heading))
    return target


def _number(count: int, one: str, several: str | None = None) -> str:
    """A count with its word, such as "1 step" and "2,000 steps"."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _file(data: dict[str, Any], title: str) -> bytes:
    """The page with these numbers."""
    files = {
        name: resources.files("lstmx.pages").joinpath(f"page.{name}").read_text("utf-8")
        for name in ("html", "css", "js")
    }
    numbers = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    written = {
        "title": html.escape(title),
        "style": files["css"],
        "summary": html.escape(data["about"]),
        "data": numbers.replace("<", "\\u003c"),
        "script": files["js"],
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: written[place[1]], files["html"]).encode()


def _every(
    data: dict[str, Any],
    passes: list[_Pass],
    shown: list[dict[str, np.ndarray]],
    title: str,
    length: int,
    size: int,
) -> int:
    """The least k with which every k-th step makes a file of at most `size` bytes."""
    units = [len(some) for picked in shown for some in picked.values()]

    def weight(every: int) -> int:
        steps = -(-length // every)
        codes = sum(4 * -(-steps * many // 3) + _SCALE_BYTES * (many + 1) for many in units)
        return len(_file(_frame(data, passes, shown, every, length), title)) + codes

    least = weight(length)
    if least > size:
        text = sum(len("".join(one["tokens"]).encode()) for one in data["texts"])
        raise ValueError(
            f"size is {_number(size, 'byte')}; one step of {_number(sum(units), 'number')}"
            + (f", the text ({text:,} bytes)" if text else "")
            + f" and the page itself take {least:,}: name fewer fields or units, or a larger size"
        )
    every = min(length, max(1, sum(units) * length * 4 // (3 * (size - least + 1))))
    while (now := weight(every)) > size:
        every = min(length, max(every + 1, every * (now - least) // (size - least + 1)))
    return every


def _checked(named: dict[str, Any], sequences: Any) -> list[tuple[int, ...]]:
    """The sequences shown, as indices into the batch axes that the histories share."""
    if not named:
        raise ValueError("history is empty; expected a history, or several by name")
    for name, history in named.items():
        _words("a name of history", name)
        checks.require_history(history, layers=True, disk=True)
        if is_traced(history if isinstance(history, (History, LayeredHistory)) else ()):
            raise TypeError(
                "history is inside a JAX transformation, and has no numbers to show; call this outside"
            )
    shapes = {name: (len(one), *one.batch) for name, one in named.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            "history has passes of different [T, *batch], "
            + ", ".join(f"{name!r}: {shape}" for name, shape in shapes.items())
            + "; expected the same of all"
        )
    batch = next(iter(named.values())).batch
    if sequences is None:
        return list(itertools.islice(np.ndindex(*batch), _SEQUENCES))
    if not batch:
        raise ValueError(f"sequences is {sequences!r}; this history has no batch axes: expected None")
    if not isinstance(sequences, (list, tuple, range, np.ndarray)):
        raise TypeError(f"sequences is {sequences!r}; expected a list of sequences, such as [0, 3]")
    indices = (one if isinstance(one, tuple) else (one,) for one in sequences)
    found = [sequence_within(f"sequences has {index!r}", index, batch) for index in indices]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"sequences is {sequences!r}; expected at least one, none twice")
    return found


def _words(name: str, value: Any) -> None:
    """Raise unless `value` is a str that a file can hold.

    Raises:
        TypeError: it is no str.
        ValueError: it has half of a character, a lone surrogate.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; expected a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} has {value[error.start]!r} at character {error.start}, half of a character that no file "
            'holds; expected Unicode, as by .encode(errors="replace").decode()'
        ) from None


def _by_name(word: str, given: Any, named: dict[str, Any], several: bool) -> dict[str, Any]:
    """What was given for the histories, by their names.

    Raises:
        TypeError: one for several histories, or several for one.
        ValueError: a name that no history has.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping) != several:
        raise TypeError(f"{word} and history are to be of one kind: one of each, or both by the same names")
    found = dict(given) if several else {"": given}
    for name in found:
        if name not in named:
            raise ValueError(f"{word} has the name {name!r}; the histories are {', '.join(map(repr, named))}")
    return found


def _attributions(attribution: Any, named: dict[str, Any], several: bool) -> dict[str, Any]:
    """The attributions by the names of the histories."""
    found = _by_name("attribution", attribution, named, several)
    for name, one in found.items():
        called = f"attribution[{name!r}]" if several else "attribution"
        if not isinstance(one, Attribution):
            raise TypeError(f"{called} is a {type(one).__name__}; expected what lstmx.attribute gives")
        shape = (len(named[name]), *named[name].batch)
        if tuple(one.steps.shape) != shape:
            raise ValueError(
                f"{called} is of another pass, of [T, *batch] = {tuple(one.steps.shape)}; expected {shape}"
            )
    return found


def _flows(flow: Any, named: dict[str, Any], several: bool) -> dict[str, Any]:
    """The flows by the names of the histories."""
    flows = _by_name("flow", flow, named, several)
    for name, one in flows.items():
        history, called = named[name], f"flow[{name!r}]" if several else "flow"
        cells = history.cells() if isinstance(history, LayeredHistory) else None
        expected: type[Any] = LayeredFlow if cells else GradientFlow
        if not isinstance(one, expected):
            raise TypeError(
                f"{called} is a {type(one).__name__}; expected the {expected.__name__} of this history"
            )
        if cells is None:
            _same_pass(called, one, history)
        elif list(one.names) != list(cells):
            raise ValueError(f"{called} is of {', '.join(one.names)}; the history is of {', '.join(cells)}")
        else:
            for part, (inner, _) in cells.items():
                _same_pass(f"{called}[{part!r}]", one[part], inner)
    return flows


def _same_pass(called: str, flow: Any, history: Any) -> None:
    """Raise a ValueError where a flow has other steps, sequences or parameters than a history of one cell."""
    shape = (len(history), *history.batch)
    if flow.log_norm.shape != shape:
        raise ValueError(f"{called} is of another pass, of [T, *batch] = {flow.log_norm.shape}; expected {shape}")
    theirs, own = (
        (type(params), [tuple(x.shape) for x in leaves(params)]) for params in (flow.parameters, history.params)
    )
    if theirs != own:
        raise ValueError(
            f"{called} is of another cell, with {theirs[0].__name__} of shapes {theirs[1]}; expected "
            f"{own[0].__name__} of shapes {own[1]}, as gradient_flow(history) gives"
        )


def _passes(
    named: dict[str, Any],
    flows: dict[str, Any],
    attributions: dict[str, Attribution],
    indices: list[tuple[int, ...]],
    texts: bool,
) -> list[_Pass]:
    """What the page shows: each sequence of each cell of each history."""
    passes = []
    for name, history in named.items():
        flow, attribution = flows.get(name), attributions.get(name)
        layered = isinstance(history, LayeredHistory)
        cells = history.cells() if layered else {"": (history, lambda x: x)}
        for part, (one, in_time) in cells.items():
            own_flow = flow[part] if layered and flow is not None else flow
            one = one if isinstance(one, StoredHistory) else one.to_numpy()
            for k, index in enumerate(indices):
                which = f"sequence {', '.join(map(str, index))}" if index else ""
                full = ", ".join(filter(None, (name, part, which))) or type(one.cell).__name__
                alone = one if isinstance(one, StoredHistory) else one.sequence(*index)
                scale = _timescale(one, index)
                told = None
                if attribution is not None:
                    told = fetched(attribution.steps, np.float64)[(slice(None), *index)]
                which = k if texts else None
                passes.append(_Pass(full, alone, index, in_time, own_flow, told, scale, which))
    return passes


def _timescale(history: Any, index: tuple[int, ...]) -> list[float | None] | None:
    """The geometric time scale −1/⟨ln f⟩ of each unit of a sequence; None of a cell without a gate f."""
    if history.cell.retention_gate is None or not history.cell.gate_names:
        return None
    parts = history.stretches() if isinstance(history, StoredHistory) else [(0, history)]
    steps, closing = 0, np.zeros(1)
    for alone in (part.to_numpy().sequence(*index) for _, part in parts):
        if count := int(alone.lengths):
            steps += count
            with np.errstate(divide="ignore"):  # of a gate that is shut
                closing = closing + count / fetched(gate_statistics(alone).timescale, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # of one that is open throughout, or never counts
        return _numbers(steps / closing)


def _texts(text: Any, length: int, batch: tuple[int, ...], indices: list[Any]) -> list[dict[str, Any]] | None:
    """The tokens of each sequence shown, and what a reader could keep count of; None without a text."""
    if text is None:
        return None
    texts = [text] if not batch else text
    if not isinstance(texts, (list, tuple)) or len(texts) != len(indices):
        what = f"a list of {len(text)}" if isinstance(text, (list, tuple)) else f"a {type(text).__name__}"
        raise ValueError(f"text is {what}; expected a list with one text for each of {len(indices)} sequences")
    for one in texts:
        if not isinstance(one, (str, list, tuple)):
            raise TypeError(f"text is a {type(one).__name__}; expected a str, or a list of str")
        others = [type(token).__name__ for token in one if not isinstance(token, str)]
        if others:
            raise TypeError(f"text has a {others[0]}; expected a str, or a list of str")
        _words("text", "".join(one))
        if len(one) != length:
            what = _number(len(one), "character" if isinstance(one, str) else "token")
            raise ValueError(f"text has {what}; the history has {_number(length, 'step')}")
    return [{"tokens": one, "signals": text_signals(one) if isinstance(one, str) else {}} for one in texts]


def _signals(signals: Any, length: int) -> dict[str, np.ndarray]:
    """The caller's signals as float64 [T]."""
    if signals is None:
        return {}
    if not isinstance(signals, Mapping):
        raise TypeError(f"signals is a {type(signals).__name__}; expected a dict of numbers [T] by name")
    found = {}
    for name, value in signals.items():
        _words("a name of signals", name)
        found[name] = real_numbers(f"signals[{name!r}]", value)
        if found[name].shape != (length,):
            raise ValueError(f"signals[{name!r}] has shape {found[name].shape}; expected [T], ({length},)")
        if not np.isfinite(found[name]).all():
            step = int(np.argmin(np.isfinite(found[name])))
            raise ValueError(f"signals[{name!r}] holds NaN or infinity, first at step {step}")
    return found


def _shown(one: _Pass, units: Any, fields: Any) -> dict[str, np.ndarray]:
    """The fields that are shown of a pass, each with its units; a projected state has fewer than the gates."""
    first = one.history[:1]
    sizes = {name: getattr(first, name).shape[-1] for name in fields_of(first)}
    sizes |= {name: value.shape[-1] for name, value in _gradients(one.flow).items()}
    if fields is not None:
        if not isinstance(fields, (list, tuple)) or not fields or len(set(map(str, fields))) < len(fields):
            raise TypeError(f"fields is {fields!r}; expected a list of names, none twice, such as ['forget_gate']")
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


def _frame(
    data: dict[str, Any], passes: list[_Pass], shown: list[dict[str, np.ndarray]], every: int, length: int
) -> dict[str, Any]:
    """All that the script reads of every k-th step but the numbers of the fields."""
    about = list(data["about"])
    if every > 1:
        about.append(
            f"One step in {every} is shown: fewer fields, fewer units or a larger size show more of them."
        )
    texts = []
    for text in data["texts"]:
        values = {name: numbers[::every] for name, numbers in text["signals"].items()}
        texts.append(
            {
                "tokens": ["".join(text["tokens"][step : step + every]) for step in range(0, length, every)],
                "single": every == 1,
                "signals": {name: _numbers(x) for name, x in values.items() if np.ptp(x) > 0},
            }
        )
    series = []
    for one, picked in zip(passes, shown, strict=True):
        counted = _counted(one)[::every]
        edges = np.flatnonzero(np.diff(np.concatenate([[True], counted, [True]])))
        norms = []
        for name, attribute in _NORMS.items():
            value = None if one.flow is None else getattr(one.flow, attribute)
            if value is not None:
                norms.append({"name": name, "values": _numbers(_rows(one, value)[::every] / math.log(10))})
        series.append(
            {
                "name": one.name,
                "text": one.text,
                "skipped": edges.reshape(-1, 2).tolist(),
                "fields": [
                    {
                        "name": name.replace("_", " "),
                        "units": some.tolist(),
                        "kind": "diverging" if _limits(one, name) == "signed" else "sequential",
                        "codes": "",
                    }
                    for name, some in picked.items()
                ],
                "norms": norms,
                "contribution": None if one.contribution is None else _numbers(one.contribution[::every]),
                "timescale": one.timescale,
            }
        )
    signals = {name: _numbers(values[::every]) for name, values in data["signals"].items()}
    about = "\n".join(about)
    steps = {"steps": -(-length // every), "every": every}
    return {"about": about, **steps, "texts": texts, "signals": signals, "series": series}


def _rows(one: _Pass, array: Any, own: bool = False) -> np.ndarray:
    """An array [T, *batch, ...], or of this sequence's own [T, ...], of this sequence in the order of time."""
    return fetched(one.in_time(fetched(array) if own else fetched(array)[:, *one.sequence]))


def _counted(one: _Pass) -> np.ndarray:
    """Whether each step counts, [T]."""
    counts = one.history.counts
    if counts is None:
        return np.ones(len(one.history), bool)
    return _rows(one, counts, own=not isinstance(one.history, StoredHistory))


def _limits(one: _Pass, name: str) -> str:
    """What the colours of a field span: "unit" [0, 1], "signed" ± the greatest magnitude, "range" its own."""
    if name in _GRADIENTS:
        return "range"
    return "unit" if name in one.history.cell.gate_names else "signed"


def _coded(one: _Pass, name: str, units: np.ndarray, every: int) -> dict[str, Any]:
    """Every k-th step of a field [steps, units] as 8-bit codes, unit after unit, with the scale of each."""
    history = one.history
    if name in _GRADIENTS:
        with np.errstate(divide="ignore"):
            values = np.log10(np.abs(_rows(one, _gradients(one.flow)[name])[::every].astype(np.float64)))
    elif isinstance(history, StoredHistory):  # whose order is that of time
        parts = (part[:, *one.sequence][(-start) % every :: every] for start, part in values_of(history, name))
        values = np.concatenate(list(parts))
    else:
        gates = history.gates._asdict()
        values = _rows(one, gates[name] if name in gates else getattr(history, name), own=True)[::every]
    values = np.where(_counted(one)[::every, None], values[:, units], np.nan)
    finite = np.isfinite(values)
    low = np.where(finite, values, np.inf).min(axis=0, initial=np.inf).astype(np.float64)
    high = np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf).astype(np.float64)
    low, high = np.where(low > high, 0.0, low), np.where(low > high, 0.0, high)
    width = np.where(high > low, high - low, 1.0)
    codes = np.where(finite, np.rint((np.where(finite, values, low) - low) / width * _LEVELS), _LEVELS + 1)
    most = float(max(abs(low).max(), abs(high).max())) or 1.0
    spans = {"unit": [0.0, 1.0], "signed": [-most, most], "range": [low.min(), high.max()]}
    return {
        "low": _numbers(low, 7),
        "high": _numbers(high, 7),
        "limits": _numbers(np.array(spans[_limits(one, name)]), 7),
        "codes": b64encode(codes.astype(np.uint8).T.tobytes()).decode("ascii"),
    }


def _numbers(values: np.ndarray, digits: int = 5) -> list[float | None]:
    """Numbers as JSON has them, to so many digits; None where there is none."""
    return [float(f"{x:.{digits}g}") if math.isfinite(x) else None for x in values.astype(np.float64)]
