"""A folder of figures, numbers and sentences about one recorded pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lstmx import plot
from lstmx.comparison import Comparison
from lstmx.dynamics import LyapunovSpectrum, lyapunov_spectrum
from lstmx.gradients import GradientFlow, PathSpectrum, gradient_flow, path_spectrum
from lstmx.history import History
from lstmx.memory import memory_report
from lstmx.reading import gate_by_character, tracked_properties
from lstmx.statistics import GateStatistics, gate_statistics
from lstmx.storage import save_history

_MARK = ".lstmx-report"
_DASHBOARD_STEPS = 400
_LAG = 20


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


def write_figures(folder: Path, history: History, statistics: GateStatistics | None, flow: GradientFlow) -> None:
    """Figures of one pass; saturation and time scales of a gated cell only."""
    part = history[: min(len(history), _DASHBOARD_STEPS)]
    _save(plot.dynamics(part), folder / "dynamics.png")
    _save(plot.gradient_flow(flow), folder / "gradient_flow.png")
    _save(plot.gates_ledger(flow).figure, folder / "gates_ledger.png")
    if statistics is not None:
        _save(plot.saturation(statistics).figure, folder / "saturation.png")
        _save(plot.timescales(statistics).figure, folder / "timescales.png")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)


def memory_sentences(statistics: GateStatistics) -> list[str]:
    """What the time scales and the saturation say, in sentences."""
    scale = np.asarray(statistics.timescale)
    longest = int(np.argmax(scale))
    name = statistics.retention_gate.replace("_", " ")
    gate = statistics[statistics.retention_gate]
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


def statistics_or_none(history: History) -> GateStatistics | None:
    """The gate statistics of a gated cell, None of another."""
    return gate_statistics(history) if history.cell.retention_gate is not None else None


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
    if first < 0:
        says = f"two passes from nearby states approach each other by e in {spectrum.timescale:.3g} steps"
    else:
        says = "two passes from nearby states drift apart, whatever the inputs"
    return f"Its greatest Lyapunov exponent on this passage is {first:+.3g} ± {error:.1g} nats per step: {says}."


def write_report(
    folder: Path,
    history: History,
    head: list[str],
    text: str | None = None,
    comparison: Comparison | None = None,
    others: dict[str, History] | None = None,
) -> str:
    """Write figures, history.npz and summary.txt of a pass without batch axes.

    Args:
        folder: where to, as claimed.
        history: the pass, [T, H].
        head: first lines of the summary.
        text: the characters read, for a character model.
        comparison: curves of the models trained, for comparison.png.
        others: passes over the same inputs whose gradients to compare with this one's, by name.

    Returns:
        The summary.
    """
    statistics = gate_statistics(history) if history.cell.retention_gate is not None else None
    flow = gradient_flow(history, "last")
    flows = {type(history.cell).__name__: flow}
    flows |= {name: gradient_flow(other, "last", outputs="norms") for name, other in (others or {}).items()}
    lines = [*head, "", history.summary()]
    if statistics is not None:
        lines += ["", str(statistics), "", *memory_sentences(statistics)]
    if text is not None:
        lines += ["", *reading_sentences(history, text)]
    lines += ["", "From the last step back, the " + str(flow), "", *flow_sentences(flows)]
    write_figures(folder, history, statistics, flow)
    if len(flows) > 1:
        _save(plot.compare_flows(flows).figure, folder / "gradients.png")
    if "cell" in history.cell.state_type._fields:
        paths = path_spectrum(history)
        lines += path_sentences(paths, min(_LAG, len(history) - 1))
        _save(plot.path_spectrum(paths), folder / "path_spectrum.png")
    spectrum, memory = lyapunov_spectrum(history), memory_report(history)
    lines += ["", spectrum_sentence(spectrum), str(spectrum), "", str(memory)]
    _save(plot.spectrum(spectrum).figure, folder / "spectrum.png")
    _save(plot.memory(memory), folder / "memory.png")
    if comparison is not None:
        _save(plot.comparison(comparison), folder / "comparison.png")
    extras: dict[str, Any] = {} if text is None else {"text": np.array(text)}
    save_history(folder / "history.npz", history, **extras)
    summary = "\n".join(lines) + "\n"
    (folder / "summary.txt").write_text(summary, encoding="utf-8")
    return summary
