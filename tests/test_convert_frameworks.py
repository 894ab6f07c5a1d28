"""Converted weights compute what the frameworks compute: outputs, states and gradients, there and back."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_same

import lstmx
from lstmx import convert
from lstmx.arrays import leaves

pytestmark = [
    pytest.mark.slow,  # five frameworks to import
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning"
    ),  # of theirs, while they load
]
os.environ.setdefault("KERAS_BACKEND", "jax")
WHY = "converters are proved against the framework itself"


def close(found, expected, tolerance=1e-12):
    """Every array of a tree, to a share of the greatest number in it."""
    left, right = list(leaves(found)), list(leaves(expected))
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=tolerance * max(1e-30, np.abs(b).max()), rtol=0)


def drawn(cell, seed=0, length=7, batch=3, dtype="float64"):
    """Parameters, states and inputs of a cell or layers, and a cotangent of its outputs."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda x: rng.normal(0, 0.5, x.shape).astype(dtype), cell.init(np.random.default_rng(0), dtype)
    )
    state = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(dtype), cell.initial_state(params, (batch,)))
    xs = rng.normal(size=(length, batch, cell.input_size)).astype(dtype)
    return params, state, xs, rng.normal(size=(length, batch, cell.output_size)).astype(dtype)


def ours(cell, params, state, xs, weights):
    """Outputs, final states, and gradients of Σ weights · outputs for the parameters."""
    history = lstmx.record(cell, params, xs, state)
    outputs, final = lstmx.run(cell, params, xs, state)
    return outputs, final, lstmx.backward(history, weights).parameters


# ----------------------------------------------------------------------------------------------------- PyTorch

TORCH = {
    "LSTM": lstmx.LSTM(3, 5),
    "GRU": lstmx.GRU(3, 5),
    "RNN": lstmx.SimpleRNN(3, 5),
    "ReLU": lstmx.SimpleRNN(3, 5, activation="relu"),
    "projection": lstmx.LSTM(3, 5, projection=2),
    "stack": lstmx.Stack([lstmx.GRU(3, 5), lstmx.GRU(5, 5)], dropout=0.25),
    "two directions": lstmx.Bidirectional(lstmx.LSTM(3, 5)),
    "all": lstmx.Stack([lstmx.Bidirectional(lstmx.LSTM(d, 5, projection=2)) for d in (3, 4, 4)]),
}


def torch_states(cell, state):
    """The state as PyTorch stacks it: h, then c, each [layers · directions, B, H]."""
    cells = list(leaves_of_states(cell, state))
    return tuple(np.stack([one[k] for one in cells]) for k in range(len(cells[0])))


def leaves_of_states(cell, state):
    if not hasattr(cell, "parts"):
        yield state
        return
    for part, one in zip(cell.parts.values(), state, strict=True):
        yield from leaves_of_states(part, one)


@pytest.mark.parametrize("name", TORCH)
def test_pytorch(name):
    torch = pytest.importorskip("torch", reason=WHY)
    cell = TORCH[name]
    params, state, xs, weights = drawn(cell)
    module = convert.to_torch(cell, params).eval()
    back, read = convert.from_torch(module)
    assert back == cell
    assert_same(read, params)
    prefixed = {f"model.rnn.{key}": value for key, value in module.state_dict().items()} | {
        "head.bias": torch.zeros(2)
    }
    nonlinearity = {"ReLU": "relu", "RNN": "tanh"}.get(name)
    assert_same(convert.from_torch(prefixed, "model.rnn.", nonlinearity)[1], params)

    given = [torch.tensor(field) for field in torch_states(cell, state)]
    made, final = module(torch.tensor(xs), tuple(given) if len(given) > 1 else given[0])
    (made * torch.tensor(weights)).sum().backward()
    outputs, ended, gradient = ours(cell, params, state, xs, weights)
    close(outputs, made.detach().numpy())
    final = final if isinstance(final, tuple) else (final,)
    close(torch_states(cell, ended), tuple(field.detach().numpy() for field in final))
    theirs = {key: value.grad for key, value in module.named_parameters()}
    for key in theirs:  # the two biases that are added up have one gradient; a GRU's candidate has two
        if key.startswith("bias_hh"):
            keep = torch.zeros_like(theirs[key])
            if isinstance(next(iter(cells_of(cell))), lstmx.GRU):
                keep[2 * 5 :] = theirs[key][2 * 5 :]
            theirs[key] = keep
    close(gradient, convert.from_torch(theirs, nonlinearity=nonlinearity)[1])


def cells_of(cell):
    if not hasattr(cell, "parts"):
        yield cell
        return
    for part in cell.parts.values():
        yield from cells_of(part)


def test_pytorch_s_cells_and_layers_without_biases():
    torch = pytest.importorskip("torch", reason=WHY)
    xs = torch.randn(3, 4, dtype=torch.float64)
    for kind in (torch.nn.LSTMCell, torch.nn.GRUCell, torch.nn.RNNCell):
        module = kind(4, 5, dtype=torch.float64)
        cell, params = convert.from_torch(module)
        state = torch.randn(3, 5, dtype=torch.float64)
        both = (state, -state) if kind is torch.nn.LSTMCell else state
        after = module(xs, both)
        given = cell.state_type(*(x.numpy() for x in (both if isinstance(both, tuple) else (both,))))
        found, _ = cell.step(params, given, xs.numpy())
        close(tuple(found), tuple(x.detach().numpy() for x in (after if isinstance(after, tuple) else (after,))))
    cell, params = convert.from_torch(torch.nn.GRU(4, 5, bias=False))
    assert not np.any(params.bias)
    assert not np.any(params.candidate_bias)


def test_pytorch_s_half_precision_is_refused():
    torch = pytest.importorskip("torch", reason=WHY)
    with pytest.raises(TypeError, match=r"weight_ih_l0 is bfloat16; expected float32 or float64: cast the model"):
        convert.from_torch(torch.nn.LSTM(3, 4).bfloat16())
    with pytest.raises(TypeError, match="source is a Linear; expected an LSTM, GRU or RNN of PyTorch"):
        convert.from_torch(torch.nn.Linear(3, 4))


# ------------------------------------------------------------------------------------------------------- Keras

KERAS = {
    "LSTM": lstmx.LSTM(3, 5),
    "GRU": lstmx.GRU(3, 5),
    "GRU before": lstmx.GRU(3, 5, reset="before"),
    "SimpleRNN": lstmx.SimpleRNN(3, 5),
    "ReLU": lstmx.SimpleRNN(3, 5, activation="relu"),
    "two directions": lstmx.Bidirectional(lstmx.LSTM(3, 5)),
    "their sum": lstmx.Bidirectional(lstmx.GRU(3, 5), merge="sum"),
}


@pytest.mark.parametrize("name", KERAS)
def test_keras(name):
    pytest.importorskip("keras", reason=WHY)
    cell = KERAS[name]
    params, state, xs, weights = drawn(cell, dtype="float32")  # its tanh makes float32 of float64
    layer = convert.to_keras(cell, params)
    back, read = convert.from_keras(layer)
    assert back == cell
    assert_same(read, params)

    first = jnp.swapaxes(jnp.asarray(xs), 0, 1)
    given = [jnp.asarray(x) for x in leaves(state)]

    def passed(values):
        (made, *final), _ = layer.stateless_call(
            values, [v.value for v in layer.non_trainable_variables], first, initial_state=given
        )
        return jnp.swapaxes(made, 0, 1), final

    values = [v.value for v in layer.trainable_variables]
    made, final = passed(values)
    theirs = jax.grad(lambda values: (passed(values)[0] * weights).sum())(values)
    outputs, ended, gradient = ours(cell, params, state, xs, weights)
    close(outputs, made, 1e-6)
    close(tuple(leaves(ended)), tuple(final), 1e-6)
    layer.set_weights([np.asarray(x) for x in theirs])
    expected = convert.from_keras(layer)[1]
    if name == "GRU":  # two biases that are added up have one gradient
        expected = expected._replace(bias=np.concatenate([expected.bias[:10] / 2, expected.bias[10:]]))
    if name == "their sum":
        expected = type(expected)(
            *(one._replace(bias=np.concatenate([one.bias[:10] / 2, one.bias[10:]])) for one in expected)
        )
    close(gradient, expected, 1e-6)


def test_what_keras_has_and_lstmx_has_not_is_refused():
    keras = pytest.importorskip("keras", reason=WHY)
    layer = keras.layers.LSTM(5, activation="gelu", recurrent_activation="hard_sigmoid")
    with pytest.raises(ValueError, match="has no weights yet; call it once"):
        convert.from_keras(layer)
    layer.build((None, None, 3))
    with pytest.raises(
        ValueError, match=r"activation gelu .*; lstmx has tanh or relu or identity and sigmoid or hard_sigmoid"
    ):
        convert.from_keras(layer)
    with pytest.raises(ValueError, match="go_backwards=True"):
        convert.from_keras(keras.layers.GRU(5, go_backwards=True))
    with pytest.raises(TypeError, match="layer is a Dense; expected an LSTM, GRU, SimpleRNN"):
        convert.from_keras(keras.layers.Dense(5))
    stack = lstmx.Stack([lstmx.GRU(3, 5)])
    with pytest.raises(TypeError, match=r"convert those of Stack.* one by one"):
        convert.to_keras(stack, stack.init(0))


# --------------------------------------------------------------------------------- Flax, Equinox, Haiku, cuDNN

CELLS = {"LSTM": lstmx.LSTM(3, 5), "GRU": lstmx.GRU(3, 5), "SimpleRNN": lstmx.SimpleRNN(3, 5)}


def scanned(step, carry, xs):
    """Outputs and the last carry of `step(carry, x) -> (carry, y)`."""
    final, outputs = jax.lax.scan(step, carry, jnp.asarray(xs))
    return outputs, final


def agrees(cell, params, state, xs, weights, passed, theirs, read, carried):
    """Raise unless the framework's pass, `passed(theirs)`, is ours, with gradients that `read` converts."""
    outputs, ended, gradient = ours(cell, params, state, xs, weights)
    made, final = passed(theirs)
    close(outputs, made)
    close(tuple(ended), tuple(carried(final)))
    close(gradient, read(jax.grad(lambda theirs: (passed(theirs)[0] * weights).sum())(theirs)))


def swapped(state):
    """The carry of Flax: (c, h), or h."""
    return (state.cell, state.hidden) if len(state) > 1 else state.hidden


def unswapped(carry):
    return carry[::-1] if isinstance(carry, tuple) else (carry,)


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_flax_linen(name, optimised):
    linen = pytest.importorskip("flax.linen", reason=WHY)
    cell = CELLS[name]
    params, state, xs, weights = jax.tree.map(jnp.asarray, drawn(cell))
    kinds = {"LSTM": linen.OptimizedLSTMCell if optimised else linen.LSTMCell, "GRU": linen.GRUCell}
    module = kinds.get(name, linen.SimpleCell)(5)
    theirs = convert.to_flax(cell, params)
    back, read = convert.from_flax({"params": theirs})
    assert back == cell
    assert isinstance(read.bias, jax.Array)
    assert_same(read, params)

    def passed(theirs):
        return scanned(lambda carry, x: module.apply({"params": theirs}, carry, x), swapped(state), xs)

    agrees(cell, params, state, xs, weights, passed, theirs, lambda g: convert.from_flax(g)[1], unswapped)


@pytest.mark.parametrize("name", [*CELLS, "plain LSTM"])
def test_flax_nnx(name):
    nnx = pytest.importorskip("flax.nnx", reason=WHY)
    cell = CELLS[name.removeprefix("plain ")]
    params, state, xs, weights = jax.tree.map(jnp.asarray, drawn(cell))
    if name == "GRU":
        with pytest.raises(ValueError, match="candidate_bias is not 0; nnx's GRUCell has no bias inside"):
            convert.to_flax(cell, params, "nnx")
        params = params._replace(candidate_bias=jnp.zeros(5, "float64"))
    if name == "plain LSTM":
        module = nnx.LSTMCell(3, 5, param_dtype="float64", rngs=nnx.Rngs(0))
        cell, params = convert.from_flax(module)
    else:
        module = convert.to_flax(cell, params, "nnx")
        back, read = convert.from_flax(module)
        assert back == cell
        assert_same(read, params)
    graph, theirs = nnx.split(module)

    def passed(theirs):
        return scanned(lambda carry, x: nnx.merge(graph, theirs)(carry, x), swapped(state), xs)

    def read(gradient):
        found = convert.from_flax(nnx.merge(graph, gradient))[1]
        return found._replace(candidate_bias=expected) if name == "GRU" else found

    expected = ours(cell, params, state, xs, weights)[2][-1]  # of a bias that nnx's GRU has not
    agrees(cell, params, state, xs, weights, passed, theirs, read, unswapped)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_equinox(name):
    pytest.importorskip("equinox", reason=WHY)
    cell = CELLS[name]
    params, state, xs, weights = jax.tree.map(jnp.asarray, drawn(cell))
    module = convert.to_equinox(cell, params)
    back, read = convert.from_equinox(module)
    assert back == cell
    assert_same(read, params)

    def step(theirs, carry, x):
        after = jax.vmap(theirs)(x, carry)
        return after, after[0] if isinstance(after, tuple) else after

    def passed(theirs):
        start = tuple(state) if len(state) > 1 else state.hidden
        return scanned(lambda carry, x: step(theirs, carry, x), start, xs)

    def carried(final):
        return final if isinstance(final, tuple) else (final,)

    agrees(cell, params, state, xs, weights, passed, module, lambda g: convert.from_equinox(g)[1], carried)


@pytest.mark.parametrize("name", ["LSTM", "GRU before", "ReLU"])
def test_haiku(name):
    hk = pytest.importorskip("haiku", reason=WHY)
    cell = KERAS[name]
    params, state, xs, weights = jax.tree.map(jnp.asarray, drawn(cell))
    kind = {"LSTM": hk.LSTM, "GRU before": hk.GRU, "ReLU": hk.VanillaRNN}[name]
    theirs = convert.to_haiku(cell, params)
    back, read = convert.from_haiku(theirs)
    assert back == cell
    close(read, params)  # 1 less and 1 more in the forget gate's bias
    prefixed = {f"net/{key}": value for key, value in theirs.items()} | {"head": {"w": jnp.zeros(2)}}
    close(convert.from_haiku(prefixed, "net/")[1], params)

    def carry(state):
        return hk.LSTMState(state.hidden, state.cell) if name == "LSTM" else state.hidden

    transformed = hk.without_apply_rng(hk.transform(lambda x, state: kind(5)(x, state)))

    def step(theirs, state, x):
        output, after = transformed.apply(theirs, x, state)
        return after, output

    def passed(theirs):
        return scanned(lambda state, x: step(theirs, state, x), carry(state), xs)

    def read_gradient(gradient):
        found = convert.from_haiku(gradient)[1]
        if name == "LSTM":
            found = found._replace(bias=found.bias - jnp.repeat(jnp.array([0, 1, 0, 0], "float64"), 5))
        return found._replace(bias=found.bias / 2) if name == "ReLU" else found

    def carried(final):
        return tuple(final) if name == "LSTM" else (final,)

    agrees(cell, params, state, xs, weights, passed, theirs, read_gradient, carried)


@pytest.mark.parametrize("name", ["LSTM", "two directions", "stack"])
def test_cudnn_s_vector(name):
    rnn = pytest.importorskip("jax.experimental.rnn", reason=WHY)
    layers = {
        "LSTM": lstmx.LSTM(3, 5),
        "two directions": lstmx.Bidirectional(lstmx.LSTM(3, 5)),
        "stack": lstmx.Stack([lstmx.Bidirectional(lstmx.LSTM(d, 5)) for d in (3, 10)]),
    }
    cell = layers[name]
    count, both = 2 if name == "stack" else 1, name != "LSTM"
    params, state, xs, weights = jax.tree.map(jnp.asarray, drawn(cell))
    vector = convert.to_cudnn(cell, params)
    back, read = convert.from_cudnn(vector, 3, 5, count, both)
    assert back == cell
    assert_same(read, params)
    h, c = map(jnp.asarray, torch_states(cell, state))

    def passed(vector):
        arrays = rnn.unpack_lstm_weights(vector, 3, 5, count, both)
        lengths = jnp.full((3,), 7, "int32")
        with jax.numpy_dtype_promotion("standard"):
            made = rnn.lstm_ref(jnp.swapaxes(xs, 0, 1), h, c, *arrays, lengths, 3, 5, count, 0.0, both)
        return jnp.swapaxes(made[0], 0, 1), made[1:]

    made, final = passed(vector)
    outputs, ended, gradient = ours(cell, params, state, xs, weights)
    close(outputs, made)
    close(torch_states(cell, ended), tuple(final))
    theirs = jax.grad(lambda vector: (passed(vector)[0] * weights).sum())(vector)
    kernels = theirs.size - 2 * 20 * count * (2 if both else 1)
    biases = theirs[kernels:].reshape(-1, 2, 20).at[:, 1].set(0)  # the two biases have one gradient
    close(gradient, convert.from_cudnn(jnp.concat([theirs[:kernels], biases.ravel()]), 3, 5, count, both)[1])


# -------------------------------------------------------------------------------------------------------- ONNX

ONNX = KERAS | {"peepholes": lstmx.LSTM(3, 5, peepholes=True)}
del ONNX["their sum"]


@pytest.mark.parametrize("name", ONNX)
def test_onnx(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason=WHY)
    cell = ONNX[name]
    params, state, xs, _ = drawn(cell, dtype="float32")  # the runtime has no kernel for double
    model = convert.to_onnx(cell, params)
    back, read = convert.from_onnx(model)
    assert back == cell
    assert_same(read, params)
    (tmp_path / "cell.onnx").write_bytes(model.SerializeToString())
    assert_same(convert.from_onnx(tmp_path / "cell.onnx")[1], params)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = ("h", "c")[: len(next(leaves_of_states(cell, state)))]
    given = dict(zip(names, torch_states(cell, state), strict=True))
    made, *final = session.run(None, {"X": xs, **given})
    outputs, ended = lstmx.run(cell, params, xs, state)
    close(outputs, np.concatenate(np.moveaxis(made, 1, 0), axis=-1), 1e-6)
    close(torch_states(cell, ended), tuple(final), 1e-6)


def test_operators_are_found_by_name_and_refused_with_reasons():
    onnx = pytest.importorskip("onnx", reason=WHY)
    cell = lstmx.LSTM(3, 5)
    model = convert.to_onnx(cell, cell.init(np.random.default_rng(0)))
    second = onnx.ModelProto()
    second.CopyFrom(model)
    second.graph.node.add().CopyFrom(model.graph.node[0])
    second.graph.node[1].name = "decoder"
    with pytest.raises(
        ValueError, match=r"has several recurrent layers: choose one with node=; .*: 'lstm', 'decoder'"
    ):
        convert.from_onnx(second)
    assert convert.from_onnx(second, "decoder")[0] == cell
    with pytest.raises(ValueError, match="no recurrent layer 'encoder'; those are"):
        convert.from_onnx(second, "encoder")
    for attribute, words in (
        ({"clip": 3.0}, "has clip, which lstmx has no equal of"),
        ({"direction": "reverse"}, "reads backwards alone"),
        (
            {"activations": ["Elu", "Tanh", "Tanh"]},
            r"has activations .* \(elu\); lstmx has Sigmoid and HardSigmoid",
        ),
        ({"activations": ["Sigmoid", "HardSigmoid", "Tanh"]}, r"has activations .* \(hardsigmoid\)"),
        ({"activations": ["Sigmoid", "Tanh"]}, "has activations .*; lstmx has 3"),
        ({"activation_alpha": [0.2]}, "has activation_alpha that no activation"),
        ({"input_forget": 1}, "has input_forget=1"),
    ):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[0].attribute.extend([onnx.helper.make_attribute(*next(iter(attribute.items())))])
        with pytest.raises(ValueError, match=words):
            convert.from_onnx(changed)
    del model.graph.initializer[:]
    with pytest.raises(ValueError, match="W is 'W', which the model computes; expected a constant"):
        convert.from_onnx(model)
