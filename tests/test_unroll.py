"""`run` and `record`: closed forms, plain loops, every shape, both libraries, and JAX's transformations."""

from dataclasses import dataclass

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    CELLS,
    assert_close,
    assert_same,
    batches,
    draw_pass,
    is_in,
    lcg,
    lcg_params,
    plain_pass,
    seeds,
    sizes,
    to,
)

import lstmx

KEEP = ["all", "states"]
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
each_batch = pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=["one", "batch", "two batch axes"])

# ----------------------------------------------------------------------------------------- closed forms

PARITY_XS = np.sin(0.7 * np.arange(1, 13)).reshape(6, 2)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            lstmx.LSTM,
            [
                [0.0775500811700730, 0.0586843254383053, 0.0019615827293853],
                [0.1712758648102230, 0.1208141320736193, 0.0043422408616975],
            ],
        ),
        (lstmx.GRU, [[0.0160656879435010, 0.1088069730787147, -0.0162233947375022]]),
        (lstmx.SimpleRNN, [[-0.4461872079727114, -0.7509503060591712, -0.5864670545175146]]),
    ],
    ids=[kind.__name__ for kind in CELLS],
)
def test_six_steps_end_where_pytorch_s_do(library, kind, expected):
    cell, params = lcg_params(kind, 2, 3, 0.5)
    outputs, final = lstmx.run(cell, *to(library, (params, PARITY_XS)))
    np.testing.assert_allclose(final, expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(outputs[-1], final.hidden)


def test_forty_steps_end_where_they_should(library):
    cell, params = lcg_params(lstmx.LSTM, 3, 5, 1.0, forget_bias=1)
    _, final = lstmx.run(cell, *to(library, (params, lcg((40, 3), 5, 1.5))))
    h = [-0.45605405883808, 0.28527838033142, -0.51549238575239, -0.39639782254892, -0.57505555463907]
    c = [-0.83703097281793, 0.42859556843041, -1.29795221098351, -0.96359393374054, -1.97244486945963]
    np.testing.assert_allclose(final, [h, c], rtol=0, atol=1e-14)


def test_an_open_forget_gate_keeps_the_cell_state(library):
    cell = lstmx.LSTM(2, 3)
    params = lstmx.LSTMParams(np.zeros((2, 12)), np.zeros((3, 12)), np.repeat([-1e4, 1e4, 0, 1e4], 3))
    state = lstmx.LSTMState(np.zeros(3), lcg(3, 1))
    outputs, final = lstmx.run(cell, *to(library, (params, lcg((300, 2), 2), state)))
    np.testing.assert_array_equal(final.cell, state.cell)
    np.testing.assert_allclose(outputs, np.broadcast_to(np.tanh(state.cell), (300, 3)), rtol=1e-14)


def test_the_starting_example_is_a_plain_loop(library):
    rows = "1.0 0.5 0.2  0.8 1.0 0.1  0.3 0.7 0.9  0.1 0.2 0.8  0.9 0.1 0.3  0.5 0.8 0.4  0.2 0.9 0.7  0.7 0.3 0.6"
    xs = np.array(rows.split(), "float64").reshape(8, 3)
    draws = np.random.default_rng(42)
    W, U, b = draws.normal(0, 0.1, (3, 32)), draws.normal(0, 0.1, (8, 32)), np.zeros(32)

    h, c, loop = np.zeros(8), np.zeros(8), []
    for x in xs:
        a = x @ W + h @ U + b
        i = 1 / (1 + np.exp(-a[0:8]))
        f = 1 / (1 + np.exp(-a[8:16]))
        g = np.tanh(a[16:24])
        o = 1 / (1 + np.exp(-a[24:32]))
        c = f * c + i * g
        h = o * np.tanh(c)
        loop.append((i, f, g, o, h, c))

    params = lstmx.LSTMParams(W, U, b)
    history = lstmx.record(lstmx.LSTM(input_size=3, hidden_size=8), *to(library, (params, xs)))
    names = ("input_gate", "forget_gate", "candidate", "output_gate", "hidden_state", "cell_state")
    for name, expected in zip(names, zip(*loop, strict=True), strict=True):
        actual = getattr(history, name)
        assert actual.shape == (8, 8)
        np.testing.assert_allclose(actual, np.stack(expected), rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", CELLS, ids=lambda kind: kind.__name__)
@hypothesis.given(seed=seeds, length=sizes, batch=batches, features=sizes, hidden=sizes)
def test_record_is_the_textbook_loop(kind, seed, length, batch, features, hidden):
    cell, params, xs, state = draw_pass(kind, length, batch, features, hidden, seed=seed)
    states, activations = plain_pass(cell, params, xs, state)
    history = lstmx.record(cell, params, xs, state)
    assert_close(history.states, states, 1e-13)
    assert_close(history.gates, cell.gate_type(**activations), 1e-13)


# ------------------------------------------------------------------------------------ shapes and libraries


@pytest.mark.sample(1)
@each_dtype
@pytest.mark.parametrize(
    ("length", "hidden", "batch"),
    [
        pytest.param(6, 4, (), id="one"),
        pytest.param(6, 4, (2,), id="batch", marks=pytest.mark.slow),
        pytest.param(6, 4, (2, 3), id="two batch axes"),
        pytest.param(1, 4, (), id="T = 1"),
        pytest.param(6, 1, (2,), id="H = 1"),
    ],
)
def test_jax_is_numpy(kind, dtype, length, hidden, batch):
    cell, *given = draw_pass(kind, length, batch, hidden=hidden, dtype=dtype)
    for count in (2, 3):  # without and with an initial state
        host, device = given[:count], to("jax", given[:count])
        passes = (lstmx.run(cell, *host), lstmx.record(cell, *host))
        outputs, final = passes[0]
        assert outputs.shape == (length, *batch, hidden)
        assert outputs.dtype == dtype
        assert {field.shape for field in final} == {(*batch, hidden)}
        device_passes = (lstmx.run(cell, *device), lstmx.record(cell, *device))
        assert is_in("numpy", passes)
        assert is_in("jax", device_passes)
        assert_close(device_passes, passes, TOLERANCE[dtype])


@pytest.mark.sample(13)
@each_batch
@pytest.mark.parametrize("keep", KEEP)
def test_record_is_run_to_the_bit(kind, library, batch, keep):
    cell, *given = draw_pass(kind, batch=batch)
    given = to(library, given)
    outputs, final = lstmx.run(cell, *given)
    history = lstmx.record(cell, *given, keep=keep)
    assert_same((history.hidden_state, history.final), (outputs, final))
    assert (history.stored is None) == (keep == "states")


@each_batch
def test_a_batch_is_its_sequences(kind, library, batch):
    cell, params, xs, state = draw_pass(kind, batch=batch)
    whole = lstmx.record(cell, *to(library, (params, xs, state)))
    for index in np.ndindex(*batch):
        alone = type(state)(*(field[index] for field in state))
        one = lstmx.record(cell, *to(library, (params, xs[:, *index], alone)))
        assert_close(whole.sequence(*index), one, 1e-14)


def test_the_default_state_is_zero(kind, library):
    cell, params, xs, _ = draw_pass(kind, batch=(2,))
    given = to(library, (params, xs))
    zeros = cell.initial_state(given[0], (2,))
    assert not any(np.any(field) for field in zeros)
    assert_same(lstmx.run(cell, *given), lstmx.run(cell, *given, zeros))
    assert_same(lstmx.record(cell, *given), lstmx.record(cell, *given, state=zeros))


@pytest.mark.sample(4)
def test_a_pass_continues_from_its_final_state(kind, library):
    cell, params, xs, state = draw_pass(kind, length=9)
    params, xs, state = to(library, (params, xs, state))
    outputs, final = lstmx.run(cell, params, xs, state)
    first, middle = lstmx.run(cell, params, xs[:4], state)
    second, last = lstmx.run(cell, params, xs[4:], middle)
    assert_close((np.concatenate([first, second]), last), (np.asarray(outputs), final), 1e-15)


def test_jax_parameters_take_numpy_inputs(kind):
    cell, params, xs, state = draw_pass(kind)
    device = to("jax", params)
    assert is_in("jax", (lstmx.run(cell, device, xs), lstmx.record(cell, device, xs, state)))
    assert is_in("jax", lstmx.run(cell, params, to("jax", xs)))
    assert is_in("jax", lstmx.run(cell, params, xs, to("jax", state)))
    assert_close(lstmx.run(cell, device, xs, state), lstmx.run(cell, params, xs, state), 1e-12)


@pytest.mark.sample(1)
def test_tracers_with_numpy_parameters_are_jax(kind):
    cell, params, xs, state = draw_pass(kind)
    outputs, _ = lstmx.run(cell, params, xs, state)
    traced = jax.jit(lambda xs: lstmx.run(cell, params, xs, state)[0])(xs)
    assert is_in("jax", traced)
    assert_close(traced, outputs, 1e-12)
    gradient = jax.grad(lambda xs: jnp.sum(lstmx.run(cell, params, xs, state)[0]))(jnp.asarray(xs))
    assert_close(
        gradient, lstmx.backward(lstmx.record(cell, params, xs, state), np.ones_like(outputs)).inputs, 1e-12
    )


def test_numpy_arguments_are_neither_changed_nor_needed_writable(kind):
    cell, *given = draw_pass(kind, batch=(2,))
    before = jax.tree.map(np.copy, given)
    for leaf in jax.tree.leaves(given):
        leaf.flags.writeable = False
    history = lstmx.record(cell, *given)
    lstmx.backward(history, np.ones_like(history.hidden_state))
    assert_same(given, before)


# ------------------------------------------------------------------------------------- transformations


@pytest.mark.sample(1)
@each_dtype
def test_vmap_over_sequences_is_the_batch(kind, dtype):
    cell, params, xs, state = draw_pass(kind, batch=(3,), dtype=dtype)
    params, xs, state = to("jax", (params, xs, state))
    outputs, final = jax.vmap(lambda x, s: lstmx.run(cell, params, x, s), (1, 0), (1, 0))(xs, state)
    assert_close((outputs, final), lstmx.run(cell, params, xs, state), TOLERANCE[dtype])
    history = jax.vmap(lambda x, s: lstmx.record(cell, params, x, s), (1, 0))(xs, state)
    batched = lstmx.record(cell, params, xs, state)
    assert_close(jnp.swapaxes(history.hidden_state, 0, 1), batched.hidden_state, TOLERANCE[dtype])
    assert_close(jnp.swapaxes(history.stored, 0, 1), batched.stored, TOLERANCE[dtype])


@pytest.mark.sample(2)
def test_vmap_over_parameters_is_an_ensemble(kind):
    members = [draw_pass(kind, seed=seed) for seed in range(3)]
    cell, _, xs, _ = members[0]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params for _, params, _, _ in members))
    outputs, _ = jax.vmap(lambda params: lstmx.run(cell, params, xs))(stacked)
    expected = np.stack([lstmx.run(cell, params, xs)[0] for _, params, _, _ in members])
    assert_close(outputs, expected, 1e-12)


def test_jit_of_record_returns_a_history(kind):
    cell, params, xs, state = draw_pass(kind)
    compiled = jax.jit(lambda *given: lstmx.record(cell, *given))
    history = compiled(params, xs, state)
    assert isinstance(history, lstmx.History)
    assert history.cell == cell
    assert_close(history, lstmx.record(cell, params, xs, state), 1e-12)
    assert_close(jax.jit(lambda history: history.gates)(history), history.gates, 1e-12)


def scanned(cell, params, xs, state):
    """The plain scan, without this library's loops."""

    def step(before, x):
        after, _ = cell.step(params, before, x)
        return after, after.hidden

    final, outputs = jax.lax.scan(step, state, xs)
    return outputs, final


@pytest.mark.sample(1)
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=["one", "two batch axes"])
def test_grad_of_run_is_grad_of_the_plain_scan(kind, batch):
    cell, *given = draw_pass(kind, batch=batch)
    given = to("jax", given)
    weights, final_weights = (np.random.default_rng(seed).normal(size=(7, *batch, 4)) for seed in (1, 2))

    def loss(forward):
        def value(params, xs, state):
            outputs, final = forward(cell, params, xs, state)
            return jnp.sum(weights * outputs**2) + sum(jnp.sum(final_weights[0] * field) for field in final)

        return value

    @jax.jit
    def gradients(*given):
        return [jax.grad(loss(forward), (0, 1, 2))(*given) for forward in (lstmx.run, scanned)]

    assert_close(*gradients(*given), 1e-12)


@pytest.mark.sample(1)
def test_grad_through_a_history_is_grad_of_run(kind):
    cell, *given = draw_pass(kind)

    @jax.jit
    def gradients(*given):
        outputs = [lambda *args: lstmx.run(cell, *args)[0]]
        outputs += [lambda *args, keep=keep: lstmx.record(cell, *args, keep=keep).hidden_state for keep in KEEP]
        return [jax.grad(lambda *args, f=f: jnp.sum(f(*args) ** 2), (0, 1, 2))(*given) for f in outputs]

    through_run, *through_histories = gradients(*given)
    for through_history in through_histories:
        assert_close(through_history, through_run, 1e-12)


@pytest.mark.sample(1)
def test_grad_through_the_gates_of_a_history(kind):
    # The gate at step t depends on what came before it too, so rebuilt gates must carry the same gradient.
    cell, params, xs, state = draw_pass(kind)

    def loss(params, keep):
        return jnp.sum(lstmx.record(cell, params, xs, state, keep=keep).candidate ** 2)

    assert_close(*jax.jit(lambda params: [jax.grad(loss)(params, keep) for keep in KEEP])(params), 1e-12)


@pytest.mark.sample(3)
@pytest.mark.parametrize("forward", [lstmx.run, lstmx.record], ids=["run", "record"])
@pytest.mark.parametrize("outer", [lambda f: f, jax.jit], ids=["called", "under jit"])
def test_the_same_shapes_compile_once(forward, outer):
    traced = []

    @dataclass(frozen=True)
    class Counted(lstmx.SimpleRNN):
        def update(self, before, a):
            traced.append(a.shape)  # Python comes here only when JAX traces
            return super().update(before, a)

        def linearise(self, params, before, a, after):
            return super().linearise(params, before, a, after)

    _, params, xs, state = draw_pass(lstmx.SimpleRNN)
    params, xs, state = to("jax", (params, xs, state))
    call = outer(lambda *given: forward(Counted(3, 4), *given))
    call(params, xs, state)
    once = len(traced)
    for factor in (2.0, 3.0):
        call(params, factor * xs, state)
    assert len(traced) == once > 0
    call(params, xs[:5], state)
    assert len(traced) > once


@pytest.mark.sample(1)
def test_a_batch_split_over_two_devices_is_the_batch(kind):
    assert jax.device_count() == 2
    cell, params, xs, _ = draw_pass(kind, batch=(4,))
    mesh = jax.make_mesh((2,), ("batch",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "batch"))
    outputs, _ = lstmx.run(cell, to("jax", params), jax.device_put(xs, split))
    assert len(outputs.sharding.device_set) == 2
    assert_close(outputs, lstmx.run(cell, params, xs)[0], 1e-12)
