"""A stack is one system, whose path orders add up to its gradient; what is told by layer is that of each."""

import numpy as np
import pytest
from reference import assert_close

import lstmx


def recorded(length=9, batch=(2,), seed=0):
    draws = np.random.default_rng(seed)
    stack = lstmx.Stack([lstmx.LSTM(3, 5), lstmx.LSTM(5, 4), lstmx.LSTM(4, 6)])
    params = stack.init(np.random.default_rng(seed + 1), dtype="float64")
    return lstmx.record(stack, params, draws.normal(size=(length, *batch, 3)))


def test_path_orders_of_a_stack_add_up_to_its_gradient_in_every_layer():
    history = recorded()
    spectrum = lstmx.path_spectrum(history, max_order=9)
    outputs = np.zeros_like(history.outputs)
    outputs[-1] = 1
    gradient = lstmx.backward(history, outputs).initial
    for found, expected in zip(spectrum.initial, gradient, strict=True):
        assert_close(lstmx.LSTMState(*(field.sum(axis=0) for field in found)), expected, 1e-13)
    assert list(spectrum.by_layer) == ["layer 0", "layer 1", "layer 2"]
    squares = sum(np.exp(2 * norms) for norms in spectrum.by_layer.values())
    assert_close(0.5 * np.log(np.maximum(squares, 1e-300)), np.maximum(spectrum.log_norms, np.log(1e-150)), 1e-9)


def test_order_zero_of_a_stack_is_what_no_step_s_hidden_state_carries():
    history = recorded(length=6, batch=())
    matrices = lstmx.jacobians(history)
    carried = np.concatenate([np.repeat([False, True], size) for size in (5, 4, 6)])
    v = np.zeros(30)
    v[18:24] = 1  # on the top's output
    for matrix in matrices[::-1]:
        v = (v @ matrix) * carried
    found = lstmx.path_spectrum(history, max_order=2).initial
    assert_close(np.concatenate([np.concatenate([x[0] for x in layer]) for layer in found]), v, 1e-13)


def test_the_highway_of_layers_is_that_of_each():
    history = recorded()
    found = lstmx.highway(history, 2, 7)
    assert list(found) == ["layer 0", "layer 1", "layer 2"]
    for name, part in history.parts.items():
        np.testing.assert_array_equal(found[name], lstmx.highway(part, 2, 7))


def test_the_highway_of_both_directions_is_of_the_same_steps_in_time():
    pair = lstmx.Bidirectional(lstmx.GRU(3, 4))
    xs = np.random.default_rng(0).normal(size=(9, 3))
    history = lstmx.record(pair, pair.init(np.random.default_rng(1), dtype="float64"), xs)
    found = lstmx.highway(history, 2, 6)
    assert_close(found["backward"], np.log(history.backward.update_gate[::-1][2:6]).sum(axis=0), 1e-12)
    assert_close(found["forward"], np.log(history.forward.update_gate[2:6]).sum(axis=0), 1e-12)


def test_paths_of_both_directions_are_refused():
    pair = lstmx.Bidirectional(lstmx.LSTM(3, 4))
    history = lstmx.record(pair, pair.init(np.random.default_rng(1)), np.ones((5, 3), "float32"))
    with pytest.raises(TypeError, match="both directions"):
        lstmx.path_spectrum(history)
