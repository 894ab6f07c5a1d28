"""Loops over stretches of time: what is done for many steps in one go, and the loop over these."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from lstmx.arrays import Array, is_jax, jax, leaves, map_tree, namespace, require, scan

Rows = Any


def chunk_length(length: int, width: int, elements: int = 2**17, most: int = 256) -> int:
    """Steps that a pass over `length` steps takes at a time.

    Few enough that a chunk's arrays stay near the processor, enough for large products: `elements // width`, from
    16 to `most`. A divisor of the length that is more than half of this is preferred, since chunks of one length
    need one compiled body, and no copy that joins what is left over to the rest.

    Args:
        length: T.
        width: elements of the widest array per step.
        elements: of that array in a chunk.
        most: the longest chunk.
    """
    most = min(length, max(16, min(most, elements // max(1, width))))
    return next((size for size in range(most, most // 2, -1) if length % size == 0), most)


def scan_chunks(
    body: Callable[[Any, Any, Any], tuple[Any, Rows, Any]],
    carry: Any,
    xs: Any,
    size: int,
    *,
    own: Any = None,
    into: Rows = None,
    reverse: bool = False,
) -> tuple[Any, Rows, Any]:
    """Thread `carry` through chunks of `size` steps: `body(carry, part, own) -> (carry, rows, made)`.

    Where the length is no multiple of `size`, the first chunk in time is the shorter one.

    Args:
        body: what to do with a chunk.
        carry: handed from chunk to chunk.
        xs: a tree of arrays [T, ...], of which `body` gets a chunk's part.
        size: steps of a chunk, at most T.
        own: a tree of arrays [number of chunks, ...], of which `body` gets the chunk's own row.
        into: arrays [T, ...] that take the rows' place in memory; None to stack the rows, as a differentiated
            loop must: the derivative of writing in place costs a copy of the whole per chunk.
        reverse: from the last chunk to the first.

    Returns:
        The last carry; the rows of all steps, a tree of [T, ...]; and what each chunk made, [number of chunks,
        ...].
    """
    length = next(leaves(xs)).shape[0]
    count, head = divmod(length, size)

    def work(carry: Any, start: Array | int, steps: int, own: Any) -> tuple[Any, Any]:
        carry, into = carry
        carry, rows, made = body(carry, _cut(xs, start, steps), own)
        if into is None:
            return (carry, None), (rows, made)
        return (carry, map_tree(lambda x, y: _write(x, y, start), into, rows)), (None, made)

    def chunk(carry: Any, at: Any) -> tuple[Any, Any]:
        k, own = at
        return work(carry, head + k * size, size, own)

    def first(carry: Any) -> tuple[Any, Any]:
        carry, (rows, made) = work(carry, 0, head, map_tree(lambda x: x[0], own))
        return carry, (rows, map_tree(lambda x: x[None], made))

    carry, before = (carry, into), None
    if head and not reverse:
        carry, before = first(carry)
    index = namespace(*leaves(carry), *leaves(xs)).arange(count)
    carry, (rows, made) = scan(chunk, carry, (index, map_tree(lambda x: x[-count:], own)), reverse=reverse)
    made = map_tree(lambda x: namespace(x).reshape(x, (count * size, *x.shape[2:])), rows), made
    if head and reverse:
        carry, before = first(carry)
    if before is not None:
        made = map_tree(lambda a, b: namespace(a, b).concat([a, b]), before, made)
    return carry[0], made[0] if into is None else carry[1], made[1]


@contextlib.contextmanager
def counting(length: int, what: str, progress: bool, done: int = 0) -> Iterator[Callable[[int], Any]]:
    """A function that counts steps on a progress bar, or without `progress` does nothing.

    Raises:
        ImportError: `progress` without tqdm.
    """
    if not progress:
        yield lambda steps: None
        return
    tqdm = require("tqdm.auto", "progress=True").tqdm
    with tqdm(total=length, initial=done, unit="step", unit_scale=True, desc=what) as bar:
        yield bar.update


def _cut(tree: Any, start: Array | int, size: int) -> Any:
    """`size` rows from `start`, which may be traced."""
    if is_jax(namespace(*leaves(tree))):
        return map_tree(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), tree)
    return map_tree(lambda x: x[start : start + size], tree)


def _write(into: Array, rows: Array, start: Array | int) -> Array:
    """`into` with `rows` from `start` on; in place in NumPy, and in a compiled loop."""
    if is_jax(namespace(into, rows)):
        return jax.lax.dynamic_update_slice_in_dim(into, rows, start, 0)
    into[start : start + len(rows)] = rows
    return into
