"""The history of one cell on disk, of which a stretch at a time is in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic

import numpy as np

from lstmx.arrays import Array, fetched, is_jax, to_numpy
from lstmx.cells.base import Cell, P, S
from lstmx.checks import Lacking
from lstmx.history.controls import Controls
from lstmx.history.recorded import History, span
from lstmx.history.schema import library_of
from lstmx.history.store import Store

_AT_ONCE = 8  # chunks that an analysis reads at a time


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StoredHistory(Lacking, Generic[P, S]):
    """A history on disk: `stored[a:b]` and `stored.read()` are histories in memory.

    `gradient_flow`, `gate_statistics` and `lyapunov_spectrum` take it as it is and read it stretch by stretch. Of
    a run that was killed it has the finished steps.

    Attributes:
        store: the open store.
        library: the array namespace that stretches are read into: the one that recorded.
        params: the cell's parameters.
        initial: the state before the first step, fields [*batch, H].
    """

    store: Store
    library: Any
    params: P
    initial: S

    def _lacks(self, name: str) -> str:
        return (
            f"a history on disk has no {name}; one in memory may have: history.read().{name}, or of a stretch "
            f"history[start:stop].{name}"
        )

    @property
    def path(self) -> Path:
        """The folder."""
        return self.store.path

    @property
    def cell(self) -> Cell[P, S]:
        """The cell that ran."""
        return self.store.form.cell

    @property
    def keep(self) -> str:
        """What of each step is kept, as for `record`: "all" or "states"."""
        return self.store.form.keep

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch axes; () for one sequence."""
        return self.store.batch

    @property
    def finished(self) -> bool:
        """Whether all steps are there; else the same call of `record_to` goes on where the last one stopped."""
        return len(self) == self.store.length

    @property
    def final(self) -> S:
        """The state after the last step, fields [*batch, H]."""
        return self[len(self) - 1 :].final

    @property
    def at_once(self) -> int:
        """Steps that an analysis reads at a time."""
        return self.store.chunk * _AT_ONCE

    def __len__(self) -> int:
        """The number of steps that are there."""
        return self.store.finished

    def __getitem__(self, steps: slice) -> History[P, S]:
        """A stretch of time as a history in memory, whose initial state is the one before its first step.

        Raises:
            TypeError: not a slice.
            ValueError: a slice with a stride, or an empty one.
        """
        return self._part(*span(steps, len(self)), self.keep)

    def __iter__(self) -> Any:
        raise TypeError("a history is not iterated step by step; read a stretch, history[start:stop]")

    def read(self) -> History[P, S]:
        """The whole, in memory."""
        return self[:]

    def to_numpy(self) -> StoredHistory[P, S]:
        """The same store, read into NumPy."""
        return StoredHistory(self.store, np, *to_numpy((self.params, self.initial)))

    def stretches(self) -> Iterator[tuple[int, History[P, S]]]:
        """The first step of each stretch of `at_once` steps, and its inputs and states as a history."""
        for start in range(0, len(self), self.at_once):
            yield start, self._part(start, min(start + self.at_once, len(self)), "states")

    @property
    def controls(self) -> Controls | None:
        """Those of the whole pass, without what Zoneout drew; None where there is nothing to say."""
        if not self.store.form.controls:
            return None
        flags = (
            self.store.read(name, 0, len(self)) if name in self.store.form.controls else None
            for name in ("hold", "reset")
        )
        return Controls(*(None if flag is None else self.library.asarray(flag) for flag in flags))

    @property
    def counts(self) -> Array | None:
        """Whether each step counts, booleans [T, *batch]; None where all do."""
        return (
            ~self.library.asarray(self.store.read("hold", 0, len(self)))
            if "hold" in self.store.form.controls
            else None
        )

    @property
    def lengths(self) -> Array:
        """Steps of each sequence that count, [*batch]."""
        if self.counts is None:
            return self.library.full(self.batch, len(self))
        return self.library.sum(self.counts.astype(int), axis=0)

    def with_gaps(self, first: bool) -> StoredHistory[P, S]:
        """This history, where the steps that do not count are the last of each sequence already.

        Raises:
            TypeError: they are not.
        """
        counts = fetched(self.counts)
        if first or (counts[1:] & ~counts[:-1]).any():
            raise TypeError(
                "some steps before counted ones do not count; take the history into memory: history.read()"
            )
        return self

    def _part(self, start: int, stop: int, keep: str) -> History[P, S]:
        def rows(name: str) -> Any:
            return self.library.asarray(self.store.read(name, start, stop))

        def before(name: str) -> Any:
            return self.library.asarray(self.store.read(name, start - 1, start)[0])

        initial = self.store.form.states(before) if start else self.initial
        return History(self.cell, self.params, initial, *self.store.form.rows(rows, keep))

    def __repr__(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        missing = "" if self.finished else f" of {self.store.length}"
        name = "JAX" if is_jax(self.library) else "NumPy"
        steps = f"{len(self)}{missing} steps{batch}, {self.store.dtype}, {name}, keep={self.keep!r}"
        return f"StoredHistory({self.cell}: {steps}, {str(self.path)!r})"


def opened(store: Store) -> StoredHistory:
    """The history of a store, which may have no finished step yet."""
    xp = library_of(store.attributes, store.dtype)
    return StoredHistory(store, xp, *store.form.constants(lambda name: xp.asarray(store.read(name))))


def history_at(path: Path, cell: Any = None) -> StoredHistory:
    """The history of one cell on disk; see `load_history`."""
    store = Store(path, cell=cell)
    if not store.finished:
        raise ValueError(f"{path} has no finished step yet; the same call of record_to starts it again")
    return opened(store)
