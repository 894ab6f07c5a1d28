"""Which entries of the influence ∂s_t/∂θ a method carries from step to step, and how these are moved.

The entries of one parameter are those of the numbers of the state that it reaches. Parameters that reach the same
numbers are a group: their entries are a matrix [r, p], which a step multiplies by the r × r entries of J_t between
these numbers. Groups of like r and p stand side by side in a `Block`.

Entries of J_t and of ∂⁺s_t/∂θ are read off products with few vectors of zeros and ones: numbers whose entries
stand in no common row share a vector (Curtis, Powell & Reid, "On the Estimation of Sparse Jacobian Matrices", IMA
Journal of Applied Mathematics 13, 1974).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from contextlib import nullcontext
from typing import Any

import numpy as np

from lstmx.arrays import Array, is_jax, jax, jit, leaves, library, map_tree, namespace, result
from lstmx.cells.base import Cell
from lstmx.linear import ControlledSteps, StackSteps, linearise
from lstmx.passes.run import record

_PROBES = 8  # sequences of a step function whose derivatives say which there are
_BLOCK = 100_000  # multiplications that a block costs beside its own


@result
class Block:
    """Groups of parameters whose influence is moved by one product.

    Attributes:
        rows: the numbers of the state that each group reaches, [G, r]; S for none.
        jacobian: where the entries of J_t between these are in `Plan.jacobians`' products, [G, r, r].
        immediate: where those of ∂⁺s_t/∂θ are in `Plan.immediate`'s products, [G, r, p].
    """

    rows: Array
    jacobian: Array
    immediate: Array


@result(static=("entries", "products", "whole"))
class Plan:
    """How an influence is carried.

    Attributes:
        blocks: its groups.
        pushed: the vectors that J_t is multiplied by, [C, S].
        pulled: those that ∂⁺s_t/∂θ is multiplied by from the left, [C', S].
        place: where each parameter's gradient is in those of the blocks side by side, [P].
        near: which recurrent weights J_t is taken with, where no entry that is read has others in it; None for
            all.
        entries: numbers of the influence that are kept.
        products: multiplications that a step takes to move them, and what blocks are filled up with.
        whole: S · P, the numbers of the whole influence.
    """

    blocks: tuple[Block, ...]
    pushed: Array
    pulled: Array
    place: Array
    near: Any
    entries: int
    products: int
    whole: int

    def nothing(self, batch: int, dtype: Any, lead: tuple[int, ...] = ()) -> list[Array]:
        """The influence before the first step, [*lead, B, G, r, p] for each block."""
        xp = namespace(self.pushed)
        return [xp.zeros((*lead, batch, *block.immediate.shape), dtype=dtype) for block in self.blocks]

    def jacobians(self, steps: Any) -> list[Array]:
        """The entries of J_t [B, G, r, r] of each block; `steps` of one step."""
        xp = namespace(self.pushed)
        batch = steps.lead[0]
        steps = steps if self.near is None else nearby(steps, self.near)
        vectors = xp.broadcast_to(self.pushed, (batch, *self.pushed.shape))
        made = xp.broadcast_to(steps.spread().push(vectors), vectors.shape)
        return self._taken(made, [block.jacobian for block in self.blocks])

    def immediate(self, steps: Any) -> list[Array]:
        """The entries of ∂⁺s_t/∂θ, at a fixed state before, [B, G, r, p] of each block."""
        made = each_sequence(
            steps, lambda one: over(lambda v: flat(one.parameter_vjp(one.drive_vjp(v))), self.pulled)
        )
        return self._taken(made, [block.immediate for block in self.blocks])

    def _taken(self, made: Array, places: list[Array]) -> list[Array]:
        """Numbers of products [B, C, N] by their place; 0 for the place behind the last."""
        xp = namespace(made)
        packed = xp.concat([made.reshape(len(made), -1), xp.zeros((len(made), 1), dtype=made.dtype)], axis=1)
        return [packed[:, place] for place in places]

    def gradient(self, cotangent: Array, influence: list[Array]) -> Array:
        """Σ over sequences of cotangents [B, S] times an influence [*lead, B, G, r, p], as [*lead, P]."""
        return namespace(cotangent).sum(self.gradients(cotangent, influence), axis=-2)

    def gradients(self, cotangent: Array, influence: list[Array]) -> Array:
        """`gradient` of each sequence, [*lead, B, P]."""
        xp = namespace(cotangent)
        none = xp.zeros((len(cotangent), 1), dtype=cotangent.dtype)
        packed = xp.concat([cotangent, none], axis=1)
        parts = []
        for block, part in zip(self.blocks, influence, strict=True):
            made = (packed[:, block.rows][..., None, :] @ part)[..., 0, :]
            parts.append(made.reshape(*made.shape[:-2], -1))
        parts.append(xp.broadcast_to(none, (*parts[0].shape[:-1], 1)))
        return xp.concat(parts, axis=-1)[..., self.place]


def flat(tree: Any) -> Array:
    """The numbers of a tree in one row, as the parameters of an influence are counted."""
    parts = [x.reshape(-1) for x in leaves(tree)]
    return namespace(*parts).concat(parts)


def unflat(packed: Array, like: Any, lead: tuple[int, ...] = ()) -> Any:
    """What `flat` packed, [*lead, P], as a tree like `like`, with these axes in front of each array."""
    ends = np.cumsum([0, *(math.prod(x.shape) for x in leaves(like))])
    spans = itertools.pairwise(ends)

    def cut(x: Array) -> Array:
        start, stop = next(spans)
        return packed[..., start:stop].reshape((*lead, *x.shape))

    return map_tree(cut, like)


def over(f: Any, vectors: Array) -> Array:
    """`f` of each of several vectors, stacked."""
    if is_jax(namespace(vectors)):
        return jax.vmap(f)(vectors)
    return np.stack([f(v) for v in vectors])


def each_sequence(steps: Any, f: Any, *given: Array) -> Array:
    """`f` of the maps [B, ...] of one step, and of arrays [B, ...], sequence by sequence, stacked."""
    rows = steps.rows
    if is_jax(namespace(*leaves(rows))):
        return jax.vmap(lambda rows, *own: f(steps.at(rows), *own))(rows, *given)
    each = ((map_tree(lambda x, b=b: x[b], rows), *(x[b] for x in given)) for b in range(steps.lead[0]))
    return np.stack([f(steps.at(rows), *own) for rows, *own in each])


# ------------------------------------------------------------------------------------------------ which entries


class Weights:
    """Which weights there are, booleans like the parameters, as something that can be compared and hashed."""

    def __init__(self, there: Any):
        self.there = there
        self._key = tuple((x.shape, x.tobytes()) for x in leaves(there))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weights) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.lru_cache(maxsize=32)
def plan_of(cell: Any, weights: Weights, order: int | None, dtype: str) -> Plan:
    """The plan of a cell or a stack, in NumPy.

    Args:
        cell: the cell, or the stack.
        weights: which weights there are.
        order: steps within which a parameter reaches what is kept; None for any number.
        dtype: of the parameters.
    """
    closed = all(one.core.closed_form for one in getattr(cell, "cells", (cell,)))
    steps = _probe(cell, weights.there, closed, dtype) if closed or order is not None else None
    if steps is not None:
        state, direct = _patterns(steps)
    else:  # of a step function a probe might miss an entry, and none may be missing
        state = np.ones((cell.state_size,) * 2, bool)
        direct = np.ones((cell.state_size, flat(weights.there).size), bool)
    direct &= flat(weights.there)
    kinds, kind = _kinds(direct)
    for _ in range(len(state) if order is None else order - 1):
        wider = kinds | (state.astype(np.float32) @ kinds > 0)
        if (wider == kinds).all():
            break
        kinds = wider
    kinds, merged = _kinds(kinds)
    members = merged[kind]
    groups = [(np.flatnonzero(rows), np.flatnonzero(members == k)) for k, rows in enumerate(kinds.T) if rows.any()]
    read = np.zeros_like(state)
    for rows, _ in groups:
        read[np.ix_(rows, rows)] = True
    near = _near(cell, read)
    if near is not None:
        whole, own = steps.matrices(), nearby(steps, near).matrices()  # type: ignore  # of a cell in closed form
        if np.array_equal(whole[read], own[read]):
            state = own != 0
        else:
            near = None
    state |= np.eye(len(state), dtype=bool)  # of a step that keeps a part of the state, or all of it
    return _laid_out(groups, state, read, direct, near)


def _laid_out(groups: list[Any], state: np.ndarray, read: np.ndarray, direct: np.ndarray, near: Any) -> Plan:
    """The plan of groups (rows, parameters).

    Args:
        groups: which numbers of the state each reaches, and its parameters.
        state: where J_t has entries, [S, S].
        read: which of these are read.
        direct: where ∂⁺s_t/∂θ has entries, [S, P].
        near: as in the plan.
    """
    size, count = direct.shape
    needed = (state & read).astype(np.float32)
    column = _colours(needed.T @ state > 0)
    kinds = _kinds(direct)[0].astype(np.float32)
    row = _colours(kinds @ kinds.T > 0)
    last = (column.max() + 1) * size, (row.max() + 1) * count
    blocks, place, at = [], np.full(count, -1), 0
    for some in _alike(groups):
        deep, wide = (max(len(group[k]) for group in some) for k in (0, 1))
        rows, members = np.full((len(some), deep), size), np.full((len(some), wide), count)
        for k, (reached, own) in enumerate(some):
            rows[k, : len(reached)], members[k, : len(own)] = reached, own
            place[own] = at + k * wide + np.arange(len(own))
        at += members.size
        to, of, parameter = rows[:, :, None], rows[:, None, :], members[:, None, :]
        moved = np.pad(state, (0, 1))[to, of]
        known = np.pad(direct, (0, 1))[to, parameter]
        jacobian = np.where(moved, np.append(column, 0)[of] * size + to, last[0])
        immediate = np.where(known, np.append(row, 0)[to] * count + parameter, last[1])
        blocks.append(Block(rows, jacobian, immediate))
    pushed, pulled = ((np.arange(c.max() + 1)[:, None] == c).astype(float) for c in (column, row))
    return Plan(
        tuple(blocks),
        pushed,
        pulled,
        np.where(place < 0, at, place),
        near,
        entries=sum(len(rows) * len(members) for rows, members in groups),
        products=sum(block.immediate.size * block.rows.shape[1] for block in blocks),
        whole=size * count,
    )


def _kinds(pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different columns of a pattern, and which of them each column is."""
    packed = np.ascontiguousarray(np.packbits(pattern, axis=0).T)
    _, first, kind = np.unique(packed.view(f"V{packed.shape[1]}"), return_index=True, return_inverse=True)
    return pattern[:, first], kind.reshape(-1)


def _alike(groups: list[Any]) -> list[list[Any]]:
    """Groups in blocks, of which each is as large as its largest, such that a step takes least in all."""
    octave = [(len(members).bit_length(), len(rows)) for rows, members in groups]
    groups = [groups[k] for k in sorted(range(len(groups)), key=octave.__getitem__)]
    sizes = np.array([(len(rows), len(members)) for rows, members in groups])
    least, start = (
        np.zeros(len(groups) + 1),
        np.zeros(len(groups), int),
    )  # of the first groups; where a block starts
    for stop in range(1, len(groups) + 1):
        largest = np.maximum.accumulate(sizes[:stop][::-1])[::-1]
        costs = least[:stop] + (stop - np.arange(stop)) * largest[:, 0] ** 2 * largest[:, 1] + _BLOCK
        start[stop - 1], least[stop] = costs.argmin(), costs.min()
    found, stop = [], len(groups)
    while stop:
        found.insert(0, groups[start[stop - 1] : stop])
        stop = start[stop - 1]
    return found


def _colours(conflict: np.ndarray) -> np.ndarray:
    """The first colour for each of N that no earlier one in conflict with it has, [N]."""
    conflict = conflict | conflict.T
    found = np.full(len(conflict), -1)
    for k, row in enumerate(conflict):
        taken = set(found[row])
        found[k] = next(colour for colour in range(len(conflict)) if colour not in taken)
    return found


def _near(cell: Any, read: np.ndarray) -> np.ndarray | None:
    """The recurrent weights between units whose entries of J_t are read; None for a cell without such."""
    shapes = cell.parameter_shapes() if isinstance(cell, Cell) and cell.core.closed_form else None
    shape = getattr(shapes, "recurrent_kernel", None)
    if shape is None or set(cell.field_sizes) != {cell.hidden_size}:
        return None
    h = cell.hidden_size
    units = read.reshape(-1, h, read.shape[1])[:, :, :h].any(axis=0)  # from h of a unit to any number of another
    return np.tile(units.T, (1, shape[1] // h))


def nearby(steps: Any, near: Any) -> Any:
    """Steps whose J_t is taken with some of the recurrent weights alone."""
    if isinstance(steps, StackSteps):
        return dataclasses.replace(steps, layers=tuple(nearby(layer, near) for layer in steps.layers))
    if isinstance(steps, ControlledSteps):
        return dataclasses.replace(steps, inner=nearby(steps.inner, near))
    kernel = steps.params.recurrent_kernel
    return dataclasses.replace(steps, params=steps.params._replace(recurrent_kernel=kernel * near))


# ---------------------------------------------------------------------------------------------------- the probe


def _probe(cell: Any, there: Any, closed: bool, dtype: str) -> Any:
    """Steps whose derivatives are zero where those of all steps are, with random weights where there are any.

    Of a cell in closed form that is one step, with random numbers for its factors, of which a pass may have zeros.
    Of a step function, some steps of a pass, which may all have the same zeros, as behind a ReLU.
    """
    draws, xp = np.random.default_rng(0), library(jax=not closed)
    with nullcontext() if closed else jax.ensure_compile_time_eval():
        params = map_tree(lambda x: xp.asarray(draws.normal(size=x.shape) * x, dtype=dtype), there)
        lead = (2,) if closed else (2, _PROBES)
        xs = xp.asarray(draws.normal(size=(*lead, cell.input_size)), dtype=dtype)
        steps = linearise(record(cell, params, xs))
        return _unspecial(steps[1], draws) if closed else steps


def _unspecial(steps: Any, draws: Any) -> Any:
    """Steps of cells in closed form with other factors, of which none is zero."""
    if isinstance(steps, StackSteps):
        return dataclasses.replace(steps, layers=tuple(_unspecial(layer, draws) for layer in steps.layers))
    if isinstance(steps, ControlledSteps):
        return _unspecial(steps.inner, draws)
    return steps.at(map_tree(lambda x: draws.uniform(0.5, 1.5, x.shape).astype(x.dtype), steps.rows))


def _patterns(steps: Any) -> tuple[np.ndarray, np.ndarray]:
    """Where J_t, [S, S], and ∂⁺s_t/∂θ, [S, P], have entries at any of the steps."""
    with nullcontext() if jax is None else jax.ensure_compile_time_eval():
        state, direct = (np.asarray(x) for x in _derivatives(steps))
    return (state.reshape(-1, *state.shape[-2:]) != 0).any(axis=0), direct != 0


@jit()
def _derivatives(steps: Any) -> tuple[Array, Array]:
    """J_t [*lead, S, S], and the sum of ∂⁺s_t/∂θ over all steps, [S, P], in which no zero is left by chance."""
    some = next(leaves(steps.rows))
    xp = namespace(some)

    def direct(vector: Array) -> Array:
        vectors = xp.broadcast_to(vector, (*steps.lead, steps.size))
        return flat(steps.parameter_vjp(steps.drive_vjp(vectors)))

    return steps.matrices(), over(direct, xp.eye(steps.size, dtype=some.dtype))
