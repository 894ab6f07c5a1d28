"""Attribution: what adds up, against plain loops, autodiff, the numbers of published programs, and new passes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import LIBRARIES, lcg, lcg_params, slow_but, to

import lstmx

LAYERS = {
    "stack": lstmx.Stack([lstmx.LSTM(3, 7), lstmx.GRU(7, 5)]),
    "both directions": lstmx.Bidirectional(lstmx.LSTM(3, 5)),
    "both in a stack": lstmx.Stack([lstmx.Bidirectional(lstmx.GRU(3, 4)), lstmx.LSTM(8, 6)]),
}
CELLS = {
    "LSTM": lstmx.LSTM(3, 7),
    "peepholes": lstmx.LSTM(3, 7, peepholes=True),
    "coupled": lstmx.LSTM(3, 7, coupled=True),
    "full gate recurrence": lstmx.LSTM(3, 7, peepholes=True, full_gate_recurrence=True),
    "ReLU": lstmx.LSTM(3, 7, candidate_activation="relu", output_activation="relu"),
    "no gates": lstmx.LSTM(3, 7, input_gate=False, output_gate=False),
    "projection": lstmx.LSTM(3, 7, projection=4),
    "GRU": lstmx.GRU(3, 7),
    "reset before": lstmx.GRU(3, 7, reset="before"),
    "SimpleRNN": lstmx.SimpleRNN(3, 7),
    "JANET": lstmx.JANET(3, 7),
    "MGU": lstmx.MGU(3, 7),
    "MinLSTM": lstmx.MinLSTM(3, 7),
    "MinGRU": lstmx.MinGRU(3, 7),
    "Zoneout": lstmx.Zoneout(lstmx.LSTM(3, 7), 0.2, 0.1),
}
OTHERS = {"layer norm": lstmx.LSTM(3, 7, layer_norm=True), "SLSTM": lstmx.SLSTM(3, 7)}


def passed(cell, length=9, batch=(2,), library="numpy", **said):
    """A pass with drawn parameters, biases included, inputs and initial states."""
    draws = np.random.default_rng(5)
    params = jax.tree.map(lambda x: x + draws.normal(0, 0.2, x.shape), cell.init(draws, "float64"))
    state = jax.tree.map(lambda x: draws.normal(0, 0.4, x.shape), cell.initial_state(params, batch))
    xs = draws.normal(size=(length, *batch, cell.input_size))
    return lstmx.record(cell, *to(library, (params, xs, state)), **said)


def weights_for(history, seed=0):
    return np.random.default_rng(seed).normal(size=history.outputs.shape[-1:])


def close(found, expected, atol=1e-12):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=atol)


def number_of(history, weights):
    """A linear number of the last outputs that count, from `run` with other inputs and initial states."""
    cell, params = history.cell, history.params
    counts = None if history.counts is None else jnp.asarray(history.counts)
    last = -1 if counts is None else counts.sum(0) - 1

    def number(xs, state):
        outputs, _ = lstmx.run(cell, params, xs, state, mask=counts)
        ends = outputs[-1] if counts is None else jnp.take_along_axis(outputs, last[None, ..., None], 0)[0]
        return ends @ weights

    return number


# ---------------------------------------------------------------------------------- by derivatives


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CELLS, *OTHERS, *LAYERS])
def test_integrated_gradients_are_the_integral_of_autodiff(name):
    cell = (CELLS | OTHERS | LAYERS)[name]
    history = passed(cell, library="jax", lengths=np.array([9, 5]))
    weights = weights_for(history)
    base = lcg((9, 2, 3), 3, 0.5)
    found = lstmx.attribute(history, jnp.asarray(weights), baseline=jnp.asarray(base), nodes=6)
    places, shares = np.polynomial.legendre.leggauss(6)
    number = number_of(history, weights)
    gradient = jax.jit(jax.grad(lambda xs, state: number(xs, state).sum(), argnums=(0, 1)))
    change = history.inputs - base
    total = jax.tree.map(jnp.zeros_like, (history.inputs, history.initial))
    for place, share in zip((places + 1) / 2, shares / 2, strict=True):
        start = jax.tree.map(lambda x, a=place: a * x, history.initial)
        made = gradient(base + place * change, start)
        total = jax.tree.map(lambda x, y, s=share: x + s * y, total, made)
    close(found.inputs, jnp.where(history.counts[..., None], total[0] * change, 0.0))
    jax.tree.map(lambda x, y, z: close(x, y * z), found.initial_units, total[1], history.initial)
    close(found.value, number(history.inputs, history.initial))
    close(found.baseline_value, number(jnp.asarray(base), jax.tree.map(jnp.zeros_like, history.initial)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "library"), [*itertools.product(["LSTM", "GRU", *LAYERS], LIBRARIES)])
def test_integrated_gradients_add_up(name, library):
    history = passed((CELLS | LAYERS)[name], 40, (3,), library, lengths=np.array([40, 17, 1]))
    found = lstmx.attribute(history, *to(library, (weights_for(history),)))
    assert np.asarray(found.relative_defect).max() < 1e-6
    assert not np.asarray(found.steps)[17:, 1].any()
    summed = sum(np.asarray(x).sum(-1) for x in jax.tree.leaves(found.initial_units))
    close(found.initial, summed)
    close(found.steps, np.asarray(found.inputs).sum(-1))


@pytest.mark.parametrize("name", [*CELLS, *OTHERS])
def test_gradient_times_input_has_the_share_of_the_biases(name):
    history = passed((CELLS | OTHERS)[name], batch=())
    found = lstmx.attribute(history, weights_for(history), "gradient_input")
    gradients = lstmx.backward(history, found.target.weights)
    close(found.inputs, gradients.inputs * history.inputs)
    names = [n for n in history.params._fields if "bias" in n or n == "cell_shift"]
    named = [n for n in names if getattr(history.params, n) is not None]
    pairs = [(getattr(gradients.parameters, n), getattr(history.params, n)) for n in named]
    close(found.biases.sum(), sum((x * y).sum() for x, y in pairs))


@pytest.mark.slow
def test_a_function_of_the_outputs_is_differentiated_for_each_sequence():
    history = passed(CELLS["LSTM"], 12, (2, 2), "jax")

    def logarithm(outputs):
        return jax.nn.log_softmax(outputs[-1] + outputs[3])[2]

    found = lstmx.attribute(history, logarithm)
    assert found.relative_defect.max() < 1e-9
    alone = lstmx.attribute(history.sequence(1, 0), logarithm)
    close(found.inputs[:, 1, 0], alone.inputs)
    close(found.value[1, 0], logarithm(history.outputs[:, 1, 0]))
    by_gradient = lstmx.attribute(history, logarithm, "gradient_input")
    expected = jax.grad(
        lambda xs: logarithm(lstmx.run(history.cell, history.params, xs, alone.history.initial)[0])
    )
    close(by_gradient.inputs[:, 1, 0], expected(history.inputs[:, 1, 0]) * history.inputs[:, 1, 0])


# ---------------------------------------------------------------------------------- relevance


def relevance_of_an_lstm(history, weights, epsilon):
    """The rule in plain loops on relevances, of one sequence of an LSTM: of x_t, h_0, c_0, and what else took."""
    p, size = history.params, history.cell.hidden_size
    kernel, recurrent, bias = p.input_kernel[:, 2 * size : 3 * size], p.recurrent_kernel[:, 2 * size : 3 * size], 0
    bias = p.bias[2 * size : 3 * size]

    def signed(z):
        return z + np.where(z >= 0, epsilon, -epsilon)

    value = history.hidden_state[-1] @ weights
    r_h = history.hidden_state[-1] * weights / signed(value) * value
    lost, r_c, of_bias = value - r_h.sum(), np.zeros(size), 0.0
    rows = np.zeros(history.inputs.shape)
    before = history.before
    for t in reversed(range(len(history))):
        r_c = r_c + r_h
        c = history.cell_state[t]
        kept = history.forget_gate[t] * before.cell[t]
        taken = history.input_gate[t] * history.candidate[t]
        r_g, r_next = taken / signed(c) * r_c, kept / signed(c) * r_c
        z = history.inputs[t] @ kernel + before.hidden[t] @ recurrent + bias
        part = r_g / signed(z)
        rows[t] = history.inputs[t] * (kernel @ part)
        r_h = before.hidden[t] * (recurrent @ part)
        of_bias += bias @ part
        lost += (r_c - r_g - r_next).sum() + (r_g - z * part).sum()
        r_c = r_next
    return rows, r_h, r_c, of_bias, lost


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("epsilon", [0.0, 0.001, 0.3])
def test_relevance_is_that_of_the_rule_in_plain_loops(library, epsilon):
    history = passed(CELLS["LSTM"], 11, ())
    weights = weights_for(history)
    rows, r_h, r_c, of_bias, lost = relevance_of_an_lstm(history, weights, epsilon)
    found = lstmx.attribute(*to(library, (history, weights)), "lrp", epsilon=epsilon)
    close(found.inputs, rows)
    close(found.initial_units.hidden, r_h)
    close(found.initial_units.cell, r_c)
    close(found.biases.sum(), of_bias)
    close(found.stabiliser, lost)


def test_relevance_is_that_of_the_authors_program():
    """What github.com/ArrasL/LRP_for_LSTM at 02858835 gives of these parameters, with eps=0.001, bias_factor=0."""
    cell, params = lcg_params(lstmx.LSTM, 3, 4, 0.9)
    history = lstmx.record(cell, params, lcg((6, 3), 7, 1.5))
    found = lstmx.attribute(history, lcg((4,), 8), "lrp")
    steps = [0.000752243921998, 0.012522872652861, -0.002022233215485, 0.032660992359916]
    close(found.steps, [*steps, -0.00779301621374, -0.044536652244237], 1e-14)
    close(found.value, -0.076008823335384, 1e-14)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("name", "library"),
    slow_but(
        itertools.product([*CELLS, *LAYERS], LIBRARIES),
        lambda name, library: library == "numpy" or name in ("LSTM", "GRU", "stack"),
    ),
)
def test_relevance_is_conserved(name, library):
    history = passed((CELLS | LAYERS)[name], 13, (2,), library, lengths=np.array([13, 6]))
    found = lstmx.attribute(*to(library, (history, weights_for(history))), "lrp")
    assert np.asarray(found.relative_defect).max() < 1e-10
    assert np.abs(np.asarray(found.stabiliser)).max() > 1e-8
    none = lstmx.attribute(*to(library, (history, weights_for(history))), "lrp", epsilon=0.0)
    assert np.asarray(none.relative_defect).max() < 1e-10
    close(none.stabiliser, 0, 0)


def test_a_readout_has_a_class_and_a_bias():
    history = passed(CELLS["LSTM"], 8, (3,))
    readout = lstmx.ReadoutParams(lcg((7, 4), 1), lcg((4,), 2))
    classes = np.array([2, 0, 3])
    found = lstmx.attribute(history, (readout, classes), "lrp", epsilon=0.0)
    logits = history.hidden_state[-1] @ readout.kernel + readout.bias
    close(found.value, logits[np.arange(3), classes])
    close(found.baseline_value, readout.bias[classes])
    assert found.relative_defect.max() < 1e-10
    one = lstmx.attribute(history, (readout.kernel, 1), "cell_path")
    close(one.value, history.hidden_state[-1] @ readout.kernel[:, 1])


# ---------------------------------------------------------------------------------- contextual


def contextual_of_an_lstm(history, weights, step):
    """The decomposition in plain loops, of one sequence, both parts; the step −1 is the initial state."""
    p = history.params
    before, a = history.before, history.preactivations

    def gate(x):
        return 1 / (1 + np.exp(-x))

    def shared(mine, rest, bias, function):
        own = 0.5 * (function(mine + bias) - function(bias) + function(mine + rest + bias) - function(rest + bias))
        other = 0.5 * (
            function(rest + bias) - function(bias) + function(mine + rest + bias) - function(mine + bias)
        )
        return own, other, function(bias)

    start = 1.0 if step == -1 else 0.0
    h, c = start * history.initial.hidden, start * history.initial.cell
    h_rest, c_rest = history.initial.hidden - h, history.initial.cell - c
    for t in range(len(history)):
        x = history.inputs[t] @ p.input_kernel
        mine, rest = h @ p.recurrent_kernel, h_rest @ p.recurrent_kernel
        mine, rest = (mine + x, rest) if t == step else (mine, rest + x)
        np.testing.assert_allclose(mine + rest + p.bias, a[t])
        parts = [np.split(z, 4) for z in (mine, rest, p.bias)]
        (i, i_rest, i_0), (f, f_rest, f_0) = (shared(*(z[k] for z in parts), gate) for k in (0, 1))
        g, g_rest, g_0 = shared(*(z[2] for z in parts), np.tanh)
        new = i * (g + g_0) + i_0 * g + (f + f_0) * c
        new_rest = i_rest * (g + g_rest + g_0) + (i + i_0) * g_rest + (f + f_rest + f_0) * c_rest + f_rest * c
        c, c_rest = (new + i_0 * g_0, new_rest) if t == step else (new, new_rest + i_0 * g_0)
        o = gate(a[t][-len(c) :])
        both = np.tanh(c + c_rest)
        h, h_rest = (0.5 * o * (np.tanh(z) + both - np.tanh(y)) for z, y in ((c, c_rest), (c_rest, c)))
    np.testing.assert_allclose(h + h_rest, history.hidden_state[-1])
    del before
    return h @ weights


@pytest.mark.sample(1)
@pytest.mark.parametrize("library", LIBRARIES)
def test_contextual_decomposition_is_that_of_plain_loops(library, monkeypatch):
    history = passed(CELLS["LSTM"], 7, (2,), lengths=np.array([7, 4]))
    weights = weights_for(history)
    expected = np.zeros((7, 2))
    initial = []
    for b, piece in enumerate(history.pieces()):
        expected[: len(piece), b] = [contextual_of_an_lstm(piece, weights, t) for t in range(len(piece))]
        initial.append(contextual_of_an_lstm(piece, weights, -1))
    for elements in (2**23, 3 * 4 * 7 * 2):
        monkeypatch.setattr("lstmx.attribution.contextual._ELEMENTS", elements)  # steps at a time
        found = lstmx.attribute(*to(library, (history, weights)), "contextual")
        close(found.steps, expected)
        close(found.initial, initial)


def test_contextual_decomposition_is_that_of_the_authors_program():
    """What github.com/jamie-murdoch/ContextualDecomposition at 1c3073b6 gives for phrases of one step.

    With the candidate's bias at zero: the program does not give a phrase of one step the product of the biases.
    """
    cell, params = lcg_params(lstmx.LSTM, 3, 4, 0.9)
    params.bias[8:12] = 0
    history = lstmx.record(cell, params, lcg((6, 3), 7, 1.5))
    found = lstmx.attribute(history, lcg((4,), 8), "contextual")
    steps = [0.006903548072974, -0.004070525555506, 0.005128596022811, 0.004112196682009]
    close(found.steps, [*steps, -0.008569289072537, -0.068846802484372], 1e-14)


# ---------------------------------------------------------------------------------- along the state


@pytest.mark.parametrize(
    ("name", "library"),
    slow_but(
        itertools.product([name for name in CELLS if name != "SimpleRNN"], LIBRARIES),
        lambda name, library: library == "numpy" or name in ("LSTM", "GRU"),
    ),
)
def test_the_path_along_the_state_is_exact(name, library):
    history = passed(CELLS[name], 15, (2,), library, lengths=np.array([15, 8]))
    found = lstmx.attribute(*to(library, (history, weights_for(history))), "cell_path")
    assert np.asarray(found.relative_defect).max() < 1e-12
    close(found.steps, np.asarray(found.units).sum(-1))


def test_the_path_along_the_state_is_the_product_of_gates():
    history = passed(CELLS["LSTM"], 10, ())
    weights = weights_for(history)
    units = lstmx.attribute(history, weights, "cell_path").units
    shown = weights * history.hidden_state[-1] / history.cell_state[-1]
    for s in range(10):
        kept = np.prod(history.forget_gate[s + 1 :], axis=0)
        close(units[s], shown * kept * history.input_gate[s] * history.candidate[s], 1e-14)


def test_what_a_linear_recurrence_holds_is_what_an_intervention_takes_away():
    """In a MinLSTM gates read inputs alone: without the candidate of a step, the target lacks its contribution."""
    history = passed(lstmx.MinLSTM(3, 7), 12, ())
    weights = weights_for(history)
    found = lstmx.attribute(history, weights, "cell_path")
    for step in (0, 5, 11):
        edit = lstmx.edits.clamp(candidate=0.0, steps=[step])
        edited = lstmx.intervene(history.cell, history.params, history.inputs, edit, history.initial)
        change = (history.hidden_state[-1] - edited.hidden_state[-1]) @ weights
        close(found.steps[step], change)


@pytest.mark.parametrize("name", ["LSTM", "MinLSTM", "MinGRU", "Zoneout", "peepholes"])
def test_effective_attention_makes_the_state(name):
    history = passed(CELLS[name], 14, (2,), mask=np.arange(14)[:, None] % 5 != np.array([1, 3]))
    found = lstmx.effective_attention(history)
    state, first = (history.states[-1], history.initial[-1])
    made = np.einsum("tsbh,sbh->tbh", found.weights, history.candidate) + np.exp(found.log_initial) * first
    close(made[np.asarray(history.counts)], state[np.asarray(history.counts)])
    assert found.linear == name.startswith("Min")
    assert ("the state is this weighted sum" in str(found)) == found.linear


def test_effective_attention_keeps_logs_that_no_float_holds():
    history = passed(lstmx.LSTM(3, 7, forget_bias=-3.0), 600, ())
    found = lstmx.effective_attention(history, 599)
    expected = np.log(history.input_gate[0]) + np.log(history.forget_gate[1:]).sum(0)
    np.testing.assert_allclose(found.log_weights[0, 0], expected, rtol=1e-12)
    assert not found.weights[0, 0].any()
    kernel = lstmx.gate_kernel(history[-20:])
    whole = lstmx.effective_attention(history[-20:]).weights * history.output_gate[-20:][:, None]
    np.testing.assert_allclose(kernel, whole.sum(-1) / whole.sum((1, 2))[:, None], rtol=1e-10)


# ---------------------------------------------------------------------------------- batches, contexts, errors


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_input", "lrp", "contextual", "cell_path"])
def test_a_row_of_a_batch_has_the_bits_of_the_row_alone(method):
    history = passed(CELLS["LSTM"], 12, (2, 3), lengths=np.array([[12, 5, 1], [12, 12, 7]]))
    weights = weights_for(history)
    found = lstmx.attribute(history, weights, method)
    for index in np.ndindex(2, 3):
        alone = lstmx.attribute(history.sequence(*index), weights, method)
        for name in ("steps", "initial", "biases", "value", "defect", "stabiliser"):
            rows = getattr(found, name)
            at = (slice(None), *index) if name in ("steps", "biases") else index
            np.testing.assert_array_equal(rows[at], getattr(alone, name))


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_input", "lrp", "contextual", "cell_path"])
def test_a_padded_sequence_with_gaps_is_the_sequence_itself(method):
    mask = np.ones((12, 2), bool)
    mask[[0, 4, 11], 1] = False
    draws = np.random.default_rng(0)
    xs = draws.normal(size=(12, 2, 3))
    xs[~mask] = np.nan
    cell = CELLS["LSTM"]
    params = cell.init(draws, "float64")
    weights = draws.normal(size=7)
    found = lstmx.attribute(lstmx.record(cell, params, xs, mask=mask), weights, method)
    alone = lstmx.attribute(lstmx.record(cell, params, xs[mask[:, 1], 1]), weights, method)
    close(found.steps[mask[:, 1], 1], alone.steps)
    close(found.defect[1], alone.defect)
    assert not found.steps[~mask].any()


@pytest.mark.slow
def test_resets_and_drawn_zoneout_are_those_of_the_pass():
    cell = lstmx.Zoneout(lstmx.LSTM(3, 7), 0.3, 0.3)
    resets = np.zeros((12, 2), bool)
    resets[5, 1] = True
    history = passed(cell, 12, (2,), "jax", resets=resets, key=jax.random.key(0))
    weights = jnp.asarray(weights_for(history))
    for method in ("integrated_gradients", "lrp", "cell_path"):
        found = lstmx.attribute(history, weights, method)
        assert found.relative_defect.max() < 1e-9
        close(found.steps[:5, 1], 0, 0)
        close(found.initial[1], 0, 0)


@pytest.mark.slow
def test_layers_hand_down_dropped_outputs_as_they_were():
    stack = lstmx.Stack([lstmx.LSTM(3, 7), lstmx.LSTM(7, 7)], dropout=0.5)
    history = passed(stack, 12, (2,), "jax", key=jax.random.key(0))
    for method in ("integrated_gradients", "lrp"):
        assert lstmx.attribute(history, jnp.asarray(weights_for(history)), method).relative_defect.max() < 1e-9


@pytest.mark.slow
def test_a_step_functions_state_of_any_shape_has_one_contribution():
    def step(params, state, x):
        count, matrix = state
        matrix = jnp.tanh(matrix @ params["U"] + (x @ params["W"])[None])
        return (count + jnp.sum(matrix), matrix), {}

    start = (jnp.zeros((), "float64"), jnp.ones((2, 5), "float64"))
    cell = lstmx.from_step(step, start, input_size=3, output=lambda state: state[1][0] + state[0])
    params = {"U": jnp.asarray(lcg((5, 5), 1, 0.5)), "W": jnp.asarray(lcg((3, 5), 2))}
    history = lstmx.record(
        cell, params, jnp.asarray(lcg((6, 2, 3), 3)), mask=jnp.ones((6, 2), bool).at[2, 1].set(False)
    )
    found = lstmx.attribute(history, jnp.ones(5))
    assert found.initial.shape == (2,)
    assert found.relative_defect.max() < 1e-9


@pytest.mark.slow
def test_a_step_function_has_gradients():
    def leaky(params, h, x):
        return jnp.tanh(h @ params["U"] + x @ params["W"])

    cell = lstmx.from_step(leaky, jnp.zeros(5, "float64"), input_size=3)
    params = {"U": jnp.asarray(lcg((5, 5), 1, 0.5)), "W": jnp.asarray(lcg((3, 5), 2))}
    history = lstmx.record(cell, params, jnp.asarray(lcg((9, 2, 3), 3)))
    found = lstmx.attribute(history, jnp.ones(5))
    assert found.relative_defect.max() < 1e-9
    with pytest.raises(ValueError, match=r"not of .*leaky"):
        lstmx.attribute(history, jnp.ones(5), "lrp")


@pytest.mark.parametrize(
    ("target", "options", "kind", "words"),
    [
        ("last", {}, TypeError, r"target is a str; expected weights of the last output \[H\]"),
        (
            np.ones(6),
            {},
            ValueError,
            r"target has shape \(6,\); expected weights of the last output \[H\] = \(7,\)",
        ),
        (np.ones((9, 7)), {}, ValueError, r"target has shape \(9, 7\); expected weights of the outputs"),
        (np.ones(7, "float32"), {}, TypeError, "target is float32"),
        (lambda outputs: outputs.sum(), {}, TypeError, "target is a function, which takes JAX"),
        ((np.ones((7, 3)), 3), {}, ValueError, "the readout has classes 0 to 2"),
        ((np.ones((7, 3)), 0.5), {}, TypeError, "the class of the target is 0.5; expected an integer"),
        ((np.ones((6, 3)), 1), {}, ValueError, r"the readout of the target is of shape \(6, 3\)"),
        ((np.ones((7, 3)),), {}, ValueError, "target is a tuple of 1; expected a pair"),
        (np.ones(7), {"method": "saliency"}, ValueError, "method is 'saliency'; expected"),
        (np.ones(7), {"nodes": 0}, ValueError, "nodes is 0"),
        (np.ones(7), {"epsilon": -1.0}, ValueError, "epsilon is -1.0; expected a number of at least 0"),
        (np.ones(7), {"baseline": np.ones(4)}, ValueError, r"baseline has shape \(4,\); expected \[T"),
        (np.ones(7), {"baseline": np.full(3, np.nan)}, ValueError, "baseline is nan first at"),
        (np.full(7, np.nan), {}, ValueError, r"target is nan at \[0\]"),
    ],
)
def test_what_is_not_understood_is_refused_in_words(target, options, kind, words):
    with pytest.raises(kind, match=words):
        lstmx.attribute(passed(CELLS["LSTM"]), target, **options)


def test_methods_that_a_cell_has_not_are_refused_in_words():
    stack = passed(LAYERS["stack"])
    for method in ("contextual", "cell_path"):
        with pytest.raises(
            ValueError, match=r"takes the pass of one cell; take a layer's own, such as history.parts"
        ):
            lstmx.attribute(stack, np.ones(5), method)
    with pytest.raises(ValueError, match="takes a cell with a gate that keeps its old state; SimpleRNN"):
        lstmx.attribute(passed(CELLS["SimpleRNN"]), np.ones(7), "cell_path")
    with pytest.raises(ValueError, match=r"is known of an LSTM without options, not of LSTM.*peepholes"):
        lstmx.attribute(passed(CELLS["peepholes"]), np.ones(7), "contextual")
    with pytest.raises(ValueError, match=r"not of SLSTM.*integrated_gradients"):
        lstmx.attribute(passed(OTHERS["SLSTM"]), np.ones(7), "lrp")
    with pytest.raises(ValueError, match="linear in the outputs, not a function"):
        lstmx.attribute(passed(CELLS["LSTM"], library="jax"), lambda outputs: outputs.sum(), "lrp")
    function = passed(CELLS["LSTM"], library="jax")
    with pytest.raises(ValueError, match=r"target gives an array \(7,\) of float64 of one sequence's outputs"):
        lstmx.attribute(function, lambda outputs: outputs[-1])


def test_a_summary_says_where_the_path_is_rough():
    """A chaotic network: no rule for an integral follows its outputs from zero input to what it read."""
    cell = lstmx.SimpleRNN(1, 40)
    params = cell.init(np.random.default_rng(0), "float64")
    params = params._replace(recurrent_kernel=4 * params.recurrent_kernel)
    history = lstmx.record(cell, params, np.ones((200, 1)))
    found = lstmx.attribute(history, np.ones(40))
    assert found.relative_defect > 0.1
    assert "the target is rough between baseline and inputs: take a baseline" in str(found)
    assert "rough" not in str(lstmx.attribute(passed(CELLS["LSTM"], 30, ()), np.ones(7)))


def test_a_summary_says_what_adds_up():
    found = lstmx.attribute(passed(CELLS["LSTM"], 30, ()), np.ones(7), "lrp")
    text = str(found)
    assert text.startswith("contributions by layer-wise relevance propagation over 30 steps\n")
    for word in ("target", "all steps", "initial state", "biases", "stabiliser", "defect", "most: step"):
        assert word in text
    assert f"step {int(found.top(1)[0])} " in text
    assert "medians of 2 sequences" in str(lstmx.attribute(passed(CELLS["LSTM"]), np.ones(7)))
    assert repr(found) == "Attribution('lrp': 30 steps)"


# ---------------------------------------------------------------------------------- new passes


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("name", "library"),
    slow_but(
        itertools.product(["LSTM", *LAYERS], LIBRARIES),
        lambda name, library: library == "numpy" or name == "LSTM",
    ),
)
def test_curves_are_the_targets_of_passes_with_other_inputs(name, library):
    cell = (CELLS | LAYERS)[name]
    history = passed(cell, 8, (2,), lengths=np.array([8, 5]))
    weights, base = weights_for(history), lcg((3,), 4)
    found = lstmx.attribute(*to(library, (history, weights)), baseline=to(library, (base,))[0])
    curves = lstmx.faithfulness(found, 5)
    steps, counts = np.asarray(found.steps), np.asarray(history.counts)
    for k, fraction in enumerate(curves.fractions):
        for b, length in enumerate((8, 5)):
            order = np.argsort(-steps[:length, b], kind="stable")
            first = order[: int(np.rint(fraction * length))]
            for curve, out in ((curves.deletion, first), (curves.insertion, np.setdiff1d(order, first))):
                xs = history.inputs[:length, b].copy()
                xs[out] = base
                start = jax.tree.map(lambda x, b=b: x[b], history.initial)
                outputs, _ = lstmx.run(history.cell, history.params, xs, start)
                close(curve[k, b], outputs[-1] @ weights)
    assert counts.sum() == 13
    close(curves.shuffled[[0, -1]], curves.deletion[[0, -1]])
    close(curves.insertion_area, np.trapezoid(curves.insertion, curves.fractions, axis=0))
    assert "taken out by contribution" in str(curves)


def test_what_is_no_attribution_is_refused():
    with pytest.raises(TypeError, match=r"attribution is a int; expected what lstmx.attribute gives"):
        lstmx.faithfulness(3)


# ---------------------------------------------------------------------- other programs, trained networks


@pytest.mark.slow  # PyTorch to import
@pytest.mark.filterwarnings("ignore")
def test_integrated_gradients_are_those_of_captum():
    torch = pytest.importorskip("torch", reason="Captum is of PyTorch")
    captum = pytest.importorskip("captum.attr", reason="it compares with Captum")
    torch.manual_seed(0)
    layer = torch.nn.LSTM(3, 110, dtype=torch.float64)
    weights = torch.randn(110, dtype=torch.float64)
    xs = torch.randn(25, 3, dtype=torch.float64)
    base = 0.3 * torch.ones(1, 25, 3, dtype=torch.float64)
    theirs = captum.IntegratedGradients(lambda x: layer(x.transpose(0, 1))[0][-1] @ weights)
    expected, gap = theirs.attribute(
        xs[None], base, n_steps=32, method="gausslegendre", return_convergence_delta=True
    )
    history = lstmx.record_torch(layer, xs[:, None]).sequence(0)
    found = lstmx.attribute(history, to("jax", (weights.numpy(),))[0], baseline=jnp.full(3, 0.3))
    # Captum has its nodes in float32, 6e-8 from where they should be.
    np.testing.assert_allclose(found.inputs, expected[0].numpy(), rtol=1e-7, atol=1e-8)
    assert abs(float(found.defect)) < 1e-9
    assert abs(float(gap)) < 1e-6


@pytest.mark.parametrize(
    ("readout", "kind", "words"),
    [
        (lstmx.ReadoutParams(np.ones((7, 5)), np.ones(3)), ValueError, r"bias of the target has shape \(3,\)"),
        (lstmx.ReadoutParams(np.ones((7, 5)), np.ones(5, "float32")), TypeError, "bias of the target is float32"),
        (
            lstmx.ReadoutParams(np.ones((7, 5)), np.full(5, np.nan)),
            ValueError,
            r"bias of the target is nan at \[0\]",
        ),
        (np.full((7, 5), np.inf), ValueError, r"the readout of the target is inf at \[0, 0\]"),
    ],
)
def test_a_readout_is_checked(readout, kind, words):
    with pytest.raises(kind, match=words):
        lstmx.attribute(passed(CELLS["LSTM"]), (readout, 4))
    with pytest.raises(ValueError, match=r"the class of the target has shape \(3,\); expected an integer"):
        lstmx.attribute(passed(CELLS["LSTM"]), (np.ones((7, 5)), np.array([0, 4, 1])))


@pytest.mark.slow
def test_a_class_may_be_known_within_jit_alone():
    history = passed(CELLS["LSTM"], library="jax")
    readout = lstmx.ReadoutParams(jnp.asarray(lcg((7, 4), 1)), jnp.asarray(lcg((4,), 2)))

    @jax.jit
    def predicted(history):
        logits = history.hidden_state[-1] @ readout.kernel + readout.bias
        return lstmx.attribute(history, (readout, jnp.argmax(logits, axis=-1)), "lrp")

    found = predicted(history)
    logits = np.asarray(history.hidden_state[-1] @ readout.kernel + readout.bias)
    close(found.value, logits.max(axis=-1))
    close(found.steps, lstmx.attribute(history, (readout, logits.argmax(axis=-1)), "lrp").steps)
    assert np.isnan(jax.jit(lambda k: lstmx.attribute(history, (readout, k), "lrp").value)(jnp.array(4))).all()


def test_an_input_gate_that_is_left_out_is_one():
    history = passed(CELLS["no gates"], 8, ())
    found = lstmx.effective_attention(history)
    made = np.einsum("tsh,sh->th", found.weights, history.candidate)
    close(made + np.exp(found.log_initial) * history.initial.cell, history.cell_state)


@pytest.mark.slow
def test_what_is_traced_has_no_order_yet():
    history = passed(CELLS["LSTM"], library="jax")
    with pytest.raises(TypeError, match="attribution is inside a JAX transformation"):
        jax.jit(lambda h: lstmx.faithfulness(lstmx.attribute(h, jnp.ones(7))).deletion)(history)
    with pytest.raises(ValueError, match="count is 0"):
        lstmx.attribute(history, jnp.ones(7)).top(0)
