"""`online`: gradients forward in time, against `backward`, and against plain loops over a masked influence."""

import functools

import family
import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from jax.flatten_util import ravel_pytree
from reference import LIBRARIES, to

import lstmx

D, H, T = 2, 3, 6
COMPILED = pytest.param("jax", marks=pytest.mark.slow)


def numbers(tree):
    """The numbers of a tree in one row."""
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def close(found, expected, tolerance=1e-10):
    found, expected = numbers(found), numbers(expected)
    np.testing.assert_allclose(found, expected, atol=tolerance * max(1, np.abs(expected).max()), rtol=0)


@functools.cache
def made(name, batch=(), length=T, hidden=H):
    """A cell with parameters, a state, inputs, and dL/dh_t."""
    cell = family.of_size(D, hidden)[name]
    params, state, xs, draws = family.draw(cell, batch, length=length, seed=3)
    return cell, params, state, xs, draws.normal(size=(length, *batch, cell.output_size))


def by_hand(cell, params, state, xs, weights, kept=None):
    """∂L/∂θ of one sequence by an influence of which entries are `kept`, [S, P]; step by step, [T, P].

    The derivatives of a step are JAX's. None keeps everything.
    """
    like, unflat = ravel_pytree(params)

    def step(theta, s, x):
        after = cell.step(unflat(theta), cell.unpack(s), x)[0]
        return cell.pack(after)

    @jax.jit
    def derivatives(s, x):
        return step(like, s, x), jax.jacrev(step, 1)(like, s, x), jax.jacrev(step, 0)(like, s, x)

    s, found = cell.pack(jax.tree.map(jnp.asarray, state)), []
    steps = []
    for x in xs:
        s, J, direct = derivatives(s, jnp.asarray(x))
        steps.append((np.asarray(J), np.asarray(direct)))
    if isinstance(kept, int):
        draws = np.random.default_rng(0)  # a ReLU may be dead and a branch not taken in all of a short pass
        around = [(s + 4 * draws.normal(size=s.shape), draws.normal(size=D)) for _ in range(100)]
        more = [derivatives(*one)[1:] for one in around]
        moves, reach = (np.any([np.asarray(one[k]) != 0 for one in steps + more], axis=0) for k in (0, 1))
        for _ in range(kept - 1):
            reach = reach | ((moves.astype(int) @ reach) > 0)
        kept = reach
    M = np.zeros((len(s), len(like)))
    for (J, direct), w in zip(steps, weights, strict=True):
        M = J @ M + direct
        if kept is not None:
            M = M * kept
        found.append(w @ M[: cell.output_size])
    return np.array(found)


@pytest.mark.sample(1)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", family.NAMES)
def test_real_time_recurrent_learning_is_backpropagation(name, library):
    cell, params, state, xs, weights = made(name, (2,))
    expected = lstmx.backward(lstmx.record(cell, params, xs, state), weights).parameters
    params, state, xs, weights = to(library, (params, state, xs, weights))
    close(lstmx.online(cell, params, xs, weights, state=state).parameters, expected)


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", family.one_of_each_form(family.NAMES))
def test_snap1_is_the_influence_on_what_a_parameter_reaches_at_once(name):
    """Against a whole matrix that is masked at every step."""
    cell, params, state, xs, weights = made(name)
    found = lstmx.online(cell, params, xs, weights, "snap1", state=state, by_step=True)
    expected = by_hand(cell, params, state, xs, weights, 1)
    each = np.concatenate([x.reshape(T, -1) for x in jax.tree.leaves(found.by_step)], axis=1)
    np.testing.assert_allclose(each, expected, atol=1e-10)
    close(found.parameters, expected.sum(axis=0))


@pytest.mark.parametrize("library", ["numpy", COMPILED])
@pytest.mark.parametrize("name", ["V", pytest.param("layer norm, projection", marks=pytest.mark.slow)])
def test_snap1_of_a_batch_is_that_of_each_sequence(name, library):
    cell, params, state, xs, weights = made(name, (2, 1))
    given = to(library, (params, xs, weights, state))
    found = lstmx.online(cell, *given[:3], "snap1", state=given[3], by_step=True)
    each = [
        by_hand(cell, params, jax.tree.map(lambda x, b=b: x[b, 0], state), xs[:, b, 0], weights[:, b, 0], 1)
        for b in range(2)
    ]
    close(found.parameters, sum(each).sum(axis=0))
    got = np.concatenate([np.reshape(x, (T, -1)) for x in jax.tree.leaves(found.by_step)], axis=1)
    np.testing.assert_allclose(got, sum(each), atol=1e-10)


@pytest.mark.parametrize("method", ["rtrl", "snap1"])
@pytest.mark.parametrize("name", ["MinLSTM", "MinLSTM, tanh", "MinGRU", "MinGRU, identity"])
def test_a_diagonal_state_map_keeps_its_own_influence_alone(name, method):
    """SnAp-1 is exact there, and carries one number for each parameter."""
    cell, params, state, xs, weights = made(name, (2,), 9)
    expected = lstmx.backward(lstmx.record(cell, params, xs, state), weights).parameters
    found = lstmx.online(cell, params, xs, weights, method, state=state)
    close(found.parameters, expected)
    assert found.entries == found.products == cell.parameter_count
    assert found.whole == cell.hidden_size * cell.parameter_count


def thinned(params, share, seed=0):
    """Parameters with some recurrent weights at 0."""
    draws = np.random.default_rng(seed)
    kernel = params.recurrent_kernel
    return params._replace(recurrent_kernel=np.where(draws.random(kernel.shape) < share, kernel, 0))


@pytest.mark.sample(3)
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["V", "GRU before", "SimpleRNN"])
def test_sparse_keeps_what_is_reached_within_n_steps(name, order):
    cell, params, state, xs, weights = made(name, hidden=6)
    params = thinned(params, 0.15)
    found = lstmx.online(cell, params, xs, weights, "sparse", order=order, state=state)
    expected = by_hand(cell, params, state, xs, weights, order).sum(axis=0)
    there = numbers(jax.tree.map(lambda x: x != 0 if x.ndim > 1 else np.ones(x.shape, bool), params))
    close(found.parameters, np.where(there, expected, 0))
    assert order > 2 or found.entries < found.whole


@pytest.mark.parametrize("library", ["numpy", COMPILED])
def test_sparse_of_a_high_order_is_exact_on_the_weights_that_there_are(library):
    cell, params, state, xs, weights = made("NP", (2,), hidden=6)
    params = thinned(params, 0.1)
    expected = lstmx.backward(lstmx.record(cell, params, xs, state), weights).parameters
    there = jax.tree.map(lambda x: x != 0 if x.ndim > 1 else np.ones(x.shape, bool), params)
    given = to(library, (params, xs, weights, state))
    found = lstmx.online(cell, *given[:3], "sparse", order=99, state=given[3])
    close(found.parameters, jax.tree.map(lambda x, y: x * y, expected, there))
    assert found.entries < found.whole
    told = lstmx.online(cell, *given[:3], "sparse", order=99, pattern=there, state=given[3])
    close(told.parameters, found.parameters, 1e-14)


@pytest.mark.sample(3)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("window", [1, 3, T])
def test_truncated_takes_each_loss_back_by_its_window(window, library):
    """Against `backward` over the last steps alone, for each loss."""
    cell, params, state, xs, weights = made("GRU", (2,))
    history = lstmx.record(cell, params, xs, state)
    expected = []
    for t in range(T):
        part, one = history[max(0, t + 1 - window) : t + 1], np.zeros_like(weights)
        one[t] = weights[t]
        expected.append(lstmx.backward(part, one[max(0, t + 1 - window) : t + 1]).parameters)
    given = to(library, (params, xs, weights, state))
    found = lstmx.online(cell, *given[:3], "truncated", window=window, state=given[3], by_step=True)
    assert found.entries == found.products == 0
    close(found.by_step, jax.tree.map(lambda *x: np.stack(x), *expected))
    close(found.parameters, jax.tree.map(lambda *x: sum(x), *expected))


STREAMED = [{"method": "rtrl"}, {"method": "snap1"}, {"method": "truncated", "window": 3}]


@pytest.mark.sample(3)
@pytest.mark.parametrize("options", STREAMED, ids=lambda options: options["method"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_stream_in_two_stretches_is_one(library, options):
    cell, params, state, xs, weights = made("GRU", (2,))
    params, xs, weights, state = to(library, (params, xs, weights, state))
    whole = lstmx.online(cell, params, xs, weights, state=state, **options)
    first = lstmx.online(cell, params, xs[:3], weights[:3], state=state, **options)
    second = lstmx.online(cell, params, xs[3:], weights[3:], after=first, **options)
    close(jax.tree.map(lambda x, y: x + y, first.parameters, second.parameters), whole.parameters)
    close(second.final, whole.final)
    assert whole.memory == first.memory == second.memory  # however long


@pytest.mark.slow
def test_the_loss_may_be_a_word_a_derivative_or_a_function_of_a_step():
    cell, params, state, xs, weights = made("GRU", (2,))
    lengths = np.array([T, T - 2])
    outputs = lstmx.run(cell, params, xs, state, lengths=lengths)[0]
    counted = (np.arange(T)[:, None] < lengths)[..., None] * np.ones_like(weights)
    every = lstmx.online(cell, params, xs, "sum", state=state, lengths=lengths)
    close(every.parameters, lstmx.online(cell, params, xs, counted, state=state, lengths=lengths).parameters)
    np.testing.assert_allclose(every.loss, outputs.sum())
    last = np.zeros_like(weights)
    last[lengths - 1, [0, 1]] = 1
    ends = lstmx.online(cell, params, xs, "last", state=state, lengths=lengths)
    close(ends.parameters, lstmx.online(cell, params, xs, last, state=state, lengths=lengths).parameters)
    np.testing.assert_allclose(ends.loss, (outputs * last).sum())

    params, xs, state, weights = to("jax", (params, xs, state, weights))

    def of_step(outputs, step):
        return ((outputs - weights[step]) ** 2).sum()

    def of_all(params):
        outputs = lstmx.run(cell, params, xs, state, lengths=lengths)[0]
        return ((outputs - weights) ** 2).sum()

    found = lstmx.online(cell, params, xs, of_step, state=state, lengths=lengths)
    close(found.parameters, jax.grad(of_all)(params))
    np.testing.assert_allclose(found.loss, of_all(params))


@pytest.mark.slow
def test_a_step_function_has_every_method():
    """Whose parameters are a tree of one's own: the same numbers as those of the cell that it is."""
    xs = made("NP")[3]
    own = plain.step_function(D, H)
    bare = lstmx.LSTM(D, H)
    params = jax.tree.map(lambda x: np.random.default_rng(4).normal(size=x.shape), bare.init(0, "float64"))
    theirs = to("jax", params._asdict())
    state = (jnp.zeros(H), jnp.zeros(H))
    weights = np.random.default_rng(5).normal(size=(T, H))
    for options in ({}, {"method": "snap1"}, {"method": "truncated", "window": 2}):
        expected = lstmx.online(bare, params, xs, weights, **options)
        found = lstmx.online(own, theirs, *to("jax", (xs, weights)), state=state, **options)
        close([found.parameters[name] for name in params._fields], expected.parameters)


def test_of_a_stack_the_influence_is_that_of_the_joint_state():
    """An upper layer reaches no lower one; within a step a lower one reaches all of those above."""
    stack = lstmx.Stack([lstmx.MinGRU(D, H), lstmx.SimpleRNN(H, H)])
    params = stack.init(np.random.default_rng(0), "float64")
    xs = np.random.default_rng(1).normal(size=(T, 2, D))
    weights = np.random.default_rng(2).normal(size=(T, 2, H))
    expected = lstmx.backward(lstmx.record(stack, params, xs), weights).parameters
    found = lstmx.online(stack, params, xs, weights)
    close(found.parameters, expected)
    assert isinstance(found.final, tuple)
    low, high = (cell.parameter_count for cell in stack.cells)
    assert found.entries == low * (1 + H) + high * H
    near = lstmx.online(stack, params, xs, weights, "snap1")
    assert near.entries == low * (1 + H) + high
    below = lstmx.run(stack.cells[0], params[0], xs)[0]
    close(near.parameters[1], lstmx.online(stack.cells[1], params[1], below, weights, "snap1").parameters)


def test_it_says_what_it_costs():
    cell = lstmx.LSTM(3, 8)
    params = cell.init(np.random.default_rng(0))
    xs = np.ones((50, 3), "float32")
    whole, near = (lstmx.online(cell, params, xs, "sum", method) for method in ("rtrl", "snap1"))
    assert whole.entries == whole.whole == 16 * cell.parameter_count
    assert whole.products == 16 * 16 * cell.parameter_count
    quarter = cell.parameter_count // 4
    assert near.entries == (2 + 2 + 2 + 1) * quarter  # an output gate does not reach c
    assert near.products < whole.products / 20
    assert near.memory < whole.memory / 4
    assert "carried from step to step" in str(near)
    assert "influence" not in str(lstmx.online(cell, params, xs, "sum", "truncated", window=5))


def refused(error, words, *given, **options):
    cell, params, _, xs, weights = made("GRU", (2,))
    given = (*given, *(cell, params, xs, weights)[len(given) :])
    with pytest.raises(error, match=words):
        lstmx.online(*given, **options)


def test_what_it_does_not_take_is_refused_in_words():
    cell, params, _, xs, weights = made("GRU", (2,))
    refused(ValueError, "method is 'uoro'; expected one of 'rtrl', 'snap1'", method="uoro")
    refused(ValueError, "order is given with method='rtrl'; it is for 'sparse' alone", order=2)
    refused(ValueError, "window is given with method='snap1'", method="snap1", window=2)
    refused(TypeError, "window is None; expected an integer", method="truncated")
    refused(ValueError, "window is 99; expected at most the 6 steps", method="truncated", window=99)
    refused(ValueError, "loss is 'first'; expected one of", cell, params, xs, "first")
    refused(TypeError, "loss is a function, which takes JAX", cell, params, xs, lambda outputs, step: 0.0)
    refused(TypeError, "loss is a NoneType", cell, params, xs, None)
    both = lstmx.Bidirectional(cell)
    refused(TypeError, "both directions", both, both.init(np.random.default_rng(0), "float64"))
    refused(TypeError, "after is a int; expected what online gave", after=3)
    first = lstmx.online(cell, params, xs, weights, "snap1")
    refused(ValueError, "after was made with method='snap1'", after=first)
    refused(ValueError, "state is given with after", method="snap1", after=first, state=first.final)
    refused(ValueError, "another cell, batch", cell, params, xs[:, :1], weights[:, :1], "snap1", after=first)
    refused(TypeError, "pattern is a int; expected booleans like", method="sparse", pattern=3)
    refused(ValueError, "pattern holds float64", method="sparse", pattern=params)
    given = to("jax", (params, xs, weights))
    with pytest.raises(ValueError, match="pattern is None inside a JAX transformation"):
        jax.jit(lambda *given: lstmx.online(cell, *given, "sparse").parameters)(*given)
    with pytest.raises(ValueError, match=r"loss gives an array \(2, 3\)"):
        lstmx.online(cell, *given[:2], lambda outputs, step: outputs)
