"""`load_history`, and histories of layers on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, overload

from lstmx.arrays import leaves, namespace
from lstmx.cells.base import Cell, P, S
from lstmx.checks import Lacking
from lstmx.checks import path as checked_path
from lstmx.history.recorded import span
from lstmx.history.schema import cell_told
from lstmx.history.store import opened_group
from lstmx.history.stored import StoredHistory, history_at
from lstmx.layers.base import Layers
from lstmx.layers.histories import BidirectionalHistory, StackHistory, folder
from lstmx.layers.structures import KINDS, Stack


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StoredLayers(Lacking):
    """A history of layers on disk: `stored.read()` is a `StackHistory` or `BidirectionalHistory` in memory.

    Attributes:
        path: the folder.
        cell: the stack, or the two directions.
        parts: the histories inside on disk, by the layers' names.
        masks: what outputs of layers were multiplied by on their way up, as arrays on disk; () for nothing.
    """

    path: Path
    cell: Any
    parts: dict[str, Any]
    masks: tuple[Any, ...]

    def _lacks(self, name: str) -> str:
        return (
            f"a history on disk has no {name}; one in memory may have: history.read().{name}, or of one layer "
            f"history.parts[{next(iter(self.parts))!r}].read().{name}"
        )

    @property
    def params(self) -> Any:
        """The parameters of all layers."""
        return self.cell.tree([part.params for part in self.parts.values()])

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch axes; () for one sequence."""
        return next(iter(self.parts.values())).batch

    def __len__(self) -> int:
        """The number of steps."""
        return len(next(iter(self.parts.values())))

    def __getitem__(self, steps: slice) -> StackHistory:
        """A stretch of time as a history in memory, whose initial states are those before its first step.

        Raises:
            TypeError: not a slice, or a layer reads in both directions.
            ValueError: a slice with a stride, or an empty one.
        """
        if not isinstance(self.cell, Stack) or any(isinstance(cell, Layers) for cell in self.cell.cells):
            raise TypeError("a layer reads in both directions: a stretch of time is no pass of its own; read()")
        at = slice(*span(steps, len(self)))
        return self._made([part[at] for part in self.parts.values()], at)

    def __iter__(self) -> Any:
        raise TypeError("a history is not iterated step by step; read a stretch, history[start:stop]")

    def read(self) -> Any:
        """The whole, in memory."""
        return self._made([part.read() for part in self.parts.values()], slice(None))

    def to_numpy(self) -> StoredLayers:
        """The same folder, read into NumPy."""
        parts = {name: part.to_numpy() for name, part in self.parts.items()}
        return StoredLayers(self.path, self.cell, parts, self.masks)

    def _made(self, parts: list[Any], at: slice) -> Any:
        params = self.cell.tree([part.params for part in parts])
        if not isinstance(self.cell, Stack):
            return BidirectionalHistory(self.cell, params, *parts)
        xp = namespace(*leaves(params))
        masks = tuple(xp.asarray(mask[at]) for mask in self.masks) or None
        return StackHistory(self.cell, params, tuple(parts), masks)

    def __repr__(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        return f"StoredLayers({self.cell}: {len(self)} steps{batch}, {str(self.path)!r})"


@overload
def load_history(path: str | Path, cell: Cell[P, S]) -> StoredHistory[P, S]: ...
@overload
def load_history(path: str | Path, cell: Layers) -> StoredLayers: ...
@overload
def load_history(path: str | Path, cell: None = None) -> StoredHistory | Any: ...
def load_history(path: str | Path, cell: Any = None) -> Any:
    """Open a history that `history.save(path)` or `record_to(path, ...)` wrote, without reading its steps.

    The file format is Zarr 3, so `zarr.open(path)` and `xarray.open_zarr(path, consolidated=False)` read it, too.
    Of layers it is a folder with one such for each part, such as `path / "layer_0"`, that may be opened alone.

    Args:
        path: the folder.
        cell: the cell, or the layers, where no file can hold their equations: step functions, and cells of your
            own. None for those of the library.

    Returns:
        The history on disk; `load_history(path).read()` is the whole in memory. Arrays are of the library that
        recorded them (NumPy where JAX is not installed); `load_history(path).to_numpy()` reads them into NumPy.
        Reading a chunk that is damaged or missing raises a ValueError that names it; `lstmx check PATH` reads all.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        TypeError: `path` is no path, or `cell` no cell.
        ValueError: it is no history, or of a newer format or of another cell; it is an address of another machine;
            what describes it is damaged; an array is missing or of another shape; no step is finished; the
            history is float64 in JAX, which has float64 switched off; or the cell is one that no file can hold,
            and is not given.
        ImportError: zarr is not installed.
    """
    path = checked_path("path", path)
    attributes, arrays = opened_group(path)
    if "layers" not in attributes:
        return history_at(path, cell)
    layers = cell_told(attributes["layers"], str(path), cell, KINDS)
    given = dict.fromkeys(layers.parts) if cell is None else layers.parts
    parts = {name: load_history(path / folder(name), given[name]) for name in layers.parts}
    masks = (f"mask_{number}" for number in range(len(parts) - 1))
    return StoredLayers(path, layers, parts, tuple(arrays[name] for name in masks if name in arrays))
