"""`record(..., reuse=...)`: the memory of an earlier pass, taken by the next one."""

from __future__ import annotations

from typing import Any

from lstmx.arrays import is_jax, leaves, namespace
from lstmx.history import History


def memory_of(kind: type, into: Any, form: tuple[Any, ...], others: Any) -> Any:
    """The arrays of `reuse` that the new pass may take: None without `reuse`, and in NumPy.

    Raises:
        TypeError: `reuse` is no `kind`.
        ValueError: `reuse` is of another form than the call, or shares an array with `others`.
    """
    if into is None:
        return None
    if not isinstance(into, kind):
        raise TypeError(
            f"reuse is a {type(into).__name__}; this call makes a {kind.__name__}, and takes only such"
        )
    if isinstance(into, History):
        arrays = (into.states, into.stored)
        shape, found = into.inputs.shape, into.stored is not None
    else:
        arrays = into.stored
        storage = {"float16": "float16", "uint16": "bfloat16"}.get(str(next(leaves(arrays)).dtype))
        shape = (into.length, *next(leaves(arrays)).shape[1:-1], into.cell.input_size)
        found = (into.every, tuple(arrays), storage)
    theirs = (into.cell, tuple(shape), found)
    if theirs != (form[0], tuple(form[1]), form[2]):
        raise ValueError(
            f"reuse is of {theirs}, this call of {form}: (cell, shape of xs, what is kept) should agree"
        )
    mine, given = list(leaves(arrays)), list(leaves(others))
    if any(a is b for a in mine for b in given):
        raise ValueError("reuse shares an array with params, xs or state, which the new pass would overwrite")
    if {str(x.dtype) for x in leaves(into.initial)} != {str(given[0].dtype)}:
        raise ValueError(f"reuse was recorded in another dtype than these parameters' {given[0].dtype}")
    libraries = namespace(*mine), namespace(*given)
    if libraries[0] is not libraries[1]:
        raise ValueError("reuse is of the other library, NumPy or JAX, than this call")
    if not is_jax(libraries[0]):
        bury(into)
        return None
    return arrays


def bury(into: Any) -> None:
    """Take from what was overwritten the names of its arrays."""
    for name in ("states", "stored"):
        if into is not None and name in into.__dict__:
            object.__delattr__(into, name)
