"""A figure and axes that a notebook shows by themselves, without pyplot and its global list of figures.

This file imports matplotlib, so `canvas.py` imports it only when something is drawn.
"""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A `Figure` that a notebook shows when it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        return _png(self)


class ShownAxes(Axes):
    """`Axes` whose figure a notebook shows when they are the value of a cell."""

    def _repr_png_(self) -> bytes:
        return _png(self.figure)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
