"""`Edited` and `EditedLayers`: what a pass with edits left behind."""

from __future__ import annotations

from typing import Any, Generic

from lstmx.arrays import Array, is_jax, map_tree, namespace, result, to_numpy
from lstmx.cells.base import Cell, P, S
from lstmx.history import Controls, where_held
from lstmx.layers import LayeredPass, Stack, flipped


@result(static=("cell", "edits"))
class Edited(Generic[P, S]):
    """Inputs, states and gates of one pass in which edits changed them; what a `History` is of a pass without.

    Attributes have the names that they have in a history: `hidden_state`, `cell_state`, `forget_gate` and the
    cell's other gates, [T, *batch, H]. Gates are as the step used them. An edited pass does not follow the
    equations of its cell, so analyses that take a history refuse it; `lstmx.effect` compares it with one.

    Attributes:
        cell: the cell that ran.
        params: its parameters.
        initial: the state before the first step, fields [*batch, H].
        inputs: x_t, [T, *batch, D].
        states: state after each step as the next step read it, fields [T, *batch, H].
        gates: gates and candidate as used, fields [T, *batch, H].
        preactivations: a_t as computed, [T, *batch, blocks·H]; no edit changes them, but those that read an edited
            value of the same step, through a peephole or behind a reset gate, follow it.
        acted: by the name of each gate and state, whether any number of a step was changed by an edit, bool [T].
        controls: of the steps, as in a history; None where there is nothing to say.
        edits: the edits in words, in their order.
    """

    cell: Cell[P, S]
    params: P
    initial: S
    inputs: Array
    states: S
    gates: Any
    preactivations: Array
    acted: dict[str, Array]
    controls: Controls | None
    edits: tuple[str, ...]

    @property
    def hidden_state(self) -> Array:
        """h_t, [T, *batch, H]."""
        return self.cell.output(self.states)

    @property
    def outputs(self) -> Array:
        """h_t, and 0 at the steps that do not count, [T, *batch, H]."""
        return self.hidden_state if self.controls is None else where_held(self.controls.hold, self.hidden_state)

    @property
    def counts(self) -> Array | None:
        """Whether each step counts, booleans [T, *batch]; None where all do."""
        return None if self.controls is None or self.controls.hold is None else ~self.controls.hold

    @property
    def lengths(self) -> Array:
        """Steps of each sequence that count, [*batch]."""
        xp = namespace(self.inputs)
        return xp.full(self.batch, len(self)) if self.counts is None else xp.sum(self.counts.astype(int), axis=0)

    @property
    def changes(self) -> dict[str, Array]:
        """`acted` in the order of the cell: gates, then states."""
        states = (f"{name}_state" for name in self.cell.named_fields(self.states))
        return {name: self.acted[name] for name in (*self.gates._fields, *states)}

    @property
    def final(self) -> S:
        """The state after the last step, fields [*batch, H]."""
        return map_tree(lambda x: x[-1], self.states)

    @property
    def batch(self) -> tuple[int, ...]:
        """The batch axes; () for one sequence."""
        return tuple(self.inputs.shape[1:-1])

    def __getattr__(self, name: str) -> Array:
        # Reached only for names that are no field and no property: what depends on the cell.
        if name.startswith("_") or name in Edited.__dataclass_fields__:
            raise AttributeError(name)  # while it is copied or unpickled
        states = self.cell.named_fields(self.states)
        if name == "cell_state" and "cell" in states:
            return states["cell"]
        if name in self.gates._fields:
            return getattr(self.gates, name)
        known = ", ".join(self.gates._fields)
        raise AttributeError(
            f"an edited pass of a {type(self.cell).__name__} has no {name}; its gates are: {known}"
        )

    def __dir__(self) -> list[str]:
        states = {f"{name}_state" for name in self.cell.named_fields(self.states)}
        return sorted({*super().__dir__(), *states, *self.gates._fields})

    def __len__(self) -> int:
        """The number of steps T."""
        return self.inputs.shape[0]

    def sequence(self, *index: int) -> Edited[P, S]:
        """One sequence of a batch without batch axes; `acted` stays that of the whole batch.

        Raises:
            ValueError: not one index per batch axis.
            IndexError: an index outside its axis.
        """
        if len(index) != len(self.batch):
            raise ValueError(f"{len(index)} indices for batch axes {self.batch}; expected one for each")
        initial = map_tree(lambda x: x[index], self.initial)
        over_time = (self.inputs, self.states, self.gates, self.preactivations, self.controls)
        inputs, states, gates, a, controls = map_tree(lambda x: x[(slice(None), *index)], over_time)
        return Edited(self.cell, self.params, initial, inputs, states, gates, a, self.acted, controls, self.edits)

    def to_numpy(self) -> Edited[P, S]:
        """This pass with every array copied to NumPy."""
        return to_numpy(self)

    def __repr__(self) -> str:
        library = "JAX" if is_jax(namespace(self.inputs)) else "NumPy"
        batch = f", batch {self.batch}" if self.batch else ""
        edits = "; ".join(self.edits) or "no edit"
        return f"Edited({self.cell}: {len(self)} steps{batch}, {self.inputs.dtype}, {library}; {edits})"


@result(static=("cell", "edits"))
class EditedLayers(LayeredPass):
    """One pass of a stack or of two directions in which edits changed gates and states of some cells.

    `edited.parts` has the pass of each layer by its name. That of a cell that no edit is for is a `History`: it
    follows its equations, of the inputs that the layers below made of what was changed.

    Attributes:
        cell: the layers.
        params: their parameters.
        layers: the passes of the layers, bottom first, or forward and backward: an `Edited`, an `EditedLayers` or
            a `History` each.
        masks: what the outputs of each layer but the last were multiplied by on their way up, [T, *batch, H]; None
            where nothing was dropped.
        edits: the edits in words, with the names of the cells that they are for.
    """

    cell: Any
    params: Any
    layers: tuple[Any, ...]
    masks: Any
    edits: tuple[str, ...]

    @property
    def parts(self) -> dict[str, Any]:
        return dict(zip(self.cell.parts, self.layers, strict=True))

    @property
    def outputs(self) -> Array:
        if isinstance(self.cell, Stack):
            return self.layers[-1].outputs
        forward, backward = (self.in_time(name, part.outputs) for name, part in self.parts.items())
        return self.cell.merged(forward, backward)

    def in_time(self, name: str, rows: Array) -> Array:
        """Rows [T, ...] of a part, in the order of time."""
        return flipped(rows) if name == "backward" else rows

    @property
    def changes(self) -> dict[str, Array]:
        """By cell and name of gates and states, "layer 0: forget_gate", whether a step was changed, bool [T]."""
        return {
            f"{cell}: {name}": in_time(acted)
            for cell, (part, in_time) in self.cells().items()
            if isinstance(part, Edited)
            for name, acted in part.changes.items()
        }

    def __repr__(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        return f"EditedLayers({self.cell}: {len(self)} steps{batch}; {'; '.join(self.edits) or 'no edit'})"
