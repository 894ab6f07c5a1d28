"""A folder of figures, numbers and sentences about one recorded pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lstmx import plot
from lstmx.app.reading import characters_that_matter, gate_by_character, tracked_properties
from lstmx.app.storage import save_history
from lstmx.arrays import Array, require, to_numpy
from lstmx.comparison import Comparison
from lstmx.dynamics import LyapunovSpectrum, ReadExponents, covariant_vectors, lyapunov_spectrum
from lstmx.gradients import GradientFlow, PathSpectrum, gradient_flow, path_spectrum
from lstmx.history import History
from lstmx.memory import memory_report
from lstmx.pages import page
from lstmx.statistics import GateStatistics, gate_statistics

_MARK = ".lstmx-report"
_DASHBOARD_STEPS = 400
_LAG = 20
_VECTOR_STEPS = 1000
_MANY = 64  # vectors, where none of the first is read
_PAGE_BYTES = 6_000_000


def claim_folder(path: str | Path, force: bool = False) -> Path:
    """Make the report's folder, or take one that is empty or that an earlier report marked as its own.

    Args:
        path: the folder.
        force: write into it whatever it holds.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder holds something that no report wrote.
        NotADirectoryError: there is a file of this name.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; expected a folder for the report")
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists() and not force:
        raise FileExistsError(
            f"{folder} holds files that no lstmx report wrote; choose another --output, or --force to write there"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).write_text("Written by lstmx; a later report may overwrite this folder.\n")
    return folder


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)


def memory_sentences(statistics: GateStatistics) -> list[str]:
    """What the time scales and the saturation say, in sentences."""
    scale = np.asarray(statistics.timescale)
    longest = int(np.argmax(scale))
    gate = statistics[statistics.retention_gate]  # type: ignore  # the cells of a report have one
    name = str(statistics.retention_gate).replace("_", " ")
    open_most = int((np.asarray(gate.right) > 0.5).sum())
    return [
        f"By its {name} alone, the median unit keeps half of its state for "
        f"{np.median(np.asarray(statistics.half_life)):.1f} steps, unit {longest} for "
        f"{float(np.asarray(statistics.half_life)[longest]):.1f}.",
        f"{open_most} of {len(scale)} units hold their {name} above 0.9 for more than half of the time; "
        f"over all units it is above 0.9 for {np.mean(np.asarray(gate.right)):.1%} of the time and below 0.1 for "
        f"{np.mean(np.asarray(gate.left)):.1%}.",
    ]


def reading_sentences(history: History, text: str) -> list[str]:
    """What the gates and states of a character model follow in the text, in sentences."""
    lines = []
    name = history.cell.retention_gate
    if name is not None:
        means = gate_by_character(getattr(history, name), text)
        if len(means) >= 4:
            words = [f"{character!r} {mean:.2f}" for character, mean in means.items()]
            lines.append(
                f"The {name.replace('_', ' ')} depends on what is read: averaged over units it is lowest at "
                f"{', '.join(words[:3])} and highest at {', '.join(words[-3:])}."
            )
    for what, (unit, correlation) in tracked_properties(history, text).items():
        lines.append(
            f"Unit {unit} follows {what} best: correlation {correlation:+.2f} on the second half of the passage "
            "(the unit was chosen on the first half)."
        )
    return lines


def flow_sentences(flows: dict[str, GradientFlow]) -> list[str]:
    """How fast the gradient of the last output vanishes in each of several passes."""
    lines = []
    for name, flow in flows.items():
        rate, error = flow.decay_rate
        horizon = float(flow.horizon())
        reach = f"below 1 % after {horizon:.0f} steps" if np.isfinite(horizon) else "never below 1 %"
        lines.append(
            f"{name}: {flow.verdict}, half-life {float(flow.half_life):.3g} steps (decay {float(rate):.3g} ± "
            f"{float(error):.2g} nats per step), {reach}."
        )
    return lines


def path_sentences(paths: PathSpectrum, lag: int) -> list[str]:
    """How much of the gradient `lag` steps back came straight down the cell state."""
    share, order = (float(x[-1 - lag]) for x in (paths.highway_share, paths.mean_order))
    return [
        f"{lag} steps back, the part of the gradient that never left the cell state has {share:.1%} of the norm "
        f"of the whole; on the mean a path has crossed the hidden state {order:.1f} times."
    ]


def spectrum_sentence(spectrum: LyapunovSpectrum) -> str:
    """What the greatest Lyapunov exponent says, in a sentence."""
    first, error = float(spectrum.exponents[0]), float(spectrum.standard_errors[0])
    known = "" if np.isnan(error) else f" ± {error:.1g}"
    if first < 0:
        says = f"two passes from nearby states approach each other by e in {spectrum.timescale:.3g} steps"
    else:
        says = "two passes from nearby states drift apart, whatever the inputs"
    return f"Its greatest Lyapunov exponent on this passage is {first:+.3g}{known} nats per step: {says}."


def read_sentence(read: ReadExponents, reader: str, steps: int | None) -> str:
    """Which exponent matters for what is read, in a sentence; `steps` where they are the last ones alone."""
    where = "" if steps is None else f" on the last {steps:,} steps"
    return f"For its {reader}, by covariant Lyapunov vectors{where}: {read}."


def write_report(
    folder: Path,
    history: History,
    head: list[str],
    text: str | None = None,
    comparison: Comparison | None = None,
    others: dict[str, History] | None = None,
    readout: Array | None = None,
    progress: bool = False,
) -> str:
    """Write figures, history.npz and summary.txt of a pass without batch axes.

    Args:
        folder: where to, as claimed.
        history: the pass, [T, H].
        head: first lines of the summary.
        text: the characters read, for a character model.
        comparison: curves of the models trained, for comparison.png.
        others: passes over the same inputs whose gradients to compare with this one's, by name.
        readout: W of what the model reads, outputs @ W, [H, R]; None for the outputs.
        progress: show a bar over the analyses, with the time left, where the output is a terminal.

    Returns:
        The summary.
    """
    stages = _stages(folder, history, text, comparison, others or {}, readout)
    bar = require("tqdm.auto", "progress=True").tqdm(
        total=len(stages), unit="analysis", disable=None if progress else True
    )
    lines = [*head, "", history.summary()]
    with bar:
        for name, stage in stages.items():
            bar.set_description(name)
            with warnings.catch_warnings(record=True, action="always", category=UserWarning) as caught:
                lines += stage()
            lines += [f"Warning: {words}." for words in dict.fromkeys(str(one.message) for one in caught)]
            bar.update()
    summary = "\n".join(lines) + "\n"
    (folder / "summary.txt").write_text(summary, encoding="utf-8")
    return summary


def _stages(
    folder: Path,
    history: History,
    text: str | None,
    comparison: Comparison | None,
    others: dict[str, History],
    readout: Array | None,
) -> dict[str, Callable[[], list[str]]]:
    """What a report is made of, by name and in order; each gives its lines and saves its figures."""
    gated = history.cell.retention_gate is not None
    made = {"gates": lambda: _of_gates(folder, history, text) if gated else []}
    if text is not None and not gated:
        made["text"] = lambda: ["", *reading_sentences(history, text)]
    flows: dict[str, GradientFlow] = {}
    made["gradients"] = lambda: _of_gradients(folder, history, text, others, flows)
    if history.cell.closed_form and "cell" in history.cell.state_type._fields:
        made["paths"] = lambda: _of_paths(folder, history)
    made["spectrum"] = lambda: _of_spectrum(folder, history, readout)
    made["memory"] = lambda: _of_memory(folder, history)
    made["page"] = lambda: _page(folder, history, text, others, flows)
    made["files"] = lambda: _files(folder, history, text, comparison)
    return made


def _of_gates(folder: Path, history: History, text: str | None) -> list[str]:
    statistics = gate_statistics(history)
    _save(plot.saturation(statistics).figure, folder / "saturation.png")
    _save(plot.timescales(statistics).figure, folder / "timescales.png")
    lines = ["", str(statistics), "", *memory_sentences(statistics)]
    return lines if text is None else [*lines, "", *reading_sentences(history, text)]


def _of_gradients(
    folder: Path,
    history: History,
    text: str | None,
    others: dict[str, History],
    flows: dict[str, GradientFlow],
) -> list[str]:
    flow = gradient_flow(history, "last")
    flows |= {type(history.cell).__name__: flow}
    flows |= {name: gradient_flow(other, "last", outputs="norms") for name, other in others.items()}
    _save(plot.gradient_flow(flow), folder / "gradient_flow.png")
    _save(plot.gates_ledger(flow).figure, folder / "gates_ledger.png")
    if len(flows) > 1:
        _save(plot.compare_flows(flows).figure, folder / "gradients.png")
    lines = ["", "From the last step back, the " + str(flow), "", *flow_sentences(flows)]
    if text is None:
        return lines
    matter = characters_that_matter(flow, text)
    return [*lines, "", "It depends most on these characters (norm of the gradient of each one's input):", *matter]


def _of_paths(folder: Path, history: History) -> list[str]:
    paths = path_spectrum(history)
    _save(plot.path_spectrum(paths), folder / "path_spectrum.png")
    return path_sentences(paths, min(_LAG, len(history) - 1))


def _of_spectrum(folder: Path, history: History, readout: Array | None) -> list[str]:
    spectrum = lyapunov_spectrum(history)
    _save(plot.spectrum(spectrum).figure, folder / "spectrum.png")
    few = to_numpy(history[-min(len(history), _VECTOR_STEPS) :])  # NumPy compiles nothing
    few = few if history.cell.closed_form else history[-len(few) :]
    found = covariant_vectors(few, len(spectrum.exponents))
    read = found.read(readout)
    if read.slowest is None and len(found) < found.size:
        found = covariant_vectors(few, min(_MANY, found.size))
        read = found.read(readout)
    _save(plot.covariant(found, read=read), folder / "covariant.png")
    steps = len(few) if len(few) < len(history) else None
    matters = read_sentence(read, "outputs" if readout is None else "readout", steps)
    return ["", spectrum_sentence(spectrum), matters, str(spectrum), str(found)]


def _of_memory(folder: Path, history: History) -> list[str]:
    memory = memory_report(history)
    _save(plot.memory(memory), folder / "memory.png")
    return ["", str(memory)]


def _page(
    folder: Path, history: History, text: str | None, others: dict[str, History], flows: dict[str, GradientFlow]
) -> list[str]:
    """A page of the pass, and of the SimpleRNN beside it where there is one."""
    passes = {type(history.cell).__name__: history} | {
        name: other for name, other in others.items() if name == "SimpleRNN"
    }
    shown = {name: flows[name] for name in passes}
    page(passes, folder / "index.html", text=text, flow=shown, size=_PAGE_BYTES)
    return []


def _files(folder: Path, history: History, text: str | None, comparison: Comparison | None) -> list[str]:
    _save(plot.dynamics(history[: min(len(history), _DASHBOARD_STEPS)]), folder / "dynamics.png")
    if comparison is not None:
        _save(plot.comparison(comparison), folder / "comparison.png")
    extras: dict[str, Any] = {} if text is None else {"text": np.array(text)}
    save_history(folder / "history.npz", history, **extras)
    return []
