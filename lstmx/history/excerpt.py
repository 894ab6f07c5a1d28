"""`Excerpt`: chosen parts of a pass, at chosen steps and precision, to look at rather than to differentiate."""

from __future__ import annotations

from typing import Any, Generic

import numpy as np

from lstmx.arrays import Array, namespace, result, to_numpy
from lstmx.cells.base import Cell, S
from lstmx.checks import dead

STORAGE = ("float16", "bfloat16")


@result(static=("cell", "every", "length", "dtype"))
class Excerpt(Generic[S]):
    """Gates and states of one pass, kept in part.

    Each field that was kept is an attribute, [ceil(T / every), *batch, H], in the dtype of the parameters:
    `hidden_state`, `cell_state`, `forget_gate` and the cell's other gates. The last step is always kept, and every
    `every`-th before it.

    Attributes:
        cell: the cell that ran.
        every: steps from one kept step to the next.
        length: steps T of the pass.
        dtype: the parameters' dtype, which fields are read in.
        initial: the state before the first step, fields [*batch, H].
        final: the state after the last step, in full precision.
        stored: name to array as it lies in memory: of the parameters' dtype, float16, or uint16 with the bits of
            bfloat16.
    """

    cell: Cell[Any, S]
    every: int
    length: int
    dtype: str
    initial: S
    final: S
    stored: dict[str, Array]

    def __getattr__(self, name: str) -> Array:
        # Reached only for names that are no field and no property.
        if name.startswith("_") or name in Excerpt.__dataclass_fields__:
            gone = "cell" in self.__dict__ and name in Excerpt.__dataclass_fields__
            raise dead("excerpt", name) if gone else AttributeError(name)
        if name in self.stored:
            return decode(self.stored[name], self.dtype)
        kept = ", ".join(self.stored)
        raise AttributeError(f"this excerpt of a {type(self.cell).__name__} has no {name}; it holds: {kept}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.stored})

    @property
    def steps(self) -> np.ndarray:
        """The steps that were kept, counted from 0, [ceil(T / every)]."""
        return np.arange((self.length - 1) % self.every, self.length, self.every)

    def __len__(self) -> int:
        """The number of steps kept."""
        return -(-self.length // self.every)

    def to_numpy(self) -> Excerpt[S]:
        """This excerpt with every array copied to NumPy."""
        arrays = to_numpy((self.initial, self.final, self.stored))
        return Excerpt(self.cell, self.every, self.length, self.dtype, *arrays)

    def __repr__(self) -> str:
        kept = ", ".join(self.stored)
        return f"Excerpt({self.cell}: {kept}; {len(self)} of {self.length} steps)"


def fields_of(cell: Cell) -> tuple[str, ...]:
    """The names that an excerpt of this cell's pass can hold."""
    return (*(f"{name}_state" for name in cell.state_type._fields), *cell.gate_type._fields)


def size_of(cell: Cell, name: str) -> int:
    """Columns of one of `fields_of`."""
    states = dict(zip(cell.state_type._fields, cell.field_sizes, strict=True))
    return states[name.removesuffix("_state")] if name.endswith("_state") else cell.hidden_size


def select(
    cell: Cell, fields: tuple[str, ...], dtype: str | None, before: Any, after: Any, a: Array
) -> dict[str, Array]:
    """The named fields of a step, or of many, as they are stored."""
    values = [after, cell.readings(before, a)]
    named = {name: getattr(one, field) for one in values for name, field in names_of(one).items()}
    return {name: encode(named[name], dtype) for name in fields}


def names_of(values: Any) -> dict[str, str]:
    """The fields of gates or of a state by the names in `fields_of`."""
    suffix = "_state" if "hidden" in values._fields else ""
    return {f"{field}{suffix}": field for field in values._fields}


def encode(x: Array, dtype: str | None) -> Array:
    """`x` as it is stored: as it is for None, as float16, or as the bits of bfloat16, rounded to even.

    Bits, because XLA on the CPU converts the whole buffer of a loop's bfloat16 outputs at each step.
    """
    if dtype is None:
        return x
    xp = namespace(x)
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return x.astype(xp.float16)
    bits = x.astype(xp.float32).view(xp.uint32)
    even = (bits >> xp.uint32(16)) & xp.uint32(1)
    rounded = (bits + xp.uint32(0x7FFF) + even) >> xp.uint32(16)
    return xp.where(xp.isnan(x), xp.uint32(0x7FC0), rounded).astype(xp.uint16)


def decode(stored: Array, dtype: str) -> Array:
    """What `encode` stored, in `dtype`."""
    xp = namespace(stored)
    if stored.dtype == np.uint16:
        stored = (stored.astype(xp.uint32) << xp.uint32(16)).view(xp.float32)
    return stored.astype(dtype)
