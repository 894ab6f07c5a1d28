"""`attribute`: what inputs, initial states and biases contribute to a number of the outputs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lstmx.arrays import Array, gathered, is_jax, leaves, map_tree, namespace
from lstmx.attribution.contextual import contextual
from lstmx.attribution.rerun import again, alone, at_once
from lstmx.attribution.results import WORDS, Attribution
from lstmx.attribution.targets import Target, target_of
from lstmx.attribution.walk import walked
from lstmx.checks import (
    LARGEST,
    finite,
    finite_history,
    finite_number,
    one_of,
    positive,
    require_history,
    shaped,
    states,
)
from lstmx.history import History, where_held
from lstmx.passes.sharding import brought_back, spread


def attribute(
    history: Any,
    target: Any,
    method: str = "integrated_gradients",
    *,
    baseline: Array | None = None,
    baseline_state: Any = None,
    nodes: int = 32,
    epsilon: float = 0.001,
) -> Attribution:
    """What each input at each step, the initial state and the biases contribute to a number of the outputs.

    With F the target and x' a baseline, contributions φ add up to F(x) − F(x') but for the `defect`, which the
    result has for every sequence and its summary shows.

    - "integrated_gradients": φ = (x − x') ∘ ∫₀¹ ∂F(x' + α (x − x'))/∂x dα, the initial state on the same path, by
      the Gauss–Legendre rule, all nodes one batch. Of every cell. Where the baseline is far from what a network
      was trained on, F may be rough on the way, even chaotic, and then the defect stays; a mean input is nearer
      than zeros.
    - "gradient_input": φ = x ∘ ∂F/∂x, and so the initial state and the biases; x' = 0. Of every cell.
    - "lrp": the rule z_i / (z + ε sign z) for sums, all for the signal and nothing for the gates that weigh it
      (Arras et al. 2017). Biases, and what ε takes, are told apart. For targets linear in the outputs.
    - "contextual": each step's own share of the state, carried forward beside the rest (Murdoch et al. 2018).
      Shares of single steps do not add up: what arises from several together is the defect. Of an LSTM, in time
      proportional to T².
    - "cell_path": with gates as they were, c_T = Π f ∘ c_0 + Σ_s (Π_{r>s} f_r) ∘ i_s ∘ g_s, a sum over steps; and
      h_T = (o ∘ tanh(c_T) / c_T) ∘ c_T. Exact. It says where the content of the state came from, not what an
      input would change: that also goes through later gates. Of one cell.

    In NumPy a sequence of a batch is worked on alone, and so gets the same bits as alone.

    Args:
        history: the recorded pass, in memory, of a cell or of layers.
        target: weights [H] of each sequence's last output; or weights [T, *batch, H] of all outputs; or, for a
            logit at the last output, a pair of a readout, with `kernel` [H, O] and `bias` [O] or a kernel alone,
            and a class, an int or one for each sequence, [*batch]; or under JAX a function from the outputs
            [T, H] of one sequence to a number, for the first two methods; there outputs are 0 at the steps that do
            not count.
        method: one of the words above.
        baseline: x', [D], [T, D] or [T, *batch, D]; None for zeros. Of "integrated_gradients", and of
            `faithfulness` afterwards.
        baseline_state: the initial state of the baseline, like the history's; None for zeros. Of
            "integrated_gradients".
        nodes: of the Gauss–Legendre rule.
        epsilon: ε of "lrp", at least 0.

    Returns:
        An `Attribution`; `print` shows what adds up.

    Raises:
        TypeError: history is not one in memory, or target of another kind.
        ValueError: another word; a wrong shape; a method that the cell does not have; or NaN or infinity in
            parameters, inputs, states or target.

    References:
        Sundararajan, Taly & Yan, "Axiomatic attribution for deep networks", ICML 2017 (arXiv 1703.01365).
        Arras, Montavon, Müller & Samek, "Explaining recurrent neural network predictions in sentiment analysis",
        WASSA 2017 (doi 10.18653/v1/W17-5221), and the authors' program, github.com/ArrasL/LRP_for_LSTM.
        Murdoch, Liu & Yu, "Beyond word importance: contextual decomposition to extract interactions from LSTMs",
        ICLR 2018, and the authors' program, github.com/jamie-murdoch/ContextualDecomposition. There the last step
        of a phrase does not get the product of the biases alone; here a step does.

    Example:
        >>> import lstmx, numpy
        >>> cell = lstmx.LSTM(3, 8)
        >>> params = cell.init(numpy.random.default_rng(0), "float64")
        >>> history = lstmx.record(cell, params, numpy.random.default_rng(1).normal(size=(20, 3)))
        >>> found = lstmx.attribute(history, numpy.ones(8))
        >>> found.inputs.shape, bool(abs(found.defect) < 1e-9)
        ((20, 3), True)
    """
    one_of("method", method, tuple(WORDS))
    require_history(history, layers=True)
    positive("nodes", nodes, 1, LARGEST)
    finite_number("epsilon", epsilon, "a number of at least 0", lambda x: x >= 0)
    if method in ("contextual", "cell_path") and not isinstance(history, History):
        raise ValueError(
            f"method={method!r} takes the pass of one cell; take a layer's own, such as "
            f"history.parts[{list(history.parts)[-1]!r}]"
        )
    if method == "cell_path" and history.cell.retention_gate is None:
        raise ValueError(
            f'method="cell_path" takes a cell with a gate that keeps its old state; {history.cell} has none'
        )
    wanted = target_of(history, target)
    if method not in ("integrated_gradients", "gradient_input") and wanted.weights is None:
        raise ValueError(f"method={method!r} takes a target that is linear in the outputs, not a function")
    finite_history(history)
    inputs = _baseline(history, baseline)
    start = _baseline_state(history, baseline_state)
    options = (method, inputs, start, nodes, float(epsilon))
    if is_jax(namespace(history.inputs)) or not history.batch:
        found = _attributed(history, wanted, *options)
    else:
        found = _row_by_row(history, wanted, *options)
    made = Attribution(method=method, history=history, target=wanted, baseline=inputs, **found)
    return gathered(made, ("history", "target", "baseline", "inputs", "units", "initial_units"))


def _row_by_row(history: Any, target: Target, method: str, inputs: Array, start: Any, *options: Any) -> Any:
    """The sequences of a batch, each on its own."""
    batch = history.batch
    each = []
    for index in np.ndindex(*batch):
        base = inputs[(slice(None), *index)]
        begun = map_tree(lambda x, index=index: x[index], start)
        each.append(_attributed(alone(history, index), target.sequence(index), method, base, begun, *options))

    def over(name: str, *arrays: Array) -> Array:
        time = int(name in ("steps", "inputs", "units", "biases"))
        joined = np.stack(arrays, axis=time)
        return joined.reshape(*joined.shape[:time], *batch, *joined.shape[time + 1 :])

    return {name: map_tree(functools.partial(over, name), *(one[name] for one in each)) for name in each[0]}


def _attributed(
    history: Any, target: Target, method: str, baseline: Array, start: Any, nodes: int, epsilon: float
) -> dict[str, Any]:
    """The fields of an `Attribution`."""
    xp = namespace(history.inputs)
    outputs = history.outputs
    value = target.values(outputs)
    nothing = xp.zeros_like(history.inputs[..., 0])
    weights: Any = target.weights
    found: dict[str, Any] = {
        "inputs": None,
        "units": None,
        "initial": 0 * value,
        "initial_units": None,
        "biases": nothing,
        "stabiliser": 0 * value,
        "value": value,
        "baseline_value": target.constant,
    }

    def times(multipliers: Any) -> Any:
        return map_tree(lambda x, y: x * y, multipliers, history.initial)

    if method == "integrated_gradients":
        rows, initial, before = _integrated(history, target, baseline, start, nodes)
        found |= {"inputs": rows, "initial_units": initial, "baseline_value": before}
    elif method == "contextual":
        steps, initial = contextual(history, weights)
        found |= {"steps": steps, "initial": initial}
    elif method == "cell_path":
        back = walked(history, weights, "state")
        found |= {"units": back.taken, "initial_units": times(back.initial)}
    elif method == "gradient_input":
        back = walked(history, target.cotangents(outputs), "gradient")
        rows = back.inputs * history.inputs
        found |= {"inputs": rows, "initial_units": times(back.initial), "biases": back.biases}
    else:
        # The readout is a sum, too: what ε takes of it, and what its bias gets.
        signed = xp.where(value >= 0, epsilon * xp.ones_like(value), -epsilon * xp.ones_like(value))
        whole = value + signed
        one = xp.ones_like(value)
        share = xp.where(whole == 0, one, value / xp.where(whole == 0, one, whole))
        back = walked(history, weights * share[..., None], "relevance", epsilon)
        found["stabiliser"] = xp.sum(back.stabiliser, axis=0) + signed * share
        found["baseline_value"] = target.constant * share
        rows = back.inputs * history.inputs
        found |= {"inputs": rows, "initial_units": times(back.initial), "biases": back.biases}
    for name in ("inputs", "units"):
        if found[name] is not None:
            found[name] = where_held(None if history.counts is None else ~history.counts, found[name])
            found["steps"] = xp.sum(found[name], axis=-1)
    if found["initial_units"] is not None:
        each = (xp.reshape(x, (*history.batch, -1)) for x in leaves(found["initial_units"]))
        found["initial"] = sum(xp.sum(x, axis=-1) for x in each)
    whole = xp.sum(found["steps"], axis=0) + xp.sum(found["biases"], axis=0) + found["initial"]
    return found | {"defect": value - found["baseline_value"] - whole - found["stabiliser"]}


def _integrated(history: Any, target: Target, baseline: Array, start: Any, nodes: int) -> tuple[Array, Any, Array]:
    """Integrated gradients of inputs and initial state, and the target at the baseline."""
    xp, dtype = namespace(history.inputs), history.inputs.dtype
    places, weights = np.polynomial.legendre.leggauss(nodes)
    places, weights = xp.asarray((places + 1) / 2, dtype=dtype), xp.asarray(weights / 2, dtype=dtype)
    change = history.inputs - baseline
    begun = map_tree(lambda x, y: x - y, history.initial, start)
    most = at_once(history)

    def along(part: Array, x: Array, y: Array, axis: int) -> Array:
        """Points between y and y + x, in a new axis."""
        share = part.reshape(*(1,) * axis, -1, *(1,) * (x.ndim - axis))
        return xp.expand_dims(y, axis=axis) + share * xp.expand_dims(x, axis=axis)

    total, first = xp.zeros_like(history.inputs), map_tree(xp.zeros_like, begun)
    for k in range(0, nodes, most):
        at, weight = places[k : k + most], weights[k : k + most]
        starts = map_tree(lambda x, y, at=at: along(at, x, y, 0), begun, start)
        rows, starts, _, is_split = spread(along(at, change, baseline, 1), starts)
        made = again(history, rows, starts)
        back = walked(made, target.cotangents(made.outputs), "gradient")
        added = xp.tensordot(back.inputs, weight, axes=((1,), (0,)))
        begins = map_tree(lambda y, w=weight: xp.tensordot(w, y, axes=((0,), (0,))), back.initial)
        added, begins = brought_back((added, begins)) if is_split else (added, begins)
        total, first = total + added, map_tree(lambda x, y: x + y, first, begins)
    before = again(history, baseline[:, None], map_tree(lambda x: x[None], start))
    initial = map_tree(lambda x, y: x * y, first, begun)
    return total * change, initial, target.values(before.outputs)[0]


def _baseline(history: Any, baseline: Any) -> Array:
    """The inputs of the baseline, like those of the pass."""
    inputs = history.inputs
    xp, shape = namespace(inputs), tuple(inputs.shape)
    if baseline is None:
        return xp.zeros_like(inputs)
    fits = ((shape[-1],), (shape[0], shape[-1]), shape)
    came = tuple(getattr(baseline, "shape", ()))
    if came not in fits:
        shaped("baseline", baseline, shape, inputs.dtype, "[T, *batch, D], or [D], or [T, D]")
    shaped("baseline", baseline, came, inputs.dtype, "[T, *batch, D]")
    finite("baseline", baseline if len(came) > 1 else baseline[None])
    if len(came) == 2 and len(shape) > 2:
        baseline = baseline.reshape(shape[0], *(1,) * (len(shape) - 2), shape[-1])
    return xp.broadcast_to(xp.asarray(baseline), shape)


def _baseline_state(history: Any, given: Any) -> Any:
    """The initial state of the baseline, like the history's."""
    if given is None:
        return map_tree(lambda x: namespace(x).zeros_like(x), history.initial)
    states(history, given, "baseline_state")
    return given
