"""Stacks and both directions of time, against their cells run by hand, autodiff and each sequence alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, assert_same, is_in, labels, render, to

import lstmx

PAIR = lstmx.Bidirectional(lstmx.GRU(4, 3))
STACK = lstmx.Stack([lstmx.LSTM(3, 4), PAIR, lstmx.SimpleRNN(6, 5)])
LENGTHS = np.array([6, 4])


def drawn(layers, seed=0, batch=(2,), length=6):
    """Normal parameters, inputs and a non-zero state; NumPy float64."""
    draws = np.random.default_rng(seed)
    params = layers.init(draws, "float64")
    params = jax.tree.map(lambda x: x + draws.normal(0, 0.3, x.shape), params)
    state = jax.tree.map(lambda x: draws.normal(size=x.shape), layers.initial_state(params, batch))
    return params, draws.normal(size=(length, *batch, layers.input_size)), state


def by_hand(params, xs, state):
    """The stack's outputs, each cell run on its own."""
    low, (ahead, back), high = params
    first, _ = lstmx.run(STACK.cells[0], low, xs, state[0])
    forward, _ = lstmx.run(PAIR.cell, ahead, first, state[1].forward)
    backward, _ = lstmx.run(PAIR.cell, back, first[::-1], state[1].backward)
    return lstmx.run(STACK.cells[2], high, np.concatenate([forward, backward[::-1]], axis=-1), state[2])[0]


@pytest.mark.slow
def test_a_stack_runs_each_layer_on_the_outputs_of_the_one_below(library):
    params, xs, state = drawn(STACK)
    given = to(library, (params, xs, state))
    outputs, final = lstmx.run(STACK, *given)
    assert is_in(library, (outputs, final))
    np.testing.assert_allclose(outputs, by_hand(params, xs, state), atol=1e-13)
    history = lstmx.record(STACK, *given)
    np.testing.assert_allclose(history.outputs, outputs, atol=1e-13)
    assert_close(history.final, final, 1e-13)
    assert_same(history.initial, state)
    assert_same(history.inputs, xs)
    assert (len(history), history.batch) == (6, (2,))
    assert list(history.cells()) == ["layer 0", "layer 1, forward", "layer 1, backward", "layer 2"]


def test_a_sum_of_directions_is_the_sum_of_what_a_concatenation_holds(library):
    params, xs, state = drawn(PAIR)
    summing = lstmx.Bidirectional(PAIR.cell, merge="sum")
    both = lstmx.run(PAIR, *to(library, (params, xs, state)))[0]
    np.testing.assert_allclose(
        lstmx.run(summing, *to(library, (params, xs, state)))[0], both[..., :3] + both[..., 3:], atol=1e-14
    )
    assert (PAIR.output_size, summing.output_size) == (6, 3)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [STACK, PAIR, lstmx.Bidirectional(lstmx.LSTM(3, 2), merge="sum")], ids=repr)
def test_gradients_through_layers_are_those_of_autodiff(layers):
    params, xs, state = drawn(layers, seed=1)
    weights = np.random.default_rng(2).normal(size=(6, 2, layers.output_size))
    given = to("jax", (params, xs, state))

    def loss(params, xs, state):
        outputs, final = lstmx.run(layers, params, xs, state, lengths=LENGTHS)
        return (outputs * weights).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(final))

    expected = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*given)
    history = lstmx.record(layers, params, xs, state, lengths=LENGTHS)
    final = jax.tree.map(lambda x: 2 * x, history.final)
    found = lstmx.backward(history, weights, final)
    assert_close((found.parameters, found.inputs, found.initial), expected, 1e-11)
    only_outputs = lstmx.backward(history, weights)
    flow = lstmx.gradient_flow(history, weights)
    assert_close((flow.parameters, flow.inputs, flow.initial), dataclass_leaves(only_outputs), 1e-11)


def dataclass_leaves(gradients):
    return gradients.parameters, gradients.inputs, gradients.initial


@pytest.mark.sample(1)
def test_a_padded_batch_through_layers_is_each_sequence_alone(library):
    params, xs, state = drawn(STACK, seed=3)
    xs[4:, 1] = 1e3
    outputs, final = lstmx.run(STACK, *to(library, (params, xs, state)), lengths=LENGTHS)
    flow = lstmx.gradient_flow(lstmx.record(STACK, params, xs, state, lengths=LENGTHS))
    for k, length in enumerate(LENGTHS):
        own = jax.tree.map(lambda x, k=k: x[k], state)
        alone = lstmx.record(STACK, params, xs[:length, k], own)
        np.testing.assert_allclose(outputs[:length, k], alone.outputs, atol=1e-12)
        assert not np.any(outputs[length:, k])
        assert_close(jax.tree.map(lambda x, k=k: x[k], final), alone.final, 1e-12)
        expected = lstmx.gradient_flow(alone)
        np.testing.assert_allclose(flow.log_norm[:, :length, k], expected.log_norm, atol=1e-10)
        assert np.isnan(flow.log_norm[:, length:, k]).all()


def test_resets_start_each_direction_anew():
    params, xs, _ = drawn(PAIR, seed=4, batch=())
    resets = np.array([False, False, True, False, True, False])
    outputs, _ = lstmx.run(PAIR, params, xs, resets=resets)
    alone = [lstmx.run(PAIR, params, xs[a:b])[0] for a, b in ((0, 2), (2, 4), (4, 6))]
    np.testing.assert_allclose(outputs, np.concatenate(alone), atol=1e-14)


@pytest.mark.slow
def test_a_gradient_stays_in_log_scale_from_layer_to_layer():
    stack = lstmx.Stack([lstmx.SimpleRNN(2, 3), lstmx.SimpleRNN(3, 3)])
    params, xs, _ = drawn(stack, seed=5, batch=(), length=3000)
    weak = tuple(p._replace(recurrent_kernel=0.2 * p.recurrent_kernel) for p in params)
    flow = lstmx.gradient_flow(lstmx.record(stack, weak, xs))
    assert (flow.log_norm[:, 0] < -2000).all()
    assert np.isfinite(flow.log_norm).all()
    top = lstmx.gradient_flow(lstmx.record(stack, weak, xs).layers[1])
    assert_same(flow["layer 1"].log_norm, top.log_norm)
    # The lower layer's gradient at a step comes from above at that step or later ones.
    reach = np.maximum.accumulate(top.log_norm[::-1])[::-1]
    assert (flow.log_norm[0] < reach + 10).all()


def test_a_direction_without_gradient_takes_no_scale_from_the_other():
    pair = lstmx.Bidirectional(lstmx.SimpleRNN(2, 3))
    params, xs, _ = drawn(pair, seed=11, batch=(), length=400)
    forward = params.forward._replace(recurrent_kernel=0.1 * params.forward.recurrent_kernel)
    params = params._replace(forward=forward)
    weights = np.zeros((400, 6))
    weights[-1, :3] = 1  # the forward direction reads the last output,
    weights[:, 3:] = 1e30  # the other one all of its own, and loudly
    flow = lstmx.gradient_flow(lstmx.record(pair, params, xs), weights)
    alone = lstmx.gradient_flow(lstmx.record(pair.cell, params.forward, xs), weights[:, :3])
    assert alone.log_norm[0] < -700
    np.testing.assert_allclose(flow["forward"].log_norm, alone.log_norm, rtol=1e-12)


@pytest.mark.sample(1)
def test_dropout_takes_a_key_and_keeps_its_mask(library):
    stack = lstmx.Stack([lstmx.GRU(3, 40), lstmx.GRU(40, 4)], dropout=0.25)
    params, xs, _ = drawn(stack, seed=6)
    given = to(library, (params, xs))
    plain = lstmx.Stack(stack.cells)
    assert_same(lstmx.run(stack, *given), lstmx.run(plain, *given))
    history = lstmx.record(stack, *given, key=7)
    assert_same(history.outputs, lstmx.run(stack, *given, key=7)[0])
    (mask,) = history.masks
    np.testing.assert_allclose(np.unique(mask), [0, 4 / 3])
    assert abs(np.mean(np.asarray(mask) == 0) - 0.25) < 0.06
    np.testing.assert_array_equal(history.layers[1].inputs, history.layers[0].hidden_state * mask)
    assert not np.array_equal(history.outputs, lstmx.run(stack, *given, key=8)[0])


@pytest.mark.slow
def test_gradients_pass_through_the_dropout_mask():
    stack = lstmx.Stack([lstmx.GRU(3, 4), lstmx.GRU(4, 4)], dropout=0.5)
    params, xs, _ = drawn(stack, seed=6)
    given, key = to("jax", (params, xs)), jax.random.key(1)
    expected = jax.grad(lambda p, x: lstmx.run(stack, p, x, key=key)[0].sum(), argnums=(0, 1))(*given)
    history = lstmx.record(stack, *given, key=key)
    found = lstmx.backward(history, jnp.ones_like(history.outputs))
    assert_close((found.parameters, found.inputs), expected, 1e-12)

    history = lstmx.record(stack, params, xs, key=1)
    ones = np.ones_like(history.outputs)
    found, flow = lstmx.backward(history, ones), lstmx.gradient_flow(history, ones)
    assert_close((flow.parameters, flow.inputs), (found.parameters, found.inputs), 1e-12)


@pytest.mark.sample(1)
def test_pieces_of_a_stream_continue_a_stack(library):
    stack = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 2)])
    params, xs, state = to(library, drawn(stack, seed=8))
    outputs, final = lstmx.run(stack, params, xs, state)
    first, middle = lstmx.run(stack, params, xs[:2], state)
    second, last = lstmx.run(stack, params, xs[2:], middle)
    assert_same(np.concatenate([first, second]), outputs)
    assert_same(last, final)


@pytest.mark.slow
@pytest.mark.parametrize("length", [12, 10])
def test_a_truncated_gradient_is_the_sum_over_stretches(length):
    cell = lstmx.LSTM(3, 4)
    params, xs, state = drawn(lstmx.Stack([cell]), seed=9, length=length)
    (params,), (state,) = params, state
    weights = np.random.default_rng(10).normal(size=(length, 2, 4))

    def loss(params, xs):
        return (lstmx.truncated(cell, params, xs, state, steps=4)[0] * weights).sum()

    d_params, d_xs = jax.jit(jax.grad(loss, argnums=(0, 1)))(*to("jax", (params, xs)))
    total, start, ends = jax.tree.map(np.zeros_like, params), 0, [*range(length % 4 or 4, length + 1, 4)]
    for end in ends:
        history = lstmx.record(cell, params, xs[start:end], state)
        here = lstmx.backward(history, weights[start:end])
        total = jax.tree.map(np.add, total, here.parameters)
        np.testing.assert_allclose(d_xs[start:end], here.inputs, atol=1e-12)
        start, state_after = end, history.final
        state = state_after
    assert_close(d_params, total, 1e-11)


def test_a_truncated_pass_has_the_outputs_of_a_whole_one(library):
    stack = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 2)])
    given = to(library, drawn(stack, seed=8))
    assert_close(lstmx.truncated(stack, *given, steps=4), lstmx.run(stack, *given), 1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("length", [12, 10])
def test_a_truncated_gradient_of_gapped_zoneouts_is_the_sum_over_stretches(length):
    cell = lstmx.Zoneout(lstmx.LSTM(3, 4), hidden=0.3)
    params, xs, state = drawn(lstmx.Stack([cell]), seed=9, length=length)
    (params,), (state,) = params, state
    draws = np.random.default_rng(10)
    weights = draws.normal(size=(length, 2, 4))
    said = {"mask": draws.random((length, 2)) < 0.7, "resets": draws.random((length, 2)) < 0.2}
    said["mask"][0] = True
    history = lstmx.record(cell, *to("jax", (params, xs, state)), key=7, **said)

    def loss(params, xs):
        return (lstmx.truncated(cell, params, xs, state, steps=4, key=7, **said)[0] * weights).sum()

    d_params, d_xs = jax.jit(jax.grad(loss, argnums=(0, 1)))(*to("jax", (params, xs)))
    total, start = jax.tree.map(np.zeros_like, params), 0
    for end in [*range(length % 4 or 4, length + 1, 4)]:
        here = lstmx.backward(history[start:end], weights[start:end])
        total = jax.tree.map(np.add, total, here.parameters)
        np.testing.assert_allclose(d_xs[start:end], here.inputs, atol=1e-12)
        start = end
    assert_close(d_params, total, 1e-11)


@pytest.mark.slow
def test_a_truncated_pass_of_anything_has_the_outputs_of_run(library):
    stack = lstmx.Stack([lstmx.LSTM(3, 4), lstmx.Bidirectional(lstmx.Zoneout(lstmx.GRU(4, 2)))], dropout=0.3)
    params, xs, state = to(library, drawn(stack, seed=8, length=10))
    mask = np.random.default_rng(1).random((10, 2)) < 0.7
    said = {"mask": mask, "resets": np.arange(20).reshape(10, 2) % 7 == 3}
    for options in (said, said | {"key": 4}, {"lengths": np.array([10, 3])}):
        found = lstmx.truncated(stack, params, xs, state, steps=4, **options)
        assert_close(found, lstmx.run(stack, params, xs, state, **options), 1e-13)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: lstmx.Stack([]), ValueError, "cells is empty"),
        (
            lambda: lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(5, 2)]),
            ValueError,
            "layer 1 has input_size=5; .* gives 4",
        ),
        (lambda: lstmx.Stack([3]), TypeError, "layer 0 is a int; expected a cell or a Bidirectional"),
        (
            lambda: lstmx.Stack([lstmx.GRU(3, 4)], dropout=1.0),
            ValueError,
            "dropout is 1.0; expected a probability",
        ),
        (lambda: lstmx.Bidirectional(lstmx.GRU(3, 4), merge="mean"), ValueError, "merge is 'mean'"),
        (lambda: lstmx.Bidirectional(3), TypeError, "cell is a int; expected a cell"),
    ],
)
def test_layers_that_do_not_fit_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_wrong_arguments_are_named_before_anything_runs():
    params, xs, state = drawn(STACK)
    with pytest.raises(TypeError, match=r"params is a tuple of 2; expected a tuple of 3"):
        lstmx.run(STACK, params[:2], xs)
    with pytest.raises(TypeError, match=r"params of layer 2 is a LSTMParams; SimpleRNN.* expects SimpleRNNParams"):
        lstmx.run(STACK, (params[0], params[1], params[0]), xs)
    with pytest.raises(TypeError, match="state is a list; expected a tuple"):
        lstmx.run(STACK, params, xs, list(state))
    with pytest.raises(ValueError, match=r"xs has 2 features .* this Stack expects input_size=3"):
        lstmx.run(STACK, params, xs[..., :2])
    with pytest.raises(ValueError, match=r"key is given; LSTM.* has nothing random, as a Zoneout"):
        lstmx.run(STACK.cells[0], params[0], xs, key=1)
    with pytest.raises(ValueError, match=r"key is given; Bidirectional.* has nothing random"):
        lstmx.run(PAIR, params[1], np.ones((2, 4)), key=1)
    with pytest.raises(TypeError, match="an excerpt is of one cell with gates: record layers or a step whole"):
        lstmx.excerpt(STACK, params, xs, every=2)
    history = lstmx.record(STACK, params, xs)
    with pytest.raises(TypeError, match=r"Stack.* reads time in both directions, and no joint state"):
        lstmx.jacobians(history)
    with pytest.raises(ValueError, match="outputs_cotangent has shape"):
        lstmx.backward(history, np.ones((6, 2, 4)))
    with pytest.raises(KeyError, match="no layer 'layer 9'"):
        lstmx.gradient_flow(history)["layer 9"]
    with pytest.raises(ValueError, match="steps is 7; expected at most the 6 steps"):
        lstmx.truncated(STACK, params, xs, steps=7)


# --------------------------------------------------------------------------------------------------- figures


@pytest.mark.usefixtures("_pyplot_is_left_alone")
class TestFigures:
    def test_depth_names_layers_from_the_bottom_and_hatches_padding(self):
        params, xs, _ = drawn(STACK)
        flow = lstmx.gradient_flow(lstmx.record(STACK, params, xs, lengths=LENGTHS))
        figure = lstmx.plot.depth(flow, 1)
        render(figure)
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert names == list(flow.names) == labels(figure.axes[1])
        image = np.ma.getdata(figure.axes[0].images[0].get_array())
        expected = (flow.log_norm[..., 1] - np.nanmax(flow.log_norm[..., 1])) / np.log(10)
        np.testing.assert_allclose(image, expected, atol=1e-12)
        assert figure.axes[0].patch.get_hatch()
        assert "sequence 1" in figure.get_suptitle()

    def test_exact_zeros_have_the_lowest_colour_and_are_counted_in_the_legend(self):
        stack = lstmx.Stack([lstmx.SimpleRNN(2, 3), lstmx.SimpleRNN(3, 3)])
        params, xs, _ = drawn(stack, batch=())
        cut = tuple(p._replace(recurrent_kernel=0 * p.recurrent_kernel) for p in params)
        figure = lstmx.plot.depth(lstmx.gradient_flow(lstmx.record(stack, cut, xs)))
        render(figure)
        assert labels(figure.axes[1]) == ["layer 0 (5 exact zeros)", "layer 1 (5 exact zeros)"]
        image = figure.axes[0].images[0]
        assert (image.get_array()[:, :5] == image.get_clim()[0]).all()
        assert not np.ma.is_masked(image.get_array())
        assert figure.axes[2].get_ylabel() == "decades (zero: lowest)"
        assert not figure.axes[0].patch.get_hatch()

    @pytest.mark.slow
    def test_variants_stand_in_columns_on_shared_axes(self):
        xs = np.random.default_rng(0).normal(size=(30, 3))
        cells = {name: lstmx.LSTM.variant(name, 3, 4) for name in ("V", "NFG")} | {"RNN": lstmx.SimpleRNN(3, 4)}
        histories = {k: lstmx.record(c, c.init(np.random.default_rng(1), "float64"), xs) for k, c in cells.items()}
        flows = {name: lstmx.gradient_flow(history) for name, history in histories.items()}
        figure = lstmx.plot.variants(histories, flows)
        render(figure)
        panels = np.array(figure.axes).reshape(3, 3)
        assert [ax.get_title("left") for ax in panels[0]] == ["V", "NFG", "RNN"]
        assert [text.get_text() for text in panels[0, 2].texts] == ["no such gate"]
        np.testing.assert_allclose(panels[0, 0].images[0].get_array(), histories["V"].forget_gate.T)
        assert len({ax.images[0].get_clim() for ax in panels[1]}) == 1
        assert len({ax.get_ylim() for ax in panels[2]}) == 1
        np.testing.assert_allclose(panels[2, 1].lines[0].get_ydata(), flows["NFG"].log_norm / np.log(10))
        assert len(lstmx.plot.variants(histories).axes) == 6

    def test_what_cannot_be_drawn_is_refused(self):
        cell = lstmx.GRU(3, 4)
        params = cell.init(np.random.default_rng(0))
        history = lstmx.record(cell, params, np.ones((5, 3), "float32"))
        flow = lstmx.gradient_flow(history)
        with pytest.raises(TypeError, match="flow is a GradientFlow; expected a LayeredFlow"):
            lstmx.plot.depth(flow)
        with pytest.raises(ValueError, match="histories is empty"):
            lstmx.plot.variants({})
        with pytest.raises(TypeError, match=r"histories\['a'\] is a GradientFlow"):
            lstmx.plot.variants({"a": flow})
        with pytest.raises(ValueError, match="expected one length"):
            lstmx.plot.variants({"a": history, "b": history[:3]})
        with pytest.raises(ValueError, match="flows are of b; histories of a"):
            lstmx.plot.variants({"a": history}, {"b": flow})


@pytest.mark.parametrize("kind", ["stack", "directions"])
def test_a_history_of_layers_sums_up_each_cell_by_name(kind):
    cell = (
        lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 4)])
        if kind == "stack"
        else lstmx.Bidirectional(lstmx.LSTM(3, 4))
    )
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), np.ones((5, 2, 3), "float32"))
    assert repr(history) == f"{type(history).__name__}({cell}: 5 steps, batch (2,), float32, NumPy)"
    summary = history.summary()
    assert summary.startswith(repr(history))
    for name, (part, _) in history.cells().items():
        assert f"{name}: {part.summary()}" in summary
