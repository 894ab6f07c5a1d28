"""What a file of weights does not say, and its reader may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Choices(NamedTuple):
    """What a file does not say, and the user may.

    Attributes:
        nonlinearity: of a simple RNN in weights alone, or of whatever layer in those of Keras, "tanh" or "relu";
            None for tanh.
        reset: of a GRU of ONNX, "after" or "before" the product; None for what the file says.
        dtype: "float32" or "float64", to cast weights to; None to take them as they are.
        tell: called with each thing that is assumed, in words.
    """

    nonlinearity: str | None = None
    reset: str | None = None
    dtype: str | None = None
    tell: Callable[[str], Any] = lambda words: None

    def without(self, path: str | Path, *names: str) -> None:
        """Raise ValueError where one of these is chosen, which the file says itself or has no use for."""
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(f"{path} leaves no {name} to choose: expected none, got {getattr(self, name)!r}")
