"""Random arrays, in the library of what they are drawn from."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from lstmx.arrays import Array, has_jax, is_jax, jax, jnp, map_tree, require

Key: TypeAlias = "int | np.integer | np.random.Generator | Array"


class Draws:
    """Random arrays from an int, a `numpy.random.Generator` or a JAX key, in that source's library.

    An int seeds JAX where it is installed and NumPy where it is not. Each call draws anew.
    """

    def __init__(self, key: Any):
        self.xp: ModuleType
        if isinstance(key, np.random.Generator):
            self.xp, self._generator = np, key
        elif isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            self.xp = jnp if has_jax else np
            self._generator = np.random.default_rng(self.seed(key))
            self._key = jax.random.key(int(key)) if has_jax else None
        elif has_jax and isinstance(key, jax.Array):
            self.xp, self._key = jnp, key
        else:
            raise TypeError(
                f"key is a {type(key).__name__}; expected an int, a numpy.random.Generator or a JAX key"
            )

    @staticmethod
    def seed(key: Any) -> int:
        """An integer key, if it can seed both libraries.

        Raises:
            ValueError: it is out of range.
        """
        if not 0 <= key < 2**63:
            raise ValueError(f"key is {key}; a seed is an integer from 0 to 2**63 - 1")
        return int(key)

    def _next_key(self) -> Any:
        self._key, key = jax.random.split(self._key)
        return key

    def part(self) -> Any:
        """A key for draws elsewhere, of which none are drawn here."""
        return self._next_key() if is_jax(self.xp) else self._generator

    def uniform(self, shape: tuple[int, ...], dtype: Any, low: float, high: float) -> Array:
        """Uniform draws from [low, high)."""
        if is_jax(self.xp):
            return jax.random.uniform(self._next_key(), shape, dtype, low, high)
        return self._generator.uniform(low, high, shape).astype(dtype)

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Standard normal draws."""
        if is_jax(self.xp):
            return jax.random.normal(self._next_key(), shape, dtype)
        return self._generator.standard_normal(shape).astype(dtype)

    def truncated_normal(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Standard normal draws from within ±2."""
        if is_jax(self.xp):
            return jax.random.truncated_normal(self._next_key(), -2.0, 2.0, shape, dtype)
        drawn = self._generator.standard_normal(shape)
        while (beyond := np.abs(drawn) > 2).any():
            drawn[beyond] = self._generator.standard_normal(int(beyond.sum()))
        return drawn.astype(dtype)

    def glorot_uniform(self, rows: int, columns: int, blocks: int, dtype: Any) -> Array:
        """[rows, blocks·columns], each block uniform in ±√(6 / (rows + columns)) (Glorot & Bengio 2010)."""
        limit = (6 / (rows + columns)) ** 0.5
        return self.uniform((rows, blocks * columns), dtype, -limit, limit)

    def orthogonal(self, size: int, blocks: int, dtype: Any, rows: int | None = None) -> Array:
        """[size, blocks·size] of independent Haar-distributed orthogonal blocks; or of `rows` orthonormal rows."""
        if rows is None or rows == size:
            drawn = [self._orthonormal(size, size, dtype) for _ in range(blocks)]
        else:
            drawn = [self.orthogonal_rows(rows, size, dtype) for _ in range(blocks)]
        return self.xp.concat(drawn, axis=-1)

    def orthogonal_rows(self, rows: int, columns: int, dtype: Any) -> Array:
        """[rows, columns] with orthonormal rows, for at most as many rows as columns."""
        return self._orthonormal(columns, rows, dtype).T

    def _orthonormal(self, rows: int, columns: int, dtype: Any) -> Array:
        """[rows, columns] with orthonormal columns, Haar-distributed, for at least as many rows as columns."""
        q, r = self.xp.linalg.qr(self.normal((rows, columns), dtype))
        return q * self.xp.sign(self.xp.diagonal(r))


def draws_for(xp: ModuleType, key: Any) -> Draws:
    """Draws in the given library: an int seeds that one, a generator or key has to belong to it.

    Raises:
        TypeError: the key is of the other library, or no key.
    """
    if not is_jax(xp) and isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        key = np.random.default_rng(Draws.seed(key))
    draws = Draws(key)
    if is_jax(draws.xp) != is_jax(xp):
        raise TypeError(f"key is a {type(key).__name__}, of the other library than the parameters")
    return draws


def counted_normal(key: Any, step: Any, part: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """Standard normal draws that follow from key, step and part alone: a loop of any chunks draws the same.

    Args:
        key: a JAX key, which may be traced, or for NumPy an integer.
        step: an integer, for JAX maybe traced.
        part: what of the step they are for.
        shape: of the draws.
        dtype: of the draws.
    """
    if isinstance(key, int):
        counter = np.array([0, 0, part, step], np.uint64)  # the two lowest words count the draws
        drawn = np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_normal(shape)
        return drawn.astype(dtype)
    return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, part), step), shape, dtype)


def jax_key(key: Any) -> Any:
    """A JAX key from an integer, which may be traced; a key as it is."""
    whole = isinstance(key, int) or (key.ndim == 0 and jnp.issubdtype(key.dtype, jnp.integer))
    return jax.random.key(key) if whole else key


def in_library(tree: Any, library: str | None) -> Any:
    """A tree of NumPy arrays in "jax" or "numpy"; for None in JAX where it is installed, as an integer seeds it.

    Raises:
        ValueError: another word; or float64 for JAX without x64 enabled.
        ImportError: JAX is asked for and not installed.
    """
    known = ("jax", "numpy")
    if library not in (None, *known):
        raise ValueError(f"library is {library!r}; expected one of {', '.join(map(repr, known))}")
    if library == "numpy" or (library is None and not has_jax):
        return tree
    require("jax", 'library="jax"')
    return map_tree(lambda x: jnp.asarray(x, float_dtype(jnp, x.dtype)), tree)


def float_dtype(xp: ModuleType, dtype: Any) -> np.dtype:
    """`dtype` as float32 or float64 of the library that will hold it.

    Raises:
        ValueError: another dtype, or float64 under JAX without `jax_enable_x64`.
    """
    try:
        found = np.dtype("V" if dtype is None else dtype)  # NumPy takes None for float64
    except TypeError as error:
        raise ValueError(f"dtype is {dtype!r}; expected float32 or float64") from error
    if found not in (np.dtype("float32"), np.dtype("float64")):
        raise ValueError(f"dtype is {dtype!r}; expected float32 or float64")
    if found == np.dtype("float64") and is_jax(xp) and not jax.config.jax_enable_x64:
        raise ValueError(
            "dtype is float64, but JAX has float64 switched off and would hand out float32: "
            'call jax.config.update("jax_enable_x64", True) first, or stay in NumPy: library="numpy", where there '
            "is that argument, or a numpy.random.Generator for the key"
        )
    return found
