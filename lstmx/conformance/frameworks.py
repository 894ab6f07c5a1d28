"""Implementations that other libraries have: each runs its own layers on weights that `lstmx.convert` made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lstmx import convert
from lstmx.arrays import jax, jnp, leaves, map_tree, namespace, require, to_numpy
from lstmx.cells import GRU, LSTM, SimpleRNN
from lstmx.checks import one_of
from lstmx.conformance.cases import Case
from lstmx.conformance.checking import Implementation
from lstmx.dynamics import fixed_points, jacobians, long_jacobian
from lstmx.linear import linearise
from lstmx.passes.backward import backward
from lstmx.passes.run import record, run

Results = dict[str, np.ndarray]


def framework(name: str) -> Implementation:
    """An implementation, as `check_against` takes it, of a library that is installed.

    It runs the library's own layers, from weights that `lstmx.convert` made, and answers the cases that the
    library has: outputs and final states, and where it differentiates the gradients of parameters, inputs and
    initial states (Keras where its backend is JAX). Those in JAX compute in float64 where x64 is enabled; Keras
    and ONNX Runtime in float32.

    Args:
        name: "torch", "keras", "flax" (its `linen`), "equinox", "haiku" or "onnxruntime"; "lstmx" for this
            library in NumPy, with all results, and "lstmx-jax" in JAX, without fixed points and gradients of
            states.

    Returns:
        The implementation.

    Raises:
        ValueError: another name.
        ImportError: the library is not installed.

    Example:
        >>> import lstmx
        >>> lstmx.conformance.check_against(lstmx.conformance.framework("lstmx"), ["mgu"]).passed
        True
    """
    module, implementation = FRAMEWORKS[one_of("name", name, tuple(FRAMEWORKS))]
    if module is not None:
        require(module, f"framework({name!r})", _PACKAGES.get(name))
    return implementation


def _named(case: Case, tree: Any, lead: str = "", end: str = "") -> Results:
    """A tree of parameters or states as results by name."""
    owned = tree if case.layered else (tree,)
    return {
        f"{lead}{part}{field}{end}": np.asarray(value)
        for (part, _), own in zip(case.parts, owned, strict=True)
        for field, value in own._asdict().items()
        if value is not None
    }


def _converted(to: Callable[..., Any], case: Case, params: Any) -> Any:
    """The library's own of a case; NotImplementedError where it has none."""
    try:
        return to(case.cell, params)
    except (ValueError, TypeError) as error:
        raise NotImplementedError(str(error)) from error


# ------------------------------------------------------------------------------------------------------- lstmx


def _lstmx(case: Case, jax_too: bool) -> Results:
    params, start, xs, weights, x = case.tree(), case.start(), case.xs, case.weights, case.x
    if jax_too:
        params, start, xs, weights, x = _in_jax((params, start, xs, weights, x))
    history = record(case.cell, params, xs, start, lengths=case.lengths)
    outputs, final = run(case.cell, params, xs, start, lengths=case.lengths)
    gradients = backward(history, weights)
    found: dict[str, Any] = {"outputs": outputs, "gradient.inputs": gradients.inputs}
    found |= _named(case, final, "final_", "_state")
    found |= _named(case, gradients.parameters, "gradient.")
    found |= _named(case, gradients.initial, "gradient.initial_", "_state")
    for part, one, direct, in_time in _parts(case, history, weights):
        names = [*one.cell.gate_type._fields, *(f"{field}_state" for field in one.states._fields)]
        found |= {f"{part}{name}": in_time(getattr(one, name)) for name in names}
        if not jax_too:
            found |= {f"gradient.{part}{name}_state": in_time(v) for name, v in _totals(one, direct)[0].items()}
    if "jacobians" in case.asked:
        found["jacobians"] = jacobians(history)
        found["finite_time_exponents"] = long_jacobian(history).exponents.astype(xs.dtype)
        found["lyapunov_exponents"] = _by_qr(np.asarray(found["jacobians"]))
    if "fixed_points" in case.asked and not jax_too:
        candidates = history if case.cell.state_size <= 6 else history[-1:]  # of many numbers, which take long
        found["fixed_points"] = case.cell.pack(fixed_points(case.cell, params, x, candidates).points)
    return {name: np.asarray(value) for name, value in found.items()}


def _parts(case: Case, history: Any, weights: Any) -> Any:
    """The name, history, cotangent of the outputs and turn of time of each cell."""
    if not case.layered:
        yield "", history, weights, lambda rows: rows
        return
    turns = {name: in_time for name, (_, in_time) in history.cells().items()}
    if getattr(case.cell, "both_directions", False):
        for (name, part), direct in zip(history.parts.items(), case.cell.parted(weights), strict=True):
            yield f"{name}/", part, turns[name](direct), turns[name]
        return
    for name, part, _ in history.downward:
        yield f"{name}/", part, weights, turns[name]
        weights = _totals(part, weights)[1]


def _totals(history: Any, direct: Any) -> tuple[dict[str, Any], Any]:
    """∂L/∂(each field after each step) with all its ways, and ∂L/∂x_t, step by step."""
    steps: Any = linearise(history)
    xp = namespace(direct)
    cotangent, totals, inputs = steps[0].inject(xp.zeros_like(direct[0])), [], []
    for t in reversed(range(len(history))):
        cotangent = cotangent + steps[t].inject(direct[t])
        totals.append(steps[t].totals(cotangent))
        cotangent, drive = steps[t].vjp(cotangent)
        inputs.append(steps[t].input_vjp(drive))
    fields = {name: xp.stack([one[name] for one in reversed(totals)]) for name in totals[0]}
    return fields, xp.stack(inputs[::-1])


def _by_qr(matrices: np.ndarray) -> np.ndarray:
    """(1/T) ln |R_ii| of J_T … J_1 = Q R, step by step from the identity."""
    frame = np.broadcast_to(np.eye(matrices.shape[-1], dtype=matrices.dtype), matrices[0].shape)
    logs = np.zeros(matrices.shape[1:-1], matrices.dtype)
    with np.errstate(divide="ignore"):
        for matrix in matrices:
            frame, r = np.linalg.qr(matrix @ frame)
            logs += np.log(np.abs(np.diagonal(r, axis1=-2, axis2=-1)))
    return logs / matrices.dtype.type(len(matrices))


# ----------------------------------------------------------------------------------------------------- PyTorch


def _torch(case: Case) -> Results:
    torch = require("torch", 'framework("torch")')
    module = _converted(convert.to_torch, case, case.tree())
    two = {name: torch.tensor(value) for name, value in case.two_biases.items()}
    suffixes = {part: _suffix(part) for part, _ in case.parts}
    if two:  # the sum was in one of them
        shared = {f"bias_{own}{suffixes[part]}": two[f"{part}{name}_bias"] for part in suffixes
                  for own, name in (("ih", "input"), ("hh", "recurrent"))}  # fmt: skip
        module.load_state_dict(module.state_dict() | shared)
    xs = torch.tensor(case.xs, requires_grad=True)
    fields = case.parts[0][1].state_type._fields
    start = [
        torch.tensor(np.stack([case.state[f"{part}{field}_state"] for part in suffixes]), requires_grad=True)
        for field in fields
    ]
    read: Any = xs
    if case.lengths is not None:
        read = torch.nn.utils.rnn.pack_padded_sequence(xs, torch.tensor(case.lengths), enforce_sorted=False)
    made, final = module(read, tuple(start) if len(start) > 1 else start[0])
    if case.lengths is not None:
        made, _ = torch.nn.utils.rnn.pad_packed_sequence(made, total_length=len(xs))
    (made * torch.tensor(case.weights)).sum().backward()
    final = final if isinstance(final, tuple) else (final,)
    found = {"outputs": made, "gradient.inputs": xs.grad}
    for field, ended, begun in zip(fields, final, start, strict=True):
        for k, part in enumerate(suffixes):
            found[f"final_{part}{field}_state"] = ended[k]
            found[f"gradient.initial_{part}{field}_state"] = begun.grad[k]
    gradients = {name: value.grad.clone() for name, value in module.named_parameters()}
    for name, value in gradients.items():  # two biases that are added up have one gradient
        if name.startswith("bias_hh"):
            value[: None if type(case.parts[0][1]) is not GRU else -case.parts[0][1].hidden_size] = 0
    nonlinearity = getattr(case.parts[0][1], "activation", None)
    tree = convert.from_torch(gradients, nonlinearity=nonlinearity)[1]
    return {name: value.detach().numpy() for name, value in found.items()} | _named(case, tree, "gradient.")


def _suffix(part: str) -> str:
    """What the names of PyTorch's arrays of a cell end in."""
    layer = part.removeprefix("layer ").rstrip("/") if part.startswith("layer") else "0"
    return f"_l{layer}{'_reverse' * part.startswith('backward')}"


# --------------------------------------------------------------------------------------------- Keras, and ONNX


def _single(tree: Any) -> Any:
    return map_tree(lambda value: value.astype(np.float32), tree)


def _keras(case: Case) -> Results:
    layer = _converted(convert.to_keras, case, _single(case.tree()))
    keras = require("keras", 'framework("keras")')
    state = [np.asarray(value) for value in leaves(_single(case.start()))]
    mask = None if case.lengths is None else np.ascontiguousarray(case.counts.T)
    first = np.ascontiguousarray(np.swapaxes(case.xs, 0, 1)).astype(np.float32)
    if keras.backend.backend() == "jax":
        return _keras_differentiated(case, layer, state, mask, first)
    made, *final = (
        np.asarray(keras.ops.convert_to_numpy(value)) for value in layer(first, initial_state=state, mask=mask)
    )
    return {"outputs": np.swapaxes(made, 0, 1)} | dict(zip(_final_names(case), final, strict=True))


def _keras_differentiated(case: Case, layer: Any, state: Any, mask: Any, first: Any) -> Results:
    """All results where Keras runs in JAX."""
    others = [variable.value for variable in layer.non_trainable_variables]

    def passed(values: Any, state: Any, first: Any) -> tuple[Any, Any]:
        (made, *final), _ = layer.stateless_call(values, others, first, initial_state=state, mask=mask)
        return jnp.swapaxes(made, 0, 1), final

    given = [variable.value for variable in layer.trainable_variables], list(map(jnp.asarray, state)), first
    outputs, pull, final = jax.vjp(passed, *given, has_aux=True)
    values, start, inputs = pull(jnp.asarray(case.weights, dtype="float32"))
    layer.set_weights([np.asarray(value) for value in values])
    tree = convert.from_keras(layer)[1]
    found = _named(case, tree, "gradient.")
    for part, cell in case.parts:
        if isinstance(cell, GRU) and cell.reset == "after":  # two biases that are added up have one gradient
            found[f"gradient.{part}bias"][: 2 * cell.hidden_size] /= 2
    names = _final_names(case)
    found |= dict(zip(names, final, strict=True))
    found |= {f"gradient.{name.replace('final_', 'initial_')}": v for name, v in zip(names, start, strict=True)}
    return to_numpy(found | {"outputs": outputs, "gradient.inputs": jnp.swapaxes(inputs, 0, 1)})


def _final_names(case: Case) -> list[str]:
    """The final states in the order of a tree's leaves."""
    return [f"final_{part}{field}_state" for part, cell in case.parts for field in cell.state_type._fields]


def _onnxruntime(case: Case) -> Results:
    if case.lengths is not None:
        raise NotImplementedError("the model that to_onnx makes takes no lengths")
    runtime = require("onnxruntime", 'framework("onnxruntime")')
    model = _converted(convert.to_onnx, case, _single(case.tree()))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fields = case.parts[0][1].state_type._fields
    given = {"X": case.xs.astype(np.float32)}
    for name, field in zip(("h", "c"), fields, strict=False):
        given[name] = np.stack([case.state[f"{part}{field}_state"] for part, _ in case.parts]).astype(np.float32)
    made, *final = session.run(None, given)
    found = {"outputs": np.concatenate([made[:, k] for k in range(made.shape[1])], axis=-1)}
    for field, ended in zip(fields, final, strict=True):
        found |= {f"final_{part}{field}_state": ended[k] for k, (part, _) in enumerate(case.parts)}
    return found


# ------------------------------------------------------------------------------------------------ those in JAX


def _in_jax(tree: Any) -> Any:
    dtype = jnp.zeros((), dtype=float).dtype  # float64 where it is enabled
    return map_tree(lambda value: jnp.asarray(np.asarray(value, dtype)), tree)


def _differentiated(case: Case, passed: Callable[..., tuple[Any, Any]]) -> Results:
    """All results of `passed(params, state, xs) -> (outputs, final state)` under JAX."""
    given = _in_jax((case.tree(), case.start(), case.xs))
    weights = _in_jax(case.weights)
    outputs, pull, final = jax.vjp(passed, *given, has_aux=True)
    params, state, xs = pull(weights)
    found = {"outputs": outputs, "gradient.inputs": xs}
    found |= _named(case, final, "final_", "_state") | _named(case, params, "gradient.")
    return to_numpy(found | _named(case, state, "gradient.initial_", "_state"))


def _one_cell(case: Case, *kinds: Any) -> Any:
    """The cell of a case; NotImplementedError where it is none of these kinds, or several."""
    if case.layered or not isinstance(case.cell, kinds):
        raise NotImplementedError("several cells, or none of this library's kinds")
    return case.cell


def _flax(case: Case) -> Results:
    linen = require("flax.linen", 'framework("flax")', "flax")
    cells = [cell for _, cell in case.parts]
    if not isinstance(cells[0], (LSTM, GRU, SimpleRNN)) or type(cells[0]) is not type(cells[-1]):
        raise NotImplementedError("none of Flax's cells")
    lengths = None if case.lengths is None else jnp.asarray(case.lengths)
    activation = functools.partial(_activation, getattr(cells[0], "activation", "tanh"))
    kind: Any = {LSTM: linen.OptimizedLSTMCell, GRU: linen.GRUCell, SimpleRNN: linen.SimpleCell}[type(cells[0])]
    options: dict[str, Any] = {"activation_fn": activation}
    if not isinstance(cells[0], SimpleRNN):
        word = cells[0].gate_activation
        if word == "hard_sigmoid_0.2":
            raise NotImplementedError("not a function of JAX")
        options["gate_fn"] = getattr(jax.nn, word)

    def one(own: Any, cell: Any, state: Any, xs: Any, backward: bool) -> tuple[Any, Any]:
        theirs = {"params": {"cell": convert.to_flax(cell, own)}}
        rnn = linen.RNN(kind(cell.hidden_size, **options), time_major=True, reverse=backward, keep_order=backward)
        carry = (state.cell, state.hidden) if isinstance(cell, LSTM) else state.hidden
        ended, outputs = rnn.apply(theirs, xs, initial_carry=carry, seq_lengths=lengths, return_carry=True)
        return outputs, type(state)(*(ended[::-1] if isinstance(cell, LSTM) else (ended,)))

    def passed(params: Any, state: Any, xs: Any) -> tuple[Any, Any]:
        if not case.layered:
            return one(params, cells[0], state, xs, False)
        (forward, first), (backward, last) = (
            one(params[k], cells[k], state[k], xs, backward=k == 1) for k in range(2)
        )
        return jnp.concatenate([forward, backward], axis=-1), type(state)(first, last)

    _converted_alone(case)
    return _differentiated(case, passed)


def _converted_alone(case: Case) -> None:
    """Raise NotImplementedError where Flax has no such cell."""
    owned = case.tree() if case.layered else (case.tree(),)
    for (_, cell), own in zip(case.parts, owned, strict=True):
        try:
            convert.to_flax(cell, own)
        except ValueError as error:
            raise NotImplementedError(str(error)) from error


def _activation(word: str, a: Any) -> Any:
    return jax.nn.relu(a) if word == "relu" else jnp.tanh(a)


def _equinox(case: Case) -> Results:
    cell = _one_cell(case, LSTM, GRU)
    if case.lengths is not None:
        raise NotImplementedError("Equinox has cells, which know no lengths")
    _converted(convert.to_equinox, case, _in_jax(case.tree()))

    def passed(params: Any, state: Any, xs: Any) -> tuple[Any, Any]:
        module = convert.to_equinox(cell, params)

        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            after = jax.vmap(module)(x, carry)
            return after, after[0] if isinstance(after, tuple) else after

        final, outputs = jax.lax.scan(step, tuple(state) if len(state) > 1 else state.hidden, xs)
        return outputs, type(state)(*(final if isinstance(final, tuple) else (final,)))

    return _differentiated(case, passed)


def _haiku(case: Case) -> Results:
    hk = require("haiku", 'framework("haiku")', "dm-haiku")
    cell = _one_cell(case, LSTM, GRU, SimpleRNN)
    if case.lengths is not None:
        raise NotImplementedError("Haiku's dynamic_unroll knows no lengths")
    _converted(convert.to_haiku, case, _in_jax(case.tree()))
    kind = {LSTM: hk.LSTM, GRU: hk.GRU, SimpleRNN: hk.VanillaRNN}[type(cell)]
    unroll = hk.without_apply_rng(
        hk.transform(lambda xs, state: hk.dynamic_unroll(kind(cell.hidden_size), xs, state))
    )

    def passed(params: Any, state: Any, xs: Any) -> tuple[Any, Any]:
        start = hk.LSTMState(*state) if isinstance(cell, LSTM) else state.hidden
        outputs, final = unroll.apply(convert.to_haiku(cell, params), xs, start)
        return outputs, type(state)(*(final if isinstance(cell, LSTM) else (final,)))

    return _differentiated(case, passed)


_PACKAGES = {"flax": "flax", "haiku": "dm-haiku"}
FRAMEWORKS: dict[str, tuple[str | None, Implementation]] = {
    "lstmx": (None, functools.partial(_lstmx, jax_too=False)),
    "lstmx-jax": ("jax", functools.partial(_lstmx, jax_too=True)),
    "torch": ("torch", _torch),
    "keras": ("keras", _keras),
    "flax": ("flax.linen", _flax),
    "equinox": ("equinox", _equinox),
    "haiku": ("haiku", _haiku),
    "onnxruntime": ("onnxruntime", _onnxruntime),
}
