"""The readings of a look as scalars for TensorBoard."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.observatory.looking import READINGS, Axes

_WRITERS = ("tensorboardX", "torch.utils.tensorboard")


def writer_to(folder: Path) -> Any:
    """A writer of events into a folder, of the first package that is there.

    Raises:
        ImportError: none is.
    """
    for name in _WRITERS:
        try:
            return importlib.import_module(name).SummaryWriter(str(folder))
        except ImportError:
            continue
    raise ImportError(
        "tensorboard= needs the package tensorboardX, or PyTorch with the package tensorboard, and neither is "
        "installed: pip install tensorboardX"
    )


def scalars(row: Mapping[str, np.ndarray], axes: Axes) -> Iterator[tuple[str, float]]:
    """Tag and value of every reading of a look that is one finite number, such as "share/LSTM/straight".

    Of sequences their median; neither the norms by lag nor the distributions.
    """
    for name, (own, _) in READINGS.items():
        if "lag" in own or "bin" in own:
            continue
        values = np.median(row[name]) if own == ("sequence",) else row[name]
        for index in np.ndindex(values.shape):
            along = (str(getattr(axes, axis)[at]) for axis, at in zip(own, index, strict=False))
            if np.isfinite(values[index]):
                yield "/".join([name, *along]), float(values[index])
