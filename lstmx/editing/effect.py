"""What edits did: outputs, and a loss of them, with and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lstmx.arrays import Array, constant_tree, fetched, gathered, is_traced, leaves, namespace, result
from lstmx.editing.edited import Edited, EditedLayers
from lstmx.history import History, where_held
from lstmx.layers import LayeredPass

_TOLD = 3  # units that the summary lists


@result
class Effect:
    """How an edited pass differs from one without these edits.

    Attributes:
        history: the pass that it is measured from.
        edited: the edited pass.
        outputs: change of h_t, edited minus before, [T, *batch, H]; 0 at steps that do not count.
        norm: its L2 norm over units, [T, *batch].
        by_unit: its root mean square over the steps that count, [*batch, H].
        loss_before: the loss of each step without the edits, [T, *batch]; None where no loss was given.
        loss_after: the loss of each step with them; None likewise.
    """

    history: History | Edited | LayeredPass
    edited: Edited | EditedLayers
    outputs: Array
    norm: Array
    by_unit: Array
    loss_before: Array | None
    loss_after: Array | None

    @property
    def loss(self) -> Array | None:
        """Change of the loss, [T, *batch]; None where no loss was given."""
        if self.loss_before is None or self.loss_after is None:
            return None
        return self.loss_after - self.loss_before

    @property
    def changed(self) -> tuple[str, ...]:
        """The gates and states that edits changed themselves at any step, in the order of the cell.

        Of layers with the name of the cell before, as "layer 0: forget_gate".
        """
        return tuple(name for name, acted in self.edited.changes.items() if np.any(fetched(acted)))

    @property
    def acted(self) -> Array:
        """Whether an edit changed anything in a step, bool [T]."""
        xp = namespace(self.norm)
        none = xp.zeros(len(self.edited), dtype=bool)
        return xp.any(xp.stack([none, *self.edited.changes.values()]), axis=0)

    def __str__(self) -> str:
        edits = "; ".join(self.edited.edits) or "no edit"
        lines = [f"effect of {edits} on {self.edited.cell}", _of_steps(self)]
        if self.norm.size:
            moved = np.any(np.asarray(self.norm))
            lines += [_of_outputs(self), _of_units(self)] if moved else ["outputs: not one of them moved"]
            lines += [] if self.loss_after is None else [_of_loss(self)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        edits = "; ".join(self.edited.edits) or "no edit"
        return (
            f"Effect({edits}: {len(self.edited)} steps, {'no loss' if self.loss_after is None else 'with loss'})"
        )


def effect(
    history: History | Edited | LayeredPass,
    edited: Edited | EditedLayers,
    loss: Callable[[Array], Array] | None = None,
) -> Effect:
    """What edits did to the outputs of a pass, and to a loss of these, over time.

    Args:
        history: the pass without the edits; or with others, to compare two interventions.
        edited: the pass with them, from `intervene`, of the same cell, parameters, inputs and initial
            state.
        loss: a function of all outputs [T, *batch, H] that returns the loss of each step, [T, *batch]; None for
            none. It is called with the outputs of either pass, of layers those of the top; what it gives of a
            step that does not count is taken for 0.

    Returns:
        An `Effect`; `print` says where it is large.

    Raises:
        TypeError: history is no recorded pass, edited is no `Edited`, or loss no function.
        ValueError: the two differ in cell, length, batch, dtype, library, parameters, inputs or initial state; or
            the loss is of another shape than [T, *batch].

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> xs = numpy.ones((6, 3), "float32")
        >>> history = lstmx.record(cell, params, xs)
        >>> edited = lstmx.intervene(cell, params, xs, lstmx.edits.clamp(input_gate=0.0, steps=slice(2, 4)))
        >>> effect = lstmx.effect(history, edited, loss=lambda outputs: (outputs**2).mean(-1))
        >>> effect.norm > 0
        array([False, False,  True,  True,  True,  True])
    """
    if not isinstance(history, (History, Edited, LayeredPass)):
        raise TypeError(f"history is a {type(history).__name__}; expected a History or Edited, as made by record")
    if not isinstance(edited, (Edited, EditedLayers)):
        raise TypeError(f"edited is a {type(edited).__name__}; expected an Edited, as made by intervene")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss is a {type(loss).__name__}; expected a function of the outputs, or None")
    _comparable(history, edited)

    before, after = history.outputs, edited.outputs
    outputs = after - before
    norm = _norm(outputs, -1)
    counted = edited.lengths.astype(outputs.dtype)[..., None]
    by_unit = _norm(outputs, 0) / counted**0.5
    losses = (None, None) if loss is None else (_steps(loss, one, edited.counts) for one in (before, after))
    return gathered(Effect(history, edited, outputs, norm, by_unit, *losses), ("history", "edited", "outputs"))


def _comparable(history: Any, edited: Any) -> None:
    """Raise unless two passes differ in their edits alone."""
    for what, ours, theirs in (
        ("cell", history.cell, edited.cell),
        ("length", len(history), len(edited)),
        ("batch axes", history.batch, edited.batch),
        ("dtype", history.inputs.dtype, edited.inputs.dtype),
        ("library", namespace(history.inputs).__name__, namespace(edited.inputs).__name__),
    ):
        if ours != theirs:
            raise ValueError(
                f"edited has the {what} {theirs}, history {ours}: expected the same but for the edits"
            )
    for what, ours, theirs in zip(
        ("params", "steps that count, start anew or were drawn for", "inputs", "initial"),
        _given(history),
        _given(edited),
        strict=True,
    ):
        ours, theirs = list(leaves(ours)), list(leaves(theirs))
        same = len(ours) == len(theirs)
        pairs = zip(ours, theirs, strict=True) if same else ()
        if not same or any(
            a is not b and not is_traced(a, b) and not np.array_equal(fetched(a), fetched(b)) for a, b in pairs
        ):
            raise ValueError(
                f"edited has other {what} than history: what differs would not be the edits' doing alone"
            )


def _given(history: Any) -> tuple[Any, Any, Any, Any]:
    """Parameters, what is said of the steps and drawn for them, inputs and initial state."""
    parts = [history] if not isinstance(history, LayeredPass) else [part for part, _ in history.cells().values()]
    drawn = [part.controls for part in parts], getattr(history, "masks", None)
    return history.params, drawn, history.inputs, history.initial


def _norm(x: Array, axis: int) -> Array:
    """The L2 norm along an axis, also where no float holds the squares; its derivative is 0 where it is 0."""
    xp = namespace(x)
    largest = constant_tree(xp.max(xp.abs(x), axis=axis, keepdims=True, initial=0))
    size = xp.where(largest > 0, largest, xp.ones_like(largest))
    square = xp.sum((x / size) ** 2, axis=axis)
    root = xp.sqrt(xp.where(square > 0, square, xp.ones_like(square)))
    return xp.where(square > 0, xp.squeeze(size, axis=axis) * root, xp.zeros_like(square))


def _steps(loss: Callable[[Array], Array], outputs: Array, counts: Array | None) -> Array:
    found = loss(outputs)
    shape = tuple(outputs.shape[:-1])
    if not hasattr(found, "shape") or tuple(found.shape) != shape:
        came = getattr(found, "shape", type(found).__name__)
        raise ValueError(f"loss returned {came}; expected the loss of each step, an array [T, *batch] = {shape}")
    return found if counts is None else where_held(~counts, found)


# --------------------------------------------------------------------------------------------------- in words


def _of_steps(effect: Effect) -> str:
    acted = np.flatnonzero(fetched(effect.acted))
    steps = f"{len(effect.edited):,} steps" + (f", batch {effect.edited.batch}" if effect.edited.batch else "")
    if not len(acted):
        return f"{steps}; no value was changed"
    where = f"from step {acted[0]:,} to {acted[-1]:,}" if len(acted) > 1 else f"step {acted[0]:,}"
    return f"{steps}; values changed at {len(acted):,} of them, {where}: {', '.join(effect.changed)}"


def _of_outputs(effect: Effect) -> str:
    norm = fetched(effect.norm, np.float64)
    counts = _counts(effect)
    last = np.take_along_axis(norm, len(norm) - 1 - counts[::-1].argmax(axis=0)[None], axis=0)
    step, *sequence = (int(k) for k in np.unravel_index(np.argmax(norm), norm.shape))
    where = f" of sequence {tuple(sequence)}" if sequence else ""
    return (
        f"outputs: moved by {norm.max():.3g} (L2) at most, at step {step:,}{where}; by {norm[counts].mean():.3g} "
        f"on average, by {last.mean():.3g} at the last step"
    )


def _of_units(effect: Effect) -> str:
    by_unit = np.sqrt(
        np.mean(fetched(effect.by_unit, np.float64).reshape(-1, effect.outputs.shape[-1]) ** 2, axis=0)
    )
    most = np.argsort(-by_unit, kind="stable")[:_TOLD]
    return "units that moved most (root mean square): " + ", ".join(f"{k} ({by_unit[k]:.3g})" for k in most)


def _of_loss(effect: Effect) -> str:
    before, after = (fetched(x, np.float64) for x in (effect.loss_before, effect.loss_after))
    change = after - before
    step = int(np.unravel_index(np.argmax(np.abs(change)), change.shape)[0])
    at = change.flat[np.argmax(np.abs(change))]
    counts = _counts(effect)
    means = f"{before[counts].mean():.4g} before, {after[counts].mean():.4g} after"
    return f"loss: {means}; it changed most at step {step:,}, by {at:+.3g}"


def _counts(effect: Effect) -> np.ndarray:
    """Whether each step counts, [T, *batch]."""
    counts = effect.edited.counts
    return np.ones(effect.norm.shape, bool) if counts is None else fetched(counts)
