"""What a character model's units follow in the text that it reads: plain findings, each with its number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lstmx.gradients import GradientFlow
from lstmx.history import History
from lstmx.pages.signals import text_signals


class Tracked(NamedTuple):
    """A unit whose state follows a property of the text."""

    unit: int
    correlation: float
    """Pearson correlation on the second half of the passage; the unit was chosen on the first."""


def tracked_properties(history: History, text: str) -> dict[str, Tracked]:
    """For each property of the text, the unit whose state follows it best.

    The unit is chosen by its correlation with the property on the first half of the passage and reported with
    the one on the second half, so that the best of many units by chance does not pass for a finding.

    Args:
        history: a pass without batch axes over the text, [T, H].
        text: the T characters read.

    Returns:
        Property to unit; properties that are constant in a half are left out.
    """
    state = np.asarray(history.cell.named_fields(history.states).get("cell", history.hidden_state), np.float64)
    half = len(text) // 2
    found = {}
    for name, values in text_signals(text).items():
        if np.ptp(values[:half]) == 0 or np.ptp(values[half:]) == 0:
            continue
        unit = int(np.argmax(np.abs(_correlations(state[:half], values[:half]))))
        found[name] = Tracked(unit, float(_correlations(state[half:, unit : unit + 1], values[half:])[0]))
    return found


def characters_that_matter(flow: GradientFlow, text: str, count: int = 8) -> list[str]:
    """The characters on which the loss of a flow depends most, with where they stand and what stands around them.

    Args:
        flow: of one sequence [T], with the gradients of its inputs.
        text: the T characters read.
        count: how many.

    Returns:
        Lines, the greatest norm of the gradient of a character's input first.
    """
    norms = np.linalg.norm(np.asarray(flow.inputs, np.float64), axis=-1)
    lines = []
    for step in np.argsort(-norms, kind="stable")[:count]:
        before, after = text[max(0, step - 12) : step], text[step + 1 : step + 9]
        around = f"{before}[{text[step]}]{after}".replace("\n", "⏎")
        lines.append(f"step {step:>6}  {norms[step]:9.3g}  {around}")
    return lines


def gate_by_character(gate: np.ndarray, text: str, least: int = 10) -> dict[str, float]:
    """Mean over units of a gate [T, H] at each character that occurs at least `least` times, lowest first."""
    mean = np.asarray(gate, np.float64).mean(axis=1)
    characters = np.array(list(text))
    means = {str(c): float(mean[characters == c].mean()) for c in set(text) if text.count(c) >= least}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def _correlations(states: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column of [T, H] with [T]; 0 for a column that does not move."""
    states, values = states - states.mean(axis=0), values - values.mean()
    scale = np.linalg.norm(states, axis=0) * np.linalg.norm(values)
    return (values @ states) / np.where(scale == 0, np.inf, scale)
