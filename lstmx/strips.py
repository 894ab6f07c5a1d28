"""What a result shows of itself in a notebook: its summary, and strips of colour over steps or units."""

from __future__ import annotations

import html
import math
from typing import Any, NamedTuple

import numpy as np

_COLOURS = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
_CELLS = 160  # most of a strip


class Strip(NamedTuple):
    """A row: its name, numbers [n], NaN where there are none, and what colours span, None for their range."""

    name: str
    values: Any
    limits: tuple[float, float] | None = None


def shown(text: str, strips: list[Strip], over: str) -> str:
    """HTML of a summary and of strips below it.

    Args:
        text: the summary.
        strips: rows, whose colours say numbers from dark, least, to bright.
        over: what the strips run over, such as "steps".
    """
    rows = "".join(map(_row, strips))
    table = f"<table><caption>{html.escape(over)} to the right</caption>{rows}</table>" if rows else ""
    return f"<pre>{html.escape(text)}</pre>{table}"


def _row(one: Strip) -> str:
    values = np.asarray(one.values, np.float64).ravel()
    size = -(-len(values) // _CELLS)
    blocks = [block[np.isfinite(block)] for block in np.split(values, range(size, len(values), size))]
    means = np.array([block.mean() if len(block) else math.nan for block in blocks])
    finite = means[np.isfinite(means)]
    low, high = one.limits or ((float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0))
    cells = "".join(
        f'<rect x="{k}" width="1.05" height="1" fill="{_colour((mean - low) / (high - low or 1))}"/>'
        for k, mean in enumerate(means)
        if math.isfinite(mean)
    )
    name = html.escape(one.name)
    picture = (
        f'<svg role="img" aria-label="{name}, from {low:.3g} to {high:.3g}" viewBox="0 0 {len(means)} 1" '
        f'width="480" height="14" preserveAspectRatio="none">{cells}</svg>'
    )
    return f"<tr><th>{name}</th><td>{low:.3g}</td><td>{picture}</td><td>{high:.3g}</td></tr>"


def _colour(share: float) -> str:
    """The colour at a share of the way from dark to bright."""
    at = min(1.0, max(0.0, share)) * (len(_COLOURS) - 1)
    k = min(int(at), len(_COLOURS) - 2)
    ends = ([int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in _COLOURS[k : k + 2])
    return "#" + "".join(f"{round(a + (b - a) * (at - k)):02x}" for a, b in zip(*ends, strict=True))
