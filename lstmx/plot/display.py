"""Figures and axes that a notebook shows by themselves, without pyplot and its list of figures; ticks at words.

This file imports matplotlib, so `canvas.py` imports it only when something is drawn.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis
from matplotlib.figure import Figure
from matplotlib.ticker import Locator


class ShownFigure(Figure):
    """A `Figure` that a notebook shows when it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        return _png(self)


class ShownAxes(Axes):
    """`Axes` whose figure a notebook shows when they are the value of a cell."""

    def _repr_png_(self) -> bytes:
        return _png(self.figure)


class TokenLocator(Locator):
    """Ticks at all positions from 0 to length − 1, or at as many of them as have room for a line of text."""

    def __init__(self, length: int) -> None:
        """Of an axis of so many positions."""
        self.length = length

    def __call__(self) -> Any:
        """The positions, for the present size of the axes."""
        assert self.axis is not None  # matplotlib sets it
        letters = (3 if isinstance(self.axis, XAxis) else 2) * self.axis.get_tick_space()  # heights of one
        return np.arange(0, self.length, max(1, math.ceil(1.3 * self.length / max(letters, 1))))


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
