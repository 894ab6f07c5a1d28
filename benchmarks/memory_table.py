"""Tables of `python -m benchmarks.memory_tasks`, from the results of its runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.memory_runs import SAME
from lstmx.comparison import Estimate, estimate

Results = Sequence[dict[str, Any]]


class Effect(NamedTuple):
    """A published comparison of two models."""

    model: str
    other: str
    published: str
    """What was found about the first beside the second."""


_CRITICAL = "clearly worse: forget gate and output activation are the most critical components [1]"
_CHEAP = "no significant loss [1]"
_NO_GAIN = "no significant gain [1]"
EFFECTS = (
    Effect("NFG", "V", _CRITICAL),
    Effect("NOAF", "V", _CRITICAL),
    Effect("CIFG", "V", _CHEAP),
    Effect("NP", "V", _CHEAP),
    *(Effect(name, "V", _NO_GAIN) for name in ("NIG", "NOG", "NIAF", "FGR")),
    Effect("chrono", "LSTM", "learns long-term dependencies much better [2]"),
    Effect("IRNN", "LSTM", "comparable [3]"),
)
SOURCES = """[1] Greff et al., "LSTM: a search space odyssey", 2017: speech, handwriting and music, with
hyperparameters searched for each variant and task. [2] Tallec & Ollivier, "Can recurrent neural networks warp
time?", 2018. [3] Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified linear units",
2015. Here all models have one learning rate and nearly equal numbers of parameters."""
NOTES = """Means over seeds with 95 % bootstrap intervals, which are too narrow for few seeds (of two they are
the range). *Less LSTM*: final loss less that of the LSTM with the same seed; with three seeds or more, better or
worse where the interval leaves out 0. *To half*: training steps until the validation loss is at most half the
baseline; median of the seeds that got there, and how many did. *Gradient horizon*: steps back until the gradient
of the last output's loss has fallen to 1 % of its norm at the last step (`gradient_flow(...).horizon(0.01)`,
median of 32 validation sequences and of the seeds); > T where it never does in T steps."""


def markdown(found: Results, problems: list[str], models: list[str], head: str) -> str:
    """All tables.

    Args:
        found: results of runs.
        problems: names of the tasks, in order.
        models: names of the models, in order.
        head: what to say of the machine and the runs.
    """
    lines = [head, "", NOTES]
    for problem in problems:
        rows = _rows(found, problem, models)
        if rows:
            some = next(iter(rows.values()))[0]
            metric, steps = some["metric"].replace("_", " "), some["settings"]["steps"]
            lines += ["", f"### {some['task']}: {metric}, {steps:,} steps", "", *_table(rows)]
    effects = [effect for effect in EFFECTS if {effect.model, effect.other} <= set(models)]
    if effects:
        lines += ["", "### Published effects", "", *_effects(found, problems, effects), "", SOURCES]
    return "\n".join(lines) + "\n"


def write_csv(found: Results, path: Path) -> None:
    """The single numbers of every run, a row each."""
    rows = [
        {key: value for key, value in result.items() if not isinstance(value, (list, dict))} for result in found
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def _rows(found: Results, problem: str, models: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The results on a task by model, those without any left out."""
    rows = {
        name: [r for r in found if (r["problem"], r["model"]) == (problem, SAME.get(name, name))]
        for name in models
    }
    return {name: results for name, results in rows.items() if results}


def _table(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    head = [
        "model",
        "units",
        "parameters",
        "final loss",
        "less LSTM",
        "accuracy",
        "to half",
        "horizon before",
        "after",
    ]
    lines = [" | ".join(["", *head, ""]).strip(), "|---" * len(head) + "|"]
    for name, results in rows.items():
        cells = [
            name if name not in SAME else f"{name} (is {SAME[name]})",
            str(results[0]["units"]),
            f"{results[0]['parameters']:,}",
            _final(results),
            "" if name in ("LSTM", *SAME) else _difference(results, rows.get("LSTM", [])),
            _shown(_over_seeds([r["accuracy"] for r in _finished(results)]), "{:.1%}"),
            _half(results),
            _horizon(results, "horizon_before"),
            _horizon(_finished(results), "horizon_after"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    first = next(iter(rows.values()))[0]
    lines.append(f"| *{first['baseline_name']}* | | | {first['baseline']:.4g} | | | | | |")
    return lines


def _effects(found: Results, problems: list[str], effects: list[Effect]) -> list[str]:
    """How much greater the final loss of each effect's model is, beside what was published."""
    lines = [" | ".join(["", "effect", "published", *problems, ""]).strip(), "|---" * (2 + len(problems)) + "|"]
    for effect in effects:
        cells = [f"{effect.model} less {effect.other}", effect.published]
        for problem in problems:
            rows = _rows(found, problem, [effect.model, effect.other])
            cells.append(_difference(rows.get(effect.model, []), rows.get(effect.other, [])))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _finished(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [result for result in results if result["diverged_at"] is None]


def _final(results: list[dict[str, Any]]) -> str:
    shown = _shown(_over_seeds([r["final_loss"] for r in _finished(results)]), "{:.4g}")
    diverged = len(results) - len(_finished(results))
    return f"{shown} {diverged} of {len(results)} diverged".strip() if diverged else shown


def _difference(results: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
    """Final loss less that of another model with the same seed; of three or more also in a word."""
    other = {r["seed"]: r["final_loss"] for r in _finished(others)}
    pairs = [r["final_loss"] - other[r["seed"]] for r in _finished(results) if r["seed"] in other]
    difference = _over_seeds(pairs)
    if difference is None:
        return ""
    shown = _shown(difference, "{:+.3g}")
    if len(pairs) < 3 or difference.low is None or difference.high is None:
        return shown
    return f"{shown} {'worse' if difference.low > 0 else 'better' if difference.high < 0 else 'unclear'}"


def _over_seeds(values: list[Any]) -> Estimate | None:
    return estimate(np.array(values, np.float64), axis=0) if values and None not in values else None


def _shown(estimated: Estimate | None, form: str) -> str:
    if estimated is None:
        return ""
    if estimated.low is None or estimated.high is None:
        return form.format(estimated.mean)
    return f"{form.format(estimated.mean)} [{form.format(estimated.low)}, {form.format(estimated.high)}]"


def _half(results: list[dict[str, Any]]) -> str:
    """Median steps to half the baseline over the seeds that got there, and how many did."""
    reached = [r["steps_to_half"] for r in _finished(results) if r["steps_to_half"] is not None]
    return f"{np.median(reached):,.0f} ({len(reached)} of {len(results)})" if reached else "never"


def _horizon(results: list[dict[str, Any]], field: str) -> str:
    """Median of a horizon over seeds."""
    if not results:
        return ""
    median = np.median([np.inf if r[field] is None else r[field] for r in results])
    return f"{median:.0f}" if np.isfinite(median) else f"> {results[0]['length']}"
