"""Models of Keras as people have them: layers convert and agree with Keras itself, or are refused by name."""

import itertools
import json
import os
import shutil
import zipfile

import jax
import numpy as np
import pytest

import lstmx
from lstmx.app.choices import Choices
from lstmx.app.weights import read_weights
from lstmx.convert import from_keras

os.environ.setdefault("KERAS_BACKEND", "jax")
WHY = "it compares with Keras"
keras = pytest.importorskip("keras", reason=WHY)
h5py = pytest.importorskip("h5py", reason=WHY)
L = keras.layers

pytestmark = [
    pytest.mark.slow,  # a framework to import
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning",  # of theirs
        "ignore:You are saving your model as an HDF5 file",
    ),
]

B, T, D, H = 4, 6, 3, 4
MASK = np.array(
    [[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], bool
)  # none, holes, left and right padding


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def shaken(layer):
    """The layer with weights that are nowhere 0."""
    sizes = [min(0.5, 1.5 / len(w) ** 0.5) for w in layer.get_weights()]  # rounding does not grow over the steps
    shapes = [w.shape for w in layer.get_weights()]
    layer.set_weights([size * normal(*s, seed=k) for k, (size, s) in enumerate(zip(sizes, shapes, strict=True))])
    return layer


def array(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


class Calling:
    """A model that calls its layer with these arguments, and keeps what comes back."""

    def __init__(self, layer, *args, **kwargs):
        self.layers, self.args, self.kwargs = [layer], args, kwargs

    def __call__(self, x):
        self.made = self.layers[0](x, *self.args, **self.kwargs)


def agrees(layer, x, *args, **kwargs):
    """Raise unless outputs and last states of the record are those of Keras; returns the history."""
    for one in (layer, *(getattr(layer, f"{side}_layer", layer) for side in ("forward", "backward"))):
        one.return_sequences = one.return_state = True
    model = Calling(layer, *args, **kwargs)
    history = lstmx.record_keras(model, x, library="numpy")
    made, *final = model.made
    found, expected = np.asarray(history.outputs), np.moveaxis(array(made), 1, 0)
    one = getattr(history, "forward", getattr(history, "layers", [history])[0])
    if one.counts is not None:
        found, expected = found[one.counts], expected[one.counts]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    theirs = [array(leaf) for one in final for leaf in (one if isinstance(one, (list, tuple)) else [one])]
    for end, other in zip(lstmx.arrays.leaves(history.final), theirs, strict=True):
        np.testing.assert_allclose(end, other, rtol=1e-6, atol=1e-6)
    return history


# ------------------------------------------------------------------------------------------------------ corpus


def _corpus():
    kinds = {"LSTM": (L.LSTM, {}), "SimpleRNN": (L.SimpleRNN, {})}
    kinds |= {f"GRU, reset_after={after}": (L.GRU, {"reset_after": after}) for after in (True, False)}
    table = []
    for (name, (kind, own)), bias, both in itertools.product(kinds.items(), (True, False), ("", "concat", "sum")):
        label = f"{name}{'' if bias else ', no bias'}{both and f', both directions, {both}'}"

        def build(kind=kind, own=own, bias=bias, both=both):
            one = kind(H, use_bias=bias, **own)
            return L.Bidirectional(one, merge_mode=both) if both else one

        table.append((label, build, True))
    cells = {"LSTMCell": L.LSTMCell, "GRUCell": L.GRUCell, "SimpleRNNCell": L.SimpleRNNCell}
    for name, cell in cells.items():
        table.append((f"RNN of a {name}", lambda cell=cell: L.RNN(cell(H)), True))
    table += [
        ("RNN of two cells", lambda: L.RNN([L.LSTMCell(H), L.GRUCell(5)]), True),
        ("RNN of three cells", lambda: L.RNN([L.SimpleRNNCell(5), L.GRUCell(H), L.GRUCell(2)]), True),
        ("both directions of an RNN", lambda: L.Bidirectional(L.RNN(L.GRUCell(H))), True),
        ("LSTM, 100 units", lambda: L.LSTM(100), True),
        ("LSTM, unit_forget_bias=False", lambda: L.LSTM(H, unit_forget_bias=False), True),
        ("LSTM, implementation=1", lambda: L.LSTM(H, implementation=1), True),
        ("GRU, implementation=1", lambda: L.GRU(H, implementation=1), True),
        ("GRU before, implementation=1", lambda: L.GRU(H, implementation=1, reset_after=False), True),
        ("LSTM, unroll", lambda: L.LSTM(H, unroll=True), True),
        ("LSTM, zero_output_for_mask", lambda: L.LSTM(H, zero_output_for_mask=True), True),
        ("LSTM, dropout that is off", lambda: L.LSTM(H, dropout=0.5, recurrent_dropout=0.5), True),
        ("LSTM, go_backwards", lambda: L.LSTM(H, go_backwards=True), True),
        ("RNN of two cells, go_backwards", lambda: L.RNN([L.LSTMCell(H), L.GRUCell(5)], go_backwards=True), True),
        ("SimpleRNN, relu", lambda: L.SimpleRNN(H, activation="relu"), True),
        ("SimpleRNN, a layer ReLU", lambda: L.SimpleRNN(H, activation=L.ReLU()), True),
        ("SimpleRNN, a layer PReLU", lambda: L.SimpleRNN(H, activation=L.PReLU()), "PReLU, which has weights of"),
        (
            "SimpleRNN, linear",
            lambda: L.SimpleRNN(H, activation=None),
            "activation identity; lstmx has tanh or relu",
        ),
        ("SimpleRNN, relu6", lambda: L.SimpleRNN(H, activation="relu6"), "activation relu6; lstmx has tanh"),
        ("LSTM, relu", lambda: L.LSTM(H, activation="relu"), True),
        ("LSTM of 100, relu, both directions", lambda: L.Bidirectional(L.LSTM(100, activation="relu")), True),
        ("LSTM, linear", lambda: L.LSTM(H, activation=None), True),
        ("LSTM, hard_sigmoid", lambda: L.LSTM(H, recurrent_activation="hard_sigmoid"), True),
        ("LSTM, hard_sigmoid of Keras 2", lambda: L.LSTM(H, recurrent_activation=hard_sigmoid_of_keras_2), True),
        ("GRU, hard_sigmoid", lambda: L.GRU(H, recurrent_activation="hard_sigmoid"), True),
        ("GRU before, hard_sigmoid", lambda: L.GRU(H, "relu", "hard_sigmoid", reset_after=False), True),
        ("GRU, relu", lambda: L.GRU(H, activation="relu"), True),
        ("RNN of an LSTMCell, relu", lambda: L.RNN(L.LSTMCell(H, activation="relu")), True),
        (
            "LSTM, gelu",
            lambda: L.LSTM(H, activation="gelu"),
            "activation gelu and recurrent_activation sigmoid; lstmx has tanh or relu or identity and sigmoid or",
        ),
        (
            "GRU, linear",
            lambda: L.GRU(H, activation=None),
            "activation identity and recurrent_activation sigmoid; lstmx has tanh or relu and sigmoid or",
        ),
        (
            "LSTM, gates of tanh",
            lambda: L.LSTM(H, recurrent_activation="tanh"),
            "and recurrent_activation tanh; lstmx",
        ),
        ("both directions, ave", lambda: L.Bidirectional(L.LSTM(H), merge_mode="ave"), "merge_mode='ave'"),
        ("both directions, mul", lambda: L.Bidirectional(L.LSTM(H), merge_mode="mul"), "merge_mode='mul'"),
        ("both directions, apart", lambda: L.Bidirectional(L.LSTM(H), merge_mode=None), "merge_mode=None"),
        (
            "both directions, swapped",
            lambda: L.Bidirectional(L.LSTM(H, go_backwards=True), backward_layer=L.LSTM(H)),
            "has a forward layer with go_backwards=True, and returns its outputs from the last step to the first",
        ),
        (
            "both directions, of two kinds",
            lambda: L.Bidirectional(L.LSTM(H), backward_layer=L.GRU(H, go_backwards=True)),
            "the directions of bidirectional.* differ",
        ),
        (
            "both directions of two cells",
            lambda: L.Bidirectional(L.RNN([L.GRUCell(H), L.GRUCell(H)])),
            "are stacks of cells; lstmx has a cell in each direction",
        ),
        ("LSTM, mixed precision", lambda: L.LSTM(H, dtype="mixed_bfloat16"), "computes in bfloat16, and lstmx in"),
        ("ConvLSTM1D", lambda: L.ConvLSTM1D(H, 2, padding="same"), "layer is a ConvLSTM1D; expected an LSTM, GRU"),
        (
            "a layer of its own class",
            lambda: Own(H),
            "layer is a Own, a class of .*test_models_keras.* layer.cell",
        ),
        ("a cell of its own class", lambda: L.RNN(OwnCell()), "is a OwnCell of .*lstmx.from_step makes a cell"),
    ]
    return table


def hard_sigmoid_of_keras_2(x):
    return keras.ops.clip(0.2 * x + 0.5, 0, 1)


class Own(L.LSTM):
    """An LSTM that may do anything."""


class OwnCell(L.Layer):
    """A cell that Keras has not."""

    state_size = H

    def call(self, x, states):
        h = keras.ops.sum(x, -1, keepdims=True) + states[0]
        return h, [h]


CORPUS = [
    (label + call, build, call if expected is True else "", expected)
    for label, build, expected in _corpus()
    for call in (("", ", a mask", ", initial states") if expected is True else ("",))
]
"""What Keras can build and call: a label, what builds it, the call, and True or words of the refusal."""


def states_of(layer):
    """Initial states that are not zeros, as the layer takes them."""
    if isinstance(layer, L.Bidirectional):
        return [one for direction in (layer.forward_layer, layer.backward_layer) for one in states_of(direction)]

    def drawn(size):
        many = isinstance(size, (list, tuple))
        return [drawn(one) for one in size] if many else keras.ops.convert_to_tensor(normal(B, size, seed=size))

    sizes = layer.cell.state_size
    return drawn(sizes if isinstance(sizes, (list, tuple)) else [sizes])


@pytest.mark.filterwarnings("ignore:.* computes in bfloat16")
@pytest.mark.parametrize(
    ("build", "call", "expected"), [one[1:] for one in CORPUS], ids=[one[0] for one in CORPUS]
)
def test_what_keras_can_build_agrees_or_is_refused(build, call, expected):
    layer = build()
    if expected is not True:
        x = normal(B, T, 5, D) if "Conv" in type(layer).__name__ else normal(B, T, D)
        with pytest.raises((ValueError, TypeError), match=expected):
            lstmx.record_keras(layer, x)
        return
    layer.build((None, T, D))
    shaken(layer)
    given = {", a mask": {"mask": MASK}, ", initial states": {"initial_state": states_of(layer)}}.get(call, {})
    agrees(layer, normal(B, T, D, seed=1), **given)


def test_float64():
    layer = L.LSTM(H, dtype="float64")
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        layer.build((None, T, D))
        history = agrees(layer, normal(B, T, D).astype("float64"))
    assert history.outputs.dtype == np.float64


# ------------------------------------------------------------------------------------------------ stateful layers


@pytest.mark.parametrize(
    "build",
    [
        lambda: L.LSTM(H, return_sequences=True, stateful=True),
        lambda: L.GRU(H, return_sequences=True, stateful=True),
        lambda: L.Bidirectional(L.LSTM(H, return_sequences=True, stateful=True)),
        lambda: L.RNN([L.LSTMCell(H), L.GRUCell(5)], return_sequences=True, stateful=True),
    ],
    ids=["LSTM", "GRU", "both directions", "two cells"],
)
def test_a_stateful_layer_starts_from_its_state_and_keeps_it(build):
    layer, x = build(), normal(B, T, D)
    first = lstmx.record_keras(layer, x)  # builds it
    for state in lstmx.arrays.leaves(first.initial):
        assert not np.any(state)
    layer(x)
    layer(2 * x)
    history, again = (lstmx.record_keras(layer, x) for _ in range(2))
    np.testing.assert_array_equal(history.outputs, again.outputs)
    expected = np.moveaxis(array(layer(x)), 1, 0)
    np.testing.assert_allclose(history.outputs, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(expected - np.asarray(first.outputs)).max() > 0.01


def test_other_stateful_layers_keep_their_states_too():
    inputs = keras.Input(batch_shape=(B, T, D))
    below = L.GRU(H, return_sequences=True, stateful=True, name="below")
    model = keras.Model(inputs, L.LSTM(H, return_sequences=True, stateful=True, name="top")(below(inputs)))
    x = normal(B, T, D)
    model(x)
    before = array(below.states[0])
    history = lstmx.record_keras(model, x, "top")
    np.testing.assert_array_equal(array(below.states[0]), before)
    np.testing.assert_allclose(history.outputs, np.moveaxis(array(model(x)), 1, 0), rtol=1e-6, atol=1e-6)


def test_the_state_is_kept_where_the_call_fails():
    layer = L.LSTM(H, stateful=True)
    x = normal(B, T, D)
    layer(x)
    before = array(layer.states[0])

    class Failing(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layer
            self.built = True

        def call(self, x):
            self.inner(x)
            raise RuntimeError("after the layer")

    with pytest.raises(RuntimeError, match="after the layer"):
        lstmx.record_keras(Failing(), x)
    np.testing.assert_array_equal(array(layer.states[0]), before)


# ---------------------------------------------------------------------------------------- masks from other layers


@pytest.mark.parametrize("both", [False, True])
def test_masks_that_layers_make(both):
    def top():
        return L.Bidirectional(L.LSTM(H)) if both else L.GRU(H)  # returns its last output only

    codes = np.array([[0, 0, 3, 1, 2, 2], [4, 1, 0, 2, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 3]])
    embedded = keras.Sequential([keras.Input((T,)), L.Embedding(5, D, mask_zero=True), top()])
    x = normal(B, T, D)
    x[codes == 0] = 0
    masking = keras.Sequential([keras.Input((T, D)), L.Masking(), top()])
    for model, given in ((embedded, codes), (masking, x)):
        history = lstmx.record_keras(model, given)
        ends = history.final if both else [history.final]
        found = np.concatenate([np.asarray(end.hidden if hasattr(end, "hidden") else end[0]) for end in ends], -1)
        np.testing.assert_allclose(found, array(model(given)), rtol=1e-6, atol=1e-6)
        one = history.forward if both else history
        np.testing.assert_array_equal(one.counts, (codes != 0).T)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((B, T, 1), bool), r"has a mask of shape \(4, 6, 1\); expected \[batch, time\], \(4, 6\)"),
        (MASK & (np.arange(B) > 0)[:, None], r"mask leaves sequence \(0,\) without a step"),
    ],
    ids=["of features", "no step"],
)
def test_masks_that_are_refused(mask, words):
    with pytest.raises(ValueError, match=words):
        lstmx.record_keras(Calling(L.LSTM(H), None, keras.ops.convert_to_tensor(mask)), normal(B, T, D))


# --------------------------------------------------------------------------------------------------- other passes


@pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("both", [False, True])
def test_dropout_that_is_on_is_refused(option, both):
    layer = L.LSTM(H, return_sequences=True, **{option: 0.5})
    inputs = keras.Input((T, D))
    outputs = (L.Bidirectional(layer) if both else layer)(inputs, training=True)
    with pytest.raises(ValueError, match=f"is called with training=True and has {option}, which draws another"):
        lstmx.record_keras(keras.Model(inputs, outputs), normal(B, T, D))


def test_training_without_dropout_is_the_pass():
    layer, inputs, x = L.LSTM(H, return_sequences=True), keras.Input((T, D)), normal(B, T, D)
    model = keras.Model(inputs, layer(inputs, training=True))
    history = lstmx.record_keras(model, x)
    np.testing.assert_allclose(history.outputs, np.moveaxis(array(model(x)), 1, 0), rtol=1e-6, atol=1e-6)


def test_a_layer_that_runs_several_times_or_under_jit_is_refused():
    x = normal(B, T, 5, D)
    with pytest.raises(ValueError, match=r"time_distributed.*/lstm.* was called 6 times by the model"):
        lstmx.record_keras(keras.Sequential([keras.Input((T, 5, D)), L.TimeDistributed(L.LSTM(H))]), x)

    class Jitted(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = L.LSTM(H)

        def call(self, x):
            return jax.jit(lambda x: self.inner(x))(x)

    if keras.backend.backend() == "jax":
        with pytest.raises(ValueError, match="is called inside a transformation of JAX, such as jit"):
            lstmx.record_keras(Jitted(), x[:, 0])


def own(name, function):
    """A function under the name of another."""
    function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: L.LSTM(H, activation=own("tanh", lambda x: 1.7159 * keras.ops.tanh(2 * x / 3))),
            r"activation tanh \(by its values another function\) and recurrent_activation sigmoid",
        ),
        (
            lambda: L.GRU(H, recurrent_activation=own("sigmoid", lambda x: keras.ops.sigmoid(2 * x))),
            r"activation tanh and recurrent_activation sigmoid \(by its values another function\)",
        ),
        (
            lambda: L.SimpleRNN(H, activation=own("relu", lambda x: keras.ops.relu6(x))),
            r"activation relu \(by its values another",
        ),
        (
            lambda: L.SimpleRNN(H, activation=own("relu", lambda x: keras.ops.clip(x, 0, 500.0))),
            r"activation relu \(by its values another",
        ),
    ],
    ids=["LeCun's tanh", "a steep sigmoid", "ReLU6", "a ceiling far away"],
)
def test_functions_are_known_by_their_values(build, words):
    layer = build()
    layer.build((None, T, D))
    with pytest.raises(ValueError, match=words):
        from_keras(layer)


def test_a_function_of_another_name_is_what_it_computes():
    layer = L.LSTM(
        H, activation=lambda x: keras.ops.tanh(x), recurrent_activation=lambda x: 1 / (1 + keras.ops.exp(-x))
    )
    layer.build((None, T, D))
    agrees(layer, normal(B, T, D))
    layer = L.GRU(H, recurrent_activation=own("sigmoid", lambda x: keras.ops.hard_sigmoid(x)))
    assert agrees(layer, normal(B, T, D)).cell == lstmx.GRU(D, H, gate_activation="hard_sigmoid")


# --------------------------------------------------------------------------------------------------------- names


def two_of_one_name():
    def half(name):
        return keras.Sequential([keras.Input((T, D)), L.LSTM(H, return_sequences=True, name="rnn")], name=name)

    left, right, inputs = half("left"), half("right"), keras.Input((T, D))
    return left, right, keras.Model(inputs, L.Concatenate()([left(inputs), right(inputs)]))


def test_two_layers_of_one_name_are_told_apart_by_their_paths(tmp_path):
    left, right, model = two_of_one_name()
    x = normal(B, T, D)
    model.save(tmp_path / "two.keras")
    words = r"several recurrent layers: choose one with .*'left/rnn', 'right/rnn'"
    with pytest.raises(ValueError, match=words):
        lstmx.record_keras(model, x)
    with pytest.raises(ValueError, match="no recurrent layer 'rnn'; those are: 'left/rnn', 'right/rnn'"):
        lstmx.record_keras(model, x, "rnn")
    with pytest.raises(ValueError, match=words):
        read_weights(tmp_path / "two.keras")
    for name, part in (("left/rnn", left), ("right/rnn", right)):
        history = lstmx.record_keras(model, x, name)
        np.testing.assert_allclose(history.outputs, np.moveaxis(array(part(x)), 1, 0), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(
            read_weights(tmp_path / "two.keras", name)[1].bias, from_keras(part.layers[0])[1].bias
        )


def test_a_layer_deep_inside_is_found_by_the_end_of_its_path():
    _, _, inner = two_of_one_name()
    model = keras.Sequential([keras.Input((T, D)), inner, L.GRU(H, name="top")])
    history = lstmx.record_keras(model, normal(B, T, D), "left/rnn")
    assert history.cell == lstmx.LSTM(D, H)


def test_layers_of_a_custom_layer_are_found():
    class Outer(L.Layer):
        def __init__(self):
            super().__init__(name="outer")
            self.one = L.LSTM(H, name="rnn")
            self.others = [L.LSTM(H, name="rnn"), Own(H, name="own"), self.one]

        def call(self, x):
            return self.one(x) + self.others[0](x) + self.others[1](x)

    model = Outer()
    x = normal(B, T, D)
    with pytest.raises(ValueError, match=r"choose .*'rnn', 'rnn \(2\)', 'own'"):
        lstmx.record_keras(model, x)
    for name, layer in (("rnn", model.one), ("rnn (2)", model.others[0])):
        history = lstmx.record_keras(model, x, name)
        np.testing.assert_allclose(history.hidden_state[-1], array(layer(x)), rtol=1e-6, atol=1e-6)


# --------------------------------------------------------------------------------------------------------- files


def whole(**options):
    inputs = keras.Input((None, D))
    first = L.Bidirectional(L.LSTM(H, return_sequences=True), name="both")(inputs)
    second = L.GRU(5, return_sequences=True, name="gru", **options)(first)
    return shaken(keras.Model(inputs, L.SimpleRNN(2, return_sequences=True, name="top")(second)))


def as_keras_2(path, change, version="2.11.0"):
    """Change the layers' descriptions in an .h5 file to what an older Keras wrote."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in descriptions(config):
            change(layer)
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = version


def descriptions(tree):
    if isinstance(tree, dict):
        if "class_name" in tree and "config" in tree:
            yield tree
        tree = list(tree.values())
    for part in tree if isinstance(tree, list) else ():
        yield from descriptions(part)


def timed(value):
    def change(layer):
        if layer["class_name"] in ("LSTM", "GRU", "SimpleRNN"):
            layer["config"]["time_major"] = value

    return change


def same(found, layer):
    expected = from_keras(layer)
    assert found[0] == expected[0]
    for one, other in zip(lstmx.arrays.leaves(found[1]), lstmx.arrays.leaves(expected[1]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", [".keras", ".h5", "of Keras 2"])
def test_a_whole_model(tmp_path, kind):
    model = whole()
    path = tmp_path / f"model{'.h5' if kind == 'of Keras 2' else kind}"
    model.save(path)
    if kind == "of Keras 2":
        as_keras_2(path, timed(value=False))
        before = path.read_bytes()
    for name in ("both", "gru", "top"):
        same(read_weights(path, name), model.get_layer(name))
    if kind == "of Keras 2":
        assert path.read_bytes() == before


def test_what_keras_2_had_and_keras_3_has_not_is_refused(tmp_path):
    def named(kind):
        def change(layer):
            if layer["class_name"] == "GRU":
                layer["class_name"] = kind

        return change

    whole().save(tmp_path / "model.h5")
    for change, words in (
        (timed(value=True), "has time_major=True, which Keras 3 has not"),
        (named("CuDNNGRU"), r"gru is a CuDNNGRU, .* with GRU in its place \(reset_after=True, "),
        (named("CuDNNLSTM"), r"gru is a CuDNNLSTM, .* with LSTM in its place \(recurrent_activation='sigmoid'\)"),
    ):
        shutil.copy(tmp_path / "model.h5", tmp_path / "old.h5")
        as_keras_2(tmp_path / "old.h5", change)
        with pytest.raises(ValueError, match=words):
            read_weights(tmp_path / "old.h5", "both")


def test_the_hard_sigmoid_of_keras_2_is_another_function(tmp_path):
    path = tmp_path / "model.h5"
    whole(recurrent_activation="hard_sigmoid").save(path)
    assert read_weights(path, "gru")[0].gate_activation == "hard_sigmoid"
    as_keras_2(path, timed(value=False))
    assert read_weights(path, "gru")[0].gate_activation == "hard_sigmoid_0.2"


def test_an_archive_of_keras_2_is_read_as_its_h5(tmp_path):
    def rewritten(change, version):
        with zipfile.ZipFile(tmp_path / "new.keras") as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(files["config.json"])
        for layer in descriptions(config):
            change(layer)
        files |= {"config.json": json.dumps(config), "metadata.json": json.dumps({"keras_version": version})}
        with zipfile.ZipFile(tmp_path / "old.keras", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    model = whole(recurrent_activation="hard_sigmoid")
    model.save(tmp_path / "new.keras")
    rewritten(timed(value=False), "2.15.0")
    same(read_weights(tmp_path / "old.keras", "both"), model.get_layer("both"))
    cell, params, *_ = read_weights(tmp_path / "old.keras", "gru")
    assert cell.gate_activation == "hard_sigmoid_0.2"
    np.testing.assert_array_equal(params.bias, from_keras(model.get_layer("gru"))[1].bias)
    rewritten(timed(value=True), "2.15.0")
    with pytest.raises(ValueError, match="has time_major=True, which Keras 3 has not"):
        read_weights(tmp_path / "old.keras", "gru")


def test_bfloat16_in_weights_alone_is_said_or_cast(tmp_path):
    layer = L.LSTM(H, dtype="bfloat16", recurrent_initializer="glorot_uniform")
    model = keras.Sequential([keras.Input((None, D)), layer])
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(TypeError, match="kernel is bfloat16; expected float32 or float64"):
        read_weights(tmp_path / "model.weights.h5")
    found = read_weights(tmp_path / "model.weights.h5", choices=Choices(dtype="float32"))[1]
    np.testing.assert_array_equal(found.input_kernel, array(layer.cell.kernel).astype("float32"))


@pytest.mark.parametrize("bias", [True, False])
def test_a_gru_from_before_there_was_a_choice_resets_before_the_product(tmp_path, bias):
    def change(layer):
        layer["config"].pop("reset_after", None)

    model = whole(reset_after=False, use_bias=bias)
    model.save(tmp_path / "model.h5")
    as_keras_2(tmp_path / "model.h5", change, "2.0.8")
    same(read_weights(tmp_path / "model.h5", "gru"), model.get_layer("gru"))


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_a_class_of_its_own_is_named(tmp_path, kind):
    class Doubling(L.Layer):
        def call(self, x):
            return 2 * x

    path = tmp_path / f"model{kind}"
    keras.Sequential([keras.Input((None, D)), Doubling(), L.GRU(H)]).save(path)
    with pytest.raises(ValueError, match=r"has a layer of the class Doubling, .*custom_objects=\{...\}"):
        read_weights(path)


@pytest.mark.parametrize("version", [3, 2])
def test_weights_alone(tmp_path, version):
    model = whole()
    if version == 3:
        path = tmp_path / "model.weights.h5"
        model.save_weights(path)
        names = {"bidirectional": "both", "gru": "gru", "simple_rnn": "top"}
    else:
        path = tmp_path / "model.h5"
        write_as_keras_2(path, model)
        names = {name: name for name in ("both", "gru", "top")}
    words = {"both": "both directions and to concatenate", "gru": "read forwards, as GRU", "top": "with tanh"}
    for name, layer in names.items():
        told = []
        found = read_weights(path, name, Choices(tell=told.append))
        assert len(told) == 1
        assert words[layer] in told[0]
        same(found, model.get_layer(layer))
    with pytest.raises(ValueError, match=r"several recurrent layers: .*" + ".*".join(map(repr, sorted(names)))):
        read_weights(path)


def write_as_keras_2(path, model):
    """Weights as `model.save_weights` of Keras 2 wrote them."""
    with h5py.File(path, "w") as file:
        for k, layer in enumerate(model.layers):
            group = file.create_group(layer.name)
            for weight in layer.weights:
                *_, run, cell, name = weight.path.split("/")
                inside = f"{layer.name}/{run}" if run != layer.name else layer.name
                group[f"{inside}/{cell}_{k + ('backward' in run)}/{name}:0"] = array(weight)


def test_weights_alone_that_are_not_enough(tmp_path):
    class Joint(L.Layer):
        """A cell with a gate and a scale."""

        state_size = H

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 2 * H), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(H, 2 * H), name="recurrent_kernel")

        def call(self, x, states):
            a, b = keras.ops.split(x @ self.kernel + states[0] @ self.recurrent_kernel, 2, -1)
            return a * b, [a * b]

    class Scaled(L.SimpleRNNCell):
        def build(self, shape):
            super().build(shape)
            self.scale = self.add_weight(shape=(H,), name="scale")

    for layer, words in (
        (L.GRU(H, use_bias=False), r"recurrent kernel \(4, 12\) and no bias: whether it is a GRU"),
        (L.RNN(Joint()), r"recurrent kernel \(4, 8\); expected \[H, 4H\] of an LSTM"),
        (L.RNN(Scaled(H)), "surplus 3"),
    ):
        path = tmp_path / "model.weights.h5"
        keras.Sequential([keras.Input((None, D)), layer]).save_weights(path)
        with pytest.raises(ValueError, match=words):
            read_weights(path)


def test_cells_of_a_stack_from_weights_alone(tmp_path):
    layer = L.RNN([L.LSTMCell(H), L.GRUCell(5)])
    model = shaken(keras.Sequential([keras.Input((None, D)), layer]))
    model.save_weights(tmp_path / "model.weights.h5")
    for name, cell in zip(("rnn/lstm_cell", "rnn/gru_cell"), layer.cell.cells, strict=True):
        same(read_weights(tmp_path / "model.weights.h5", name), cell)


def test_an_array_that_no_equation_uses_is_refused():
    cell = L.LSTMCell(H)
    cell.add_weight(shape=(H,), name="peephole")
    layer = L.RNN(cell)
    layer.build((None, T, D))
    with pytest.raises(ValueError, match="has surplus peephole"):
        from_keras(layer)
