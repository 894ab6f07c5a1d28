"""Parameters of Haiku and TensorFlow 1 as people have them, against what these compute, or refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx
from lstmx import convert

hk = pytest.importorskip("haiku", reason="parameters are made with the framework itself")
pytestmark = [
    pytest.mark.slow,  # a framework to import
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
XS = np.random.default_rng(0).normal(size=(6, 2, 3)).astype("float32")


@pytest.fixture(autouse=True)
def _as_users_have_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


def stirred(tree):
    draws = np.random.default_rng(1)
    return jax.tree.map(lambda x: (x + draws.normal(0, 0.3, x.shape)).astype("float32"), tree)


def unrolled(*cores, before=lambda x: x, after=lambda y: y):
    """A model of cores one after another."""

    def model(xs):
        y = before(xs)
        for make in cores:
            core = make()
            y = hk.dynamic_unroll(core, y, core.initial_state(y.shape[1]))[0]
        return after(y)

    return model


def initialised(model, xs=XS):
    transformed = hk.without_apply_rng(hk.transform(model))
    params = stirred(transformed.init(jax.random.key(0), xs))
    return params, transformed.apply(params, xs)


class LSTM(hk.Module):
    """A module of the user's, with a core of Haiku and a layer beside it."""

    def __call__(self, xs):
        y = unrolled(lambda: hk.LSTM(4))(xs)
        hk.Linear(7)(y)
        return y


def alone(make, prefix="", **how):
    """A build of a model with one core: its parameters converted, and its outputs."""

    def build():
        params, outputs = initialised(unrolled(make))
        return convert.from_haiku(params, prefix, **how), XS, outputs

    return build


def wide():
    """Two LSTMs whose inputs are 3H wide."""
    xs = np.concatenate([XS] * 5, axis=-1)[..., :15].astype("float32")
    params, _ = initialised(unrolled(lambda: hk.LSTM(5), lambda: hk.LSTM(5), after=lambda y: y), xs)
    params["lstm_1/linear"] = params["lstm/linear"]
    return params, xs


def of_wide(prefix=""):
    def build():
        params, xs = wide()
        core = hk.without_apply_rng(hk.transform(unrolled(lambda: hk.LSTM(5, name=prefix or None))))
        return convert.from_haiku(params, prefix), xs, core.apply(params, xs)

    return build


def model_of(model, prefix=""):
    return lambda: (convert.from_haiku(initialised(model)[0], prefix), XS, None)


def inside(prefix):
    def build():
        params, outputs = initialised(lambda xs: LSTM()(xs))
        return convert.from_haiku(params, prefix), XS, outputs

    return build


def changed(how, make=lambda: hk.GRU(4), prefix=""):
    def build():
        params, _ = initialised(unrolled(make))
        return convert.from_haiku(how(params), prefix), XS, None

    return build


def images(xs):
    core = hk.Conv1DLSTM((4,), 2, 3)
    return core(xs, core.initial_state(1))[0]


CORPUS = [
    ("LSTM", alone(lambda: hk.LSTM(4)), True),
    ("GRU", alone(lambda: hk.GRU(4)), True),
    ("VanillaRNN", alone(lambda: hk.VanillaRNN(4)), True),
    ("VanillaRNN, one bias", alone(lambda: hk.VanillaRNN(4, double_bias=False)), True),
    ("LSTM of a name", alone(lambda: hk.LSTM(4, name="enc"), "enc"), True),
    ("LSTM of a name with a slash", alone(lambda: hk.LSTM(4, name="enc"), "enc/"), True),
    ("GRU of a name", alone(lambda: hk.GRU(4, name="enc")), True),
    ("VanillaRNN of a name", alone(lambda: hk.VanillaRNN(4, name="enc"), "enc"), True),
    ("one unit", alone(lambda: hk.LSTM(1)), True),
    ("many units", alone(lambda: hk.LSTM(100)), True),
    ("DeepRNN of one", alone(lambda: hk.DeepRNN([hk.LSTM(4)])), True),
    ("two wide LSTMs, the first", of_wide("lstm"), True),
    ("two wide LSTMs, the second", of_wide("lstm_1"), True),
    ("a module named LSTM", inside("lstm/lstm"), True),
    ("two wide LSTMs", of_wide(), "choose one with prefix=; those are: 'lstm', 'lstm_1'"),
    ("half a prefix", of_wide("lst"), "no parameters under 'lst'; those are lstm/linear, lstm_1/linear"),
    ("a module named LSTM, itself", inside("lstm"), r"the parameters has surplus lstm/lstm/linear/b|H, 4H\]"),
    ("LSTM of a name, not named", alone(lambda: hk.LSTM(4, name="enc")), "one of 'enc' is an LSTM or VanillaRNN"),
    ("an MLP", model_of(lambda x: hk.nets.MLP([12, 12])(x)), "has no recurrent core of Haiku: mlp/~/linear_0"),
    ("two linears", model_of(lambda x: hk.Linear(12)(hk.Linear(12)(x))), "has no recurrent core of Haiku: linear"),
    ("no core", alone(hk.IdentityCore), "there are no parameters under ''; those are none"),
    (
        "images",
        lambda: convert.from_haiku(hk.transform(images).init(jax.random.key(0), np.ones((1, 4, 3)))),
        "is a ConvLSTM, whose states are images",
    ),
    (
        "an array more",
        changed(lambda p: {"gru": dict(p["gru"], hn_bias=np.ones(4, "float32"))}),
        "has surplus gru/hn_bias",
    ),
    ("a module more", changed(lambda p: p | {"gru/lora": {"a": np.ones(4, "float32")}}), "has surplus gru/lora/a"),
    (
        "bfloat16",
        changed(lambda p: jax.tree.map(lambda x: x.astype(jnp.bfloat16), p)),
        "is bfloat16; .*cast the model",
    ),
    ("int8", changed(lambda p: jax.tree.map(lambda x: x.astype("int8"), p)), "is int8, as quantisation"),
    ("no number", alone(lambda: hk.LSTM(4), forget_bias=np.nan), "forget_bias is nan; expected a finite number"),
]


@pytest.mark.parametrize(("build", "expected"), [case[1:] for case in CORPUS], ids=[case[0] for case in CORPUS])
def test_the_corpus(build, expected):
    if expected is not True:
        with pytest.raises((ValueError, TypeError), match=expected):
            build()
        return
    (cell, params), xs, outputs = build()
    np.testing.assert_allclose(lstmx.run(cell, params, xs)[0], outputs, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------- TensorFlow 1


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def of_tensorflow(kind, scope, d=3, h=4):
    """Variables of a cell of TensorFlow 1 in NumPy."""
    draws = np.random.default_rng(2)
    columns = {"lstm": {"": 4 * h}, "rnn": {"": h}, "gru": {"gates/": 2 * h, "candidate/": h}}[kind]
    shapes = {f"{scope}{k}kernel": (d + h, n) for k, n in columns.items()}
    shapes |= {f"{scope}{k}bias": (n,) for k, n in columns.items()}
    return {name: draws.normal(0, 0.5, shape) for name, shape in shapes.items()}


def passed(kind, arrays, scope, xs, forget_bias=1.0, h=4):
    """What rnn_cell_impl.py of TensorFlow 1 computes: BasicLSTMCell, GRUCell and BasicRNNCell."""
    own = {name.removeprefix(scope): x for name, x in arrays.items()}
    state, cell, outputs = np.zeros((xs.shape[1], h)), np.zeros((xs.shape[1], h)), []
    for x in xs:
        both = np.concatenate([x, state], axis=1)
        if kind == "lstm":
            i, j, f, o = np.split(both @ own["kernel"] + own["bias"], 4, axis=1)
            cell = cell * sigmoid(f + forget_bias) + sigmoid(i) * np.tanh(j)
            state = np.tanh(cell) * sigmoid(o)
        elif kind == "gru":
            r, u = np.split(sigmoid(both @ own["gates/kernel"] + own["gates/bias"]), 2, axis=1)
            c = np.tanh(np.concatenate([x, r * state], axis=1) @ own["candidate/kernel"] + own["candidate/bias"])
            state = u * state + (1 - u) * c
        else:
            state = np.tanh(both @ own["kernel"] + own["bias"])
        outputs.append(state)
    return np.stack(outputs)


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, 2.5])
@pytest.mark.parametrize(
    ("kind", "scope", "prefix"),
    [
        ("lstm", "rnn/basic_lstm_cell/", ""),
        ("lstm", "rnn/multi_rnn_cell/cell_0/lstm_cell/", "rnn/multi_rnn_cell/cell_0"),
        ("lstm", "lstm_cell_1/", ""),
        ("lstm", "", ""),
        ("lstm", "encoder/own/", "encoder/own"),
        ("gru", "rnn/gru_cell/", ""),
        ("gru", "", ""),
        ("rnn", "rnn/basic_rnn_cell/", "rnn"),
    ],
)
def test_cells_of_tensorflow(kind, scope, prefix, forget_bias):
    arrays, xs = of_tensorflow(kind, scope), XS.astype("float64")
    slots = {f"{name}/Adam": x for name, x in arrays.items()} | ({"global_step": np.int64(3)} if scope else {})
    cell, params = convert.from_tensorflow(
        {f"{name}:0": x for name, x in (arrays | slots).items()}, prefix, forget_bias
    )
    expected = passed(kind, arrays, scope, xs, forget_bias)
    np.testing.assert_allclose(lstmx.run(cell, params, xs)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arrays", "prefix", "words"),
    [
        (
            of_tensorflow("lstm", "a/lstm_cell/") | of_tensorflow("gru", "b/"),
            "",
            "prefix=; those are: 'a/lstm_cell', 'b'",
        ),
        (of_tensorflow("lstm", "a/lstm_cell/") | {"a/lstm_cell/w_f_diag": np.ones(4)}, "", "has surplus w_f_diag"),
        (
            of_tensorflow("lstm", "a/lstm_cell/") | {"a/lstm_cell/projection/kernel": np.ones(4)},
            "",
            "surplus projection",
        ),
        (
            of_tensorflow("lstm", "dense/"),
            "",
            "no cell of TensorFlow 1; it has dense/kernel, dense/bias. Where one of",
        ),
        (of_tensorflow("lstm", "coupled_input_forget_gate_lstm_cell/"), "", "no cell of TensorFlow 1"),
        (of_tensorflow("lstm", "rnn/lstm_cell/"), "rn", "no cell of TensorFlow 1 under 'rn'"),
        (
            {"kernel": np.ones((3, 16)), "bias": np.ones(16)},
            "",
            r"kernel has shape \(3, 16\); expected \[D \+ H, 4H\]",
        ),
        (
            {"rnn_cell/kernel": np.ones((3, 4)), "rnn_cell/bias": np.ones(4)},
            "",
            "has 3 rows; expected D . H, more than 4",
        ),
        (3, "", "arrays is a int; expected a dict of arrays by name"),
    ],
)
def test_what_is_no_cell_of_tensorflow_is_refused(arrays, prefix, words):
    with pytest.raises((ValueError, TypeError), match=words):
        convert.from_tensorflow(arrays, prefix)
