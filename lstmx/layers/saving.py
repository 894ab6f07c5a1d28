"""Histories of layers written to disk: a folder for each part, and what ties them together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lstmx.arrays import require
from lstmx.history.schema import FORMAT, VERSION, batch_axes, told
from lstmx.history.store import save
from lstmx.layers.base import Layers
from lstmx.layers.structures import KINDS


def save_layers(history: Any, path: Path) -> None:
    """Write the history of a stack or of two directions into a new folder."""
    attributes = {"format": FORMAT, "format_version": VERSION, "layers": told(history.cell, KINDS)}
    zarr = require("zarr", "a history on disk", extra="disk")
    group = zarr.open_group(path, mode="w-", zarr_format=3, attributes=attributes)
    axes = ("time", *batch_axes(len(history.batch)))
    for number, mask in enumerate(getattr(history, "masks", None) or ()):
        names = (*axes, f"unit_{number}")
        group.create_array(f"mask_{number}", data=np.asarray(mask), dimension_names=names)
    for name, part in history.parts.items():
        (save_layers if isinstance(part.cell, Layers) else save)(part, path / folder(name))


def folder(name: str) -> str:
    """Where the part of this name lies."""
    return name.replace(" ", "_")
