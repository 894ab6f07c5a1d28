"""`run` and `record`: a cell over time."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from lstmx.arrays import Array, is_jax, jit, namespace
from lstmx.cells.base import Cell
from lstmx.cells.masked import within
from lstmx.cells.zoneout import Zoneout
from lstmx.checks import flag, one_of, positive
from lstmx.chunks import chunk_length
from lstmx.editing.edited import Edited
from lstmx.editing.passing import edited_pass
from lstmx.excerpt import STORAGE, Excerpt, fields_of
from lstmx.history import History, StoredHistory
from lstmx.layers import (
    Bidirectional,
    BidirectionalHistory,
    Layers,
    Stack,
    StackHistory,
    history_passing,
    layered_door,
    outputs_passing,
)
from lstmx.linear import parallel_forward, parallel_outputs
from lstmx.loops import (
    NARROW,
    excerpt_rows,
    masked_door,
    narrow_history,
    outputs,
    plain_history,
    plain_outputs,
    started,
)
from lstmx.reuse import bury, memory_of
from lstmx.streaming import streamed

_REBUILD_BELOW = 96  # D + H up to which a product that rebuilds pre-activations is cheaper than their storage
_STORED_AT_MOST = 2**26  # elements of pre-activations that the derivative of `run` stores


def run(
    cell: Cell | Layers,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Array | None = None,
    key: Any = None,
    differentiation: str = "pullback",
    chunk: int | None = None,
    parallel: bool = False,
) -> tuple[Array, Any]:
    """Run a cell over sequences and return its outputs.

    Under `jax.grad` and `jax.vjp` the backward pass is that of `backward`, made of the cell's own `pull`. It runs
    in chunks: the factors of a chunk's Jacobians are computed before its loop, the gradients of parameters and
    inputs after it, by one product each. Where D + H is over 96 and the pre-activations take at most 2²⁶ numbers,
    they are kept from the forward pass. Elsewhere only the state before each chunk is kept beside inputs and
    outputs, and a chunk's pre-activations are rebuilt from its outputs: the memory beside arguments and results
    grows with T by those states alone.

    Args:
        cell: the cell, or a `Stack` or `Bidirectional` of cells.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1: time first, any number of batch axes.
        state: initial state, fields [*batch, H], for layers theirs; None for zeros.
        lengths: steps of each sequence, integers [*batch] from 1 to T, for unequal sequences padded to T steps:
            past its end a sequence's state stands still, and its outputs are 0. What stands in `xs` there has no
            effect, as long as it is finite.
        resets: booleans [T, *batch]: where true, a new sequence starts with this step, from the zero state.
        key: of `Zoneout`s, and of the dropout between the layers of a `Stack`: an int, a `numpy.random.Generator`
            or a JAX key; None for no chance.
        differentiation: "pullback" for the above, which has a reverse mode only; "autodiff" for JAX's own
            differentiation of the scan, for `jax.jvp` and `jax.jacfwd`.
        chunk: steps that a backward pass rebuilds at a time, at most T; None for up to 256, fewer for wide states
            (131,072 / (batch · 4 H), at least 16), and the choice above. What it changes is time and memory under
            JAX's differentiation by "pullback".
        parallel: take all steps of a `MinLSTM` or `MinGRU` with positive candidates at once, by an associative
            scan over logarithms, in JAX and in NumPy; the initial state may have any sign. By "pullback" all steps
            back are taken at once, too. benchmarks/parallel.py compares the times.

    Returns:
        The outputs h_t [T, *batch, H] and the final state, fields [*batch, H]; of layers those of the top, and a
        tree of states like `state`.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters; or forward-mode
            differentiation of "pullback" (inside `jax.jit` JAX words this error itself: "can't apply forward-mode
            autodiff (jvp) to a custom_vjp function").
        ValueError: an argument has the wrong shape; `differentiation` is another word; `chunk` is below 1 or over
            T, or given with "autodiff"; or `parallel` with chunk, lengths or resets, or for a cell whose gates
            read the state or whose candidates may be negative.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> outputs, final = lstmx.run(cell, params, numpy.ones((5, 3), "float32"))
        >>> outputs.shape, final.cell.shape
        ((5, 8), (8,))
    """
    one_of("differentiation", differentiation, ("pullback", "autodiff"))
    flag("parallel", parallel)
    for name, value in (("chunk", chunk), ("lengths", lengths), ("resets", resets)):
        if parallel and value is not None:
            raise ValueError(f"{name} is given with parallel=True, which takes whole sequences; expected None")
    if isinstance(cell, Layers):
        params, xs, state, timing, masks = layered_door(cell, params, xs, state, (lengths, resets), key)
        one = outputs_passing(
            functools.partial(run, differentiation=differentiation, chunk=chunk, parallel=parallel)
        )
        return tuple(cell.passed(one, params, xs, state, timing, masks))  # type: ignore  # a pair
    cell, params, xs, state = masked_door(cell, params, xs, state, lengths, resets, key)
    chunk = None if parallel else _residuals(cell, params, xs, differentiation, chunk)
    options = {"differentiation": differentiation, "chunk": chunk, "parallel": parallel}
    try:
        made, final = _run(cell, params, xs, state, **options)
        return (made if lengths is None else within(xs, made)), final
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(
            "run has a reverse mode only, and forward-mode differentiation (jvp, jacfwd) was asked for: "
            'pass differentiation="autodiff"'
        ) from error


def _residuals(cell: Cell, params: Any, xs: Array, differentiation: str, chunk: int | None) -> int | None:
    """Steps that the backward pass of `run` rebuilds at a time, or None where pre-activations are kept."""
    length, width = xs.shape[0], cell.preactivation_size * math.prod(xs.shape[1:-1])
    if chunk is not None:
        if differentiation == "autodiff":
            raise ValueError(
                f"chunk is {chunk!r} with differentiation='autodiff', which has no chunks; expected None"
            )
        if positive("chunk", chunk) > length:
            raise ValueError(f"chunk is {chunk}; expected at most the {length} steps of xs")
        return int(chunk)
    if cell.input_size + cell.hidden_size > _REBUILD_BELOW and length * width <= _STORED_AT_MOST:
        return None
    return chunk_length(length, width)


@overload
def record(
    cell: Stack,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Array | None = None,
    key: Any = None,
    keep: str = "all",
) -> StackHistory: ...
@overload
def record(
    cell: Bidirectional,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Array | None = None,
    keep: str = "all",
) -> BidirectionalHistory: ...
@overload
def record(
    cell: Cell,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Array | None = None,
    keep: str = "all",
    into: History | None = None,
) -> History: ...
@overload
def record(
    cell: Cell,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Array | None = None,
    every: int = 1,
    fields: Sequence[str] | None = None,
    dtype: str | None = None,
    into: Excerpt | None = None,
) -> Excerpt: ...
@overload
def record(
    cell: Cell,
    params: Any,
    xs: Any,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Array | None = None,
    keep: str = "all",
    into: str | Path,
    progress: bool = False,
) -> StoredHistory: ...
@overload
def record(cell: Cell, params: Any, xs: Array, state: Any = None, *, edit: Any) -> Edited: ...
def record(
    cell: Any,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Any = None,
    resets: Array | None = None,
    key: Any = None,
    keep: str = "all",
    every: int = 1,
    fields: Sequence[str] | None = None,
    dtype: str | None = None,
    into: History | Excerpt | str | Path | None = None,
    edit: Any = None,
    progress: bool = False,
) -> Any:
    """Run a cell over sequences and keep what every analysis needs, or with options an excerpt of it.

    With `edit` gates and states are changed inside the pass. An edit of your own is a function `(step, values)` ->
    values: `values` is the NamedTuple of the step's gates, or that of the state after it, each field [*batch, H],
    and what comes back is the same with other numbers in it, as from `values._replace(...)`. `step` counts from 0;
    under JAX it is traced. Values are changed in the order of the equations: gates that nothing else in the step
    leads to, then what is computed from these as changed (the cell state, the candidate behind a reset gate, the
    output gate behind a peephole), last h_t. So the function is called two to four times a step, sees of later
    values what they are so far, and of what it returns those count whose turn it is: it should depend on its
    arguments alone. A change is one of the gate wherever the equations name it, and not of its pre-activation:
    gates that share one (f = 1 − i, and in an `MGU` what is kept and what is taken) are changed apart, and the
    share that a `JANET` takes in stays as it is. With full gate recurrence the next step reads gates as changed.
    Under JAX code is compiled once for each function, and once for all ready-made edits of one form.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1: time first, any number of batch axes.
        state: initial state, fields [*batch, H]; None for zeros.
        lengths: as for `run`. In the history the state stands still past a sequence's end; statistics, gradients
            and influence leave these steps out, `history.pieces()` gives every sequence as a history of its own.
        resets: as for `run`.
        key: as for `run`.
        keep: "all" stores pre-activations and states; "states" stores the states only (a third of the memory
            for an LSTM) and rebuilds the pre-activations on demand, by one matrix product.
        every: keep the last step and every `every`-th before it. Over 1, an excerpt is returned.
        fields: names of gates and states to keep, such as ["forget_gate", "cell_state"]; where given, an excerpt
            is returned.
        dtype: "float16" or "bfloat16" (as its bits) to store in; where given, an excerpt is returned.
        into: what an earlier call of the same form returned. JAX writes the new pass into its memory, which saves
            what fresh memory costs; NumPy frees it first. It is dead afterwards, and says so when touched. In
            NumPy, slices made of it before keep the old pass. Or the path of a new folder, to which each chunk of
            the pass is written when it is made; `xs` may then be anything with a shape and a dtype that can be
            sliced, such as a `numpy.memmap` or a Zarr array, and is never read whole. A run that was stopped, at
            any moment, goes on where it was with the same call.
        edit: what changes gates and states: an edit of `lstmx.edits` (`clamp`, `ablate`, `patch`, `noise`), a
            function of your own, or a list of these, which follow one another at each value; where given, an
            `Edited` is returned.
        progress: show a progress bar, where `into` is a path; needs tqdm.

    Returns:
        The history, with its cell, parameters and initial state (of layers a `StackHistory` or
        `BidirectionalHistory`, with a history for each); or with `every`, `fields` or `dtype` an `Excerpt`
        of gates and states; or with `edit` an `Edited`, which has the names of a history; or with the path of a
        folder a `StoredHistory`.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters; an edit returns
            something else than it got.
        ValueError: an argument has the wrong shape, or an option another value; `into` has another form, or shares
            memory with another argument; an edit names a gate, unit or step that is not there, returns another
            shape, or comes with one of the options before it; or the folder `into` holds an unfinished run of
            another call.
        FileExistsError: the folder `into` holds a finished history.
        OSError: the disk is full, or fails; says how many steps are safe.
        RuntimeError: `into` is dead already.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.ones((5, 3), "float32"))
        >>> history.forget_gate.shape, len(history[2:4])
        ((5, 8), 2)
        >>> excerpt = lstmx.record(cell, params, numpy.ones((5, 3), "float32"), every=2, fields=["forget_gate"])
        >>> excerpt.steps, excerpt.forget_gate.shape
        (array([0, 2, 4]), (3, 8))
        >>> clamp = lstmx.edits.clamp(forget_gate=1.0, units=[0, 3])
        >>> edited = lstmx.record(cell, params, history.inputs, edit=clamp)
        >>> edited.forget_gate[:, 3]
        array([1., 1., 1., 1., 1.], dtype=float32)
    """
    one_of("keep", keep, ("all", "states"))
    flag("progress", progress)
    if isinstance(into, (str, Path)):
        if every != 1 or any(option is not None for option in (key, fields, dtype, edit)):
            raise ValueError(
                "into is a path, to which whole histories are written: key, every, fields, dtype and edit are for "
                "passes in memory"
            )
        if isinstance(cell, Layers):
            raise ValueError("into is a path, which takes one cell; record layers in memory and save each history")
        one, unequal = functools.partial(record, keep=keep), (lengths, resets)
        return streamed(one, cell, params, xs, state, unequal, keep, Path(into), progress)
    if progress:
        raise ValueError("progress is shown where into is a path; in memory a pass is one call")
    if edit is not None:
        if (keep, every, fields, dtype, into) != ("all", 1, None, None, None):
            raise ValueError("edit is given with keep, every, fields, dtype or into; an edited pass is kept whole")
        if any(option is not None for option in (lengths, resets, key)) or isinstance(cell, (Layers, Zoneout)):
            raise ValueError(
                "edit takes one cell over whole sequences: no layers, Zoneout, lengths, resets or key"
            )
        return edited_pass(cell, params, xs, state, edit)
    if isinstance(cell, Layers):
        if into is not None or every != 1 or fields is not None or dtype is not None:
            raise ValueError(
                "every, fields, dtype and into are of one cell; record layers whole, or each on its own"
            )
        params, xs, state, timing, masks = layered_door(cell, params, xs, state, (lengths, resets), key)
        one = history_passing(functools.partial(record, keep=keep))
        return cell.passed(one, params, xs, state, timing, masks).history
    excerpt = _excerpt_options(cell, keep, every, fields, dtype)
    cell, params, xs, state = masked_door(cell, params, xs, state, lengths, resets, key)
    if excerpt is None:
        memory = memory_of(History, into, (cell, xs.shape, keep == "all"), (params, xs, state))
        start, (states, stored) = _record(cell, params, xs, state, memory, keep=keep)
        made = History(cell, params, start if state is None else state, xs, states, stored)
    else:
        every, fields, dtype = excerpt
        memory = memory_of(Excerpt, into, (cell, xs.shape, excerpt), (params, xs, state))
        start, final, stored = excerpt_rows(cell, params, xs, state, memory, *excerpt)
        start = start if state is None else state
        stored = {name: stored[name] for name in fields}  # in their order, which jit does not keep
        made = Excerpt(cell, every, xs.shape[0], str(params[0].dtype), start, final, stored)
    bury(into)
    return made


def _excerpt_options(
    cell: Cell, keep: str, every: Any, fields: Any, dtype: Any
) -> tuple[int, tuple[str, ...], str | None] | None:
    """(every, fields, dtype) of an excerpt; None where a history is asked for."""
    every = positive("every", every)
    if every == 1 and fields is None and dtype is None:
        return None
    if keep != "all":
        raise ValueError(f"keep is {keep!r} with every, fields or dtype; name the states in fields instead")
    known = fields_of(cell)
    if fields is not None:
        if isinstance(fields, str) or not fields:
            raise ValueError(f"fields is {fields!r}; expected a list of names out of {', '.join(known)}")
        for name in fields:
            one_of("a name in fields", name, known)
    if dtype is not None:
        one_of("dtype", dtype, STORAGE)
    return every, tuple(dict.fromkeys(fields or known)), dtype


@jit(static=("cell", "differentiation", "chunk", "parallel"))
def _run(
    cell: Cell, params: Any, xs: Array, state: Any, differentiation: str, chunk: int | None, parallel: bool
) -> tuple[Array, Any]:
    state = started(cell, params, xs, state)
    own = differentiation == "pullback" and is_jax(namespace(xs))
    if parallel:
        return (parallel_outputs if own else parallel_forward)(cell, params, xs, state)
    return (outputs if own else plain_outputs)(cell, chunk, params, xs, state)


@jit(static=("cell", "keep"), donate=("memory",))
def _record(cell: Cell, params: Any, xs: Array, state: Any, memory: Any, keep: str) -> tuple[Any, Any]:
    """The initial state, and states and pre-activations."""
    state = started(cell, params, xs, state)
    narrow = cell.hidden_size * math.prod(xs.shape[1:-1]) <= NARROW and cell.reads
    if keep == "all" and is_jax(namespace(xs)) and narrow:
        return state, narrow_history(cell, params, xs, state, memory)
    return state, plain_history(cell, params, xs, state, keep)
