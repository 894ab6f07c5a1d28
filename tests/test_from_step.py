"""`from_step`: anybody's recurrence under every analysis, against plain JAX and against cells of the library."""

import functools
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrences import FORMS, MAGNITUDES, OF_THE_LIBRARY, ZOO, flat_step, plain_pass, split
from reference import assert_close, render, to

import lstmx
import lstmx.plot
from lstmx.tasks import next_step

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # frameworks load

EACH = (*FORMS, "two layers", "selective")
OF_EACH_FRAMEWORK = ("linen LSTMCell", "nnx GRUCell", "equinox GRUCell")

each = pytest.mark.parametrize("name", EACH)
every = pytest.mark.parametrize("name", [*EACH, "delta net", *OF_EACH_FRAMEWORK])
of_the_library = pytest.mark.parametrize("name", ["LSTM", "SLSTM"])
two = pytest.mark.parametrize("name", ["linear unit", "mLSTM"])  # what takes longer to compile


@functools.cache
def made(name, batch=(), length=6, seed=0):
    """A recurrence of the zoo, its cell, and parameters, inputs and a state that is not the initial one."""
    recurrence = ZOO[name]
    return recurrence, recurrence.cell(), *recurrence.draw(batch, length, seed)


def weights_of(outputs, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=outputs.shape))


def squares(tree):
    return sum((x**2).sum() for x in jax.tree.leaves(tree))


def joined(state, batch=()):
    """The joint state [..., S] of a state with axes in front."""
    return jnp.concatenate([x.reshape(*batch, -1) for x in jax.tree.leaves(state)], axis=-1)


def one_of(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


# ------------------------------------------------------------------------------------------------------- the pass


@pytest.mark.slow
@every
def test_a_run_is_the_plain_scan(name):
    for batch, begun in (((), True), ((2, 3), False)):
        recurrence, cell, params, xs, state = made(name, batch)
        state = state if begun else None
        plain = plain_pass(recurrence, params, xs, state)
        outputs, final = lstmx.run(cell, params, xs, state)
        assert outputs.dtype == xs.dtype
        assert_close((outputs, final), (plain.outputs, plain.final), 1e-13)
        assert jax.tree.structure(final) == jax.tree.structure(recurrence.state)


@pytest.mark.sample(1)
@each
def test_an_axis_of_the_batch_may_be_mapped_from_outside(name):
    _, cell, params, xs, state = made(name, (2, 3))
    expected = lstmx.run(cell, params, xs, state)
    over = jax.vmap(lambda xs, state: lstmx.run(cell, params, xs, state), in_axes=(2, 1), out_axes=(2, 1))
    assert_close(over(xs, state), expected, 1e-13)


def gradients(run, weights, given, transform):
    """Gradients of a loss of outputs and final state for parameters, inputs and initial state."""

    def loss(params, xs, state):
        outputs, final = run(params, xs, state)
        return (outputs * weights).sum() + squares(final)

    return transform(jax.grad(loss, argnums=(0, 1, 2)))(*given)


@pytest.mark.slow
@every
def test_gradients_of_a_run_are_those_of_the_plain_scan(name):
    recurrence, cell, *given = made(name, (2,))
    weights = weights_of(plain_pass(recurrence, *given).outputs)

    def plain(*given):
        return plain_pass(recurrence, *given)[:2]

    expected = gradients(plain, weights, given, jax.jit)
    assert_close(gradients(functools.partial(lstmx.run, cell), weights, given, jax.jit), expected, 1e-12)


@pytest.mark.slow
def test_gradients_of_a_run_need_no_jit_and_may_be_mapped():
    recurrence, cell, params, xs, state = made("two layers", (2,))
    weights = weights_of(plain_pass(recurrence, params, xs, state).outputs[:, 0])

    def plain(*given):
        return plain_pass(recurrence, *given)[:2]

    def mapped(gradient):
        return jax.vmap(gradient, in_axes=(None, 1, 0))

    def alone(gradient):
        return lambda params, xs, state: gradient(params, xs[:, 0], one_of(state, 0))

    def compiled(transform, gradient):
        return jax.jit(transform(gradient))

    run = functools.partial(lstmx.run, cell)
    for transform in (mapped, alone):
        expected = gradients(
            plain, weights, (params, xs, state), lambda gradient, of=transform: jax.jit(of(gradient))
        )
        assert_close(gradients(run, weights, (params, xs, state), transform), expected, 1e-12)


@pytest.mark.slow
def test_forward_mode_is_there_where_it_is_asked_for():
    recurrence, cell, params, xs, state = made("mLSTM")
    push = functools.partial(jax.jvp, primals=(params,), tangents=(jax.tree.map(jnp.ones_like, params),))
    found = push(lambda params: lstmx.run(cell, params, xs, state, differentiation="autodiff")[0])
    assert_close(found, push(lambda params: plain_pass(recurrence, params, xs, state).outputs), 1e-12)


# ---------------------------------------------------------------------------------------------------- the history


@pytest.mark.slow
@each
def test_a_history_has_the_user_s_tree_and_what_the_step_shows(name):
    recurrence, cell, params, xs, state = made(name, (2,))
    plain = plain_pass(recurrence, params, xs, state)
    for keep in ("all", "states"):
        history = lstmx.record(cell, params, xs, state, keep=keep)
        assert jax.tree.structure(history.states) == jax.tree.structure(recurrence.state)
        assert_close(history.states, plain.states, 1e-13)
        assert_close(history.final, plain.final, 1e-13)
        assert_close((history.outputs, history.hidden_state), (plain.outputs, plain.outputs), 1e-13)
        assert_close((history.params, history.inputs, history.initial), (params, xs, state), 0)
        assert set(plain.shown) == set(recurrence.shown)
        for shown, values in plain.shown.items():
            np.testing.assert_allclose(getattr(history, shown), values, atol=1e-13)
            assert shown in dir(history)
    assert (history.cell, len(history), history.batch) == (cell, 6, (2,))


def test_what_the_step_does_not_show_is_missed_by_name():
    _, cell, params, xs, _ = made("delta net")
    with pytest.raises(AttributeError, match=r"no input_gate.*decay"):
        lstmx.record(cell, params, xs).input_gate  # noqa: B018


@pytest.mark.slow
def test_a_stretch_and_a_sequence_of_a_history_go_on_from_their_own_states():
    recurrence, cell, params, xs, state = made("mLSTM", (2,))
    history = lstmx.record(cell, params, xs, state)
    part = history[2:5].sequence(1)
    plain = plain_pass(recurrence, params, xs[2:5, 1], one_of(history.states, (1, 1)))
    assert_close(part.states, plain.states, 1e-13)
    assert_close(part.output_gate, plain.shown["output_gate"], 1e-13)
    assert_close(lstmx.History.concatenate(history[:2], history[2:]).states, history.states, 0)


@pytest.mark.sample(1)
@each
def test_statistics_are_of_the_gates_that_were_named(name):
    recurrence, cell, params, xs, state = made(name, (2,))
    history = lstmx.record(cell, params, xs, state)
    if not recurrence.gates:
        with pytest.raises(ValueError, match="gates"):
            lstmx.gate_statistics(history)
        return
    statistics = lstmx.gate_statistics(history)
    assert set(statistics.gates) == set(recurrence.gates)
    for gate in recurrence.gates:
        values = np.asarray(plain_pass(recurrence, params, xs, state).shown[gate])
        values = values.reshape(-1, *values.shape[2:])
        expected = {
            "mean": values.mean(axis=0),
            "std": values.std(axis=0),
            "min": values.min(axis=0),
            "max": values.max(axis=0),
            "left": (values < 0.1).mean(axis=0),
            "right": (values > 0.9).mean(axis=0),
        }
        for field, numbers in expected.items():
            found = np.asarray(getattr(statistics[gate], field))
            np.testing.assert_allclose(found.ravel(), numbers.ravel(), atol=1e-13)
    assert statistics.timescale is None
    assert str(statistics).count("\n") == len(recurrence.gates)  # a head, and a row for each


def test_the_same_step_and_state_make_the_same_cell():
    recurrence = ZOO["delta net"]
    one, other = recurrence.cell(), recurrence.cell()
    assert (one, hash(one)) == (other, hash(other))
    assert one != recurrence._replace(state=recurrence.state + 1).cell()


# --------------------------------------------------------------------------------------------- outputs of a state


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


def doubled(params, state, x):
    """A step whose state is any tree: each array decays, and x is added."""
    return jax.tree.map(lambda s: params * s + x.sum(), state)


VECTOR, MATRIX = jnp.arange(2.0), jnp.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("state", "output", "expected"),
    [
        (VECTOR, None, lambda s: s),
        (Pair(VECTOR, VECTOR), None, lambda s: s.first),
        (Pair(VECTOR, VECTOR), "second", lambda s: s.second),
        (Pair(VECTOR, VECTOR), 1, lambda s: s.second),
        ({"b": VECTOR, "a": VECTOR}, "b", lambda s: s["b"]),
        ({"b": VECTOR, "a": 2 + VECTOR}, None, lambda s: s["a"]),
        ([VECTOR, 3 + VECTOR], -1, lambda s: s[1]),
        (MATRIX, None, lambda s: s.reshape(-1)),
        ((VECTOR, MATRIX), 1, lambda s: s[1].reshape(-1)),
        ({"a": MATRIX}, lambda s: s["a"].sum(axis=0), lambda s: s["a"].sum(axis=0)),
    ],
    ids=["vector", "first", "name", "number", "key", "sorted", "last", "matrix", "of a matrix", "function"],
)
def test_the_output_is_the_part_of_the_state_that_was_named(state, output, expected):
    cell = lstmx.from_step(doubled, state, input_size=2, output=output)
    outputs, final = lstmx.run(cell, jnp.asarray(0.5), jnp.ones((3, 2)))
    assert_close(outputs[-1], expected(final), 0)
    assert jax.tree.structure(final) == jax.tree.structure(state)


def test_a_state_that_is_a_pair_with_a_dict_is_a_state():
    start = (VECTOR, {"memory": VECTOR})
    cell = lstmx.from_step(doubled, start, input_size=2)
    history = lstmx.record(cell, jnp.asarray(0.5), jnp.ones((3, 2)))
    assert jax.tree.structure(history.states) == jax.tree.structure(start)
    with pytest.raises(AttributeError, match="memory"):
        history.memory  # noqa: B018


# ---------------------------------------------------------------------------------------- steps that do not count

COUNTS = np.ones((7, 2, 2), bool)
COUNTS[4:, 0, 1] = COUNTS[1:, 1, 0] = COUNTS[6:, 1, 1] = False
LENGTHS = COUNTS.sum(axis=0)
GAPS = COUNTS.copy()
GAPS[[0, 3], 0, 0] = GAPS[2, 0, 1] = False
RESETS = np.zeros((7, 2, 2), bool)
RESETS[3, 0, 1] = RESETS[0, 1, 0] = RESETS[2, 1, 1] = RESETS[5, 1, 1] = True

CONTROLS = {
    "lengths": ({"lengths": LENGTHS}, COUNTS, np.zeros_like(RESETS)),
    "resets": ({"resets": RESETS}, np.ones_like(COUNTS), RESETS),
    "all": ({"lengths": LENGTHS, "mask": GAPS, "resets": RESETS}, GAPS, RESETS),
}


def each_alone(recurrence, counts, resets):
    """A function to outputs and final states of every sequence run alone, step by step where they count."""

    @jax.jit
    def step(params, state, x):
        after = split(recurrence.step(params, state, x), recurrence.state)[0]
        return after, recurrence.read(after)

    def alone(params, xs, state):
        rows, finals = [], []
        for index in np.ndindex(2, 2):
            now = one_of(state, index)
            for t in range(len(xs)):
                output = jnp.zeros(jax.eval_shape(recurrence.read, now).shape)
                if counts[t, *index]:
                    now, output = step(params, recurrence.state if resets[t, *index] else now, xs[t, *index])
                rows.append(output)
            finals.append(now)
        outputs = jnp.stack(rows).reshape(2, 2, len(xs), -1).transpose(2, 0, 1, 3)
        return outputs, jax.tree.map(lambda *x: jnp.stack(x).reshape(2, 2, *x[0].shape), *finals)

    return alone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "controls"), [("mLSTM", "all"), ("delta net", "all"), ("two layers", "lengths"), ("LSTM", "resets")]
)
def test_a_controlled_batch_is_each_sequence_alone(name, controls):
    options, counts, resets = CONTROLS[controls]
    recurrence, cell, params, xs, state = made(name, (2, 2), length=7)
    weights = weights_of(plain_pass(recurrence, params, xs).outputs)

    alone = each_alone(recurrence, counts, resets)
    hidden = jnp.where(counts[..., None], xs, jnp.nan)
    run = functools.partial(lstmx.run, cell, **options)
    expected = alone(params, xs, state)
    assert_close(run(params, hidden, state), expected, 1e-13)
    history = lstmx.record(cell, params, hidden, state, **options)
    assert_close((history.outputs, history.final), expected, 1e-13)

    expected = gradients(alone, weights, (params, xs, state), lambda gradient: gradient)
    assert_close(gradients(run, weights, (params, hidden, state), jax.jit), expected, 1e-12)
    final = jax.tree.map(lambda x: 2 * x, history.final)
    found = lstmx.backward(history, weights, final)
    assert_close((found.parameters, found.inputs, found.initial), expected, 1e-12)


# ---------------------------------------------------------------------------------------------------- derivatives


def steps_of(name, batch=()):
    """The history of a pass, and of each of its steps the joint state before it and the plain step there."""
    recurrence, cell, params, xs, state = made(name, batch)
    history = lstmx.record(cell, params, xs, state)
    before = jax.tree.map(lambda first, x: jnp.concatenate([first[None], x[:-1]]), state, history.states)
    return recurrence, history, joined(before, xs.shape[:-1])


@pytest.mark.slow
@each
def test_jacobians_are_those_of_the_joint_state_in_the_order_of_its_leaves(name):
    recurrence, history, before = steps_of(name, (2,))

    def step(joint, x):
        return flat_step(recurrence, history.params, x)[0](joint)

    for argument, found in enumerate((lstmx.jacobians(history), lstmx.input_jacobians(history))):
        expected = jax.jit(jax.vmap(jax.vmap(jax.jacfwd(step, argument))))(before, history.inputs)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-13)
    whole = lstmx.jacobians(history)
    values = np.linalg.svd(np.asarray(whole), compute_uv=False)
    np.testing.assert_allclose(lstmx.isometry(history).singular_values, values, atol=1e-13)


@pytest.mark.slow
@each
def test_backward_is_the_gradient_of_the_plain_scan(name):
    recurrence, cell, *given = made(name, (2,))
    history = lstmx.record(cell, *given, keep="states")
    weights = weights_of(history.outputs)
    expected = gradients(lambda *given: plain_pass(recurrence, *given)[:2], weights, given, jax.jit)
    found = lstmx.backward(history, weights, jax.tree.map(lambda x: 2 * x, history.final))
    assert_close((found.parameters, found.inputs, found.initial), expected, 1e-12)


@functools.cache
def pullback(name):
    """The cotangent of a state with its direct part added, and that of the state before it."""
    recurrence = ZOO[name]

    @jax.jit
    def pulled(params, before, x, after, weights, cotangent):
        step, pack, unpack = flat_step(recurrence, params, x)
        direct = jax.vjp(lambda s: recurrence.read(unpack(s)), pack(after))[1](weights)[0]
        return cotangent + direct, jax.vjp(step, before)[1](cotangent + direct)[0]

    return pulled


@functools.cache
def gradient_of_outputs(name):
    """Gradients of the weighted sum of a plain scan's outputs for parameters, inputs and initial state."""

    def total(params, xs, state, weights):
        return (plain_pass(ZOO[name], params, xs, state).outputs * weights).sum()

    return jax.jit(jax.grad(total, argnums=(0, 1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loss"), [("linear unit", "last"), ("mLSTM", "every"), ("two layers", "last")])
def test_a_gradient_flow_is_the_chain_of_pullbacks_in_plain_numbers(name, loss):
    _, history, before = steps_of(name, (2,))
    given = history.params, history.inputs, history.initial
    weights = weights_of(history.outputs) if loss == "every" else jnp.zeros_like(history.outputs).at[-1].set(1.0)
    flow = lstmx.gradient_flow(history, weights if loss == "every" else "last")

    norms = np.zeros((6, 2))
    for b in range(2):
        cotangent = jnp.zeros(before.shape[-1])
        for t in reversed(range(6)):
            at = one_of((before, history.inputs, history.states, weights), (t, b))
            total, cotangent = pullback(name)(history.params, *at, cotangent)
            norms[t, b] = np.linalg.norm(total)
    np.testing.assert_allclose(np.exp(flow.log_norm), norms, rtol=1e-11, atol=1e-14)

    expected = gradient_of_outputs(name)(*given, weights)
    assert_close((flow.parameters, flow.inputs, flow.initial), expected, 1e-12)
    assert flow.log_highway is None
    assert flow.gates is None
    assert ("nats per step" if loss == "last" else "mix") in str(flow)
    norms_alone = lstmx.gradient_flow(history, weights if loss == "every" else "last", outputs="norms")
    np.testing.assert_allclose(norms_alone.log_norm, flow.log_norm, rtol=1e-12)
    assert norms_alone.inputs is None


@pytest.mark.slow
def test_a_gradient_flow_takes_a_function_and_keeps_its_digits_out_of_the_range_of_a_float():
    recurrence = ZOO["linear unit"]
    params, xs, _ = recurrence.draw(length=4000)
    history = lstmx.record(recurrence.cell(), params, xs)
    flow = lstmx.gradient_flow(history, lambda outputs: outputs[-1, 0])
    expected = np.log(MAGNITUDES[0]) * np.arange(4000)[::-1]  # e^-205 at the first step
    np.testing.assert_allclose(flow.log_norm, expected, atol=1e-9)
    least = lstmx.gradient_flow(history, lambda outputs: outputs[-1, -1])  # e^-4198
    np.testing.assert_allclose(least.log_norm, np.log(MAGNITUDES[-1]) * np.arange(4000)[::-1], atol=1e-9)
    assert abs(flow.decay_rate.rate + np.log(MAGNITUDES[0])) < 1e-12


@pytest.mark.slow
@two
def test_influence_is_the_norm_of_the_jacobian_between_each_pair_of_steps(name):
    recurrence, cell, params, xs, state = made(name, length=4)
    history = lstmx.record(cell, params, xs, state)
    influence = lstmx.influence(history)
    found = jax.jit(jax.jacrev(lambda xs: plain_pass(recurrence, params, xs, state).outputs))(xs)
    np.testing.assert_allclose(influence.norms, np.linalg.norm(found, axis=(1, 3)), rtol=1e-11, atol=1e-14)

    norms = np.zeros((4, 4))
    for s in range(4):
        _, pack, unpack = flat_step(recurrence, params, xs[s])

        def read(joint, s=s, unpack=unpack):
            begun = unpack(joint)
            now = recurrence.read(begun)[None]
            if s == 3:
                return now
            return jnp.concatenate([now, plain_pass(recurrence, params, xs[s + 1 :], begun).outputs])

        jacobian = jax.jit(jax.jacrev(read))(pack(one_of(history.states, s)))
        norms[s:, s] = np.linalg.norm(jacobian, axis=(1, 2))
    np.testing.assert_allclose(lstmx.influence(history, of="state").norms, norms, rtol=1e-11, atol=1e-14)


# ------------------------------------------------------------------------------------------------------- dynamics


def fixed_points(*given):
    """`fixed_points`, whose optax needs JAX's standard promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return lstmx.fixed_points(*given)


def long_linear_unit(length):
    recurrence = ZOO["linear unit"]
    params, xs, _ = recurrence.draw(length=length)
    return recurrence, lstmx.record(recurrence.cell(), params, xs)


@pytest.mark.slow
def test_lyapunov_exponents_of_a_linear_unit_are_the_logs_of_its_magnitudes():
    _, history = long_linear_unit(600)
    expected = np.repeat(np.log(MAGNITUDES), 2)
    spectrum = lstmx.lyapunov_spectrum(history, transient=300)
    np.testing.assert_allclose(spectrum.exponents, expected, atol=1e-10)
    assert spectrum.size == 8
    assert spectrum.sum_rule.discrepancy < 1e-10
    assert spectrum.sum_rule.closed_form is None
    leading = lstmx.lyapunov_spectrum(history, count=3, transient=300)
    np.testing.assert_allclose(leading.exponents, expected[:3], atol=1e-10)
    autonomous = lstmx.autonomous_spectrum(history.cell, history.params, steps=600, transient=300)
    np.testing.assert_allclose(autonomous.exponents, expected, atol=1e-10)


def test_a_long_jacobian_of_a_linear_unit_has_the_powers_of_its_magnitudes():
    _, history = long_linear_unit(3000)
    found = lstmx.long_jacobian(history)
    np.testing.assert_allclose(found.log_singular_values, 3000 * np.repeat(np.log(MAGNITUDES), 2), rtol=1e-11)


@pytest.mark.slow
@each
def test_a_long_jacobian_has_the_singular_values_of_the_product(name):
    _, history, _ = steps_of(name, (2,))
    product = np.eye(lstmx.jacobians(history).shape[-1])
    for J in np.asarray(lstmx.jacobians(history))[1:5]:
        product = J @ product
    expected = np.linalg.svd(product, compute_uv=False)
    known = expected > 1e-5 * expected[:, :1]  # below, the product itself has too few digits
    found = lstmx.long_jacobian(history, 1, 5).log_singular_values
    np.testing.assert_allclose(np.exp(found)[known], expected[known], rtol=1e-9)
    assert np.all(np.exp(found)[~known] < 2e-5 * np.broadcast_to(expected[:, :1], expected.shape)[~known])


@pytest.mark.slow
@two
def test_a_lyapunov_spectrum_of_a_history_is_that_of_its_jacobians(name):
    recurrence = ZOO[name]
    params, xs, _ = recurrence.draw((2,), length=40)
    history = lstmx.record(recurrence.cell(), params, xs)
    found, expected = (lstmx.lyapunov_spectrum(x, count=2) for x in (history, lstmx.jacobians(history)))
    np.testing.assert_allclose(found.exponents, expected.exponents, rtol=1e-10)


@pytest.mark.slow
def test_the_fixed_point_of_a_linear_unit_is_where_its_equation_says():
    recurrence, cell, params, *_ = made("linear unit")
    x = jnp.asarray([1.0, -0.5, 2.0])
    B, angle = np.asarray(params["B"]), np.asarray(params["angle"])
    factor = MAGNITUDES * np.exp(1j * angle)
    z = (B[0] + 1j * B[1]) @ np.asarray(x) / (1 - factor)
    candidates = jnp.asarray(np.random.default_rng(0).normal(size=(5, *recurrence.state.shape)))
    points = fixed_points(cell, params, x, candidates)
    assert (len(points.fixed), points.converged) == (1, 5)
    np.testing.assert_allclose(points.points[0], [z.real, z.imag], atol=1e-9)
    eigenvalues = np.sort_complex(points.eigenvalues[0])
    np.testing.assert_allclose(eigenvalues, np.sort_complex([*factor, *factor.conj()]), atol=1e-10)
    assert points.stable.all()


@pytest.mark.slow
def test_fixed_points_come_back_in_the_user_s_tree():
    recurrence, cell, params, *_ = made("two layers")
    candidates = jax.tree.map(lambda x: jnp.zeros((3, *x.shape)) + 0.1, recurrence.state)
    small = jax.tree.map(lambda x: 0.3 * x, params)  # contracts: one fixed point, which plain iteration finds
    x = jnp.asarray([0.5, -1.0, 1.0])
    points = fixed_points(cell, small, x, candidates)
    assert jax.tree.structure(points.points) == jax.tree.structure(recurrence.state)
    expected = plain_pass(recurrence, small, jnp.broadcast_to(x, (1000, 3))).final
    assert len(points.fixed) == 1
    assert_close(one_of(points.points, 0), expected, 1e-9)


@functools.cache
def long_enough(name):
    """The history of a pass that a report or a figure can be made of."""
    recurrence = ZOO[name]
    params, xs, _ = recurrence.draw(length=150)
    return lstmx.record(recurrence.cell(), params, xs)


@functools.cache
def memory_of(name):
    return lstmx.memory_report(long_enough(name), lags=30)


@functools.cache
def spectrum_of(name):
    return lstmx.lyapunov_spectrum(long_enough(name), count=2)


@pytest.mark.slow
def test_a_memory_report_has_every_notion_but_those_of_retention_gates():
    report = memory_of("mLSTM")
    names = [notion.name for notion in report.notions]
    assert not any("highway" in word for word in names)
    notions = ("Lyapunov time", "gradient half-life", "gradient horizon", "influence lag", "truncation length")
    assert {*notions, "linear memory"} <= set(names)
    assert report.truncation_bias.shape == report.capacity.shape == (30,)
    assert "steps" in str(report)


@pytest.mark.slow
def test_the_truncation_bias_of_a_linear_unit_is_that_of_gradients_cut_by_hand():
    recurrence, cell, params, xs, _ = made("linear unit", length=30)
    report = lstmx.memory_report(lstmx.record(cell, params, xs), lags=30)

    def gradient(steps):
        begun = plain_pass(recurrence, params, xs[: 30 - steps]).final if steps < 30 else recurrence.state
        outputs = jax.jit(
            jax.grad(lambda params: plain_pass(recurrence, params, xs[30 - steps :], begun).outputs[-1].sum())
        )
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(outputs(params))])

    whole = gradient(30)
    for steps in (1, 2, 7, 20):
        bias = np.linalg.norm(gradient(steps) - whole) / np.linalg.norm(whole)
        np.testing.assert_allclose(report.truncation_bias[steps - 1], bias, rtol=1e-10)


# ----------------------------------------------------------------------- a cell of the library as a step function


@functools.cache
def both(name, batch=(2,), length=60):
    """The history of a cell of the library, and of its equations as a step function."""
    recurrence, cell = ZOO[name], OF_THE_LIBRARY[name]
    params, xs, state = recurrence.draw(batch, length)
    return lstmx.record(recurrence.cell(), params, xs, state), lstmx.record(cell, params, xs, state)


def assert_equal(found, expected, tolerance=1e-10):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@of_the_library
def test_its_gradient_flow_is_that_of_the_cell(name):
    own, cell = both(name)
    weights = weights_of(own.outputs)
    for loss in ("last", weights):
        flow, expected = (lstmx.gradient_flow(history, loss) for history in (own, cell))
        assert_equal(flow.log_norm, expected.log_norm)
        assert_equal(flow.log_norm_hidden, expected.log_norm_hidden)
        assert_equal(flow.hidden, expected.hidden)
        assert_close(
            (flow.parameters, flow.inputs, flow.initial),
            (expected.parameters, expected.inputs, expected.initial),
            1e-10,
        )
        np.testing.assert_array_equal(flow.verdict, expected.verdict)


@pytest.mark.slow
@of_the_library
def test_its_backward_jacobians_and_influence_are_those_of_the_cell(name):
    own, cell = both(name)
    weights, final = weights_of(own.outputs), jax.tree.map(lambda x: 2 * x, cell.final)
    found, expected = (lstmx.backward(history, weights, final) for history in (own, cell))
    assert_close(
        (found.parameters, found.inputs, found.initial),
        (expected.parameters, expected.inputs, expected.initial),
        1e-10,
    )
    analyses = [
        lstmx.jacobians,
        lstmx.input_jacobians,
        lambda history: lstmx.jacobians(history, "hidden_hidden"),
        lambda history: lstmx.isometry(history).singular_values,
        lambda history: lstmx.influence(history, [59, 20]).norms,
        lambda history: lstmx.influence(history, 59, of="state").norms,
        lambda history: lstmx.influence(history, 59, probes=4).norms,
    ]
    for analysis in analyses:
        assert_equal(analysis(own), analysis(cell))


@pytest.mark.slow
def test_its_dynamics_and_memory_are_those_of_the_cell():
    own, cell = both("LSTM", (), 200)
    analyses = [
        lambda history: lstmx.lyapunov_spectrum(history, count=4).exponents,
        lambda history: lstmx.lyapunov_spectrum(history, count=4).local,
        lambda history: lstmx.long_jacobian(history, 10, 30).log_singular_values[:4],
    ]
    for analysis in analyses:
        assert_equal(analysis(own), analysis(cell))
    reports = [lstmx.memory_report(history, lags=40) for history in (own, cell)]
    assert_equal(reports[0].truncation_bias, reports[1].truncation_bias)
    assert_equal(reports[0].capacity, reports[1].capacity, 1e-8)
    for notion in reports[0].notions:
        assert_equal(notion.value, reports[1][notion.name].value, 1e-8)
    statistics = [lstmx.gate_statistics(history) for history in (own, cell)]
    assert set(statistics[0].gates) == set(statistics[1].gates)
    for gate in statistics[0].gates:
        assert_close(statistics[0][gate], statistics[1][gate], 1e-12)


@pytest.mark.slow
def test_its_fixed_points_are_those_of_the_cell():
    own, cell = both("GRU", (), 60)
    x = jnp.asarray([0.2, -0.4, 0.1])
    candidates = one_of(cell.states, slice(None, None, 10))
    found, expected = (fixed_points(history.cell, history.params, x, candidates) for history in (own, cell))
    assert found.census == expected.census
    assert_close(found.points, expected.points, 1e-10)
    magnitudes = [np.sort(np.abs(points.eigenvalues), axis=-1) for points in (found, expected)]
    assert_equal(*magnitudes, 1e-9)


# ------------------------------------------------------------------------------------------ what it does not have


@pytest.mark.sample(7)
@pytest.mark.parametrize(
    "analysis",
    [
        lstmx.highway,
        lstmx.path_spectrum,
        lstmx.gate_kernel,
        lambda history: lstmx.plot.gates_ledger(lstmx.gradient_flow(history)),
        lambda history: lstmx.plot.timescales(lstmx.gate_statistics(history)),
        lambda history: history.preactivations,
        lambda history: history.log_retention,
        lambda history: lstmx.convert.to_torch(history.cell, history.params),
        lambda history: lstmx.save("never.safetensors", history.cell, history.params),
        lambda history: lstmx.critical_gain(history.cell),
        lambda history: history.cell.init(0),
        lambda history: lstmx.run(history.cell, history.params, history.inputs, parallel=True),
    ],
    ids=[
        *("highway", "path_spectrum", "gate_kernel", "gates_ledger", "timescales", "preactivations"),
        *("log_retention", "convert", "save", "critical_gain", "init", "parallel"),
    ],
)
def test_what_only_a_cell_with_equations_has_is_refused_in_a_sentence(analysis, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, cell, params, xs, state = made("LSTM")
    history = lstmx.record(cell, params, xs, state)
    with pytest.raises((TypeError, ValueError)) as caught:
        analysis(history)
    words = str(caught.value)
    assert "LSTM" in words or "step" in words or "gate" in words
    assert " " in words.strip()
    assert "NoneType" not in words
    assert "object" not in words
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------ on disk, xarray, comparison


def test_a_history_comes_back_from_disk_and_dataset_with_its_cell(tmp_path):
    pytest.importorskip("zarr", reason="histories on disk are Zarr")
    _, cell, params, xs, state = made("mLSTM", (2,))
    history = lstmx.record(cell, params, xs, state)
    history.save(tmp_path / "pass")
    with pytest.raises(ValueError, match="whose equations no file holds"):
        lstmx.load_history(tmp_path / "pass")
    for found in (
        lstmx.load_history(tmp_path / "pass", cell=cell).read(),
        lstmx.History.from_xarray(history.to_xarray(), cell),
    ):
        assert jax.tree.structure(found) == jax.tree.structure(history)
        for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(history), strict=True):
            np.testing.assert_array_equal(left, right)


def tanh_parameters(key):
    """Parameters in float32 of `tanh_step` with five units of two features."""
    first, second = jax.random.split(key)
    return {
        "W": jax.random.normal(first, (5, 2), "float32") / 2,
        "U": jax.random.normal(second, (5, 5), "float32") / 3,
    }


def tanh_step(params, h, x):
    return jnp.tanh(params["W"] @ x + params["U"] @ h)


@pytest.fixture
def task():
    """Waves in float32 to predict the next step of."""
    time = 0.3 * np.arange(9)[:, None, None] + np.linspace(0, 6, 8)[None, :, None]
    return next_step(np.sin(time + np.arange(2)).astype("float32"))


@pytest.mark.slow
def test_a_step_function_sets_the_size_of_a_comparison(task):
    cell = lstmx.from_step(tanh_step, jnp.zeros(5), 2, name="own", init=tanh_parameters)
    with jax.numpy_dtype_promotion("standard"):  # Adam adds a Python float to an integer count
        comparison = lstmx.compare(
            {"own": cell, "RNN": lstmx.SimpleRNN(2, 3)}, task, steps=20, match="hidden_size", progress=False
        )
    assert comparison.names == ("own", "RNN")
    assert comparison.cells[0] == cell
    assert comparison.cells[1].hidden_size == 5
    readout = 5 * 2 + 2
    assert comparison.parameter_counts.tolist() == [5 * 2 + 5 * 5 + readout, 5 * 2 + 5 * 5 + 5 + readout]
    assert np.all(comparison.final_loss < comparison.validation_loss[..., 0])
    render(lstmx.plot.comparison(comparison))


def test_a_step_function_in_a_comparison_needs_parameters_and_keeps_its_size(task):
    cell = lstmx.from_step(tanh_step, jnp.zeros(5), 2, name="own")
    with pytest.raises(ValueError, match=r"own.*init"):
        lstmx.compare([cell], task, steps=1, progress=False)
    cell = lstmx.from_step(tanh_step, jnp.zeros(5), 2, name="own", init=tanh_parameters)
    with pytest.raises((TypeError, ValueError), match=r"own.*(first|size)"):
        lstmx.compare([lstmx.SimpleRNN(2, 3), cell], task, steps=1, match="hidden_size", progress=False)


# -------------------------------------------------------------------------------------------------------- figures


def points_of(history):
    return fixed_points(history.cell, history.params, None, one_of(history.states, slice(None, None, 40)))


DRAWINGS = {
    "dynamics": lambda name: lstmx.plot.dynamics(long_enough(name)),
    "gradient_flow": lambda name: lstmx.plot.gradient_flow(lstmx.gradient_flow(long_enough(name))),
    "influence": lambda name: lstmx.plot.influence(lstmx.influence(long_enough(name))).figure,
    "spectrum": lambda name: lstmx.plot.spectrum(spectrum_of(name)).figure,
    "local": lambda name: lstmx.plot.local_exponents(spectrum_of(name), 2).figure,
    "memory": lambda name: lstmx.plot.memory(memory_of(name)),
    "eigenvalues": lambda name: lstmx.plot.eigenvalues(points_of(long_enough(name))).figure,
}


@pytest.mark.slow
@pytest.mark.usefixtures("_pyplot_is_left_alone")
@pytest.mark.parametrize("drawing", DRAWINGS)
def test_figures_are_drawn(drawing):
    figure = DRAWINGS[drawing]("mLSTM")
    render(figure)
    if drawing == "dynamics":
        words = " ".join(ax.get_title(loc="left") + " " + ax.get_title() for ax in figure.axes)
        for gate in ZOO["mLSTM"].gates:
            assert gate.replace("_", " ") in words.lower()


@pytest.mark.sample(1)
@pytest.mark.usefixtures("_pyplot_is_left_alone")
@pytest.mark.parametrize("name", ["LSTM", "mLSTM"])  # gates of one size, and of two
def test_the_saturation_of_its_gates_is_drawn(name):
    render(lstmx.plot.saturation(lstmx.gate_statistics(long_enough(name))).figure)


# --------------------------------------------------------------------------------------------------------- errors


def identity(params, state, x):
    del params, x
    return state


def given(step, state=VECTOR, xs=None, params=None, **options):
    """What a pass of two steps raises or gives."""
    cell = lstmx.from_step(step, state, input_size=2, name="own", **options)
    params = jnp.ones(1) if params is None else params
    return lstmx.record(cell, params, jnp.ones((2, 2)) if xs is None else xs)


@pytest.mark.parametrize(
    ("step", "state", "words"),
    [
        (lambda p, s, x: (s,), VECTOR, "own.*tree|own.*state"),
        (lambda p, s, x: {"a": s["a"]}, {"a": VECTOR, "b": VECTOR}, "own.*state"),
        (lambda p, s, x: None, VECTOR, "own.*state"),
        (lambda p, s, x: s[:1], VECTOR, r"own.*\(1,\).*\(2,\)"),
        (lambda p, s, x: s[None], VECTOR, r"own.*\(1, 2\).*\(2,\)"),
        (lambda p, s, x: {"a": s["a"].T}, {"a": MATRIX}, r"own.*a.*\(3, 2\).*\(2, 3\)"),
        (lambda p, s, x: s.astype("float32"), VECTOR, "own.*float32.*float64"),
        (lambda p, s, x: s.astype("complex128"), VECTOR, "own.*complex128"),
        (lambda p, s, x: s.astype(int), VECTOR, "own.*int"),
        (lambda p, s, x: x.mean(axis=0), VECTOR, r"own.*\(\).*\(2,\)"),  # over what it takes for a batch
    ],
    ids=["tuple", "part", "none", "short", "batched", "turned", "float32", "complex", "integer", "mean"],
)
def test_a_step_that_returns_another_state_is_named(step, state, words):
    with pytest.raises((TypeError, ValueError), match=words):
        given(step, state)


def test_a_step_that_asks_for_batch_axes_is_told_that_there_are_none():
    with pytest.raises((TypeError, ValueError), match=r"axis|one sequence"):
        given(lambda params, state, x: state + x.sum(axis=1))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (jnp.arange(3), "int"),
        ({"count": jnp.zeros((), "int32"), "h": VECTOR}, "int32"),
        (jnp.zeros(3, bool), "bool"),
        (jnp.zeros(3, "complex128"), "complex128"),
        (0.0, "float"),
        ([0.0, 1.0], "float"),
        (None, "array"),
        ((), "array"),
        ("state", "str"),
    ],
    ids=["integers", "count", "booleans", "complex", "number", "list", "none", "empty", "text"],
)
def test_a_state_that_holds_no_real_arrays_is_refused(state, words):
    with pytest.raises(TypeError, match=rf"state.*{words}"):
        lstmx.from_step(identity, state, input_size=2)


@pytest.mark.parametrize(
    ("state", "output"),
    [
        (VECTOR, "h"),
        (Pair(VECTOR, VECTOR), "third"),
        (Pair(VECTOR, VECTOR), 2),
        ({"a": VECTOR}, "b"),
        ({"a": VECTOR}, 0),
        ({"a": (VECTOR, VECTOR)}, "a"),
        ({"a": VECTOR}, lambda state: state["a"].sum()),
        ({"a": VECTOR}, lambda state: state),
    ],
    ids=["of a vector", "field", "index", "key", "no number", "a tree", "a scalar", "the state"],
)
def test_an_output_that_is_no_part_of_the_state_is_refused(state, output):
    with pytest.raises((TypeError, ValueError), match="output"):
        lstmx.from_step(identity, state, input_size=2, output=output)


def test_a_gate_that_is_not_shown_is_named():
    with pytest.raises(ValueError, match=r"gates.*forget.*input"):
        given(lambda params, state, x: (state, {"input": x}), gates=["forget"])
    with pytest.raises(ValueError, match=r"gates.*forget"):
        given(identity, gates=["forget"])
    with pytest.raises(TypeError, match=r"gates.*'forget'"):
        given(lambda params, state, x: (state, {"forget": x}), gates="forget")


PUBLIC = sorted(name for name in {*dir(lstmx.History), *lstmx.History.__dataclass_fields__} if name[0] != "_")


@pytest.mark.parametrize("name", [*PUBLIC, "_private", "two words", "a_state", "b_state", "log_forget", ""])
def test_a_shown_name_that_a_history_has_is_refused(name):
    start = {"a": VECTOR, "b": VECTOR}
    with pytest.raises(ValueError, match=f"own.*'{name}'"):
        given(lambda params, state, x: (state, {name: x}), start)


@pytest.mark.parametrize("shown", ["word", None, {"of": jnp.ones(1)}], ids=["text", "none", "tree"])
def test_what_is_shown_is_an_array(shown):
    with pytest.raises(TypeError, match=r"own.*gate"):
        given(lambda params, state, x: (state, {"gate": shown}))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (np.ones(2), "JAX"),
        ({"W": np.ones((2, 2)), "b": np.ones(2)}, "JAX"),
        ({"W": jnp.ones((2, 2)), "size": 3}, "params.*int"),
        ({"W": jnp.ones((2, 2)), "order": jnp.arange(3)}, "params.*int"),
        ({"W": jnp.ones((2, 2)), "half": jnp.ones(2, "float32")}, "params.*float32"),
        ({"W": jnp.ones(2), "activation": jnp.tanh}, "params"),
        ((), "params"),
    ],
    ids=["NumPy", "NumPy tree", "Python number", "integers", "two dtypes", "function", "none"],
)
def test_parameters_that_are_no_tree_of_arrays_of_jax_are_refused(params, words):
    with pytest.raises(TypeError, match=words):
        given(identity, params=params, xs=np.ones((2, 2)))


def test_inputs_and_states_of_another_form_are_named():
    recurrence, cell, params, xs, state = made("mLSTM", (2,))
    with pytest.raises(ValueError, match=f"input_size={recurrence.input_size}"):
        lstmx.run(cell, params, xs[..., :2])
    with pytest.raises(TypeError, match=r"xs.*float32"):
        lstmx.run(cell, params, xs.astype("float32"))
    with pytest.raises(TypeError, match="state"):
        lstmx.run(cell, params, xs, tuple(state.values()))
    with pytest.raises(ValueError, match=r"state.*C.*\(2, 3\)|state.*C.*\(2, 3, 3\)"):
        lstmx.run(cell, params, xs, state | {"C": state["C"][:, 0]})
    with pytest.raises(TypeError, match=r"state.*n.*float32"):
        lstmx.run(cell, params, xs, state | {"n": state["n"].astype("float32")})
    with pytest.raises(ValueError, match="outputs_cotangent"):
        lstmx.backward(lstmx.record(cell, params, xs, state), jnp.ones((6, 2, 4)))


def test_what_from_step_is_told_is_checked():
    with pytest.raises(TypeError, match=r"step.*LSTM"):
        lstmx.from_step(lstmx.LSTM(2, 3), VECTOR, input_size=2)
    with pytest.raises(ValueError, match="input_size"):
        lstmx.from_step(identity, VECTOR, input_size=0)
    with pytest.raises(TypeError, match="input_size"):
        lstmx.from_step(identity, VECTOR, input_size=2.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gates": 3}, "gates is 3; expected a list of names"),
        ({"gates": [3]}, r"gates is \[3\]; expected a list of names"),
        ({"name": 3}, "name is 3; expected a string"),
        ({"init": 3}, r"init is a int; expected a function \(key\) -> params"),
        ({"init": lambda: VECTOR}, r"init is a function \(\); expected a function \(key\) -> params"),
        ({"output": lambda state, x: x}, r"output is a function \(state, x\); expected a function \(state\)"),
    ],
    ids=["a number", "numbers", "name", "init", "init without a key", "output"],
)
def test_names_and_functions_that_from_step_takes_are_checked(options, words):
    with pytest.raises(TypeError, match=words):
        lstmx.from_step(identity, VECTOR, input_size=2, **options)


@pytest.mark.parametrize("step", [lambda params, state: state, lambda: VECTOR, lambda p, s, x, y: s])
def test_a_step_of_other_arguments_is_refused_before_it_runs(step):
    with pytest.raises(TypeError, match=r"step is a function \(.*\); expected a function \(params, state, x\)"):
        lstmx.from_step(step, VECTOR, input_size=2)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "step",
    [functools.partial(lambda more, p, s, x: s, 1), lambda *of: of[1], lambda p, s, x, y=0: s, jax.jit(identity)],
    ids=["partial", "starred", "default", "compiled"],
)
def test_a_step_that_can_be_called_with_three_arguments_runs(step):
    assert given(step).states.shape == (2, 2)


@pytest.mark.parametrize(
    ("step", "kind"),
    [(lambda p, s, x: p["missing"] * s, KeyError), (lambda p, s, x: p["W"] @ s, TypeError)],
    ids=["missing key", "wrong shapes"],
)
@pytest.mark.parametrize("call", [lstmx.run, lstmx.record])
def test_a_step_that_raises_says_whose_it_is_and_what_it_got(step, kind, call):
    cell = lstmx.from_step(step, {"h": VECTOR}, input_size=3, name="own")
    with pytest.raises(kind) as caught:
        call(cell, {"W": jnp.ones((4, 5))}, jnp.ones((7, 2, 3)))
    assert [note for note in caught.value.__notes__ if "own" in note] == [
        "in the step of own, called for one sequence with params ['W'] float64 (4, 5); state ['h'] float64 (2,); "
        "x float64 (3,)"
    ]


def test_an_int_is_a_key_of_jax_for_init():
    cell = lstmx.from_step(identity, VECTOR, 2, name="own", init=lambda key: {"W": jax.random.normal(key, (3,))})
    drawn = jax.random.normal(jax.random.key(5), (3,))
    for key in (5, np.int64(5), jax.random.key(5)):
        assert (cell.init(key)["W"] == drawn).all()
    assert cell.parameter_count == 3
    for key in (np.random.default_rng(5), "5", True, None):
        with pytest.raises(
            TypeError, match=rf"key is a {type(key).__name__}; own is a step function.* int or a JAX key"
        ):
            cell.init(key)
    with pytest.raises(ValueError, match="key is -1"):
        cell.init(-1)


@pytest.mark.sample(1)
@pytest.mark.parametrize("look", [lstmx.gate_statistics, lstmx.plot.dynamics])
@pytest.mark.parametrize("value", [-0.5, 3.0])
def test_a_gate_that_leaves_the_unit_interval_is_named_with_its_value(look, value):
    shown = {"a": jnp.full(2, 1.0000001), "b": jnp.full(2, value)}
    history = given(lambda params, state, x: (state, shown), gates=["a", "b"])
    with pytest.raises(ValueError, match=rf"gates names b, which is {value:g} at some step; expected .*\[0, 1\]"):
        look(history)
    look(given(lambda params, state, x: (state, shown), gates=["a"]))


def test_what_is_summed_up_while_it_runs_names_such_a_gate_too():
    cell = lstmx.from_step(lambda p, s, x: (s, {"b": 2 * x}), VECTOR, 2, gates=["b"])
    with pytest.raises(ValueError, match="gates names b, which is 2 at some step"):
        lstmx.summarise(cell, jnp.ones(1), jnp.ones((5, 2)))


def test_numbers_that_are_not_finite_are_found_where_they_are():
    _, cell, params, xs, _ = made("mLSTM", (2,))
    with pytest.raises(ValueError, match=r"inputs.*step 3.*1"):
        lstmx.gradient_flow(lstmx.record(cell, params, xs.at[3, 1, 0].set(jnp.nan)))
    broken = params | {"q": params["q"].at[0, 0].set(jnp.inf)}
    with pytest.raises(ValueError, match="params"):
        lstmx.jacobians(lstmx.record(cell, broken, xs))


@pytest.mark.slow
def test_without_jax_it_says_what_is_missing():
    code = """
import sys
sys.modules["jax"] = None
import numpy as np
import lstmx
try:
    lstmx.from_step(lambda params, state, x: state, np.zeros(2), input_size=2)
except ImportError as error:
    assert "jax" in str(error) and "pip install" in str(error), error
else:
    raise AssertionError("it was made")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_float32_parameters_take_the_initial_state_with_them():
    recurrence, _, params, xs, _ = made("delta net", (2,))
    small = jax.tree.map(lambda x: x.astype("float32"), (params, xs))
    outputs, final = lstmx.run(recurrence.cell(), *small)
    assert (outputs.dtype, final.dtype) == ("float32", "float32")
    np.testing.assert_allclose(outputs, plain_pass(recurrence, params, xs).outputs, atol=1e-5)


def test_numpy_inputs_beside_parameters_of_jax_run_in_jax():
    recurrence, cell, params, xs, _ = made("GRU", (2,))
    outputs, _ = lstmx.run(cell, params, to("numpy", xs))
    assert isinstance(outputs, jax.Array)
    np.testing.assert_allclose(outputs, plain_pass(recurrence, params, xs).outputs, atol=1e-13)
