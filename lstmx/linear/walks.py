"""The one walk back and the one walk forward along the linear maps of a pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lstmx.arrays import Array, leaves, map_tree, namespace, ready, scan
from lstmx.history import History, StoredHistory
from lstmx.layers import StackHistory
from lstmx.linear.steps import LinearSteps, state_size, steps_of
from lstmx.scans.chunks import chunk_length, counting, scan_chunks

_SEGMENTS = 32  # calls that a pass with a progress bar is split into


def batch_of(system: Any) -> tuple[int, ...]:
    """The batch axes of a pass, or of Jacobians [T, *batch, S, S]."""
    return tuple(system.shape[1:-2]) if hasattr(system, "__array_namespace__") else system.batch


def rows_of(system: Any) -> Any:
    """What of a pass has an axis of time; Jacobians [T, *batch, S, S] as they are."""
    return system if hasattr(system, "__array_namespace__") else system.rows


# ------------------------------------------------------------------------------------------------ back


def back_through(
    part: Any, step: Callable[[Any, Any, Any], tuple[Any, Any]], carry: Any, extras: Any = None
) -> tuple[Any, Any, Any]:
    """From the last step of a chunk to its first: `step(carry, maps of one step, its extras) -> (carry, row)`.

    What does not depend on the walk is computed for all steps of the chunk before it.

    Args:
        part: the chunk, a history.
        step: what to do with a step.
        carry: handed from step to step.
        extras: a tree of arrays [T, ...].

    Returns:
        The last carry, the rows of all steps, and the maps of all steps: what is made of rows and maps after the
        walk is made for all steps in one go.
    """
    steps = steps_of(part)
    carry, rows = scan(
        lambda carry, at: step(carry, steps.at(at[0]), at[1]), carry, (steps.rows, extras), reverse=True
    )
    return carry, rows, steps


def walk_back(
    history: Any,
    chunk: Callable[[Any, Any, Any], tuple[Any, Any]],
    carry: Any,
    extras: Any = None,
    size: int | None = None,
    into: Any = None,
) -> tuple[Any, Any]:
    """Walk a pass back, chunk by chunk: `chunk(carry, part, extras of the part) -> (carry, rows)`.

    Only one chunk's maps exist at a time. A chunk usually calls `back_through`.

    Args:
        history: the recorded pass, of a cell or of a stack.
        chunk: what to do with a chunk, which is a history; `rows` is a tree of arrays [steps, ...] or None.
        carry: handed from chunk to chunk, from the last to the first.
        extras: a tree of arrays [T, ...] cut like the history.
        size: steps of a chunk; None for so many that their maps stay near the processor.
        into: arrays [T, ...] to write the rows into; None for new ones.

    Returns:
        The last carry, and the rows of all steps, [T, ...].
    """
    length = len(history)
    size = min(length, _chunk_steps(history) if size is None else size)
    xp = namespace(*leaves(history.initial))
    ends = slice((length % size or size) - 1, length - size, size)  # of all chunks but the last
    initials = map_tree(lambda first, x: xp.concat([first[None], x[ends]]), history.initial, history.states)

    def body(carry: Any, cut: Any, initial: Any) -> tuple[Any, Any, None]:
        rows, extras = cut
        return *chunk(carry, history.stretch(initial, rows), extras), None

    return scan_chunks(body, carry, (history.rows, extras), size, own=initials, into=into, reverse=True)[:2]


def _chunk_steps(history: Any) -> int:
    width = history.cell.preactivation_size if isinstance(history, History) else 2 * state_size(history)
    return chunk_length(len(history), width * math.prod(history.batch))


def backward_by_segments(
    history: Any,
    segment: Callable[[Any, Any, Any], tuple[Any, Any]],
    carry: Any,
    extras: Any,
    progress: bool,
) -> tuple[Any, Any]:
    """Run a compiled walk back in one call, or in segments: with `progress`, and over a history on disk.

    Args:
        history: the recorded pass; of one on disk, a segment at a time is read.
        segment: `(carry, part, extras of the part) -> (carry, rows)`.
        carry: handed from segment to segment, from the last to the first.
        extras: a tree of arrays [T, ...] cut like the history.
        progress: show a bar that counts steps, in about 32 segments or more.

    Raises:
        ImportError: `progress` without tqdm.
    """
    if not isinstance(history, StoredHistory) and not progress:
        return segment(carry, history, extras)
    length = len(history)
    size = -(-length // _SEGMENTS) if progress else length
    if isinstance(history, StoredHistory):
        size = min(size, history.at_once)
    rows = []
    with counting(length, "backwards", progress) as advance:
        for start in range((length - 1) // size * size, -1, -size):
            stop = min(start + size, length)
            cut = map_tree(lambda x, a=start, b=stop: x[a:b], extras)
            carry, made = ready(segment(carry, history[start:stop], cut))
            rows.append(made)
            advance(stop - start)
    return carry, map_tree(lambda *parts: namespace(*parts).concat(parts), *reversed(rows))


Chunk = Callable[[tuple[Any, Any], History, Any], tuple[tuple[Any, Any], Any]]


def without_unit_batch(chunk: Chunk) -> Chunk:
    """`chunk(carry, part, extras) -> (carry, rows)`, worked without batch axes where the batch is one sequence.

    Without them, the loop has fewer kernels. The carry is two trees: one with the batch axes in front, one
    without.
    """

    def work(carry: tuple[Any, Any], part: History, extras: Any) -> tuple[tuple[Any, Any], Any]:
        lead = part.batch
        if set(lead) != {1}:
            return chunk(carry, part, extras)
        batched = map_tree(lambda x: x.reshape(x.shape[len(lead) :]), carry[0])
        extras = map_tree(lambda x: x.reshape(x.shape[0], *x.shape[1 + len(lead) :]), extras)
        (batched, summed), rows = chunk((batched, carry[1]), part.sequence(*(0 for _ in lead)), extras)
        batched = map_tree(lambda x: x.reshape(*lead, *x.shape), batched)
        return (batched, summed), map_tree(lambda x: x.reshape(x.shape[0], *lead, *x.shape[1:]), rows)

    return work


# --------------------------------------------------------------------------------------------- forward


def walk_forward(
    system: Any, chunk: Callable[[Any, Any], tuple[Any, Any]], carry: Any, size: int
) -> tuple[Any, Any]:
    """Walk a pass forward, chunk by chunk: `chunk(carry, part) -> (carry, made)`.

    Where the length is no multiple of `size`, the first chunk is the shorter one.

    Args:
        system: the recorded pass, its `LinearSteps`, or Jacobians [T, *batch, S, S].
        chunk: what to do with a chunk, which is of the kind of `system`.
        carry: handed from chunk to chunk.
        size: steps of a chunk.

    Returns:
        The last carry, and what the chunks made, [chunks, ...].
    """
    rows, recorded = rows_of(system), isinstance(system, History | StackHistory)

    def body(carry: Any, rows: Any, own: None) -> tuple[Any, None, Any]:
        carry, initial = carry
        part: Any = rows
        if recorded:
            part = system.stretch(initial, rows)
        elif isinstance(system, LinearSteps):
            part = system.at(rows)
        carry, made = chunk(carry, part)
        return (carry, part.final if recorded else None), None, made

    start = system.initial if recorded else None
    (carry, _), _, made = scan_chunks(body, (carry, start), rows, min(size, len(next(leaves(rows)))))
    return carry, made


def push_through(steps: Any, frame: Array) -> Array:
    """Tangents in rows, [*batch, k, S], pushed through all steps of a stretch, which are `spread`."""
    return scan(lambda frame, rows: (steps.at(rows).push(frame), None), frame, steps.rows)[0]
