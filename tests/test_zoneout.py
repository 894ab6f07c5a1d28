"""Zoneout around any cell: with drawn masks and in the mean, against loops by hand and autodiff."""

import family
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, assert_same, to

import lstmx

CELLS = family.of_size(3, 4)
NAMES = ("NP", "V", "FGR", "GRU", "GRU before", "SimpleRNN")
each = pytest.mark.parametrize("name", family.one_of_each_form(NAMES))


def drawn(name, seed=0, length=6):
    cell = lstmx.Zoneout(CELLS[name], hidden=0.3, state=0.6)
    params, state, xs, draws = family.draw(cell.cell, (2,), length=length, seed=seed)
    return cell, params, xs, state, draws


def by_hand(cell, params, xs, state, kept):
    """The states after each step with shares `kept` [T, *batch, S] of the old state."""
    states = []
    for x, d in zip(xs, kept, strict=True):
        new, _ = cell.cell.step(params, state, x)
        parts = np.split(d, len(new), axis=-1)
        state = type(new)(*(p * old + (1 - p) * fresh for p, old, fresh in zip(parts, state, new, strict=True)))
        states.append(state)
    return jax.tree.map(lambda *fields: np.stack(fields), *states)


def shares(cell, xs):
    """The probabilities, as shares [T, *batch, S]."""
    rates = np.repeat([0.3, *[0.6] * (len(cell.state_type._fields) - 1)], 4)
    return np.broadcast_to(rates, (*xs.shape[:-1], len(rates)))


@each
def test_without_a_key_each_unit_keeps_its_share(name, library):
    cell, params, xs, state, _ = drawn(name)
    expected = by_hand(cell, params, xs, state, shares(cell, xs))
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    assert_close(history.states, expected, 1e-13)
    assert history.controls is None


@pytest.mark.sample(3)
@each
def test_with_a_key_units_keep_their_state_or_do_not(name, library):
    cell, params, xs, state, _ = drawn(name)
    given = to(library, (params, xs, state))
    history = lstmx.record(cell, *given, key=3)
    kept = np.concatenate(history.controls.kept, axis=-1)
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert_close(history.states, by_hand(cell, params, xs, state, kept), 1e-13)
    assert_same(np.asarray(history.inputs), xs)
    assert_close(lstmx.run(cell, *given, key=3), (history.hidden_state, history.final), 1e-14)
    assert not np.array_equal(history.hidden_state, lstmx.run(cell, *given, key=4)[0])


def test_each_field_is_kept_with_its_own_probability():
    cell = lstmx.Zoneout(lstmx.LSTM(1, 50), hidden=0.2, state=0.7)
    params = cell.init(np.random.default_rng(0))
    history = lstmx.record(cell, params, np.zeros((100, 2, 1), "float32"), key=5)
    kept = history.controls.kept
    np.testing.assert_allclose([kept.hidden.mean(), kept.cell.mean()], [0.2, 0.7], atol=0.02)


@pytest.mark.slow
@each
@pytest.mark.parametrize("key", [None, 1])
def test_derivatives_are_those_of_autodiff(name, key):
    cell, params, xs, state, draws = drawn(name, seed=1)
    weights = draws.normal(size=(6, 2, 4))
    history = lstmx.record(cell, params, xs, state, key=key)
    found = lstmx.backward(history, weights, history.final)
    flow = lstmx.gradient_flow(history, weights)
    jacobians = lstmx.jacobians(history)

    kept = shares(cell, xs) if key is None else np.concatenate(history.controls.kept, axis=-1)

    def step(params, before, x, kept):
        after, _ = cell.cell.step(params, before, x)
        parts = jnp.split(kept, len(after), axis=-1)
        return type(after)(*(d * old + (1 - d) * new for d, old, new in zip(parts, before, after, strict=True)))

    @jax.jit
    def oracle(params, inputs, state):
        def loss(params, inputs, state):
            outputs, after = [], state
            for x, d in zip(inputs, kept, strict=True):
                after = step(params, after, x, d)
                outputs.append(after.hidden)
            return (jnp.stack(outputs) * weights).sum() + sum((field**2).sum() for field in after) / 2

        return jax.grad(loss, argnums=(0, 1, 2))(params, inputs, state)

    expected = oracle(*to("jax", (params, xs, state)))
    assert_close((found.parameters, found.inputs, found.initial), expected, 1e-11)
    only = lstmx.backward(history, weights)
    assert_close((flow.parameters, flow.inputs), (only.parameters, only.inputs), 1e-11)
    v = cell.state_type(*(draws.normal(size=(2, 4)) for _ in state))
    tangent = np.concatenate(v, axis=-1)
    _, pushed = jax.jvp(lambda before: step(params, before, xs[0], kept[0]), (state,), (v,))
    pushed = np.concatenate(pushed, axis=-1)
    np.testing.assert_allclose(lstmx.linearise(history)[0].jvp(tangent), pushed, atol=1e-12)
    np.testing.assert_allclose(np.einsum("bij,bj->bi", jacobians[0], tangent), pushed, atol=1e-12)
    whole = sum(np.asarray(way.share) for way in flow.gates.values()) if flow.gates else 1
    if history.cell.retention_gate is not None:
        np.testing.assert_allclose(whole, 1, atol=1e-10)


@pytest.mark.slow
def test_gradients_of_a_run_in_jax_go_through_the_masks():
    cell, params, xs, state, _ = drawn("NP", seed=2)
    given = to("jax", (params, xs, state))

    def gradient(**options):
        return jax.grad(lambda *a: lstmx.run(cell, *a, key=6, **options)[0].sum(), argnums=(0, 1, 2))(*given)

    assert_close(gradient(chunk=4), gradient(differentiation="autodiff"), 1e-12)


def test_the_jacobian_of_a_unit_that_is_kept_is_the_identity():
    cell = lstmx.Zoneout(lstmx.GRU(3, 4), hidden=1.0)
    params, state, xs, _ = family.draw(cell.cell, length=3)
    history = lstmx.record(cell, params, xs, state)
    np.testing.assert_allclose(history.hidden_state, np.broadcast_to(state.hidden, (3, 4)))
    np.testing.assert_allclose(lstmx.jacobians(history), np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-15)
    np.testing.assert_allclose(lstmx.highway(history), np.zeros(4), atol=1e-15)


def test_without_probability_nothing_changes():
    plain = lstmx.LSTM(3, 4)
    cell = lstmx.Zoneout(plain, hidden=0.0, state=0.0)
    params, state, xs, _ = family.draw(plain, length=5)
    assert_same(lstmx.record(cell, params, xs, state).states, lstmx.record(plain, params, xs, state).states)
    np.testing.assert_allclose(
        lstmx.highway(lstmx.record(cell, params, xs, state)),
        lstmx.highway(lstmx.record(plain, params, xs, state)),
        atol=1e-14,
    )


def test_padding_stands_still_under_zoneout_too():
    cell, params, xs, state, _ = drawn("NP", seed=3)
    lengths = np.array([6, 3])
    history = lstmx.record(cell, params, xs, state, lengths=lengths, key=2)
    whole = lstmx.record(cell, params, xs, state, key=2)
    assert_same(history.hidden_state[:3, 1], whole.hidden_state[:3, 1])
    assert_same(history.final.cell[1], whole.cell_state[2, 1])
    assert_same(history.inputs[:3], xs[:3])
    assert not history.inputs[3:, 1].any()
    long, short = history.pieces()
    assert (len(long), len(short)) == (6, 3)
    assert_close(short.states, jax.tree.map(lambda x: x[:3, 1], whole.states), 1e-15)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: lstmx.Zoneout(3), TypeError, "cell is a int; expected a cell"),
        (lambda: lstmx.Zoneout(lstmx.GRU(1, 2), hidden=1.5), ValueError, "hidden is 1.5; expected a probability"),
        (lambda: lstmx.Zoneout(lstmx.GRU(1, 2), state=True), ValueError, "state is True; expected a probability"),
    ],
)
def test_what_is_no_zoneout_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_keys_that_do_not_fit_are_refused():
    cell, params, xs, state, _ = drawn("GRU")
    with pytest.raises(TypeError, match=r"key is a .*, of the other library than the parameters"):
        lstmx.run(cell, params, xs, state, key=jax.random.key(0))
    with pytest.raises(TypeError, match="key is a str; expected an int"):
        lstmx.run(cell, params, xs, state, key="a")


@pytest.mark.parametrize("library", ["numpy", pytest.param("jax", marks=pytest.mark.slow)])
def test_zoneouts_in_layers_draw_in_turn(library):
    zoned = [lstmx.Zoneout(lstmx.LSTM(3, 4), 0.3, 0.4), lstmx.Zoneout(lstmx.GRU(4, 2), 0.5)]
    stack = lstmx.Stack([zoned[0], lstmx.Bidirectional(zoned[1]), lstmx.GRU(4, 3)], dropout=0.2)
    params = stack.init(np.random.default_rng(0), "float64")
    xs = np.random.default_rng(1).normal(size=(6, 2, 3))
    given = to(library, (params, xs))
    history = lstmx.record(stack, *given, key=5, lengths=np.array([6, 4]))
    assert_close(history.outputs, lstmx.run(stack, *given, key=5, lengths=np.array([6, 4]))[0], 1e-14)
    assert not np.array_equal(history.outputs, lstmx.run(stack, *given, key=6, lengths=np.array([6, 4]))[0])
    pair = history.layers[1]
    kept = [np.asarray(part.controls.kept.hidden) for part in (pair.forward, pair.backward)]
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert not np.array_equal(*kept)
    # The gradient is that of the pass with what was drawn.
    step = 1e-6 * np.random.default_rng(2).normal(size=xs.shape)
    ends = [lstmx.run(stack, given[0], given[1] + sign * step, key=5)[0].sum() for sign in (1, -1)]
    flow = lstmx.gradient_flow(lstmx.record(stack, *given, key=5), to(library, np.ones((6, 2, 3))))
    np.testing.assert_allclose((flow.inputs * step).sum(), (ends[0] - ends[1]) / 2, rtol=1e-6)


def test_a_pair_of_zoneouts_takes_a_key():
    pair = lstmx.Bidirectional(lstmx.Zoneout(lstmx.GRU(3, 4), 0.5))
    params = pair.init(np.random.default_rng(0))
    xs = np.ones((5, 3), "float32")
    assert not np.array_equal(lstmx.run(pair, params, xs, key=1)[0], lstmx.run(pair, params, xs)[0])
