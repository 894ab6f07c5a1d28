"""`backward`: the gradient of the plain scan, in both libraries, over any length, and as a linear map."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    CELLS,
    assert_close,
    batches,
    draw_pass,
    draw_state,
    inner,
    is_in,
    lcg,
    lcg_params,
    linear_step,
    random_history,
    seeds,
    sizes,
    to,
)

import lstmx
from lstmx.linear import walks

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
each_cell = pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)


def draw_backward(kind, length=7, batch=(), seed=0, **rest):
    """A pass as `draw_pass` gives it, and cotangents of its outputs and final state."""
    cell, params, xs, state = draw_pass(kind, length, batch, seed=seed, **rest)
    draws = np.random.default_rng(seed + 1)
    outputs = draws.normal(size=(length, *batch, cell.hidden_size)).astype(xs.dtype)
    return cell, (params, xs, state), outputs, draw_state(cell, draws, batch, xs.dtype)


def plain_gradients(cell, given, outputs_cotangent, final_cotangent):
    """Autodiff of a scan over `step`, with respect to parameters, inputs and initial state."""

    @jax.jit
    def vjp(given, cotangents):
        def scanned(params, xs, state):
            def step(before, x):
                after, _ = cell.step(params, before, x)
                return after, after.hidden

            return jax.lax.scan(step, state, xs)

        return jax.vjp(scanned, *given)[1](cotangents)

    return vjp(to("jax", given), to("jax", (final_cotangent, outputs_cotangent)))


def of(gradients):
    return gradients.parameters, gradients.inputs, gradients.initial


# ----------------------------------------------------------------------------------------- closed forms


def test_the_gradient_of_the_last_outputs_has_its_norms(library):
    cell, params = lcg_params(lstmx.LSTM, 3, 5, 1.0, forget_bias=1)
    history = lstmx.record(cell, *to(library, (params, lcg((40, 3), 5, 1.5))))
    cotangent = np.zeros((40, 5))
    cotangent[-1] = 1
    gradients = lstmx.backward(history, to(library, cotangent))
    assert np.linalg.norm(gradients.parameters.recurrent_kernel) == pytest.approx(0.8602387537765, abs=1e-12)
    assert np.linalg.norm(gradients.initial.hidden) == pytest.approx(4.1516841505e-4, abs=1e-14)
    assert np.linalg.norm(gradients.initial.cell) == pytest.approx(6.9703201202e-4, abs=1e-14)


@pytest.mark.parametrize("bias", [0.0, 1.0, 5.0])
def test_without_weights_the_cell_cotangent_decays_by_the_forget_bias(library, bias):
    cell = lstmx.LSTM(2, 3)
    params = lstmx.LSTMParams(np.zeros((2, 12)), np.zeros((3, 12)), np.repeat([0.0, bias, 0, 0], 3))
    history = lstmx.record(cell, *to(library, (params, np.ones((60, 2)))))
    final = to(library, lstmx.LSTMState(np.zeros(3), np.ones(3)))
    gradients = lstmx.backward(history, to(library, np.zeros((60, 3))), final)
    np.testing.assert_allclose(np.log(gradients.initial.cell), -60 * np.log1p(np.exp(-bias)), rtol=1e-12)
    np.testing.assert_array_equal(gradients.initial.hidden, 0)


def test_the_gradient_by_backpropagation_through_time_as_written_in_textbooks():
    cell, (params, xs, state), outputs, _ = draw_backward(lstmx.LSTM)
    history = lstmx.record(cell, params, xs, state)
    i, f, g, o = history.gates
    c, before = history.cell_state, history.before
    bias, recurrent, handed_h, handed_c = np.zeros(16), np.zeros((4, 16)), np.zeros(4), np.zeros(4)
    for t in range(6, -1, -1):
        dh = outputs[t] + handed_h
        dc = dh * o[t] * (1 - np.tanh(c[t]) ** 2) + handed_c
        da = np.concatenate(
            [
                dc * g[t] * i[t] * (1 - i[t]),
                dc * before.cell[t] * f[t] * (1 - f[t]),
                dc * i[t] * (1 - g[t] ** 2),
                dh * np.tanh(c[t]) * o[t] * (1 - o[t]),
            ]
        )
        bias += da
        recurrent += np.outer(before.hidden[t], da)
        handed_h, handed_c = params.recurrent_kernel @ da, dc * f[t]
    gradients = lstmx.backward(history, outputs)
    assert_close(gradients.parameters[1:], (recurrent, bias), 1e-13)
    assert_close(gradients.initial, lstmx.LSTMState(handed_h, handed_c), 1e-13)


# --------------------------------------------------------------------------------- against other oracles


@pytest.mark.slow
@each_cell
@hypothesis.settings(max_examples=6)
@hypothesis.given(seed=seeds, length=sizes, batch=batches, features=sizes, hidden=sizes)
def test_backward_is_autodiff_of_the_plain_scan(kind, seed, length, batch, features, hidden):
    cell, given, outputs, final = draw_backward(kind, length, batch, seed, features=features, hidden=hidden)
    history = lstmx.record(cell, *given)
    expected = plain_gradients(cell, given, outputs, final)
    assert_close(of(lstmx.backward(history, outputs, final)), expected, 1e-12)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("dtype", "batch", "keep"),
    [("float64", (), "all"), ("float64", (2, 3), "states"), ("float32", (2,), "all")],
)
def test_backward_is_the_same_in_both_libraries(kind, library, dtype, batch, keep):
    cell, given, outputs, final = draw_backward(kind, batch=batch, dtype=dtype)
    history = lstmx.record(cell, *to(library, given), keep=keep)
    gradients = lstmx.backward(history, to(library, outputs), to(library, final))
    assert is_in(library, gradients)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {np.dtype(dtype)}
    assert type(gradients.parameters) is type(given[0])
    assert type(gradients.initial) is cell.state_type
    assert_close(of(gradients), plain_gradients(cell, given, outputs, final), TOLERANCE[dtype])


def test_backward_is_a_central_difference(kind):
    cell, given, outputs, final = draw_backward(kind, batch=(2,))
    draws = np.random.default_rng(3)
    direction = jax.tree.map(lambda leaf: draws.normal(size=leaf.shape), given)

    def loss(h):
        moved = jax.tree.map(lambda leaf, d: leaf + h * d, given, direction)
        return inner(lstmx.run(cell, *moved), (outputs, final))

    h = 2e-4
    difference = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)  # error O(h^4)
    gradients = lstmx.backward(lstmx.record(cell, *given), outputs, final)
    assert inner(of(gradients), direction) == pytest.approx(difference, rel=1e-8)


@each_cell
@hypothesis.given(seed=seeds, length=sizes, batch=batches)
def test_backward_is_the_adjoint_of_the_pushed_tangent(kind, seed, length, batch):
    cell, (params, xs, state), outputs, final = draw_backward(kind, length, batch, seed)
    draws = np.random.default_rng(seed + 2)
    start, xs_tangent = draw_state(cell, draws, batch), draws.normal(size=xs.shape)
    history = lstmx.record(cell, params, xs, state)
    tangent, before, left = start, state, 0.0
    for t in range(length):
        before, _, step = linear_step(cell, params, before, xs[t])
        tangent = cell.unpack(step.jvp(cell.pack(tangent), xs_tangent[t]))
        left = left + inner(outputs[t], tangent.hidden)
    gradients = lstmx.backward(history, outputs, final)
    right = inner((gradients.inputs, gradients.initial), (xs_tangent, start))
    assert left + inner(final, tangent) == pytest.approx(right, rel=1e-11, abs=1e-11)


# ------------------------------------------------------------------------------------------ as one pass


@pytest.mark.sample(2)
def test_backward_is_linear_and_zero_stays_zero(kind, library):
    cell, given, outputs, final = draw_backward(kind)
    history = lstmx.record(cell, *to(library, given))
    outputs, final = to(library, (outputs, final))
    both = lstmx.backward(history, outputs, final)
    alone = lstmx.backward(history, outputs)
    rest = lstmx.backward(history, 0 * outputs, final)
    assert_close(both, jax.tree.map(lambda x, y: x + y, alone, rest), 1e-13)
    nothing = lstmx.backward(history, 0 * outputs)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))


def test_scaling_by_a_power_of_two_is_exact(kind, library):
    cell, given, outputs, final = draw_backward(kind)
    history = lstmx.record(cell, *to(library, given))
    outputs, final = to(library, (outputs, final))
    plain = lstmx.backward(history, outputs, final)
    small = lstmx.backward(history, 2.0**-300 * outputs, jax.tree.map(lambda x: 2.0**-300 * x, final))
    for left, right in zip(jax.tree.leaves(small), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(left, 2.0**-300 * np.asarray(right))


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("library", "length"), [("numpy", 16), ("numpy", 17), ("numpy", 33), ("numpy", 47), ("jax", 33)]
)
def test_chunks_give_what_one_pass_gives(kind, library, length, monkeypatch):
    cell, given, outputs, final = draw_backward(kind, length, (2,))
    given, outputs, final = to(library, (given, outputs, final))
    history = lstmx.record(cell, *given, keep="states")
    whole = lstmx.backward(history, outputs, final)
    assert walks._chunk_steps(history) == length
    monkeypatch.setattr(walks, "_chunk_steps", lambda history: 16)
    jax.clear_caches()  # the size of a chunk is read when JAX traces
    chunked = lstmx.backward(history, outputs, final)
    jax.clear_caches()
    assert_close(chunked, whole, 1e-12)
    # Products are summed in another order, which shows unless the chunks were not used.
    assert length == 16 or any(
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(chunked.parameters), jax.tree.leaves(whole.parameters), strict=True)
    )


def test_a_gradient_that_leaves_float32_does_not_take_the_next_with_it(library):
    # The loss of the last step underflows on its way, at a factor of one half per step; the others' must not.
    cell = lstmx.LSTM(2, 3)
    params = lstmx.LSTMParams(np.zeros((2, 12)), np.zeros((3, 12)), np.zeros(12))
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), params._replace(input_kernel=lcg((2, 12), 1)))
    history = lstmx.record(cell, *to(library, (params, lcg((400, 2), 2).astype("float32"))))
    cotangent = np.zeros((400, 3), "float32")
    cotangent[-1] = 1
    alone = lstmx.backward(history, to(library, cotangent))
    np.testing.assert_array_equal(alone.inputs[:100], 0)
    assert np.all(np.asarray(alone.inputs[-100:]) != 0)
    cotangent[20] = 1e-20
    both = lstmx.backward(history, to(library, cotangent))
    exact = lstmx.record(cell, *jax.tree.map(lambda leaf: np.asarray(leaf, "float64"), (params, history.inputs)))
    expected = lstmx.backward(exact, cotangent.astype("float64"))
    size = np.abs(expected.inputs[:21]).max(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(both.inputs[:21]) / size, expected.inputs[:21] / size, rtol=0, atol=1e-5)


@pytest.mark.sample(8)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_cotangent_that_is_not_finite_is_not_hidden(kind, library, value):
    cell, given, outputs, _ = draw_backward(kind)
    outputs[3, 1] = value
    with np.errstate(invalid="ignore"):
        gradients = lstmx.backward(lstmx.record(cell, *to(library, given)), to(library, outputs))
    assert not np.isfinite(gradients.inputs[:4]).any()
    np.testing.assert_array_equal(np.isfinite(gradients.inputs[4:]), True)
    assert not np.isfinite(gradients.initial.hidden).any()


# ------------------------------------------------------------------------------------- transformations


@pytest.mark.slow
def test_backward_composes_with_jit_and_vmap(kind):
    cell, given, outputs, final = draw_backward(kind, batch=(3,))
    params, xs, state = to("jax", given)
    expected = lstmx.backward(lstmx.record(cell, params, xs, state), jnp.asarray(outputs), to("jax", final))

    def gradients(x, s, outputs, final):
        return lstmx.backward(lstmx.record(cell, params, x, s), outputs, final)

    assert_close(jax.jit(gradients)(xs, state, outputs, final), expected, 1e-13)
    single = jax.vmap(gradients, (1, 0, 1, 0))(xs, state, outputs, final)
    assert_close(jnp.swapaxes(single.inputs, 0, 1), expected.inputs, 1e-12)
    assert_close(single.initial, expected.initial, 1e-12)
    assert_close(jax.tree.map(lambda leaf: leaf.sum(axis=0), single.parameters), expected.parameters, 1e-12)


def test_a_numpy_history_takes_a_jax_cotangent(kind):
    cell, given, outputs, _ = draw_backward(kind)
    history = lstmx.record(cell, *given)
    gradients = lstmx.backward(history, jnp.asarray(outputs))
    assert is_in("jax", gradients)
    assert_close(gradients, lstmx.backward(history, outputs), 1e-13)


# ----------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda v: v[:-1], ValueError, r"outputs_cotangent has shape \(6, 2, 4\); expected .* = \(7, 2, 4\)"),
        (lambda v: v[0], ValueError, r"outputs_cotangent has shape \(2, 4\)"),
        (lambda v: v.astype("float32"), TypeError, "outputs_cotangent is float32; .* float64"),
        (lambda v: v.tolist(), TypeError, "outputs_cotangent is a list; expected a NumPy or JAX array"),
    ],
)
def test_outputs_cotangents_are_checked(kind, library, change, error, message):
    history = random_history(kind, library, batch=(2,))
    with pytest.raises(error, match=message):
        lstmx.backward(history, change(history.hidden_state))


def test_final_cotangents_are_checked(kind, library):
    history = random_history(kind, library, batch=(2,))
    outputs, name = history.hidden_state, history.cell.state_type.__name__
    with pytest.raises(TypeError, match=f"final_cotangent is a tuple; .* expects {name}"):
        lstmx.backward(history, outputs, tuple(history.final))
    short = history.final._replace(hidden=history.final.hidden[:1])
    with pytest.raises(ValueError, match=r"final_cotangent.hidden has shape \(1, 4\); expected .* = \(2, 4\)"):
        lstmx.backward(history, outputs, short)
    narrow = history.final._replace(hidden=history.final.hidden.astype("float32"))
    with pytest.raises(TypeError, match=r"final_cotangent\.hidden is float32"):
        lstmx.backward(history, outputs, narrow)


def test_gradients_print_on_one_line(kind):
    history = random_history(kind)
    text = repr(lstmx.backward(history, history.hidden_state))
    assert text == f"Gradients(parameters={kind.__name__}Params, inputs (7, 3))"
