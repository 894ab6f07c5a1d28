"""`gradient_flow`: equal to autodiff wherever that stays in range, and to 60 digits where it does not."""

import dataclasses
import functools

import hypothesis.strategies as st
import jax
import jax.flatten_util
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from reference import (
    CELLS,
    LIBRARIES,
    assert_close,
    assert_same,
    draw_params,
    draw_pass,
    lcg,
    lcg_params,
    random_history,
    to,
)

import lstmx
from lstmx.gradients.summary import FlowSummary
from lstmx.linear import walks


def named(value):
    """A parameter in the name of a test."""
    return getattr(value, "__name__", str(value))


WAYS = {
    lstmx.LSTM: ["input_gate", "forget_gate", "candidate", "output_gate", "straight"],
    lstmx.GRU: ["reset_gate", "update_gate", "candidate", "straight"],
    lstmx.SimpleRNN: ["candidate"],
}


EVERY_CELL_IN_NUMPY_AND_ONE_IN_JAX = pytest.mark.parametrize(
    ("library", "kind"), [*(("numpy", kind) for kind in CELLS), ("jax", lstmx.GRU)], ids=named
)


# ------------------------------------------------------------------------------------------------ oracles


def softplus(x):
    return np.logaddexp(0, x)


def one_sequence(cell, perturbed, initial, loss):
    """Σ_t ⟨loss_t, h_t⟩ of one sequence by a plain scan, with a place to perturb whatever a test asks about.

    `hidden` and `cell` are added to h_t and c_t, each before anything else reads it; `late` to c_t after h_t has
    read it; `kernels` are one recurrent kernel per step.
    """

    def step(before, item):
        params = perturbed["params"]._replace(recurrent_kernel=item["kernels"])
        after, a = cell.step(params, before, item["inputs"])
        if "cell" in after._fields:
            c = after.cell + item["cell"]
            h = cell.gates(a).output_gate * jnp.tanh(c) + item["hidden"]
            after = after._replace(hidden=h, cell=c + item["late"])
        else:
            after = after._replace(hidden=after.hidden + item["hidden"])
        return after, after.hidden

    items = {name: value for name, value in perturbed.items() if name != "params"}
    return jnp.sum(loss * jax.lax.scan(step, initial, items)[1])


@functools.partial(jax.jit, static_argnums=0)
def autodiff(cell, params, inputs, initial, loss):
    """Gradients of `one_sequence` with respect to everything, for [T, B, ...] each sequence on its own."""

    def gradients(inputs, initial, loss):
        steps, h = loss.shape
        nothing = {name: jnp.zeros((steps, h)) for name in ("hidden", "cell", "late")}
        kernels = jnp.broadcast_to(params.recurrent_kernel, (steps, *params.recurrent_kernel.shape))
        perturbed = {"params": params, "inputs": inputs, "kernels": kernels, **nothing}
        found, initial = jax.grad(one_sequence, argnums=(1, 2))(cell, perturbed, initial, loss)
        return {**found, "initial": initial}

    return jax.vmap(gradients, in_axes=(1, 0, 1), out_axes=1)(inputs, initial, loss)


def expected_flow(cell, params, xs, state, loss):
    """What autodiff says of a pass with any batch axes, in NumPy: the fields of a flow by name."""
    batch = xs.shape[1:-1]

    def flat(x, lead):
        return np.reshape(x, (*x.shape[:lead], -1, *x.shape[lead + len(batch) :]))

    initial = type(state)(*(flat(x, 0) for x in state))
    found = jax.tree.map(np.asarray, autodiff(cell, params, flat(xs, 1), initial, flat(loss, 1)))

    def full(x):
        return np.reshape(x, (len(xs), *batch, *x.shape[2:]))

    summed = jax.tree.map(lambda x: x.sum(axis=1), found["params"])
    kernels = found["kernels"]
    parameters = summed._replace(recurrent_kernel=kernels.sum(axis=(0, 1)))
    has_cell = "cell" in state._fields
    joint = np.concatenate([found["hidden"], found["late"]] if has_cell else [found["hidden"]], axis=-1)
    total = parameters.recurrent_kernel
    profile = np.linalg.norm(kernels, axis=(2, 3))
    with np.errstate(invalid="ignore"):  # a step that starts in the zero state has no direction
        alignment = np.sum(kernels * total, axis=(2, 3)) / profile / np.linalg.norm(total)
    initial = found["initial"]
    return {
        "hidden": full(found["hidden"]),
        "cell": full(found["cell"]) if has_cell else None,
        "joint": full(joint),
        "parameters": parameters,
        "inputs": full(found["inputs"]),
        "initial": type(state)(*(x.swapaxes(0, 1).reshape(*batch, -1) for x in initial)),
        "contributions": full(kernels),
        "parameter_profile": full(profile[..., None])[..., 0],
        "parameter_alignment": full(alignment[..., None])[..., 0],
    }


@functools.cache
def example(kind, batch=(), length=7, features=3, hidden=4, seed=0):
    """A random pass in NumPy, a loss that weighs every output, and what autodiff says of both."""
    made = draw_pass(kind, length=length, batch=batch, features=features, hidden=hidden, seed=seed)
    loss = np.random.default_rng(seed + 1).normal(size=(length, *batch, hidden))
    return made, loss, expected_flow(*made, loss)


def flow_of(made, library, loss, **options):
    cell, params, xs, state = made
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    loss = loss if isinstance(loss, str) or callable(loss) else to(library, loss)
    return lstmx.gradient_flow(history, loss, **options)


def log_norms(x):
    return np.log(np.linalg.norm(x, axis=-1))


def copied_step(cell, params, copies, cell_state, x):
    """One step in which every way back reads a copy of h_{t-1} of its own, from the equations."""
    size = cell.hidden_size

    def block(kernel, k):
        return kernel[..., k * size : (k + 1) * size]

    def side(k, name):
        inputs = x @ block(params.input_kernel, k) + block(params.bias, k)
        return inputs, copies[name] @ block(params.recurrent_kernel, k)

    if isinstance(cell, lstmx.SimpleRNN):
        return jnp.tanh(sum(side(0, "candidate")))
    if isinstance(cell, lstmx.GRU):
        r, z = (jax.nn.sigmoid(sum(side(k, name))) for k, name in enumerate(["reset_gate", "update_gate"]))
        inputs, recurrent = side(2, "candidate")
        n = jnp.tanh(inputs + r * (recurrent + params.candidate_bias))
        return (1 - z) * n + z * copies["straight"]
    i, f, o = (jax.nn.sigmoid(sum(side(k, WAYS[lstmx.LSTM][k]))) for k in (0, 1, 3))
    c = f * cell_state + i * jnp.tanh(sum(side(2, "candidate")))
    return jnp.concatenate([o * jnp.tanh(c), c])


@functools.partial(jax.jit, static_argnums=0)
def parts_of(cell, params, before, inputs, joint):
    """For one sequence, what each way hands to the joint state before each step, [T, S]."""

    def parts(before, x, cotangent):
        ways = [way for way in WAYS[type(cell)] if way != "straight" or isinstance(cell, lstmx.GRU)]
        copies = dict.fromkeys(ways, before.hidden)
        state = getattr(before, "cell", jnp.zeros(0))
        _, pull = jax.vjp(lambda copies, state: copied_step(cell, params, copies, state, x), copies, state)
        copies, state = pull(cotangent)
        rows = {way: jnp.concatenate([d, jnp.zeros_like(state)]) for way, d in copies.items()}
        if isinstance(cell, lstmx.LSTM):
            rows["straight"] = jnp.concatenate([jnp.zeros_like(before.hidden), state])
        return rows

    return jax.vmap(parts)(before, inputs, joint)


def sixty_digits(cell, params, xs, direct):
    """From the zero state, with the closed-form Jacobians of each step: the three log norms, [T] each.

    `direct` [T, H] is the loss. Every number a float holds is taken as exact.
    """
    size = cell.hidden_size

    def sigma(a):
        return 1 / (1 + mpmath.exp(-a))

    def diagonal(values):
        return mpmath.diag(list(values))

    def vector(values):
        return mpmath.matrix([mpmath.mpf(float(v)) for v in values])

    def kernel(values, k):
        block = np.asarray(values, np.float64)[:, k * size : (k + 1) * size]
        return mpmath.matrix(block.tolist()).T

    def each(f, *vectors):
        return mpmath.matrix([f(*values) for values in zip(*vectors, strict=True)])

    with mpmath.workdps(60):
        count = np.shape(params.input_kernel)[1] // size
        W, U = ([kernel(values, k) for k in range(count)] for values in params[:2])
        b = [vector(np.asarray(params.bias)[k * size : (k + 1) * size]) for k in range(count)]
        h = c = mpmath.zeros(size, 1)
        jacobians, readouts = [], []
        for x in xs:
            x_side = [W[k] * vector(x) + b[k] for k in range(count)]
            a = [x_side[k] + U[k] * h for k in range(count)]
            if isinstance(cell, lstmx.SimpleRNN):
                h = each(mpmath.tanh, a[0])
                jacobians.append(diagonal(1 - v**2 for v in h) * U[0])
            elif isinstance(cell, lstmx.GRU):
                r, z = each(sigma, a[0]), each(sigma, a[1])
                q = U[2] * h + vector(params.candidate_bias)
                n = each(lambda a, r, q: mpmath.tanh(a + r * q), x_side[2], r, q)
                inner = diagonal(r) * U[2] + diagonal(each(lambda q, r: q * r * (1 - r), q, r)) * U[0]
                jacobians.append(
                    diagonal(z)
                    + diagonal(each(lambda h, n, z: (h - n) * z * (1 - z), h, n, z)) * U[1]
                    + diagonal(each(lambda z, n: (1 - z) * (1 - n**2), z, n)) * inner
                )
                h = each(lambda z, n, h: (1 - z) * n + z * h, z, n, h)
            else:
                i, f, g, o = each(sigma, a[0]), each(sigma, a[1]), each(mpmath.tanh, a[2]), each(sigma, a[3])
                old, c = c, each(lambda f, c, i, g: f * c + i * g, f, c, i, g)
                h = each(lambda o, c: o * mpmath.tanh(c), o, c)
                readout = each(lambda o, c: o * (1 - mpmath.tanh(c) ** 2), o, c)
                ch = (
                    diagonal(each(lambda c, f: c * f * (1 - f), old, f)) * U[1]
                    + diagonal(each(lambda g, i: g * i * (1 - i), g, i)) * U[0]
                    + diagonal(each(lambda i, g: i * (1 - g**2), i, g)) * U[2]
                )
                hh = (
                    diagonal(each(lambda c, o: mpmath.tanh(c) * o * (1 - o), c, o)) * U[3] + diagonal(readout) * ch
                )
                jacobian = mpmath.zeros(2 * size)
                jacobian[:size, :size], jacobian[:size, size:] = hh, diagonal(readout) * diagonal(f)
                jacobian[size:, :size], jacobian[size:, size:] = ch, diagonal(f)
                jacobians.append(jacobian)
                readouts.append(readout)

        logs = []
        v = mpmath.zeros(jacobians[0].rows, 1)
        for t in reversed(range(len(xs))):
            for k in range(size):
                v[k] += mpmath.mpf(float(direct[t, k]))
            hidden, cell_part = v[:size], v[size:]
            if readouts:
                cell_part = [v[size + k] + v[k] * readouts[t][k] for k in range(size)]
            norms = (mpmath.norm(x) if len(x) else 0 for x in (list(v), list(hidden), list(cell_part)))
            logs.append([float(mpmath.log(x)) if x else -np.inf for x in norms])
            v = jacobians[t].T * v
    return np.array(logs[::-1]).T


# -------------------------------------------------------------------------------- published check values


@functools.cache
def check_net(library):
    """The five-unit LSTM of the portable weights over forty steps, whose gradients PyTorch computed."""
    cell, params = lcg_params(lstmx.LSTM, 3, 5, 1.0, forget_bias=1.0)
    xs = lcg((40, 3), 5, 1.5)
    return lstmx.record(cell, *to(library, (params, xs)))


STEPS = np.array([1, 10, 20, 30, 39, 40]) - 1
AT_THE_LAST = np.broadcast_to(np.arange(40)[:, None] == 39, (40, 5)).astype(float)


def check_flow(library, loss):
    outputs = "all" if library == "numpy" else "norms"
    return lstmx.gradient_flow(check_net(library), to(library, loss), outputs=outputs)


@pytest.mark.slow
def test_gradients_at_a_stacked_output_are_not_those_through_the_recurrence(library):
    """Trap T1: the former are 0 before the last step, whatever the network does."""
    flow = check_flow(library, AT_THE_LAST)
    hidden = [
        3.4925790951004774e-4,
        2.600138714635619e-3,
        2.0247190329830002e-2,
        6.791378699850062e-2,
        0.7930992142901107,
        2.23606797749979,
    ]
    cell = [
        8.035876628903032e-4,
        4.122492686169894e-3,
        3.9787386101792645e-2,
        8.874253313096193e-2,
        0.5178016247641127,
        0.7456081746787102,
    ]
    np.testing.assert_allclose(flow.log_norm_hidden[STEPS], np.log(hidden), rtol=0, atol=1e-12)
    np.testing.assert_allclose(flow.log_norm_cell[STEPS], np.log(cell), rtol=0, atol=1e-12)
    if library == "numpy":
        np.testing.assert_allclose(np.linalg.norm(flow.hidden, axis=-1)[STEPS], hidden, rtol=1e-12, atol=0)
        np.testing.assert_allclose(np.linalg.norm(flow.cell, axis=-1)[STEPS], cell, rtol=1e-12, atol=0)


@pytest.mark.sample(1)
def test_a_summed_loss_has_another_gradient_than_one_at_every_output(library):
    """Trap T2: at a stacked output it is identically 1."""
    flow = check_flow(library, np.ones((40, 5)))
    norms = np.exp([flow.log_norm_hidden[0], flow.log_norm_cell[0]])
    np.testing.assert_allclose(norms, [2.5429023635763186, 4.104236585554508], rtol=1e-12, atol=0)


def test_the_check_net_has_the_known_parameter_and_initial_gradients(library):
    """V12."""
    flow = check_flow(library, AT_THE_LAST)
    norms = [np.linalg.norm(x) for x in (flow.parameters.recurrent_kernel, flow.initial.hidden, flow.initial.cell)]
    np.testing.assert_allclose(norms[0], 0.8602387537765, rtol=1e-12)
    np.testing.assert_allclose(norms[1:], [4.1516841505e-4, 6.9703201202e-4], rtol=1e-10)
    last_ten = lstmx.gradient_flow(check_net("numpy")[30:], outputs="norms").parameters.recurrent_kernel
    np.testing.assert_allclose(np.linalg.norm(last_ten) / norms[0], 0.8772616, rtol=0, atol=5e-8)


# ------------------------------------------------------------------------------------- equal to autodiff


@pytest.mark.sample(1)
@pytest.mark.parametrize("batch", [pytest.param((), marks=pytest.mark.slow), (2, 3)])
def test_total_cotangents_are_those_of_perturbed_states(kind, library, batch):
    made, loss, expected = example(kind, batch)
    flow = flow_of(made, library, loss)
    assert_close(flow.hidden, expected["hidden"], 1e-12)
    if expected["cell"] is None:
        assert flow.cell is None
        assert flow.log_norm_cell is None
    else:
        assert_close(flow.cell, expected["cell"], 1e-12)
        assert_close(flow.log_norm_cell, log_norms(expected["cell"]), 1e-12)
    assert_close(flow.log_norm_hidden, log_norms(expected["hidden"]), 1e-12)


@pytest.mark.sample(1)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_the_joint_norm_takes_hidden_and_cell_as_independent_coordinates(kind, library, batch):
    made, loss, expected = example(kind, batch)
    assert_close(flow_of(made, library, loss).log_norm, log_norms(expected["joint"]), 1e-12)


@pytest.mark.sample(1)
def test_the_joint_norm_is_that_of_a_product_of_jacobians(kind, library):
    (cell, params, xs, state), loss, _ = example(kind)
    start, unravel = jax.flatten_util.ravel_pytree(state)

    @jax.jit
    def one(flat, x):
        return jax.flatten_util.ravel_pytree(cell.step(params, unravel(flat), x)[0])[0]

    flat, jacobians = start, []
    for x in xs:
        jacobians.append(np.asarray(jax.jacfwd(one)(flat, x)))
        flat = one(flat, x)
    direct = np.zeros((len(xs), len(flat)))
    direct[:, : cell.hidden_size] = loss
    v, expected = np.zeros(len(flat)), []
    for jacobian, d in zip(jacobians[::-1], direct[::-1], strict=True):
        expected.append(np.log(np.linalg.norm(v + d)))
        v = jacobian.T @ (v + d)
    flow = flow_of((cell, params, xs, state), library, loss)
    assert_close(flow.log_norm, np.array(expected[::-1]), 1e-12)
    initial = np.concatenate([np.asarray(x) for x in flow.initial])
    assert_close(initial, v, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_gradients_of_parameters_inputs_and_initial_state_are_those_of_autodiff(kind, library, batch):
    made, loss, expected = example(kind, batch)
    flow = flow_of(made, library, loss)
    for name in ("parameters", "inputs", "initial"):
        assert_close(getattr(flow, name), expected[name], 1e-12)


SHAPES = [(1, (), 1, 1), (1, (2,), 2, 3), (5, (), 1, 3), (4, (2,), 2, 1), (3, (2, 1), 1, 2)]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("library", "shape"),
    [("numpy", shape) for shape in SHAPES] + [("jax", SHAPES[0])],
    ids=named,
)
@pytest.mark.parametrize("kind", CELLS, ids=named)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_passes_and_losses_of_every_shape_agree_with_autodiff(kind, library, shape, seed):
    length, batch, features, hidden = shape
    made = draw_pass(kind, length=length, batch=batch, features=features, hidden=hidden, seed=seed)
    loss = np.random.default_rng([seed, 1]).normal(size=(length, *batch, hidden))
    expected = expected_flow(*made, loss)
    flow = flow_of(made, library, loss)
    for name in ("hidden", "parameters", "inputs", "initial", "parameter_profile", "parameter_alignment"):
        assert_close(getattr(flow, name), expected[name], 1e-10)
    np.testing.assert_allclose(flow.log_norm, log_norms(expected["joint"]), rtol=0, atol=1e-10)


@pytest.mark.sample(1)
def test_the_word_last_is_the_sum_of_the_last_output(kind, library):
    made, loss, _ = example(kind)
    loss = 0 * loss
    loss[-1] = 1
    assert_close(flow_of(made, library, "last"), flow_of(made, library, loss), 1e-13)


@pytest.mark.slow
def test_a_function_of_the_outputs_is_differentiated_under_jax(kind):
    made, weights, _ = example(kind, (2, 3))
    outputs = lstmx.record(*made).hidden_state

    def loss(h):
        return jnp.sum(weights * h**3) + 0.5 * jnp.sum(h[1] * h[2]) + 0.25 * jnp.max(h)

    derivative = 3 * weights * outputs**2
    derivative[1] += 0.5 * outputs[2]
    derivative[2] += 0.5 * outputs[1]
    derivative[np.unravel_index(np.argmax(outputs), outputs.shape)] += 0.25
    expected = expected_flow(*made, derivative)
    flow = flow_of(made, "jax", loss)
    assert_close(flow.hidden, expected["hidden"], 1e-12)
    assert_close(flow.parameters, expected["parameters"], 1e-12)
    assert_close(flow.log_norm, log_norms(expected["joint"]), 1e-12)


@pytest.mark.parametrize("library", ["numpy", pytest.param("jax", marks=pytest.mark.slow)])
@pytest.mark.parametrize("outputs", ["all", "norms"])
def test_the_gradients_are_those_of_backward_to_the_last_bit(kind, library, outputs):
    """Save that XLA sums a parameter's gradient over time in the order it likes.

    Under JAX it is slow for it has to be asked of the programs that users run: see conftest.py.
    """
    made, loss, _ = example(kind, (2, 3))
    flow = flow_of(made, library, loss, outputs=outputs)
    cell, params, xs, state = made
    plain = lstmx.backward(lstmx.record(cell, *to(library, (params, xs, state))), to(library, loss))
    assert_same(flow.initial, plain.initial)
    if outputs == "all":
        assert_same(flow.inputs, plain.inputs)
    if library == "numpy":
        assert_same(flow.parameters, plain.parameters)
    assert_close(flow.parameters, plain.parameters, 1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU])
def test_jacobians_that_do_not_commute_are_multiplied_backwards_in_time(kind, library):
    """Trap T5: a library trained every LSTM and GRU with its Jacobians in forward order, unnoticed for years."""
    cell, params, xs, state = draw_pass(kind, seed=3)
    last = np.zeros((7, 4))
    last[-1] = 1

    @jax.jit
    def unrolled(params, xs, state):
        for t in range(7):
            state, _ = cell.step(params, state, xs[t])
        return jnp.sum(state.hidden)

    expected = jax.grad(unrolled, argnums=(0, 1, 2))(params, xs, state)
    flow = flow_of((cell, params, xs, state), library, last)
    assert_close((flow.parameters, flow.inputs, flow.initial), expected, 1e-13)
    history = lstmx.record(cell, params, xs, state)
    forwards = last[-1]
    for t in range(7):  # the same Jacobians, transposed, in the other order
        part = history[t : t + 1]
        forwards = lstmx.gradient_flow(part, forwards[None]).initial.hidden
    assert np.abs(forwards - expected[2].hidden).max() > 1e-3


# ------------------------------------------------------------------------------------ profiles and ledger


@pytest.mark.sample(5)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_the_profile_is_the_norm_of_each_steps_share_of_the_recurrent_gradient(kind, library, batch):
    made, loss, expected = example(kind, batch)
    flow = flow_of(made, library, loss)
    assert_close(flow.parameter_profile, expected["parameter_profile"], 1e-12)
    assert_close(flow.log_parameter_profile, np.log(expected["parameter_profile"]), 1e-12)
    assert_close(flow.parameter_alignment, expected["parameter_alignment"], 1e-12)


def test_the_steps_shares_add_up_to_the_whole_recurrent_gradient(kind, library):
    """As vectors: their projections on the whole, profile times alignment, sum to its norm."""
    made, loss, expected = example(kind, (2, 3))
    flow = flow_of(made, library, loss)
    whole = expected["contributions"].sum(axis=(0, 1, 2))
    assert_close(flow.parameters.recurrent_kernel, whole, 1e-12)
    along = np.sum(np.asarray(flow.parameter_profile) * np.asarray(flow.parameter_alignment))
    np.testing.assert_allclose(along, np.linalg.norm(whole), rtol=1e-12)


@pytest.mark.sample(4)
def test_a_first_step_from_the_zero_state_has_no_share_and_no_direction(kind, library):
    (cell, params, xs, _), loss, _ = example(kind)
    flow = lstmx.gradient_flow(lstmx.record(cell, *to(library, (params, xs))), to(library, loss))
    assert flow.log_parameter_profile[0] == -np.inf
    assert flow.parameter_profile[0] == 0
    assert np.isnan(flow.parameter_alignment[0])
    assert np.isfinite(flow.parameter_alignment[1:]).all()


@pytest.mark.slow
def test_a_single_step_from_the_zero_state_has_a_flow_and_no_recurrent_gradient(kind, library):
    (cell, params, xs, _), loss, _ = example(kind)
    flow = lstmx.gradient_flow(lstmx.record(cell, *to(library, (params, xs[:1]))), to(library, loss[:1]))
    assert_same(flow.hidden, loss[:1])
    assert not np.asarray(flow.parameters.recurrent_kernel).any()
    assert np.isnan(flow.parameter_alignment).all()


@functools.cache
def ledger(kind):
    (cell, params, xs, state), _, expected = example(kind)
    before = lstmx.record(cell, params, xs, state).before
    return jax.tree.map(np.asarray, parts_of(cell, params, before, xs, expected["joint"])), expected["joint"]


def test_the_ledger_names_every_way_back(kind, library):
    made, loss, _ = example(kind)
    assert set(flow_of(made, library, loss).gates) == set(WAYS[kind])


def test_the_ways_back_have_the_norms_of_separate_copies_of_the_state(kind, library):
    made, loss, _ = example(kind)
    flow = flow_of(made, library, loss)
    for way, part in ledger(kind)[0].items():
        assert_close(flow.gates[way].log_norm, log_norms(part), 1e-12)


def test_the_shares_are_projections_on_the_whole_and_add_up_to_one(kind, library):
    made, loss, _ = example(kind)
    flow = flow_of(made, library, loss)
    parts, _ = ledger(kind)
    whole = sum(parts.values())
    for way, part in parts.items():
        share = np.sum(part * whole, axis=-1) / np.sum(whole**2, axis=-1)
        assert_close(flow.gates[way].share, share, 1e-12)
    total = sum(np.asarray(way.share) for way in flow.gates.values())
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-14)


def test_the_parts_add_up_to_what_arrives_one_step_earlier(kind):
    """The oracle's own check: the whole that the ledger is held to is the cotangent of the joint state."""
    _, loss, _ = example(kind)
    parts, joint = ledger(kind)
    direct = np.zeros_like(joint)
    direct[:, : loss.shape[-1]] = loss
    np.testing.assert_allclose(sum(parts.values())[1:], (joint - direct)[:-1], rtol=0, atol=1e-14)


def test_shares_add_up_to_one_in_every_sequence_of_a_batch_and_far_out_of_range(kind):
    history = random_history(kind, length=40, batch=(2, 2))
    small = history.params._replace(recurrent_kernel=history.params.recurrent_kernel * 1e-30)
    history = lstmx.record(history.cell, small, history.inputs)
    flow = lstmx.gradient_flow(history)
    if kind is lstmx.SimpleRNN:
        assert flow.log_norm.max(axis=(1, 2))[0] < -2000
    total = sum(np.asarray(way.share) for way in flow.gates.values())
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_the_highway_is_what_travels_along_the_retention_gates_alone(kind, library, batch):
    (cell, params, xs, state), loss, _ = example(kind, batch)
    history = lstmx.record(cell, params, xs, state)
    flow = flow_of((cell, params, xs, state), library, loss)
    if kind is lstmx.SimpleRNN:
        assert flow.log_highway is None
        return
    if kind is lstmx.LSTM:
        injected, keep = loss * history.output_gate * (1 - np.tanh(history.cell_state) ** 2), history.forget_gate
    else:
        injected, keep = loss, history.update_gate
    v, expected = 0.0, []
    for here, gate in zip(injected[::-1], keep[::-1], strict=True):
        v = v + here
        expected.append(np.log(np.linalg.norm(v, axis=-1)))
        v = v * gate
    assert_close(flow.log_highway, np.array(expected[::-1]), 1e-12)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU])
def test_without_recurrent_weights_only_the_highway_is_left(kind, library):
    """And it is the closed form: ln ‖readout‖ and the sum of ln f per unit."""
    cell, params, xs, _ = draw_pass(kind)
    params = params._replace(recurrent_kernel=0 * params.recurrent_kernel)
    history = lstmx.record(cell, *to(library, (params, xs)))
    flow = lstmx.gradient_flow(history)
    keep = np.log(np.asarray(history.forget_gate if kind is lstmx.LSTM else history.update_gate))
    if kind is lstmx.LSTM:
        readout = np.asarray(history.output_gate[-1]) * (1 - np.tanh(np.asarray(history.cell_state[-1])) ** 2)
        assert_close(flow.log_highway, flow.log_norm_cell, 1e-12)
    else:
        readout = np.ones(4)
        ways = keep  # the candidate, through no weight, is no way back
        assert_close(flow.log_highway, flow.log_norm_hidden, 1e-12)
    ways = np.cumsum(keep[::-1], axis=0)[::-1] - keep  # Σ over later steps, then without the step's own gate
    later = np.concatenate([np.cumsum(keep[:0:-1], axis=0)[::-1], np.zeros((1, 4))])
    np.testing.assert_allclose(ways, later, atol=1e-12)
    assert_close(flow.log_highway, np.log(np.linalg.norm(readout * np.exp(later), axis=-1)), 1e-12)


# --------------------------------------------------------------------------------- beyond the float range


IN_EITHER_LIBRARY_AND_TYPE = pytest.mark.parametrize(
    ("library", "dtype"), [("numpy", "float32"), ("numpy", "float64"), ("jax", "float32")]
)


def extreme(name, kind, dtype):
    """Parameters and inputs whose gradient leaves the range of the dtype within twelve steps."""
    draws = np.random.default_rng(5)
    cell = kind(2, 2)
    params = draw_params(cell, draws, scale=0.8)
    xs = draws.normal(size=(12, 2))
    retained = {lstmx.LSTM: slice(2, 4), lstmx.GRU: slice(2, 4)}
    shut, tiny, large = (-60.0, 1e-20, 1e30) if dtype == "float32" else (-400.0, 1e-150, 1e250)
    if name == "shut retention gate":
        params.bias[retained[kind]] += shut
        params = params._replace(recurrent_kernel=params.recurrent_kernel * tiny)
    if name == "tiny weights":
        params = params._replace(recurrent_kernel=params.recurrent_kernel * tiny)
    if name == "exploding":  # around the zero state, where no weight is large enough to saturate anything
        zeros = (np.zeros_like(x) for x in params)
        params = type(params)(*zeros)._replace(recurrent_kernel=params.recurrent_kernel * large)
        xs = 0 * xs
    return cell, *jax.tree.map(lambda x: x.astype(dtype), (params, xs))


EXTREMES = [
    ("shut retention gate", lstmx.LSTM),
    ("shut retention gate", lstmx.GRU),
    ("tiny weights", lstmx.SimpleRNN),
    ("exploding", lstmx.LSTM),
    ("exploding", lstmx.GRU),
    ("exploding", lstmx.SimpleRNN),
]


@pytest.mark.sample(3)
@IN_EITHER_LIBRARY_AND_TYPE
@pytest.mark.parametrize(("name", "kind"), EXTREMES, ids=named)
def test_log_norms_out_of_range_are_those_of_sixty_digits(name, kind, library, dtype):
    cell, params, xs = extreme(name, kind, dtype)
    loss = np.random.default_rng(6).normal(size=(12, 2)).astype(dtype)
    loss[:-1] = 0
    joint, hidden, cell_part = sixty_digits(cell, params, xs, loss)
    limit = np.log(float(np.finfo(dtype).max))
    assert abs(joint[0]) > 1.5 * limit
    with np.errstate(over="ignore", invalid="ignore"):  # NumPy on the parameters' gradient, which is out of range
        flow = lstmx.gradient_flow(
            lstmx.record(cell, *to(library, (params, xs))), to(library, loss), outputs="norms"
        )
    tolerance = {"rtol": 1e-6, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-14, "atol": 1e-12}
    np.testing.assert_allclose(flow.log_norm, joint, **tolerance)
    np.testing.assert_allclose(flow.log_norm_hidden, hidden, **tolerance)
    if kind is lstmx.LSTM:
        np.testing.assert_allclose(flow.log_norm_cell, cell_part, **tolerance)


@pytest.mark.sample(1)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_one_step_shrinks_beyond_the_float_range_counts_as_an_exact_zero(library, dtype):
    """Two closed gates in one step: o f is below the float range where neither o nor f is. A documented limit."""
    shut = -60.0 if dtype == "float32" else -400.0
    cell = lstmx.LSTM(1, 1)
    bias = np.array([0, shut, 0, shut], dtype)
    params = lstmx.LSTMParams(np.zeros((1, 4), dtype), np.zeros((1, 4), dtype), bias)
    flow = lstmx.gradient_flow(lstmx.record(cell, *to(library, (params, np.ones((4, 1), dtype)))), outputs="norms")
    np.testing.assert_allclose(flow.log_norm_cell, [-np.inf, -np.inf, -np.inf, shut], rtol=1e-6)
    np.testing.assert_allclose(flow.log_norm, [-np.inf, -np.inf, -np.inf, 0], atol=1e-6)


@pytest.mark.sample(2)
@IN_EITHER_LIBRARY_AND_TYPE
def test_ordinary_networks_in_each_float_type_have_the_log_norms_of_sixty_digits(kind, library, dtype):
    draws = np.random.default_rng(8)
    cell = kind(2, 2)
    params = draw_params(cell, draws, dtype)
    xs, loss = draws.normal(size=(12, 2)).astype(dtype), draws.normal(size=(12, 2)).astype(dtype)
    joint, hidden, cell_part = sixty_digits(cell, params, xs, loss)
    history = lstmx.record(cell, *to(library, (params, xs)))
    flow = lstmx.gradient_flow(history, to(library, loss), outputs="norms")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(flow)} == {dtype}
    tolerance = 2e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(flow.log_norm, joint, rtol=0, atol=tolerance)
    np.testing.assert_allclose(flow.log_norm_hidden, hidden, rtol=0, atol=tolerance)
    if kind is lstmx.LSTM:
        np.testing.assert_allclose(flow.log_norm_cell, cell_part, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "dtype", "forget_bias"),
    [("numpy", "float64", 1.0), *(("jax", "float32", bias) for bias in (-2.0, 1.0, 5.0))],
)
def test_twenty_thousand_steps_vanish_by_the_closed_form(library, dtype, forget_bias):
    """V05: without weights, ln ∂c_T/∂c_t is −(T − t) softplus(−b), to two roundings a step."""
    cell = lstmx.LSTM(1, 2)
    bias = np.array([0, 0, forget_bias, forget_bias, 0, 0, 0, 0], dtype)
    params = lstmx.LSTMParams(np.zeros((1, 8), dtype), np.zeros((2, 8), dtype), bias)
    history = lstmx.record(cell, *to(library, (params, np.zeros((20_000, 1), dtype))), keep="states")
    flow = lstmx.gradient_flow(history, outputs="norms")
    back = np.arange(20_000)[::-1]
    expected = np.log(0.5 * np.sqrt(2)) - back * softplus(-forget_bias)  # readout ½ at c = 0
    rounding = float(np.finfo(dtype).eps)
    for name in ("log_norm_cell", "log_highway", "log_norm"):
        off = np.abs(np.asarray(getattr(flow, name), np.float64) - expected)[: -1 if name == "log_norm" else None]
        assert (off <= rounding * (1 + back + np.abs(expected))[: len(off)]).all()
    np.testing.assert_allclose(flow.log_norm_hidden[-1], np.log(np.sqrt(2)), rtol=2 * rounding)
    assert_same(flow.log_norm_hidden[:-1], np.full(19_999, -np.inf, dtype))
    if dtype == "float64":
        rate, error = FlowReadings(np.asarray(flow.log_norm_cell)).decay_rate
        np.testing.assert_allclose(rate, softplus(-forget_bias), rtol=1e-12)
        assert error < 1e-12


@pytest.mark.sample(1)
@pytest.mark.parametrize("weight", [1.5, -0.3])
def test_twenty_thousand_steps_of_one_unit_near_zero_grow_by_its_weight(library, weight):
    cell = lstmx.SimpleRNN(1, 1)
    params = lstmx.SimpleRNNParams(np.ones((1, 1)), np.full((1, 1), weight), np.zeros(1))
    history = lstmx.record(cell, *to(library, (params, np.zeros((20_000, 1)))), keep="states")
    with np.errstate(over="ignore", invalid="ignore"):
        flow = lstmx.gradient_flow(history, outputs="norms")
    expected = np.arange(20_000)[::-1] * np.log(abs(weight))
    np.testing.assert_allclose(flow.log_norm, expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(flow.decay_rate.rate, -np.log(abs(weight)), rtol=1e-12)


def test_an_exploding_gradient_raises_no_warning_in_numpy():
    """Plain fields are infinite where they leave the range, as promised, and the log norms go on."""
    cell = lstmx.LSTM(1, 1)
    params = lstmx.LSTMParams(np.ones((1, 4)), np.array([[0, 0, 40.0, 0]]), np.zeros(4))
    state = lstmx.LSTMState(np.full(1, 1e-300), np.full(1, 1e-300))
    history = lstmx.record(cell, params, np.full((600, 1), 1e-300), state)
    loss = np.zeros((600, 1))
    loss[-1] = 1e300
    flow = lstmx.gradient_flow(history, loss)
    assert flow.log_norm[0] > 1100
    assert np.isposinf(flow.hidden[0]).all()
    assert np.isfinite(flow.log_parameter_profile).all()
    beyond = dataclasses.replace(flow, log_parameter_profile=np.array([800.0]))
    assert np.isposinf(beyond.parameter_profile).all()
    assert np.isposinf(flow.parameters.bias[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "kind"), [*(("numpy", kind) for kind in CELLS), ("jax", lstmx.GRU)], ids=named
)
def test_an_early_loss_counts_although_the_gradient_of_the_late_one_has_underflowed(kind, library):
    length = 800
    cell, params, xs, _ = draw_pass(kind, length=length, features=1, hidden=2)
    params = params._replace(recurrent_kernel=1e-3 * params.recurrent_kernel, bias=params.bias - 2)
    history = lstmx.record(cell, *to(library, (params, xs)), keep="states")
    early = np.zeros((length, 2))
    early[20] = [1, -2]
    both = early.copy()
    both[-1] = [0.5, 3]
    alone = lstmx.gradient_flow(history.to_numpy()[:21], early[:21])
    outputs = "all" if library == "numpy" else "norms"
    flow = lstmx.gradient_flow(history, to(library, both), outputs=outputs)
    late = lstmx.gradient_flow(history, to(library, both - early), outputs=outputs)
    assert late.log_norm[20] < -800
    np.testing.assert_allclose(flow.log_norm[:21], alone.log_norm, rtol=1e-13, atol=1e-13)
    if outputs == "all":
        np.testing.assert_allclose(flow.hidden[:21], alone.hidden, rtol=1e-12)
        np.testing.assert_allclose(flow.inputs[:21], alone.inputs, rtol=1e-12)
    np.testing.assert_allclose(flow.log_norm[21:], late.log_norm[21:], rtol=1e-13, atol=1e-13)


@pytest.mark.sample(2)
@pytest.mark.parametrize("early", [2, 9])
def test_an_early_loss_counts_although_the_late_gradient_exploded_and_then_met_a_saturated_unit(library, early):
    """After the exact zero nothing is left of the late loss, and so no scale to lose the early one on."""
    cell = lstmx.SimpleRNN(1, 1)
    params = lstmx.SimpleRNNParams(np.ones((1, 1)), np.full((1, 1), 10.0), np.zeros(1))
    xs = np.zeros((1000, 1))
    xs[10], xs[11] = 1000, -10  # saturated, then back to zero
    history = lstmx.record(cell, *to(library, (params, xs)))
    assert not np.any(np.asarray(history.hidden_state[11:]))
    loss = np.zeros((1000, 1))
    loss[early] = loss[-1] = 1
    expected = np.arange(early + 1)[::-1]
    flow = lstmx.gradient_flow(history, to(library, loss), outputs="norms")
    assert flow.log_norm[11] > 1000
    np.testing.assert_allclose(flow.log_norm[: early + 1], expected * np.log(10.0), atol=1e-13)


def test_an_exact_zero_loss_gives_minus_infinity_and_no_nan(kind, library):
    history = random_history(kind, library, batch=(2, 3))
    flow = lstmx.gradient_flow(history, history.hidden_state * 0)
    for name in ("log_norm", "log_norm_hidden", "log_norm_cell", "log_highway", "log_parameter_profile"):
        values = getattr(flow, name)
        assert values is None or np.isneginf(values).all()
    for tree in (flow.parameters, flow.inputs, flow.initial, flow.hidden, flow.parameter_profile):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(tree))
    for way in flow.gates.values():
        assert np.isneginf(way.log_norm).all()
        assert np.isnan(way.share).all()


def test_zero_weights_cut_the_gradient_to_minus_infinity_and_no_nan(kind, library):
    cell, params, xs, _ = draw_pass(kind)
    params = type(params)(*(0 * x for x in params))
    last = np.zeros((7, 4))
    last[-1] = 1
    flow = lstmx.gradient_flow(lstmx.record(cell, *to(library, (params, xs))), to(library, last))
    if kind is lstmx.GRU:
        np.testing.assert_allclose(flow.log_norm, np.log(2) - np.arange(7)[::-1] * np.log(2), atol=1e-14)
    else:
        assert np.isneginf(flow.log_norm_hidden[:-1]).all()
        np.testing.assert_allclose(flow.log_norm_hidden[-1], np.log(2))
    if kind is lstmx.LSTM:
        np.testing.assert_allclose(flow.log_norm_cell, -np.arange(7)[::-1] * np.log(2), atol=1e-14)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves((flow.log_norm, flow.parameters, flow.hidden)))


# ------------------------------------------------------------------------------------- forms of one answer


@pytest.mark.slow
def test_the_norms_alone_equal_those_of_the_whole_answer(kind, library):
    made, loss, _ = example(kind, (2, 3))
    every, norms = flow_of(made, library, loss), flow_of(made, library, loss, outputs="norms")
    for name in (
        "log_norm",
        "log_norm_hidden",
        "log_norm_cell",
        "log_highway",
        "log_parameter_profile",
        "parameters",
        "initial",
    ):
        assert_close(getattr(norms, name), getattr(every, name), 1e-14)
    for name in ("hidden", "cell", "inputs", "gates", "parameter_alignment"):
        assert getattr(norms, name) is None


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("library", "kind"), [*(("numpy", kind) for kind in CELLS), ("jax", lstmx.GRU)], ids=named
)
def test_a_history_of_states_gives_the_same_flow_as_one_of_everything(kind, library):
    cell, params, xs, state = example(kind)[0]
    outputs = "all" if library == "numpy" else "norms"
    flows = [
        lstmx.gradient_flow(lstmx.record(cell, *to(library, (params, xs, state)), keep=keep), outputs=outputs)
        for keep in ("all", "states")
    ]
    assert_close(flows[1], flows[0], 1e-13)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("kind", "library", "steps"),
    [(kind, "numpy", steps) for kind in CELLS for steps in (3, 5, 7, 8)] + [(lstmx.GRU, "jax", 3)],
)
def test_the_flow_does_not_depend_on_the_chunks_it_is_worked_in(kind, library, steps, monkeypatch):
    """The length occurs in no other test, so that nothing compiled in chunks is met elsewhere."""
    made = draw_pass(kind, length=8, batch=(2,), features=1, hidden=2)
    loss = np.random.default_rng(2).normal(size=(8, 2, 2))
    outputs = "all" if library == "numpy" else "norms"
    whole = flow_of(made, "numpy", loss, outputs=outputs)
    monkeypatch.setattr("lstmx.linear.walks._chunk_steps", lambda history: steps)
    assert_close(flow_of(made, library, loss, outputs=outputs), whole, 1e-13)


def test_a_long_history_is_worked_in_short_chunks(monkeypatch):
    history = random_history(lstmx.GRU, length=521)
    assert walks._chunk_steps(history) == 256
    whole = lstmx.gradient_flow(history)
    monkeypatch.setattr("lstmx.linear.walks._chunk_steps", lambda history: 16)
    assert_close(lstmx.gradient_flow(history), whole, 1e-13)


@pytest.mark.parametrize("outputs", ["all", "norms"])
def test_a_progress_bar_changes_no_number(kind, outputs, capsys):
    history = random_history(kind, length=70, batch=(2,))
    loss = np.random.default_rng(3).normal(size=(70, 2, 4))
    shown = lstmx.gradient_flow(history, loss, outputs=outputs, progress=True)
    assert_close(shown, lstmx.gradient_flow(history, loss, outputs=outputs), 1e-13)
    assert "70" in capsys.readouterr().err


@pytest.mark.slow
def test_numpy_and_jax_give_the_same_flow(kind):
    made, loss, _ = example(kind, (2, 3))
    numpy, jaxed = (flow_of(made, library, loss) for library in LIBRARIES)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(numpy))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(jaxed))
    assert_close(jaxed, numpy, 1e-13)


@pytest.mark.slow
def test_ways_back_are_listed_in_the_order_of_the_gates(kind, library):
    history = random_history(kind, library)
    assert list(lstmx.gradient_flow(history, history.hidden_state).gates) == WAYS[kind]


def test_a_flow_in_float32_is_in_float32(kind):
    flow = lstmx.gradient_flow(random_history(kind, dtype="float32"))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(flow)} == {"float32"}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(2, 3)])
def test_each_sequence_of_a_batch_has_the_flow_it_has_alone(kind, library, batch):
    (cell, params, xs, state), loss, _ = example(kind, batch)
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    flow = lstmx.gradient_flow(history, to(library, loss))
    summed = jax.tree.map(np.zeros_like, params)
    for index in np.ndindex(*batch):
        alone = lstmx.gradient_flow(history.sequence(*index), to(library, loss[(slice(None), *index)]))
        summed = jax.tree.map(np.add, summed, jax.tree.map(np.asarray, alone.parameters))
        for name in ("log_norm", "log_norm_hidden", "log_norm_cell", "log_parameter_profile", "hidden", "inputs"):
            if getattr(alone, name) is not None:
                assert_close(getattr(flow, name)[(slice(None), *index)], getattr(alone, name), 1e-13)
        for way in alone.gates:
            assert_close(flow.gates[way].share[(slice(None), *index)], alone.gates[way].share, 1e-12)
        assert_close(jax.tree.map(lambda x, i=index: x[i], flow.initial), alone.initial, 1e-13)
    assert_close(flow.parameters, summed, 1e-13)


@pytest.mark.slow
def test_a_flow_is_a_tree_and_can_be_computed_within_jit(kind):
    (cell, params, xs, state), loss, _ = example(kind, (2, 3))

    @jax.jit
    def compiled(params, xs, state, loss):
        return lstmx.gradient_flow(lstmx.record(cell, params, xs, state), loss, outputs="norms")

    flow = compiled(params, xs, state, loss)
    assert isinstance(flow, lstmx.GradientFlow)
    assert_close(flow, flow_of((cell, params, xs, state), "jax", loss, outputs="norms"), 1e-13)
    doubled = jax.tree.map(lambda x: 2 * x, flow)
    assert isinstance(doubled, lstmx.GradientFlow)
    assert_same(doubled.log_norm, 2 * flow.log_norm)


@pytest.mark.slow
def test_mapping_over_sequences_equals_the_batched_call():
    (cell, params, xs, state), loss, _ = example(lstmx.GRU, (2, 3))

    @functools.partial(jax.vmap, in_axes=(1, 0, 1), out_axes=(1, 0))
    def mapped(xs, state, loss):
        flow = lstmx.gradient_flow(lstmx.record(cell, to("jax", params), xs, state), loss, outputs="norms")
        return flow.log_norm, flow.initial

    batched = flow_of((cell, params, xs, state), "jax", loss, outputs="norms")
    assert_close(mapped(xs, state, loss), (batched.log_norm, batched.initial), 1e-13)


# -------------------------------------------------------------------------------------------- the summary


class FlowReadings(FlowSummary):
    """A log-norm profile [T, *batch] with the readings of a flow whose loss is at the last step."""

    log_highway = None
    gates = None

    def __init__(self, log_norm):
        self.log_norm = np.asarray(log_norm)
        self.log_direct = np.full(self.log_norm.shape, -np.inf)
        self.log_direct[-1] = 0


@pytest.mark.parametrize("length", [8, 9, 50, 1000])
@pytest.mark.parametrize("rate", [0.25, -0.5])
def test_the_rate_of_a_geometric_decay_is_exact(length, rate):
    readings = FlowReadings(3 + rate * np.arange(length))  # sums of multiples of 1/4: no rounding
    assert readings.decay_rate.rate == rate
    assert readings.decay_rate.standard_error == 0
    expected = np.log(2) / rate if rate > 0 else np.inf
    np.testing.assert_allclose(readings.half_life, expected, rtol=1e-15)


def test_each_sequence_of_a_batch_has_a_rate_of_its_own():
    rates = np.array([[0.25, -0.5, 0.125], [1.0, 0.5, 0.0]])
    readings = FlowReadings(np.arange(20.0)[:, None, None] * rates)
    assert_same(readings.decay_rate.rate, rates)
    assert readings.decay_rate.standard_error.shape == (2, 3)
    assert readings.half_life.shape == readings.horizon().shape == readings.verdict.shape == (2, 3)
    assert readings.half_life[1, 2] == np.inf
    assert readings.verdict.tolist() == [
        ["vanishing", "exploding", "steady"],
        ["vanishing", "vanishing", "steady"],
    ]


def test_the_rate_is_the_least_squares_slope_and_leaves_out_exact_zeros():
    values = np.random.default_rng(0).normal(size=30)
    np.testing.assert_allclose(
        FlowReadings(values).decay_rate.rate, np.polyfit(np.arange(30), values, 1)[0], rtol=1e-12
    )
    values[:5] = values[12] = -np.inf
    steps = np.flatnonzero(np.isfinite(values))
    np.testing.assert_allclose(
        FlowReadings(values).decay_rate.rate, np.polyfit(steps, values[steps], 1)[0], rtol=1e-12
    )


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_short_flow_has_no_standard_error_and_a_single_step_no_rate(length):
    rate, error = FlowReadings(0.5 * np.arange(length)).decay_rate
    assert np.isnan(error)
    assert np.isnan(rate) if length == 1 else rate == 0.5
    assert np.isnan(FlowReadings(np.zeros(1)).half_life)


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.4])
def test_the_standard_error_covers_the_rate_of_a_random_walk_with_correlated_increments(correlation):
    """400 walks: of the z-scores, 95.4 % would lie within ±2; a block estimate of √T blocks has a few % less."""
    draws = np.random.default_rng(1)
    length, walks, mean = 4000, 400, 0.05
    noise = draws.normal(size=(length, walks))
    steps = np.zeros_like(noise)
    steps[0] = noise[0] / np.sqrt(1 - correlation**2)
    for t in range(1, length):
        steps[t] = correlation * steps[t - 1] + noise[t]
    rate, error = FlowReadings(np.cumsum(mean + steps, axis=0)).decay_rate
    z = (rate - mean) / error
    assert 0.91 < np.mean(np.abs(z) < 2) < 0.98  # 4 standard errors of a proportion are 4 %
    assert abs(z.mean()) < 4 / np.sqrt(walks)
    assert 0.9 < z.std() < 1.15


def test_the_horizon_is_the_first_step_back_at_or_below_the_fraction():
    readings = FlowReadings(np.log([0.001, 0.02, 0.009, 0.5, 1.0]))
    assert readings.horizon() == 2
    assert readings.horizon(0.5 * (1 + 1e-12)) == 1
    assert readings.horizon(0.001 * (1 + 1e-12)) == 4
    assert readings.horizon(0.0001) == np.inf


def test_the_horizon_counts_an_exact_zero_as_reached():
    assert FlowReadings([-np.inf, -np.inf, 0.0]).horizon() == 1


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2, np.nan])
def test_the_horizon_takes_only_a_fraction(fraction):
    with pytest.raises(ValueError, match=r"fraction is .*; expected a number between 0 and 1"):
        FlowReadings(np.zeros(3)).horizon(fraction)


@pytest.mark.parametrize(
    ("profile", "verdict"),
    [
        (0.25 * np.arange(40), "vanishing"),
        (-0.25 * np.arange(40), "exploding"),
        (0.25 * np.arange(10), "steady"),  # decays, by less than a factor of 100
        (np.zeros(40), "steady"),
        (np.where(np.arange(40) < 20, -np.inf, 0), "vanishing"),
        ([0.0], "undefined"),  # nothing before the loss
    ],
)
def test_the_verdict_is_a_word_with_thresholds(profile, verdict):
    assert FlowReadings(profile).verdict == verdict


def test_a_printed_flow_says_how_fast_and_which_way(kind):
    cell, params, xs, _ = draw_pass(kind, length=60)
    params = params._replace(recurrent_kernel=params.recurrent_kernel * 0.1)
    text = str(lstmx.gradient_flow(lstmx.record(cell, params, xs)))
    assert "gradient over 60 steps: vanishing" in text
    for words in (
        "nats per step",
        "half-life",
        "mean share of each way back",
        "first norm < 1 % of that at the loss",
    ):
        assert words in text
    assert ("along the retention gates alone" in text) == (kind is not lstmx.SimpleRNN)
    for way in WAYS[kind]:
        assert f"{way.replace('_', ' ')} " in text


@pytest.mark.sample(2)
@pytest.mark.parametrize(("library", "outputs"), [("numpy", "all"), ("numpy", "norms"), ("jax", "norms")])
def test_a_printed_batch_counts_its_verdicts(library, outputs):
    history = random_history(lstmx.GRU, library, batch=(2, 3))
    text = str(lstmx.gradient_flow(history, outputs=outputs))
    assert "(medians of 6 sequences): 6 steady" in text
    assert ("mean share" in text) == (outputs == "all")


@pytest.mark.sample(4)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_the_flow_of_an_exact_zero_loss_can_be_read_and_printed(kind, library, batch):
    history = random_history(kind, library, batch=batch)
    flow = lstmx.gradient_flow(history, history.hidden_state * 0)
    assert (flow.verdict == "undefined").all()
    assert np.isnan(flow.half_life).all()
    assert np.isnan(flow.horizon()).all()
    assert "gradient over 7 steps" in str(flow)
    assert "no loss enters: the gradient is zero at every step" in str(flow)
    assert "nan" not in str(flow)


@pytest.mark.sample(1)
def test_the_flow_of_a_single_step_can_be_read_and_printed(kind, library):
    history = random_history(kind, library, length=1)
    flow = lstmx.gradient_flow(history, history.hidden_state)
    assert np.isnan(flow.decay_rate.rate)
    assert flow.horizon() == np.inf
    assert "gradient over 1 steps: undefined" in str(flow)
    assert "nan" not in str(flow)


# ----------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("loss", "error", "match"),
    [
        (np.ones((7, 3)), ValueError, r"loss has shape \(7, 3\); expected dL/dh_t .*\(7, 4\)"),
        (np.ones((6, 4)), ValueError, r"loss has shape \(6, 4\)"),
        (np.ones((7, 1, 4)), ValueError, r"loss has shape \(7, 1, 4\)"),
        (np.ones(4), ValueError, r"loss has shape \(4,\)"),
        (np.ones((7, 4), "float32"), TypeError, "loss is float32; .* float64"),
        (np.ones((7, 4), int), TypeError, "loss is int64"),
        ([[1.0] * 4] * 7, TypeError, 'loss is a list; expected "last", an array'),
        (None, TypeError, "loss is None; expected"),
        (1.0, TypeError, "loss is 1.0; expected"),
        ("first", ValueError, "loss is 'first'; expected \"last\", an array"),
    ],
)
def test_a_loss_of_another_kind_shape_or_dtype_is_refused(kind, library, loss, error, match):
    loss = to(library, loss) if isinstance(loss, np.ndarray) else loss
    with pytest.raises(error, match=match):
        lstmx.gradient_flow(random_history(kind, library), loss)


def test_a_function_is_refused_in_numpy(kind):
    with pytest.raises(TypeError, match="loss is a function, which takes JAX to differentiate"):
        lstmx.gradient_flow(random_history(kind), np.sum)


def test_a_function_must_return_a_scalar():
    with pytest.raises(
        ValueError, match=r"loss gives an array \(4,\) of float64 of the outputs; expected a real scalar"
    ):
        lstmx.gradient_flow(random_history(lstmx.GRU, "jax"), lambda outputs: outputs[-1])


def test_the_extent_of_the_answer_is_one_of_two_words(library):
    with pytest.raises(ValueError, match="outputs is 'everything'; expected one of 'all', 'norms'"):
        lstmx.gradient_flow(random_history(lstmx.GRU, library), outputs="everything")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_input_is_named_by_its_first_step_and_unit(kind, library, value):
    cell, params, xs, _ = draw_pass(kind, batch=(2,))
    xs[3, 1, 2] = xs[5, 0, 0] = value
    with np.errstate(invalid="ignore"):
        history = lstmx.record(cell, *to(library, (params, xs)))
    with pytest.raises(ValueError, match=rf"inputs is {value} first at step 3, sequence \(1,\), feature 2; exp"):
        lstmx.gradient_flow(history)


def test_a_bad_initial_state_is_named_by_the_first_step_and_unit_it_reaches(kind, library):
    cell, params, xs, state = draw_pass(kind)
    state.hidden[1] = np.nan
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    with pytest.raises(ValueError, match="hidden_state is nan first at step 0, unit 0; expected finite"):
        lstmx.gradient_flow(history)


def test_an_infinite_cell_state_is_refused_and_not_spread_as_nan(library):
    """Its tanh is 1, so the outputs do not show it; its gradient is NaN."""
    cell, params, xs, state = draw_pass(lstmx.LSTM)
    state.cell[1] = np.inf
    history = lstmx.record(cell, *to(library, (params, xs, state)))
    assert np.isfinite(history.hidden_state).all()
    with pytest.raises(ValueError, match=r"cell.* is inf first at step 0, unit 1; expected finite"):
        lstmx.gradient_flow(history)


def test_bad_parameters_are_named(kind, library):
    cell, params, xs, _ = draw_pass(kind)
    history = lstmx.record(cell, *to(library, (params, xs)))
    params.bias[0] = np.nan
    broken = lstmx.History(cell, to(library, params), history.initial, *history.rows)
    with pytest.raises(ValueError, match=r"params\.bias holds NaN or infinity"):
        lstmx.gradient_flow(broken)


def test_a_bad_loss_is_named_by_its_first_step_and_unit(kind, library):
    history = random_history(kind, library)
    loss = np.ones((7, 4))
    loss[2, 3] = np.nan
    with pytest.raises(ValueError, match="loss is nan first at step 2, unit 3"):
        lstmx.gradient_flow(history, to(library, loss))
    if library == "jax":
        with pytest.raises(ValueError, match="loss is nan first at step 0, unit 0"):
            lstmx.gradient_flow(history, lambda outputs: jnp.sum(outputs) * jnp.nan)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_of_an_exploding_gradient_are_right_wherever_they_are_in_range(library, dtype):
    """Units at rest with a loop of weight 4, and W = 0: ∂L/∂W is Σ 4^(T-1-t) x_t, and ∂L/∂U is 0.

    Of the features one is never on, one late, one early but small, two parts of one cancel in part far beyond the
    range, and one is beyond it, below 0.
    """
    length, far = (200, 70) if dtype == "float32" else (1400, 520)
    cell = lstmx.SimpleRNN(5, 2)
    params = lstmx.SimpleRNNParams(np.zeros((5, 2)), 4 * np.eye(2), np.zeros(2))
    xs = np.zeros((length, 5))
    xs[-2, 1] = 1
    xs[-1 - far, 2] = 2.0**-100
    xs[-2 - far, 3], xs[-1 - far, 3], xs[-1, 3] = 2.0**-100, -(2.0**-98), 3
    xs[0, 4] = -1
    given = jax.tree.map(lambda x: x.astype(dtype), (params, xs))
    flow = lstmx.gradient_flow(lstmx.record(cell, *to(library, given)))
    expected = np.array([0, 4, 2.0 ** (2 * far - 100), 3, -np.inf])
    np.testing.assert_array_equal(flow.parameters.input_kernel, np.stack([expected, expected], axis=1))
    np.testing.assert_array_equal(flow.parameters.recurrent_kernel, 0)
    np.testing.assert_array_equal(flow.parameters.bias, np.inf)
    np.testing.assert_array_equal(flow.inputs, 0)  # W is 0, whatever arrives


@pytest.mark.slow
def test_what_is_in_range_of_an_exploding_gradient_can_be_differentiated():
    """L = ln ‖∂L/∂s_0‖ + ∂L/∂W of a late input: with W = 0 their derivatives are those of ln 4^T and of 4."""
    values = (((1, 1), 0), ((1, 1), 4), (1, 0))
    params = lstmx.SimpleRNNParams(*(np.full(shape, value, "float32") for shape, value in values))
    xs = np.zeros((200, 1), "float32")
    xs[-2] = 1

    def loss(u):
        history = lstmx.record(lstmx.SimpleRNN(1, 1), params._replace(recurrent_kernel=u), jnp.asarray(xs))
        flow = lstmx.gradient_flow(history)
        return flow.log_norm[0] + flow.parameters.input_kernel[0, 0]

    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(params.recurrent_kernel)), 199 / 4 + 1, rtol=1e-5)
