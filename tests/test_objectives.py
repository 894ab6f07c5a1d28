"""`lstmx.objectives`: each against a plain loop in every context of a pass, its derivative against differences."""

import contexts
import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from reference import to
from test_differentiable import PASSES, check, linear, recorder

import lstmx
from lstmx.objectives import activation, gradient_flossing, isometry, temporal_activation, vanishing_gradient


def drops(case, b):
    """Where a sequence's counted steps start anew, [n]."""
    return np.asarray(case.rows.reset)[: case.n[b], b].astype(bool)


def omega(case, weights):
    """Ω with loops over the Jacobians of each sequence."""
    whole = 0.0
    for b, n in enumerate(case.n):
        J, direct, v = case.matrices[0][:n, b], case.front(weights)[:n, b], np.zeros(case.s0.shape[-1])
        for t in range(n - 1, 0, -1):
            v[case.shown] += direct[t]
            before = v @ J[t]
            if v.any() and not drops(case, b)[t]:
                whole += (np.linalg.norm(before) / np.linalg.norm(v) - 1) ** 2
            v = before
    return whole / 2


def flossing(case):
    return np.mean([(plain.exponents(case.matrices[0][:n, b]) + 0.1) ** 2 for b, n in enumerate(case.n)])


def from_isometry(case):
    terms = []
    for b, n in enumerate(case.n):
        values = np.linalg.svd(case.matrices[0][:n, b][~drops(case, b)], compute_uv=False)
        terms += list(((values**2 - 1) ** 2).mean(axis=-1))
    return np.mean(terms)


def size(case):
    return np.mean(np.concatenate([one.outputs for one in case.by_hand]) ** 2)


def change(case):
    pairs = [np.diff(one.outputs, axis=0)[~drops(case, b)[1:]] for b, one in enumerate(case.by_hand)]
    return np.mean(np.concatenate(pairs) ** 2)


# Each: what is computed of a case and its history, what it should be, where it is right and how it is refused.
EVERYWHERE = contexts.without("on disk")
OBJECTIVES = {
    "vanishing_gradient": (
        lambda case, history: vanishing_gradient(history, to(case.library, case.weights)),
        lambda case: omega(case, case.weights),
        contexts.JOINT,
    ),
    "vanishing_gradient, last": (
        lambda case, history: vanishing_gradient(history),
        lambda case: omega(case, case.last),
        contexts.JOINT,
    ),
    "gradient_flossing": (
        lambda case, history: gradient_flossing(history, "all", -0.1, transient=0, reorthonormalise=1),
        flossing,
        [*contexts.WHOLE, "on disk"],
    ),
    "isometry": (lambda case, history: isometry(history), from_isometry, contexts.JOINT),
    "activation": (lambda case, history: activation(history), size, EVERYWHERE),
    "temporal_activation": (lambda case, history: temporal_activation(history), change, EVERYWHERE),
}
FAST = ("mask", "step function")


@pytest.mark.sample(8)
@pytest.mark.parametrize(
    ("name", "context", "library"),
    [
        pytest.param(
            name, context, library, marks=() if library == "numpy" or context in FAST else pytest.mark.slow
        )
        for name in OBJECTIVES
        for context in contexts.CONTEXTS
        for library in contexts.LIBRARIES
        if (context, library) != ("step function", "numpy")
    ],
)
def test_an_objective_is_that_of_a_plain_loop_or_refused_in_words(name, context, library):
    case = contexts.case_of(context, "small", library)
    compute, expected, holds = OBJECTIVES[name]
    if context in holds:
        np.testing.assert_allclose(compute(case, case.history), expected(case), rtol=1e-9)
        return
    error, words = {"resets": (ValueError, "do not start anew"), "on disk": (TypeError, "on disk")}.get(
        context, contexts.BOTH_WAYS
    )
    with pytest.raises(error, match=words):
        compute(case, case.history)


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSES)
def test_objectives_can_be_differentiated(name):
    params, record = recorder(name)

    def measure(params):
        history = record(params)
        found = [vanishing_gradient(history), isometry(history), activation(history), temporal_activation(history)]
        return [*found, vanishing_gradient(history, lambda h: (h**3).sum())]

    check(measure, params)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTM", "stack", "mask"])
def test_gradient_flossing_can_be_differentiated(name):
    """Of a padded batch outside of `jax.jit`."""
    params, record = recorder(name)
    padded = name == "mask"
    check(lambda params: gradient_flossing(record(params), 3, 0.2, transient=1), params, compiled=not padded)


def test_a_padded_batch_is_not_flossed_inside_jit():
    params, record = recorder("mask")
    with pytest.raises(ValueError, match="how many is unknown inside a JAX transformation"):
        jax.jit(lambda params: gradient_flossing(record(params)))(params)


@pytest.mark.slow
def test_flossing_a_linear_network_by_its_gain():
    """V43: ∂λ_i/∂g = 1/g = 1.25 at g = 0.8, so that ∂(mean λ²)/∂g = 2 mean(λ) / g."""
    exponents = lstmx.lyapunov_spectrum(linear(0.8), "all").exponents
    slope = jax.grad(lambda gain: gradient_flossing(linear(gain), "all"))(0.8)
    np.testing.assert_allclose(slope, 2 * np.mean(exponents) * 1.25, rtol=1e-10)
    aside = jax.grad(lambda gain: gradient_flossing(linear(gain), "all", -0.5))(0.8)
    np.testing.assert_allclose(aside - slope, 1.25, rtol=1e-10)


@pytest.mark.slow
def test_nothing_is_lost_by_an_orthogonal_network():
    """h W with W orthogonal keeps every norm: three objectives are 0, and at g W their slopes are known."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    cell = lstmx.from_step(lambda params, h, x: x + h @ params, jnp.zeros(4), input_size=4)

    def history(gain):
        return lstmx.record(cell, gain * turn, jnp.ones((6, 4)))

    for objective, slope in (
        (vanishing_gradient, lambda g: 5 * 2 * (g - 1)),
        (isometry, lambda g: 2 * (g**2 - 1) * 2 * g),
        (gradient_flossing, lambda g: 2 * np.log(g) / g),
    ):
        np.testing.assert_allclose(objective(history(1.0)), 0, atol=1e-20)
        found = jax.grad(lambda gain, objective=objective: objective(history(gain)))(0.9)
        np.testing.assert_allclose(found, slope(0.9), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN", "mask"])
def test_the_immediate_derivative_is_by_the_recurrent_kernel_alone(name):
    params, record = recorder(name)
    value, slopes = jax.value_and_grad(lambda params: vanishing_gradient(record(params), immediate=True))(params)
    np.testing.assert_allclose(value, vanishing_gradient(record(params)), rtol=1e-12)
    assert {field for field in slopes._fields if np.any(getattr(slopes, field))} == {"recurrent_kernel"}


@pytest.mark.slow
def test_the_immediate_derivative_of_a_simple_rnn_by_hand():
    """∂⁺Ω/∂U of a network h' = tanh(x W + h U + b): J = diag(1 − h'²) Uᵀ, so that δ J = ((1 − h'²) ∘ δ) Uᵀ."""
    params, record = recorder("SimpleRNN")
    history = record(params)
    flow = lstmx.gradient_flow(history)
    drive = (1 - history.outputs**2) * flow.hidden  # constants

    def by_hand(kernel):
        before = jnp.linalg.norm(drive[1:] @ kernel.T, axis=-1)
        return jnp.sum((before / jnp.linalg.norm(flow.hidden[1:], axis=-1) - 1) ** 2) / 2

    expected, slope = jax.value_and_grad(by_hand)(params.recurrent_kernel)
    value, found = jax.value_and_grad(lambda params: vanishing_gradient(record(params), immediate=True))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(found.recurrent_kernel, slope, rtol=1e-9)
    assert not np.any(found.bias)
    assert not np.any(found.input_kernel)


def test_one_step_has_no_pair():
    cell = lstmx.GRU(2, 3)
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), np.ones((1, 2), "float32"))
    assert temporal_activation(history) == 0
    assert vanishing_gradient(history) == 0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda h: vanishing_gradient(h, immediate=1), TypeError, "immediate is 1"),
        (lambda h: vanishing_gradient(h, "first"), ValueError, "loss is 'first'"),
        (lambda h: vanishing_gradient(h.outputs), TypeError, "expected a History"),
        (lambda h: gradient_flossing(h, target=np.inf), ValueError, "target is inf"),
        (lambda h: gradient_flossing(h, 99), ValueError, "count is 99"),
        (lambda h: isometry(3), TypeError, "expected a History"),
        (lambda h: activation(3), TypeError, "expected a History"),
        (lambda h: temporal_activation(3), TypeError, "expected a History"),
    ],
)
def test_arguments_are_refused_in_words(call, error, words):
    cell = lstmx.GRU(2, 3)
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), np.ones((5, 2), "float32"))
    with pytest.raises(error, match=words):
        call(history)
