"""Numbers beyond the range of a float: arrays times a power of two.

A product of a million Jacobians has a norm like e^−13000. It is carried as arrays of magnitude about 1 and an
integer exponent of 2. Scaling by a power of two is exact, so what comes out is, digit for digit, what the plain
product would give where it stays in range; and an integer does not drift however often it is added to.

Under JAX these numbers can be differentiated. An exponent is a constant of the derivative: value and exponent
change together only where a magnitude crosses a power of two, and what they make up does not jump there. Where a
number is exactly zero its logarithm has no derivative, and where a plain number has left the range of a float it
has none, either: there the derivative is 0, and no NaN spoils those of other numbers.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, constant_tree, is_jax, leaves, namespace

NOTHING = -(2**30)
"""The exponent of an exact zero: below every other."""


_FEW = 1024  # numbers up to which halving a row is faster than XLA's own reduction


class Scaled(NamedTuple):
    """`value` · 2^`exponent`."""

    value: Array
    """[*lead, N]."""
    exponent: Array
    """int32, [*lead]."""


def _layout(dtype: Any) -> tuple[Any, int, int]:
    """Integer type, mantissa bits and exponent bias of a float type."""
    return (np.int32, 23, 127) if np.dtype(dtype) == np.float32 else (np.int64, 52, 1023)


def power_of_two(exponent: Array, dtype: Any) -> Array:
    """2^exponent, 0 below the normal range and infinite above it, without a warning."""
    xp = namespace(exponent)
    integer, mantissa, bias = _layout(dtype)
    bits = xp.clip(exponent, -bias, bias + 1).astype(integer) + integer(bias)
    return (bits << integer(mantissa)).view(dtype)


def exponent_of(xp: ModuleType, magnitude: Array) -> Array:
    """The e of 2^e ≤ magnitude < 2^(e+1), int32; at 0 and at the ends of the range some exponent in it."""
    if not is_jax(xp):
        return np.frexp(magnitude)[1] - np.int32(1)
    integer, mantissa, bias = _layout(magnitude.dtype)
    bits = xp.clip(magnitude.view(integer) >> integer(mantissa), 1, 2 * bias - 1)
    return (bits - integer(bias)).astype(np.int32)


def magnitude(xp: ModuleType, value: Array) -> Array:
    """Greatest absolute value over the last axis, [*lead].

    XLA on the CPU reduces a few numbers one by one, which takes a third of the time of a small step: halves of a
    short row are compared first, down to at most 16 numbers or an odd count.
    """
    x = xp.abs(value)
    while is_jax(xp) and value.size <= _FEW and x.shape[-1] % 2 == 0 and x.shape[-1] > 8:
        half = x.shape[-1] // 2
        x = xp.maximum(x[..., :half], x[..., half:])
    return xp.max(x, axis=-1)


def times_power(xp: ModuleType, value: Array, exponent: Array) -> Array:
    """[*lead, N] times 2^exponent [*lead]; a factor out of the float range is 0 or infinite."""
    exponent = exponent[..., None]
    if not is_jax(xp):
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(value, exponent)
    return value * power_of_two(exponent, value.dtype)


def normalised(number: Scaled) -> Scaled:
    """The same number with a greatest magnitude in [1, 2); a zero with the exponent `NOTHING`."""
    return scaled(number.value, number.exponent)


def scaled(value: Array, exponent: Array | int = 0) -> Scaled:
    """[*lead, N] times 2^exponent as `Scaled`, an exact zero with the exponent `NOTHING`."""
    xp = namespace(value)
    size = magnitude(xp, value)
    own = exponent_of(xp, size)
    nothing = xp.full_like(own, NOTHING)
    return Scaled(times_power(xp, value, -own), xp.where(size == 0, nothing, xp.maximum(own + exponent, nothing)))


def add(left: Scaled, right: Scaled) -> Scaled:
    """The sum, on the larger of the two scales."""
    xp = namespace(left.exponent, right.exponent)
    exponent = xp.maximum(left.exponent, right.exponent)
    a = times_power(xp, left.value, left.exponent - exponent)
    b = times_power(xp, right.value, right.exponent - exponent)
    return Scaled(a + b, exponent)


def total(numbers: Scaled) -> Scaled:
    """The sum over axis 0, on the largest scale."""
    xp = namespace(numbers.value, numbers.exponent)
    exponent = xp.max(numbers.exponent, axis=0)
    return Scaled(xp.sum(times_power(xp, numbers.value, numbers.exponent - exponent), axis=0), exponent)


def unscaled(number: Scaled) -> Array:
    """The plain array: 0 and infinity where it leaves the range, as a plain product would."""
    xp, value = namespace(number.value, number.exponent), number.value
    if not is_jax(xp):
        return times_power(xp, value, number.exponent)
    bias = _layout(value.dtype)[2]
    beyond = number.exponent > bias
    value = xp.where(beyond[..., None], constant_tree(value), value)
    exponent = xp.minimum(number.exponent, xp.full_like(number.exponent, 2 * bias))
    half = exponent // 2  # in two finite factors, so that a subnormal result is not cut to 0 by the first
    return times_power(xp, times_power(xp, value, half), exponent - half)


def pack(number: Scaled) -> Array:
    """An array [*lead, N] and its exponent in one array [*lead, N + 1], the exponent as its bits.

    A loop that carries one array instead of two runs fewer kernels per step. XLA on the CPU runs a loop body of up
    to eight kernels in a row, and schedules a longer one at several times the cost.
    """
    dtype = number.value.dtype
    bits = number.exponent.astype(_layout(dtype)[0])[..., None].view(dtype)
    return namespace(number.value).concat([number.value, bits], axis=-1)


def unpack(packed: Array) -> Scaled:
    """What `pack` packed."""
    bits = packed[..., -1:].view(_layout(packed.dtype)[0])[..., 0]
    return Scaled(packed[..., :-1], bits.astype(np.int32))


def log_norm(number: Scaled) -> Array:
    """Natural log of the L2 norm over the last axis, [*lead]; −inf for 0."""
    xp = namespace(number.value, number.exponent)
    size = magnitude(xp, number.value)
    own = exponent_of(xp, size)  # squares of what is left neither overflow nor vanish
    square = xp.sum(times_power(xp, number.value, -own) ** 2, axis=-1)
    square = xp.where(size == 0, xp.ones_like(size), square)
    logarithm = 0.5 * xp.log(square) + (number.exponent + own).astype(size.dtype) * math.log(2)
    return xp.where(size == 0, -xp.inf, logarithm)


def log_hypot(logs: Array, axis: int) -> Array:
    """Log of the root of the sum of squares of numbers given by their logs; −inf where all are zero."""
    xp = namespace(logs)
    largest = xp.max(logs, axis=axis, keepdims=True)
    empty = xp.isneginf(largest)
    square = xp.sum(xp.exp(2 * (logs - xp.where(empty, xp.zeros_like(largest), largest))), axis=axis)
    empty, largest = xp.squeeze(empty, axis=axis), xp.squeeze(largest, axis=axis)
    return xp.where(empty, -xp.inf, largest + 0.5 * xp.log(xp.where(empty, xp.ones_like(square), square)))


def tree_norm(tree: Any) -> Array:
    """The L2 norm of all numbers of a tree of arrays together, whose squares may leave the range of a float."""
    parts = list(leaves(tree))
    xp = namespace(*parts)
    greatest = xp.max(xp.stack([xp.max(xp.abs(x), initial=0.0) for x in parts]))
    size = xp.where((greatest > 0) & xp.isfinite(greatest), greatest, xp.ones_like(greatest))
    return size * xp.sqrt(sum(xp.sum((x / size) ** 2) for x in parts))
