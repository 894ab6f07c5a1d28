"""`run` and `record`: a cell over time."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from lstmx.arrays import Array, dtype_of, is_jax, jit, namespace, spread_as
from lstmx.cells.base import Cell, P, S
from lstmx.checks import cells_of, door, flag, one_of, positive
from lstmx.checks import path as checked_path
from lstmx.draws import Key
from lstmx.editing.edited import Edited, EditedLayers
from lstmx.editing.edits import Change
from lstmx.history import Controls, History, StoredHistory, controlled, where_held
from lstmx.history.controls import Lengths
from lstmx.history.excerpt import STORAGE, Excerpt, fields_of
from lstmx.layers import (
    Bidirectional,
    BidirectionalHistory,
    Directions,
    LayeredHistory,
    Layers,
    Stack,
    StackHistory,
    history_passing,
    layered_door,
    outputs_passing,
)
from lstmx.layers.base import Tree
from lstmx.passes.editing import edited_layers, edited_pass
from lstmx.passes.forward import excerpt_rows, outputs, plain_outputs, recorded_part, started
from lstmx.passes.newton import newton_trajectory
from lstmx.passes.parallel import parallel_forward, parallel_outputs
from lstmx.passes.reuse import bury, memory_of
from lstmx.passes.streaming import streamed
from lstmx.scans.chunks import chunk_length

_REBUILD_BELOW = 96  # D + H up to which a product that rebuilds pre-activations is cheaper than their storage
_STORED_AT_MOST = 2**26  # elements of pre-activations that the derivative of `run` stores


@overload
def run(
    cell: Cell[P, S],
    params: P,
    xs: Array,
    state: S | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
    differentiation: str = "pullback",
    chunk: int | None = None,
    parallel: bool | str = False,
) -> tuple[Array, S]: ...
@overload
def run(
    cell: Layers[Tree],
    params: Tree,
    xs: Array,
    state: Tree | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
    differentiation: str = "pullback",
    chunk: int | None = None,
    parallel: bool | str = False,
) -> tuple[Array, Tree]: ...
def run(
    cell: Any,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
    differentiation: str = "pullback",
    chunk: int | None = None,
    parallel: bool | str = False,
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
            the mask of a prefix. Of a traced length that is not from 1 to T, all numbers of its sequence are NaN.
        mask: booleans [T, *batch], True where a step counts. A step that does not is as if it were not there,
            forward and backward in time; the state stands still, and its outputs are 0. What stands in `xs` there
            is never read, be it NaN.
        resets: booleans [T, *batch]: where true, a new sequence starts with this step, from the zero state.
        key: of `Zoneout`s, and of the dropout between the layers of a `Stack`: an int, a `numpy.random.Generator`
            or a JAX key; None for no chance.
        differentiation: "pullback" for the above, which has a reverse mode only; "autodiff" for JAX's own
            differentiation of the scan, for `jax.jvp` and `jax.jacfwd`.
        chunk: steps that a backward pass rebuilds at a time, at most T; None for up to 256, fewer for wide states
            (131,072 / (batch · 4 H), at least 16), and the choice above. What it changes is time and memory under
            JAX's differentiation by "pullback". With parallel="newton" the steps of a window, forward and back.
        parallel: True to take all steps of a `MinLSTM` or `MinGRU` with positive candidates at once, by an
            associative scan over logarithms, in JAX and in NumPy; the initial state may have any sign. By
            "pullback" all steps back are taken at once, too. benchmarks/parallel.py compares the times.

            "newton" for any cell, in JAX: the trajectory of a window of steps is one system of equations,
            s_t = F_t(s_{t-1}), which Newton's method solves from a guess. Each iteration is one associative scan
            of affine maps, with whole Jacobians where the joint state has at most 32 numbers, above with what of
            them stays within each unit (of step functions, of projections, layer normalisation and gate recurrence
            with their diagonal). An iteration after which the equations fit worse makes the next one damped, and
            none leads far beyond the range of what the steps have given. After k iterations the first k steps are
            exact, so that no window takes more iterations than it has steps. It is done when every step fits the
            one before to 16 units of rounding, or to 1,024 where four iterations brought it no nearer; where
            numbers of the pass itself leave the range of a float, the window is run step by step. Outputs are
            those of the loop, to rounding. Of a batch all sequences take as many iterations as the slowest. A
            window has `chunk` steps, by default as many as keep its matrices below 2²⁴ numbers, and starts from
            the last state of the window before. The backward pass has no iterations: it is one affine scan with
            the transposed Jacobians at the solution, window by window (a loop, where the joint state has over 256
            numbers). How many iterations a pass needs depends on its dynamics: few where it forgets, in proportion
            to its steps where it is chaotic; `lstmx.parallelisability(history)` says it beforehand. What it may
            save is time on an accelerator that a loop leaves idle; on a CPU no speed is promised, and the loop is
            likely to be many times faster there. `python -m benchmarks.newton` measures both.

    Returns:
        The outputs h_t [T, *batch, H] and the final state, fields [*batch, H]; of layers those of the top, and a
        tree of states like `state`.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters; or forward-mode
            differentiation of "pullback" (inside `jax.jit` JAX words this error itself: "can't apply forward-mode
            autodiff (jvp) to a custom_vjp function").
        ValueError: an argument has the wrong shape; `differentiation` is another word; `chunk` is below 1 or over
            T, or given with "autodiff"; parallel=True with chunk, lengths, mask or resets, or for a cell whose
            gates read the state or whose candidates may be negative; or parallel="newton" with "autodiff" or with
            parameters in NumPy.

    References:
        Lim, Zhu, Selfridge & Kasim, "Parallelizing non-linear sequential models over the sequence length", ICLR
        2024 (arXiv 2309.12252).
        Gonzalez, Warrington, Smith & Linderman, "Towards scalable and stable parallelization of nonlinear RNNs",
        NeurIPS 2024 (arXiv 2407.19115): Jacobians' diagonals, and damping.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> outputs, final = lstmx.run(cell, params, numpy.ones((5, 3), "float32"))
        >>> outputs.shape, final.cell.shape
        ((5, 8), (8,))
    """
    one_of("differentiation", differentiation, ("pullback", "autodiff"))
    newton = _in_parallel(parallel, differentiation)
    for name, value in (("chunk", chunk), ("lengths", lengths), ("mask", mask), ("resets", resets)):
        if parallel and not newton and value is not None:
            raise ValueError(f"{name} is given with parallel=True, which takes whole sequences; expected None")
    if isinstance(cell, Layers):
        params, xs, state, timing, masks = layered_door(cell, params, xs, state, (lengths, mask, resets), key)
        _newton_door(newton, xs)
        one = outputs_passing(
            functools.partial(run, differentiation=differentiation, chunk=chunk, parallel=parallel)
        )
        return tuple(cell.passed(one, params, xs, state, timing, masks))  # type: ignore  # a pair
    params, xs, state = door(cell, params, xs, state)
    _newton_door(newton, xs)
    xs, controls = controlled(cell, xs, lengths, mask, resets, key)
    if not parallel or chunk is not None:
        chunk = _residuals(cell, params, xs, differentiation, chunk)
    options = {"differentiation": differentiation, "chunk": chunk, "parallel": parallel}
    try:
        return spread_as(xs, functools.partial(_run, cell, **options), (0, 1), params, xs, state, controls)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(
            "run has a reverse mode only, and forward-mode differentiation (jvp, jacfwd) was asked for: "
            'pass differentiation="autodiff"'
        ) from error


def _in_parallel(parallel: Any, differentiation: str) -> bool:
    """Whether `parallel` is "newton"; raise unless it is that, True or False."""
    if not isinstance(parallel, str):
        if not isinstance(parallel, (bool, np.bool_)):
            raise TypeError(f"parallel is {parallel!r}; expected True, False or 'newton'")
        return False
    if parallel != "newton":
        raise ValueError(f"parallel is {parallel!r}; expected True, False or 'newton'")
    if differentiation == "autodiff":
        raise ValueError(
            "differentiation is 'autodiff' with parallel='newton', which has a reverse mode of its own alone; "
            "expected 'pullback'"
        )
    return True


def _newton_door(newton: bool, xs: Array) -> None:
    """Raise where Newton's method is asked for in NumPy."""
    if newton and not is_jax(namespace(xs)):
        raise ValueError(
            "parallel is 'newton', which runs in JAX, and params are arrays of NumPy; expected parameters in JAX, "
            "as cell.init(0) makes them"
        )


def outputs_of(cell: Cell, params: Any, state: Any, xs: Array, controls: Controls | None) -> tuple[Array, Any]:
    """What `run` returns of a cell for arguments that are checked."""
    chunk = _residuals(cell, params, xs, "pullback", None)
    return _run(cell, params, xs, state, controls, differentiation="pullback", chunk=chunk, parallel=False)


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
    params: tuple[Any, ...],
    xs: Array,
    state: tuple[Any, ...] | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
    keep: str = "all",
    reuse: None = None,
) -> StackHistory: ...
@overload
def record(
    cell: Bidirectional,
    params: Directions,
    xs: Array,
    state: Directions | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
    keep: str = "all",
    reuse: None = None,
) -> BidirectionalHistory: ...
@overload
def record(
    cell: Layers,
    params: Directions,
    xs: Array,
    state: Directions | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
    keep: str = "all",
    reuse: None = None,
) -> LayeredHistory: ...
@overload
def record(
    cell: Cell[P, S],
    params: P,
    xs: Array,
    state: S | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
    keep: str = "all",
    reuse: History[P, S] | None = None,
) -> History[P, S]: ...
def record(
    cell: Any,
    params: Any,
    xs: Array,
    state: Any = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
    keep: str = "all",
    reuse: History | None = None,
) -> Any:
    """Run a cell over sequences and keep what every analysis needs.

    Args:
        cell: the cell, or a `Stack` or `Bidirectional` of cells.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1: time first, any number of batch axes.
        state: initial state, fields [*batch, H], of layers theirs; None for zeros.
        lengths: as for `run`. In the history the state stands still at a step that does not count; every analysis
            leaves it out, and `history.pieces()` gives every sequence as a history of its own.
        mask: as for `run`.
        resets: as for `run`.
        key: as for `run`.
        keep: "all" stores pre-activations and states; "states" stores the states only (a third of the memory
            for an LSTM) and rebuilds the pre-activations on demand, by one matrix product.
        reuse: a history of one cell that an earlier call of the same form returned. JAX writes the new pass into
            its memory, which saves what fresh memory costs; NumPy frees it first. It must not be used afterwards:
            access raises RuntimeError. In NumPy, slices made of it before keep the old pass.

    Returns:
        The history, with its cell, parameters, inputs and initial state; of layers a `StackHistory` or
        `BidirectionalHistory`, with a history for each.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters.
        ValueError: an argument has the wrong shape, or an option another value; or `reuse` has another form, or
            shares memory with another argument.
        RuntimeError: `reuse` was used already.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> history = lstmx.record(cell, params, numpy.ones((5, 3), "float32"))
        >>> history.forget_gate.shape, len(history[2:4])
        ((5, 8), 2)
    """
    one_of("keep", keep, ("all", "states"))
    if isinstance(cell, Layers):
        if reuse is not None:
            raise ValueError("reuse takes the history of one cell; record layers into fresh memory")
        params, xs, state, timing, masks = layered_door(cell, params, xs, state, (lengths, mask, resets), key)
        one = history_passing(functools.partial(record, keep=keep))
        return cell.passed(one, params, xs, state, timing, masks).history
    params, xs, state = door(cell, params, xs, state)
    xs, controls = controlled(cell, xs, lengths, mask, resets, key)
    memory = memory_of(History, reuse, (cell, xs.shape, keep == "all"), (params, xs, state))
    made = recorded_part(cell, params, xs, controls, state, keep, memory)
    bury(reuse)
    return made


def excerpt(
    cell: Cell[P, S],
    params: P,
    xs: Array,
    state: S | None = None,
    *,
    every: int = 1,
    fields: Sequence[str] | None = None,
    dtype: str | None = None,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Any = None,
    reuse: Excerpt[S] | None = None,
) -> Excerpt[S]:
    """Run a cell over sequences and keep an excerpt to look at: some steps, some gates and states, in less room.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1: time first, any number of batch axes.
        state: initial state, fields [*batch, H]; None for zeros.
        every: keep the last step and every `every`-th before it.
        fields: names of gates and states to keep, such as ["forget_gate", "cell_state"]; None for all.
        dtype: "float16" or "bfloat16" (as its bits) to store in; None for that of the parameters.
        lengths: as for `run`; so the next three.
        mask: booleans [T, *batch].
        resets: booleans [T, *batch].
        key: of what a Zoneout draws.
        reuse: as for `record`, an excerpt of the same form.

    Returns:
        The excerpt.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters; layers or a step
            function, of which no excerpts are made.
        ValueError: an argument has the wrong shape, or an option another value.
        RuntimeError: `reuse` was used already.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8)
        >>> params = cell.init(numpy.random.default_rng(0))
        >>> excerpt = lstmx.excerpt(cell, params, numpy.ones((5, 3), "float32"), every=2, fields=["forget_gate"])
        >>> excerpt.steps, excerpt.forget_gate.shape
        (array([0, 2, 4]), (3, 8))
    """
    cells_of("cell", cell)
    if not isinstance(cell, Cell) or not cell.closed_form:
        raise TypeError(f"cell is {cell!r}; an excerpt is of one cell with gates: record layers or a step whole")
    options = _excerpt_options(cell, every, fields, dtype)
    params, xs, state = door(cell, params, xs, state)
    xs, controls = controlled(cell, xs, lengths, mask, resets, key)
    memory = memory_of(Excerpt, reuse, (cell, xs.shape, options), (params, xs, state))
    start, final, stored = excerpt_rows(cell, params, xs, state, controls, memory, *options)
    stored = {name: stored[name] for name in options[1]}  # in their order, which jit does not keep
    start = start if state is None else state
    made = Excerpt(cell, options[0], xs.shape[0], str(dtype_of(params)), start, final, stored)
    bury(reuse)
    return made


def record_to(
    path: str | Path,
    cell: Cell[P, S],
    params: P,
    xs: Any,
    state: S | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    keep: str = "all",
    durable: bool = True,
    progress: bool = False,
    parts: int | None = None,
    together: bool = False,
) -> StoredHistory[P, S]:
    """Run a cell over sequences and write its history into a folder, chunk by chunk, while it runs.

    Neither the host nor the device holds the whole pass. A run that was stopped, at any moment, goes on where it
    was with the same call: the steps that are written have to be those of this call, and the inputs of the others
    are taken as they are now.

    Several processes of a job that `jax.distributed.initialize` started write one folder together, on a disk that
    all of them see: with an `xs` that lies on the devices of all, as `lstmx.shard_batch` makes it, or with
    `together=True`. All of them make the same call. Each runs its own sequences and writes their chunks, which no
    other one writes; a chunk counts as finished once all have written theirs. Where one is killed, JAX ends the
    others, after up to 100 seconds (`heartbeat_timeout_seconds` of `jax.distributed.initialize`); the same call of
    as many processes, or of one, goes on.

    Args:
        path: the new folder, or that of a run of the same call that was stopped.
        cell: the cell.
        params: its parameters; their library is the library that runs.
        xs: inputs [T, *batch, D]: anything with a shape and a dtype that can be sliced, such as a `numpy.memmap`
            or a Zarr array; it is never read whole.
        state: initial state, fields [*batch, H]; None for zeros.
        lengths: as for `run`; so the next two.
        mask: booleans [T, *batch].
        resets: booleans [T, *batch].
        keep: as for `record`.
        durable: have each chunk on the disk before it counts as finished, so that a loss of power takes no step
            that did. False leaves it to the operating system when it writes; a process that is killed loses
            nothing by that.
        progress: show a progress bar; needs tqdm. Of several processes the first shows it.
        parts: how many equal parts of the first batch axis are run as passes of their own and written in chunks of
            their own; the bytes of the folder depend on this number, and not on how many processes wrote it. None
            for one part, or as many as devices that `xs` lies on or that a job has; a folder that is gone on with
            keeps its own.
        together: every process of the job makes this call, with the whole `xs`, such as one file that all see, and
            reads of it the sequences that it runs.

    Returns:
        The history on disk, the whole in every process.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters.
        ValueError: an argument has the wrong shape or value; `xs` is split otherwise than along its first batch
            axis; parts do not divide that, or are shared by processes; or the folder holds an unfinished run of
            another call, or a damaged one.
        FileExistsError: the folder holds a finished history.
        BlockingIOError: another process, or another thread, is writing there.
        OSError: the disk is full, or fails, or the folder was removed meanwhile; says how many steps are safe. Or
            a process of the job failed; or several processes on a system without locks for them, as Windows.
        ImportError: zarr is not installed.
    """
    one_of("keep", keep, ("all", "states"))
    flag("durable", durable)
    flag("progress", progress)
    if isinstance(cell, Layers):
        raise TypeError("cell is one of layers; record layers in memory, and history.save(path) writes them")
    said = lengths, mask, resets
    path = checked_path("path", path)
    return streamed(cell, params, xs, state, said, keep, path, durable, progress, parts, together)


@overload
def intervene(
    cell: Layers[Tree],
    params: Tree,
    xs: Array,
    edits: Any,
    state: Tree | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> EditedLayers: ...
@overload
def intervene(
    cell: Cell[P, S],
    params: P,
    xs: Array,
    edits: Change | Sequence[Change],
    state: S | None = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> Edited[P, S]: ...
def intervene(
    cell: Any,
    params: Any,
    xs: Array,
    edits: Any,
    state: Any = None,
    *,
    lengths: Lengths | None = None,
    mask: Array | None = None,
    resets: Array | None = None,
    key: Key | None = None,
) -> Any:
    """Run a cell over sequences while edits change its gates and states.

    An edit of your own is a function `(step, values)` -> values: `values` is the NamedTuple of the step's gates,
    or that of the state after it, each field [*batch, H], and what comes back is the same with other numbers in
    it, as from `values._replace(...)`. `step` counts from 0; under JAX it is traced. Values are changed in the
    order of the equations: gates that nothing else in the step leads to, then what is computed from these as
    changed (the cell state, the candidate behind a reset gate, the output gate behind a peephole), last h_t. So
    the function is called two to four times a step, sees of later values what they are so far, and of what it
    returns those count whose turn it is: it should depend on its arguments alone. A change is one of the gate
    wherever the equations name it, and not of its pre-activation: gates that share one (f = 1 − i, and in an `MGU`
    what is kept and what is taken) are changed apart, and the share that a `JANET` takes in stays as it is. With
    full gate recurrence the next step reads gates as changed. In a Zoneout the state is changed after a part of
    the old one was kept. Under JAX code is compiled once for each function, and once for all ready-made edits of
    one form.

    Args:
        cell: the cell.
        params: its parameters; their library is the library that runs.
        xs: inputs, [T, *batch, D] with T ≥ 1.
        edits: what changes gates and states: one of `lstmx.edits`, a function of your own, or a list of these,
            which follow one another at each value. Of layers a dict from the name of a cell, as in
            `history.cells()`, to its edits; steps count in the order in which that cell reads them.
        state: initial state, fields [*batch, H]; None for zeros.
        lengths: as for `run`; so the next three. At a step that does not count nothing is changed.
        mask: booleans [T, *batch].
        resets: booleans [T, *batch].
        key: of what a Zoneout draws.

    Returns:
        The pass as edited, which has the names of a history; of layers an `EditedLayers`, with one for each.

    Raises:
        TypeError: an argument is of the wrong kind or of another dtype than the parameters; an edit returns
            something else than it got; or a step function, which has no gates to change.
        ValueError: an argument has the wrong shape; or an edit names a layer, gate, unit or step that is not
            there, or returns another shape.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(input_size=3, hidden_size=8)
        >>> params, xs = cell.init(numpy.random.default_rng(0)), numpy.ones((5, 3), "float32")
        >>> edited = lstmx.intervene(cell, params, xs, lstmx.edits.clamp(forget_gate=1.0, units=[0, 3]))
        >>> edited.forget_gate[:, 3]
        array([1., 1., 1., 1., 1.], dtype=float32)
    """
    if isinstance(cell, Layers):
        return edited_layers(cell, params, xs, state, edits, (lengths, mask, resets), key)
    cells_of("cell", cell)
    if not isinstance(cell, Cell) or not cell.closed_form:
        raise TypeError(f"cell is {cell!r}; expected a cell of the library, whose gates edits change by name")
    return edited_pass(cell, params, xs, state, edits, (lengths, mask, resets, key))


def _excerpt_options(cell: Cell, every: Any, fields: Any, dtype: Any) -> tuple[int, tuple[str, ...], str | None]:
    """`every`, `fields` and `dtype` of an excerpt, checked."""
    every = positive("every", every)
    known = fields_of(cell)
    if fields is not None:
        if not isinstance(fields, (list, tuple)) or not fields:
            raise ValueError(f"fields is {fields!r}; expected a list of names out of {', '.join(known)}")
        for name in fields:
            one_of("a name in fields", name, known)
    if dtype is not None:
        one_of("dtype", dtype, STORAGE)
    return every, tuple(dict.fromkeys(fields or known)), dtype


@jit(static=("cell", "differentiation", "chunk", "parallel"))
def _run(
    cell: Cell,
    params: Any,
    xs: Array,
    state: Any,
    controls: Controls | None,
    differentiation: str,
    chunk: int | None,
    parallel: bool | str,
) -> tuple[Array, Any]:
    params, state = started(cell, params, xs, state)
    own = differentiation == "pullback" and is_jax(namespace(xs))
    if parallel == "newton":
        states = newton_trajectory(cell, chunk, params, xs, state, controls)
        made, last = cell.output(cell.unpack(states)), cell.unpack(states[-1])
        return made if controls is None else where_held(controls.hold, made), last
    if parallel:
        return (parallel_outputs if own else parallel_forward)(cell, params, xs, state)
    made, final = (outputs if own else plain_outputs)(cell, chunk, params, xs, state, controls)
    return made if controls is None else where_held(controls.hold, made), final
