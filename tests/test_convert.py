"""Weights in the layouts of frameworks, by hand and without any of these: where blocks go, and what is refused."""

import jax
import numpy as np
import pytest
from reference import assert_close, assert_same, is_in, to

import lstmx
from lstmx import convert
from lstmx.convert import named

H, D = 2, 3
LSTM, GRU = lstmx.LSTM(D, H), lstmx.GRU(D, H)


def drawn(cell, dtype="float32"):
    draws = np.random.default_rng(0)
    return type(cell.parameter_shapes())(
        *(None if shape is None else draws.normal(size=shape).astype(dtype) for shape in cell.parameter_shapes())
    )


def blocks(packed):
    return np.split(packed, packed.shape[-1] // H, axis=-1)


def assert_pair(found, cell, params):
    assert found[0] == cell
    assert_same(found[1], params)


def as_torch(params):
    """The dict of PyTorch's LSTM, its rows i, f, g, o as ours, with two biases."""
    return {
        "weight_ih_l0": params.input_kernel.T,
        "weight_hh_l0": params.recurrent_kernel.T,
        "bias_ih_l0": params.bias - 1,
        "bias_hh_l0": np.ones_like(params.bias),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_pytorch_are_columns_and_its_two_biases_one(dtype):
    params = drawn(LSTM, dtype)
    cell, read = convert.from_torch(as_torch(params))
    assert cell == LSTM
    assert_same(read[:2], params[:2])
    np.testing.assert_allclose(read.bias, params.bias, atol=1e-6)
    assert read.bias.dtype == dtype


def test_a_gru_of_pytorch_keeps_the_bias_behind_its_reset_gate():
    params = drawn(GRU)
    zeros = np.zeros(2 * H, "float32")
    arrays = {
        "weight_ih": params.input_kernel.T,
        "weight_hh": params.recurrent_kernel.T,
        "bias_ih": params.bias,
        "bias_hh": np.concatenate([zeros, params.candidate_bias]),
    }
    assert_pair(convert.from_torch(arrays), GRU, params)
    del arrays["bias_ih"], arrays["bias_hh"]
    read = convert.from_torch(arrays)[1]
    assert not np.any(read.bias)


def test_haiku_s_blocks_its_added_one_and_its_other_update_gate():
    params = drawn(LSTM)
    made = convert.to_haiku(LSTM, params)["lstm/linear"]
    i, f, g, o = blocks(params.input_kernel)
    np.testing.assert_array_equal(made["w"][:D], np.concatenate([i, g, f, o], axis=1))
    np.testing.assert_array_equal(made["b"][2 * H : 3 * H], params.bias[H : 2 * H] - 1)
    before = lstmx.GRU(D, H, reset="before")
    params = drawn(before)
    r, z, n = blocks(params.recurrent_kernel)
    made = convert.to_haiku(before, params, name="encoder")["encoder"]
    np.testing.assert_array_equal(made["w_h"], np.concatenate([-z, r, n], axis=1))
    assert_pair(convert.from_haiku({"encoder": made}), before, params)


def test_flax_has_a_layer_for_each_gate():
    params = drawn(LSTM)
    made = convert.to_flax(LSTM, params)
    np.testing.assert_array_equal(made["hg"]["kernel"], blocks(params.recurrent_kernel)[2])
    np.testing.assert_array_equal(made["ho"]["bias"], blocks(params.bias)[3])
    assert_pair(convert.from_flax(made), LSTM, params)
    params = drawn(GRU)
    assert_pair(convert.from_flax(convert.to_flax(GRU, params)), GRU, params)


def test_cudnn_s_vector_has_all_kernels_then_all_biases():
    stack = lstmx.Stack([lstmx.Bidirectional(lstmx.LSTM(D, H)), lstmx.Bidirectional(lstmx.LSTM(2 * H, H))])
    params = stack.init(np.random.default_rng(0))
    vector = convert.to_cudnn(stack, params)
    np.testing.assert_array_equal(vector[: 8 * D], params[0].forward.input_kernel.T.ravel())
    np.testing.assert_array_equal(vector[-16:-8], params[1].backward.bias)
    assert_pair(convert.from_cudnn(vector, D, H, 2, True), stack, params)


# ------------------------------------------------------------------------------------------------------ errors


def test_missing_surplus_and_misshapen_arrays_are_named():
    arrays = as_torch(drawn(LSTM))
    with pytest.raises(ValueError, match=r"the state dict has surplus head.weight"):
        convert.from_torch(arrays | {"head.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"the state dict lacks weight_hh_l0; it has weight_ih_l0, bias_ih_l0"):
        convert.from_torch({name: x for name, x in arrays.items() if name != "weight_hh_l0"})
    with pytest.raises(ValueError, match=r"weight_ih_l0 has shape \(7, 3\); expected \(8, any\)"):
        convert.from_torch(arrays | {"weight_ih_l0": np.zeros((7, 3), "float32")})
    with pytest.raises(ValueError, match=r"weight_hh_l0 has shape \(7, 2\); expected 4, 3 or 1 times H rows"):
        convert.from_torch(arrays | {"weight_hh_l0": np.zeros((7, 2), "float32")})
    with pytest.raises(ValueError, match=r"the state dict under 'rnn.' lacks weight_hh_l0; it has no arrays"):
        convert.from_torch(arrays, "rnn.")
    with pytest.raises(TypeError, match="bias_ih_l0 is float16; expected float32 or float64: cast the model"):
        convert.from_torch(arrays | {"bias_ih_l0": arrays["bias_ih_l0"].astype("float16")})
    with pytest.raises(TypeError, match="params hold float32, float64; expected float32 or float64 throughout"):
        convert.from_torch(arrays | {"weight_hh_l0": arrays["weight_hh_l0"].astype("float64")})
    with pytest.raises(ValueError, match=r"the vector: weights has shape \(7,\); expected \(56,\)"):
        convert.from_cudnn(np.zeros(7, "float32"), D, H)
    with pytest.raises(ValueError, match=r"the parameters lacks lstm/linear/b"):
        convert.from_haiku({"lstm/linear": {"w": np.zeros((5, 8), "float32")}})
    with pytest.raises(ValueError, match="there are no parameters under 'gru'; those are lstm/linear"):
        convert.from_haiku({"lstm/linear": {}}, "gru")
    with pytest.raises(ValueError, match=r"lstm/linear/w has shape \(2, 8\); expected \[D \+ H, 4H\]"):
        convert.from_haiku({"lstm/linear": {"w": np.zeros((2, 8), "float32")}})
    with pytest.raises(ValueError, match="source, which holds 'dense', has no recurrent layer"):
        convert.from_flax({"dense": {}})
    with pytest.raises(ValueError, match=r"the LSTMCell has surplus extra.kernel"):
        convert.from_flax(convert.to_flax(LSTM, drawn(LSTM)) | {"extra": {"kernel": np.zeros(2, "float32")}})


@pytest.mark.parametrize("function", [convert.from_keras, convert.from_flax])
def test_what_is_no_module_is_named(function):
    with pytest.raises(TypeError, match=r"is a int; expected"):
        function(3)


@pytest.mark.parametrize(
    ("function", "cell", "kind", "words"),
    [
        (convert.to_torch, lstmx.LSTM(D, H, peepholes=True), ValueError, "PyTorch cannot express LSTM.*peepholes"),
        (convert.to_torch, lstmx.LSTM(D, H, layer_norm=True), ValueError, "PyTorch cannot express"),
        (convert.to_torch, lstmx.GRU(D, H, reset="before"), ValueError, "PyTorch cannot express GRU"),
        (convert.to_torch, lstmx.JANET(D, H), ValueError, "PyTorch cannot express JANET"),
        (convert.to_torch, lstmx.Bidirectional(LSTM, merge="sum"), ValueError, "concatenates .* adds them up"),
        (convert.to_torch, lstmx.Stack([LSTM, lstmx.LSTM(H, 4)]), ValueError, "layers of one kind and size"),
        (convert.to_torch, lstmx.Stack([LSTM, lstmx.GRU(H, H)]), ValueError, "layers of one kind and size"),
        (convert.to_keras, lstmx.LSTM(D, H, coupled=True), ValueError, "Keras cannot express LSTM"),
        (convert.to_haiku, GRU, ValueError, r"Haiku cannot express GRU.*reset='before'"),
        (convert.to_haiku, lstmx.Stack([LSTM]), TypeError, "a module of Haiku is one cell; convert the layers"),
        (convert.to_flax, lstmx.LSTM(D, H, coupled=True), ValueError, "Flax cannot express LSTM.*coupled=True"),
        (
            convert.to_flax,
            lstmx.LSTM(D, H, output_activation="relu"),
            ValueError,
            "one activation for the candidate",
        ),
        (convert.to_equinox, lstmx.SimpleRNN(D, H), ValueError, "Equinox cannot express SimpleRNN"),
        (convert.to_cudnn, GRU, ValueError, "cuDNN's LSTM cannot express GRU"),
        (convert.to_onnx, lstmx.LSTM(D, H, projection=1), ValueError, "ONNX cannot express LSTM"),
        (convert.to_onnx, lstmx.Stack([LSTM, lstmx.LSTM(H, H)]), ValueError, "an operator of ONNX is one layer"),
    ],
)
def test_what_a_framework_cannot_express_is_refused(function, cell, kind, words):
    params = cell.init(np.random.default_rng(0))
    with pytest.raises(kind, match=words):
        function(cell, params)
    with pytest.raises(TypeError, match="params"):
        function(LSTM, GRU.init(np.random.default_rng(0)))


def test_the_forget_bias_that_init_would_draw_is_no_option_of_a_framework():
    cell = lstmx.LSTM(D, H, forget_bias=3.0)
    params = cell.init(np.random.default_rng(0))
    assert_same(convert.from_flax(convert.to_flax(cell, params))[1], params)


# ------------------------------------------------------------------------------------------------ passes of models


@pytest.mark.sample(3)
@pytest.mark.parametrize("library", [None, "jax", "numpy"])
@pytest.mark.parametrize("kind", ["cell", "layers"])
def test_a_short_pass_is_computed_in_numpy_and_belongs_to_the_library_asked_for(kind, library, monkeypatch):
    cell = LSTM if kind == "cell" else lstmx.Stack([lstmx.Bidirectional(LSTM), lstmx.GRU(2 * H, H)])
    params = cell.init(np.random.default_rng(0), dtype="float64")
    xs, counts = np.random.default_rng(1).normal(size=(9, 2, D)), np.array([9, 4])
    made = named.recorded(cell, params, xs, None, library, lengths=counts)
    expected = lstmx.record(cell, params, xs, lengths=counts)
    assert_same(to("numpy", made), expected)
    assert is_in(library or "jax", made)

    monkeypatch.setattr(named, "_SHORT", 0)
    long = named.recorded(cell, params, xs, None, library, lengths=counts)
    assert_close(long, made, 1e-14)
    assert jax.tree.structure(long) == jax.tree.structure(made)
