"""All prefixes x_0 ∘ … ∘ x_t of an associative operation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lstmx.arrays import Array, by_platform, is_jax, jax, leaves, map_tree, namespace, scan

Combine = Callable[[Any, Any], Any]


def associative_scan(combine: Combine, tree: Any) -> Any:
    """All prefixes x_0 ∘ … ∘ x_t along axis 0, of an associative `combine(earlier, later)` of many pairs at once.

    In JAX on a CPU in √T blocks, on an accelerator `jax.lax.associative_scan`, in NumPy the recursion that the
    latter unrolls. Each makes about 2 T combinations; benchmarks/parallel.py times them.
    """
    if is_jax(namespace(*leaves(tree))):
        ways = (functools.partial(way, combine) for way in (_blocked, jax.lax.associative_scan))
        return by_platform(*ways, tree)
    return _paired(combine, tree)


def _blocked(combine: Combine, tree: Any) -> Any:
    """√T blocks of √T steps, side by side: the product of each, and each again from the prefix before it."""
    xp, length = namespace(*leaves(tree)), len(next(leaves(tree)))
    size = math.isqrt(length - 1) + 1
    blocks = -(-length // size)

    def step(prefix: Any, x: Any) -> tuple[Any, Any]:
        made = combine(prefix, x)
        return made, made

    def side_by_side(x: Array) -> Array:
        """[T, ...] as [size, blocks, ...]; what the last block lacks is the last step, again and again."""
        lacking = xp.broadcast_to(x[-1:], (blocks * size - length, *x.shape[1:]))
        return xp.swapaxes(xp.concat([x, lacking]).reshape(blocks, size, *x.shape[1:]), 0, 1)

    def in_a_row(first: Array, rest: Array) -> Array:
        whole = xp.swapaxes(xp.concat([first[None], rest]), 0, 1)
        return whole.reshape(blocks * size, *whole.shape[2:])[:length]

    steps = map_tree(side_by_side, tree)
    first, rest = map_tree(lambda x: x[0], steps), map_tree(lambda x: x[1:], steps)
    products, _ = scan(lambda prefix, x: (combine(prefix, x), None), first, rest)
    one, others = map_tree(lambda x: x[0], products), map_tree(lambda x: x[1:], products)
    _, before = scan(lambda prefix, x: (combine(prefix, x), prefix), one, others)
    later = combine(before, map_tree(lambda x: x[1:], first))
    first = map_tree(lambda x, later: xp.concat([x[:1], later]), first, later)
    return map_tree(in_a_row, first, scan(step, first, rest)[1])


def _paired(combine: Combine, tree: Any) -> Any:
    """Pairs of neighbours are combined, their prefixes found, and those between them made of these."""
    length = len(next(leaves(tree)))
    if length == 1:
        return tree
    pairs = combine(map_tree(lambda x: x[:-1:2], tree), map_tree(lambda x: x[1::2], tree))
    odd = _paired(combine, pairs)
    even = combine(map_tree(lambda x: x[: (length - 1) // 2], odd), map_tree(lambda x: x[2::2], tree))

    def interleaved(x: Array, odd: Array, even: Array) -> Array:
        made = np.empty_like(x)
        made[0], made[1::2], made[2::2] = x[0], odd, even
        return made

    return map_tree(interleaved, tree, odd, even)
