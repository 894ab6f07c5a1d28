"""Edits tied to a pass, as its loop calls them: with masks and numbers for its cell, length and dtype."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from lstmx.arrays import Array, is_jax, map_tree, namespace, result
from lstmx.checks import one_of, same_dtype
from lstmx.draws import counted_normal, jax_key
from lstmx.editing.edits import Edit, mask
from lstmx.history.excerpt import fields_of, names_of, size_of


@result(static=("adds", "timed", "names"))
class Bound:
    """A ready-made edit tied to a pass.

    Attributes:
        adds: whether values are the scale of noise that is added, or take the place of what was there.
        timed: whether values have an axis of time.
        names: the gates and states, of which `values` has each.
        values: numbers, [H], or [T, *batch, H].
        units: masks [H], of each name; None for all.
        steps: mask [T]; None for all.
        key: of the noise.
    """

    adds: bool
    timed: bool
    names: tuple[str, ...]
    values: dict[str, Array]
    units: dict[str, Array] | None
    steps: Array | None
    key: Any

    def __call__(self, step: Any, values: Any, fields: tuple[str, ...]) -> Any:
        """Gates or a state with those of `fields` changed that this edit is for."""
        known = names_of(values)
        now = None if self.steps is None else self.steps[step]
        made = {}
        for part, name in enumerate(self.names):
            field = known.get(name)
            if field in fields:
                old = getattr(values, field)
                new = self._new(step, part, old)
                chosen = now if self.units is None else self.units[name]
                if now is not None and self.units is not None:
                    chosen = self.units[name] & now
                made[field] = new if chosen is None else namespace(old).where(chosen, new, old)
        return values._replace(**made)

    def _new(self, step: Any, part: int, old: Array) -> Array:
        value = self.values[self.names[part]]
        if self.adds:
            return old + value * counted_normal(self.key, step, part, old.shape, old.dtype)
        return namespace(old).broadcast_to(value[step] if self.timed else value, old.shape)


@result(static=("function",))
class Own:
    """A function of the user's own.

    Attributes:
        function: (step, gates or a state) -> the same.
    """

    function: Callable[[Any, Any], Any]

    def __call__(self, step: Any, values: Any, fields: tuple[str, ...]) -> Any:
        """Gates or a state with `fields` as the function returns them."""
        xp = namespace(*values)
        shown = values if is_jax(xp) else type(values)(*map(_read_only, values))
        made = self.function(step if is_jax(xp) else int(step), shown)
        self._check(xp, made, values)
        return values._replace(**{name: xp.asarray(getattr(made, name), dtype=values[0].dtype) for name in fields})

    def _check(self, xp: ModuleType, made: Any, values: Any) -> None:
        kind, name = type(values), getattr(self.function, "__name__", type(self.function).__name__)
        if type(made) is not kind:
            raise TypeError(
                f"the edit {name} returned a {type(made).__name__} for {kind.__name__}; expected the same: "
                "values._replace(...), or values as they came"
            )
        for field, new, old in zip(values._fields, made, values, strict=True):
            what = f"{field} as returned by the edit {name}"
            if not hasattr(new, "__array_namespace__"):
                raise TypeError(f"{what} is a {type(new).__name__}; expected an array of {old.dtype} {old.shape}")
            if is_jax(namespace(new)) and not is_jax(xp):
                raise TypeError(f"{what} is of JAX in a pass in NumPy; pass params of JAX for a pass there")
            if tuple(new.shape) != tuple(old.shape):
                raise ValueError(f"{what} has shape {tuple(new.shape)}; expected {tuple(old.shape)} as it came")
            same_dtype(what, new, old.dtype, "it came as")


def _read_only(x: Array) -> Array:
    """A view that a function cannot write to: in place it would reach values that are not its to change."""
    shown: Any = x.view()
    shown.flags.writeable = False
    return shown


def bind(edit: Any, cell: Any, xp: ModuleType, lead: tuple[int, ...], dtype: Any) -> Bound | Own:
    """An edit tied to a pass of `cell` that runs in `xp`, with these axes [T, *batch] and this dtype.

    Raises:
        TypeError: a value of another dtype.
        ValueError: the cell has no such name, units or steps are outside, or a value has another shape.
    """
    if not isinstance(edit, Edit):
        return Own(edit)
    known = fields_of(cell)
    names = edit.names or tuple(name for name in known if name.endswith("_state"))
    for name in names:
        one_of(f"a name in {edit.kind}", name, known)
    whole = f"this {type(cell).__name__}"
    units = {name: mask("units", edit.units, size_of(cell, name), whole) for name in names}
    steps = mask("steps", edit.steps, lead[0], "this pass")
    return Bound(
        edit.kind == "noise",
        edit.kind == "patch",
        names,
        {name: _prepared(edit, name, xp, (*lead, size_of(cell, name)), dtype) for name in names},
        None if edit.units is None else map_tree(xp.asarray, units),
        None if steps is None else xp.asarray(steps),
        jax_key(edit.key) if is_jax(xp) and edit.key is not None else edit.key,
    )


def _prepared(edit: Edit, name: str, xp: ModuleType, shape: tuple[int, ...], dtype: Any) -> Array:
    """What `name` becomes, as an array of the pass's library and dtype."""
    value = edit.values.get(name, 0.0)
    if not hasattr(value, "shape") or (value.ndim == 0 and getattr(value, "weak_type", False)):
        return xp.asarray(value, dtype=dtype)
    what = f"{name} of {edit.kind}"
    allowed = [shape] if edit.kind == "patch" else [(), shape[-1:]]
    if tuple(value.shape) not in allowed:
        axes = "[T, *batch, H]" if edit.kind == "patch" else "a number or [H]"
        raise ValueError(f"{what} has shape {tuple(value.shape)}; this pass takes {axes} = {allowed[-1]}")
    same_dtype(what, value, dtype, "the parameters are")
    return xp.asarray(value)
