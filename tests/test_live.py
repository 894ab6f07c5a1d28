"""Recurrent layers recorded inside a running model: what came out of the layer there is what the history holds."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx

pytestmark = [
    pytest.mark.slow,  # imports PyTorch, Flax and Keras
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # of theirs, as they load
]
os.environ.setdefault("KERAS_BACKEND", "jax")
WHY = "it is recorded inside the framework's own model"


def models(torch):
    class Reader(torch.nn.Module):
        def __init__(self, batch_first, layers=1, bidirectional=False):
            super().__init__()
            self.embed = torch.nn.Linear(4, 3)
            self.rnn = torch.nn.GRU(3, 5, layers, batch_first=batch_first, bidirectional=bidirectional)
            self.head = torch.nn.Linear(5, 2)

        def forward(self, x, state=None):
            self.seen, _ = self.rnn(self.embed(x), state)
            return self.seen

    return Reader


@pytest.mark.parametrize("library", ["jax", "numpy"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_layer_of_pytorch_in_place(library, batch_first, layers):
    torch = pytest.importorskip("torch", reason=WHY)
    model = models(torch)(batch_first, layers, bidirectional=layers == 2)
    x = torch.randn(2, 6, 4)
    state = torch.randn(layers * layers, 2 if batch_first else 6, 5)
    history = lstmx.record_torch(model, (x, state), library=library)
    expected = model.seen.transpose(0, 1) if batch_first else model.seen
    np.testing.assert_allclose(history.hidden_state, expected.detach().numpy(), atol=1e-6)
    assert isinstance(history.inputs, jax.Array if library == "jax" else np.ndarray)
    assert not model.rnn._forward_pre_hooks


def test_a_packed_sequence_of_pytorch_has_lengths():
    torch = pytest.importorskip("torch", reason=WHY)
    module, xs = torch.nn.LSTM(3, 5), torch.randn(7, 3, 3)
    packed = torch.nn.utils.rnn.pack_padded_sequence(xs, torch.tensor([4, 7, 2]), enforce_sorted=False)
    history = lstmx.record_torch(module, packed)
    outputs, lengths = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0])
    np.testing.assert_array_equal(history.lengths, lengths)
    np.testing.assert_allclose(history.outputs, outputs.detach().numpy(), atol=1e-6)


def test_layers_of_pytorch_are_chosen_by_name_and_refused_with_reasons():
    torch = pytest.importorskip("torch", reason=WHY)
    model = torch.nn.ModuleDict({"a": torch.nn.GRU(3, 3, 2, dropout=0.5), "b": torch.nn.RNN(3, 3)})
    model.forward = lambda x: model["b"](model["a"](x)[0]) and model["b"](x)
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"several recurrent layers: choose one with layer=; .*: 'a', 'b'"):
        lstmx.record_torch(model, x)
    with pytest.raises(ValueError, match="no recurrent layer 'c'; those are: 'a', 'b'"):
        lstmx.record_torch(model, x, "c")
    with pytest.raises(ValueError, match=r"a drops outputs .* at random: call module.eval\(\) first"):
        lstmx.record_torch(model, x, "a")
    with pytest.raises(ValueError, match="b was called 2 times by the model with states that are not its own"):
        lstmx.record_torch(model.eval(), x, "b")
    assert len(lstmx.record_torch(model, x, "a").layers) == 2
    with pytest.raises(ValueError, match=r"the model has no recurrent layer that lstmx knows$"):
        lstmx.record_torch(torch.nn.Linear(3, 3), x)
    with pytest.raises(TypeError, match="module is a int; expected a module of PyTorch"):
        lstmx.record_torch(3, x)
    with pytest.raises(ValueError, match="library is 'torch'; expected one of 'jax', 'numpy'"):
        lstmx.record_torch(torch.nn.RNN(3, 3), x, library="torch")


@pytest.mark.parametrize("time_major", [False, True])
def test_a_layer_of_flax_in_place(time_major):
    linen = pytest.importorskip("flax.linen", reason=WHY)

    class Reader(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Dense(3)(x)
            x = linen.RNN(linen.OptimizedLSTMCell(5), time_major=time_major)(x)
            return linen.RNN(linen.GRUCell(4), time_major=time_major, reverse=True, keep_order=True, name="back")(
                x
            )

    with jax.numpy_dtype_promotion("standard"):
        model, x = Reader(), jax.random.normal(jax.random.key(0), (2, 6, 4), "float32")
        variables = model.init(jax.random.key(1), x)
        with pytest.raises(ValueError, match=r"several recurrent layers: choose .*: 'RNN_0', 'back'"):
            lstmx.record_flax(model, variables, x)
        first = lstmx.record_flax(model, variables, x, "RNN_0")
        second = lstmx.record_flax(model, variables, x, "back")
        outputs = model.apply(variables, x)
    outputs = outputs if time_major else jnp.swapaxes(outputs, 0, 1)
    np.testing.assert_allclose(second.hidden_state[::-1], outputs, atol=1e-6)
    np.testing.assert_allclose(first.hidden_state, second.inputs[::-1], atol=1e-6)


def test_a_bare_layer_of_flax_with_lengths_and_a_carry():
    linen = pytest.importorskip("flax.linen", reason=WHY)
    rnn = linen.RNN(linen.LSTMCell(5))
    with jax.numpy_dtype_promotion("standard"):
        xs = jax.random.normal(jax.random.key(0), (2, 6, 3), "float32")
        variables = rnn.init(jax.random.key(1), xs)

        class Bare(linen.Module):
            @linen.compact
            def __call__(self, xs, lengths, carry):
                return linen.RNN(linen.LSTMCell(5), name="rnn")(xs, seq_lengths=lengths, initial_carry=carry)

        carry = tuple(jax.random.normal(jax.random.key(k), (2, 5), "float32") for k in (2, 3))
        given = xs, jnp.array([6, 3]), carry
        history = lstmx.record_flax(Bare(), {"params": {"LSTMCell_0": variables["params"]["cell"]}}, given)
        assert len(lstmx.record_flax(rnn, variables, xs)) == 6
    np.testing.assert_array_equal(history.lengths, [6, 3])
    np.testing.assert_array_equal(history.initial.cell, carry[0])


@pytest.mark.parametrize("time_major", [False, True])
def test_a_layer_of_flax_nnx_in_place(time_major):
    nnx = pytest.importorskip("flax.nnx", reason=WHY)

    class Reader(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(4, 3, rngs=rngs)
            self.first = nnx.RNN(nnx.OptimizedLSTMCell(3, 5, rngs=rngs), time_major=time_major)
            self.back = nnx.RNN(nnx.GRUCell(5, 4, rngs=rngs), time_major=time_major, reverse=True, keep_order=True)

        def __call__(self, x, carry=None):
            return self.back(self.first(inputs=self.dense(x), initial_carry=carry))

    own = nnx.RNN.__call__
    with jax.numpy_dtype_promotion("standard"):
        model, x = Reader(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 6, 4), "float32")
        carry = tuple(jax.random.normal(jax.random.key(k), (6 if time_major else 2, 5), "float32") for k in (2, 3))
        with pytest.raises(ValueError, match=r"several recurrent layers: choose .*: 'back', 'first'"):
            lstmx.record_flax(model, None, x)
        first = lstmx.record_flax(model, None, (x, carry), "first")
        second = lstmx.record_flax(model, None, (x, carry), "back")
        outputs = model(x, carry)
    assert nnx.RNN.__call__ is own
    np.testing.assert_array_equal(first.initial.hidden, carry[1])
    outputs = outputs if time_major else jnp.swapaxes(outputs, 0, 1)
    np.testing.assert_allclose(second.hidden_state[::-1], outputs, atol=1e-6)
    np.testing.assert_allclose(first.hidden_state, second.inputs[::-1], atol=1e-6)


def test_what_a_layer_of_flax_does_otherwise_is_refused_or_done():
    linen = pytest.importorskip("flax.linen", reason=WHY)
    nnx = pytest.importorskip("flax.nnx", reason=WHY)
    x, rngs = jnp.ones((2, 6, 3), "float32"), nnx.Rngs(0)

    class Counter(linen.RNNCellBase):
        """A cell of the user's own."""

        @linen.compact
        def __call__(self, carry, x):
            return carry + 1, linen.Dense(5)(x)

        def initialize_carry(self, rng, input_shape):
            return jnp.zeros(())

        @property
        def num_feature_axes(self):
            return 1

    def drawn(cell, kind=linen.RNN):
        module = kind(cell)
        return module, module.init(jax.random.key(0), x), x

    with jax.numpy_dtype_promotion("standard"):
        relu = drawn(linen.SimpleCell(5, activation_fn=linen.relu))
        history = lstmx.record_flax(*relu)
        assert history.cell.activation == "relu"
        np.testing.assert_allclose(jnp.swapaxes(history.hidden_state, 0, 1), relu[0].apply(*relu[1:]), atol=1e-6)
        for cell, words in (
            (linen.LSTMCell(5, gate_fn=linen.relu), "activation_fn tanh and gate_fn relu"),
            (linen.GRUCell(5, activation_fn=linen.gelu), "activation_fn gelu and gate_fn sigmoid; lstmx has tanh"),
            (linen.SimpleCell(5, residual=True), "SimpleCell has residual=True"),
        ):
            with pytest.raises(ValueError, match=words):
                lstmx.record_flax(*drawn(cell))
        cell = nnx.LSTMCell(3, 5, rngs=rngs)
        for cells, error, words in (
            (Counter(), TypeError, r"the cell is a .*Counter; expected a recurrent cell of Flax"),
            (linen.MGUCell(5), ValueError, "the MGUCell .*has reset_gate=True"),
        ):
            with pytest.raises(error, match=words):
                lstmx.record_flax(*drawn(cells))
        module = nnx.RNN(cell)
        assert len(lstmx.record_flax(module, None, x)) == 6
        with pytest.raises(ValueError, match="variables are given with a module of nnx"):
            lstmx.record_flax(module, {}, x)
        with pytest.raises(ValueError, match="the layer is called inside a transformation of JAX, such as jit"):
            lstmx.record_flax(*drawn(linen.LSTMCell(5), linen.jit(linen.RNN)))
        with pytest.raises(TypeError, match="module is a int; expected a module of Flax"):
            lstmx.record_flax(3, None, x)


def test_layers_of_keras_in_place():
    keras = pytest.importorskip("keras", reason=WHY)
    inputs = keras.Input((6, 4))
    hidden = keras.layers.Dense(3)(inputs)
    first = keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True), name="both")(hidden)
    last = keras.layers.GRU(2, return_sequences=True, name="top")(first)
    model = keras.Model(inputs, last)
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    with pytest.raises(ValueError, match=r"several recurrent layers: choose .*: 'both', 'top'"):
        lstmx.record_keras(model, x)
    both, top = (lstmx.record_keras(model, x, name) for name in ("both", "top"))
    np.testing.assert_allclose(top.hidden_state, np.swapaxes(model(x), 0, 1), atol=1e-6)
    np.testing.assert_allclose(both.outputs, top.inputs, atol=1e-6)
    assert "call" not in vars(model.get_layer("top"))
    layer = keras.layers.LSTM(5, return_sequences=True)
    state = [np.ones((3, 5), "float32"), np.zeros((3, 5), "float32")]

    class Held(keras.Layer):
        def __init__(self):
            super().__init__()
            self.layers = [layer]

        def call(self, x):
            return layer(x, initial_state=state)

    held = Held()
    outputs = held(x)
    history = lstmx.record_keras(held, x)
    np.testing.assert_allclose(history.hidden_state, np.swapaxes(outputs, 0, 1), atol=1e-6)
