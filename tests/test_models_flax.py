"""Models of Flax as people have them: modules, trees and files, against what Flax computes, or refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx
from lstmx import convert
from lstmx.app.choices import Choices
from lstmx.app.weights import read_weights

linen = pytest.importorskip("flax.linen", reason="models are made with the framework itself")
from flax import core, nnx, serialization  # noqa: E402
from flax.linen.recurrent import flip_sequences  # noqa: E402

pytestmark = [
    pytest.mark.slow,  # a framework to import
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*carry_init is provided"),
]
X = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
LENGTHS = jnp.array([6, 2, 4])
CARRY = tuple(np.random.default_rng(k).normal(size=(3, 5)).astype("float32") for k in (1, 2))
NORMAL = jax.nn.initializers.normal(1.0)


@pytest.fixture(autouse=True)
def _as_users_have_it():
    with jax.numpy_dtype_promotion("standard"):
        yield


def stirred(tree, seed=0):
    """The same tree with every float moved, so that no bias is zero."""
    draws = np.random.default_rng(seed)

    def moved(x):
        return (x + draws.normal(0, 0.3, x.shape)).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(moved, tree)


class OfLinen(linen.Module):
    """A layer inside a model."""

    make: object
    options: dict
    call: dict
    kind: object = linen.RNN

    @linen.compact
    def __call__(self, x):
        return self.kind(self.make(), **self.options, name="rnn")(x, **self.call)


class OfNNX(nnx.Module):
    """The same of nnx."""

    def __init__(self, cell, options, call, kind=nnx.RNN):
        self.rnn = kind(cell, **options)
        self.call = lambda x: self.rnn(x, **call)

    def __call__(self, x):
        return self.call(x)


def in_linen(make, options=None, call=None, kind=linen.RNN):
    """What builds a case: the history of a layer of linen, its outputs, and how it was called."""

    def build():
        module = OfLinen(make, options or {}, call or {}, kind)
        variables = stirred(module.init(jax.random.key(0), X))
        return lstmx.record_flax(module, variables, X), module.apply(variables, X), (options or {}) | (call or {})

    return build


def in_nnx(make, options=None, call=None, kind=nnx.RNN, change=lambda cell: None):
    def build():
        cell = make()
        nnx.update(cell, stirred(nnx.state(cell, nnx.Param)))
        change(cell)

        def model():
            return OfNNX(cell, {"rngs": nnx.Rngs(7)} | (options or {}), call or {}, kind)

        return lstmx.record_flax(model(), None, X), model()(X), (options or {}) | (call or {})

    return build


def lstm(**options):
    return nnx.OptimizedLSTMCell(4, 5, rngs=nnx.Rngs(0), **options)


def lora(cell):
    cell.dense_h = nnx.LoRALinear(5, 20, lora_rank=2, rngs=nnx.Rngs(1))


def own_product(cell):
    cell.dense_h.dot_general = lambda *given, **how: 2 * jax.lax.dot_general(*given, **how)


class LSTMCell(linen.LSTMCell):
    """Of a known name, with equations of its own."""

    @linen.compact
    def __call__(self, carry, x):
        (c, h), y = super().__call__(carry, x)
        return (c, 2 * h), y


class GRUCell(nnx.GRUCell):
    """Of a known name, with a bias of its own."""

    def __init__(self, *sizes, rngs):
        super().__init__(*sizes, rngs=rngs)
        self.hn_bias = nnx.Param(jnp.ones(self.hidden_features, "float32"))

    def __call__(self, h, x):
        y = super().__call__(h, x)[0] + self.hn_bias[...]
        return y, y


class Biased(nnx.GRUCell):
    """With an array more, and the equations of its class."""

    def __init__(self, *sizes, rngs):
        super().__init__(*sizes, rngs=rngs)
        self.hn_bias = nnx.Param(jnp.ones(self.hidden_features, "float32"))


class Twice(linen.RNN):
    """Not what an RNN does."""

    def __call__(self, x, **how):
        return super().__call__(2 * x, **how)


class TwiceOfNNX(nnx.RNN):
    def __call__(self, x, **how):
        return super().__call__(2 * x, **how)


class Scanned(linen.Module):
    """A cell under scan, without an RNN."""

    @linen.compact
    def __call__(self, x):
        kind = linen.scan(
            linen.LSTMCell, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1
        )
        return kind(5, name="scanned")(tuple(map(jnp.asarray, CARRY)), x)[1]


class Looped(nnx.Module):
    def __init__(self):
        self.cell = lstm()

    def __call__(self, x):
        return self.cell(CARRY, x[:, 0])


def bare(module):
    def build():
        return lstmx.record_flax(module, stirred(module.init(jax.random.key(0), X)), X)

    return build


def images():
    module = linen.RNN(linen.ConvLSTMCell(2, (3, 3)))
    x = jnp.ones((1, 2, 4, 4, 3), "float32")
    return lstmx.record_flax(module, module.init(jax.random.key(0), x), x)


CALLS = {
    "batch first": ({}, {}),
    "time first": ({"time_major": True}, {}),
    "backwards": ({"reverse": True}, {}),
    "backwards, kept in order": ({"reverse": True, "keep_order": True}, {}),
    "time first by the call": ({}, {"time_major": True}),
    "lengths": ({}, {"seq_lengths": LENGTHS}),
    "lengths and last carry": ({"return_carry": True}, {"seq_lengths": LENGTHS}),
    "lengths backwards": ({"reverse": True, "keep_order": True}, {"seq_lengths": LENGTHS}),
    "unrolled": ({"unroll": 3}, {}),
    "initial carry": ({}, {"initial_carry": CARRY}),
}
CORPUS = [
    *((f"linen LSTMCell, {name}", in_linen(lambda: linen.LSTMCell(5), *how), True) for name, how in CALLS.items()),
    *((f"nnx OptimizedLSTMCell, {name}", in_nnx(lstm, *how), True) for name, how in CALLS.items()),
    ("linen OptimizedLSTMCell", in_linen(lambda: linen.OptimizedLSTMCell(5)), True),
    ("linen GRUCell", in_linen(lambda: linen.GRUCell(5), {}, {"seq_lengths": LENGTHS}), True),
    ("linen OptimizedLSTMCell of 100", in_linen(lambda: linen.OptimizedLSTMCell(100)), True),
    ("linen GRUCell of 100", in_linen(lambda: linen.GRUCell(100)), True),
    ("linen GRUCell, initial carry", in_linen(lambda: linen.GRUCell(5), {}, {"initial_carry": CARRY[0]}), True),
    (
        "nnx SimpleCell, initial carry and lengths",
        in_nnx(
            lambda: nnx.SimpleCell(4, 5, rngs=nnx.Rngs(0)),
            {"return_carry": True},
            {"initial_carry": CARRY[0], "seq_lengths": LENGTHS},
        ),
        True,
    ),
    ("nnx GRUCell of 100", in_nnx(lambda: nnx.GRUCell(4, 100, rngs=nnx.Rngs(0))), True),
    ("linen SimpleCell", in_linen(lambda: linen.SimpleCell(5)), True),
    ("linen SimpleCell, ReLU", in_linen(lambda: linen.SimpleCell(5, activation_fn=linen.relu)), True),
    ("linen MGUCell, no reset", in_linen(lambda: linen.MGUCell(5, reset_gate=False)), True),
    ("linen LSTMCell, drawn carry", in_linen(lambda: linen.LSTMCell(5, carry_init=NORMAL)), True),
    (
        "linen GRUCell, carry drawn with a key",
        in_linen(lambda: linen.GRUCell(5, carry_init=NORMAL), {}, {"init_key": jax.random.key(3)}),
        True,
    ),
    ("linen LSTMCell, float32 by name", in_linen(lambda: linen.LSTMCell(5, dtype="float32")), True),
    ("nnx LSTMCell", in_nnx(lambda: nnx.LSTMCell(4, 5, rngs=nnx.Rngs(0))), True),
    ("nnx GRUCell", in_nnx(lambda: nnx.GRUCell(4, 5, rngs=nnx.Rngs(0)), {"reverse": True}), True),
    ("nnx SimpleCell", in_nnx(lambda: nnx.SimpleCell(4, 5, rngs=nnx.Rngs(0))), True),
    (
        "nnx SimpleCell, ReLU",
        in_nnx(lambda: nnx.SimpleCell(4, 5, activation_fn=nnx.relu, rngs=nnx.Rngs(0))),
        True,
    ),
    ("nnx OptimizedLSTMCell, drawn carry", in_nnx(lambda: lstm(carry_init=NORMAL)), True),
    ("linen MGUCell", in_linen(lambda: linen.MGUCell(5)), "the MGUCell at .* has reset_gate=True"),
    ("linen ConvLSTMCell", images, "the cell is a .*ConvLSTMCell; expected a recurrent cell of Flax"),
    ("linen SimpleCell, residual", in_linen(lambda: linen.SimpleCell(5, residual=True)), "has residual=True"),
    (
        "linen LSTMCell, hard gates",
        in_linen(lambda: linen.LSTMCell(5, gate_fn=linen.hard_sigmoid)),
        True,
    ),
    ("linen LSTMCell, ReLU", in_linen(lambda: linen.LSTMCell(5, activation_fn=linen.relu)), True),
    (
        "linen OptimizedLSTMCell, linear",
        in_linen(lambda: linen.OptimizedLSTMCell(5, activation_fn=lambda x: x)),
        True,
    ),
    (
        "linen GRUCell, ReLU and hard gates",
        in_linen(lambda: linen.GRUCell(5, gate_fn=linen.hard_sigmoid, activation_fn=linen.relu)),
        True,
    ),
    ("nnx OptimizedLSTMCell, ReLU", in_nnx(lambda: lstm(activation_fn=nnx.relu, gate_fn=nnx.hard_sigmoid)), True),
    (
        "linen LSTMCell, GELU",
        in_linen(lambda: linen.LSTMCell(5, activation_fn=linen.gelu)),
        "activation_fn gelu and gate_fn sigmoid; lstmx has tanh or relu or identity and sigmoid or hard_sigmoid",
    ),
    (
        "linen GRUCell, linear",
        in_linen(lambda: linen.GRUCell(5, activation_fn=lambda x: x)),
        "activation_fn identity and gate_fn sigmoid; lstmx has tanh or relu and",
    ),
    (
        "linen MGUCell, ReLU",
        in_linen(lambda: linen.MGUCell(5, reset_gate=False, activation_fn=linen.relu)),
        "activation_fn relu and gate_fn sigmoid; lstmx has tanh and sigmoid",
    ),
    (
        "linen SimpleCell, ReLU6",
        in_linen(lambda: linen.SimpleCell(5, activation_fn=linen.relu6)),
        "activation_fn relu6",
    ),
    (
        "linen LSTMCell, bfloat16",
        in_linen(lambda: linen.LSTMCell(5, dtype=jnp.bfloat16)),
        "has dtype bfloat16 and computes in it from parameters in float32",
    ),
    (
        "linen LSTMCell, parameters in float16",
        in_linen(lambda: linen.LSTMCell(5, dtype="float16", param_dtype="float16", recurrent_kernel_init=NORMAL)),
        r"is float16; expected float32 or float64: cast the model first",
    ),
    ("linen, a class named LSTMCell", in_linen(lambda: LSTMCell(5)), "LSTMCell with a __call__ of its own"),
    (
        "linen LSTMCell, remat",
        in_linen(lambda: linen.remat(linen.LSTMCell)(5)),
        "with a __call__ of its own; expected a recurrent cell of Flax",
    ),
    (
        "linen, another RNN",
        bare(Twice(linen.LSTMCell(5))),
        "was called 2 times by the model|is a Twice, with a __call__ of its own",
    ),
    (
        "linen RNN, weights of every step",
        in_linen(
            lambda: linen.LSTMCell(5),
            {"variable_axes": {"params": 0}, "variable_broadcast": False, "split_rngs": {"params": True}},
        ),
        r"kernel has shape \(6, \d, 5\); expected \[rows, columns\]",
    ),
    ("linen scan", bare(Scanned()), r"has no RNN that runs; its cells 'scanned' run by themselves, as under scan"),
    (
        "linen jit",
        in_linen(lambda: linen.LSTMCell(5), kind=linen.jit(linen.RNN)),
        "is called inside a transformation of JAX",
    ),
    (
        "nnx, a class named GRUCell",
        in_nnx(lambda: GRUCell(4, 5, rngs=nnx.Rngs(0))),
        "GRUCell with a __call__ of its own",
    ),
    ("nnx, one array more", in_nnx(lambda: Biased(4, 5, rngs=nnx.Rngs(0))), "has surplus hn_bias"),
    ("nnx LoRA", in_nnx(lstm, change=lora), "has surplus dense_h.lora.lora_a, dense_h.lora.lora_b"),
    ("nnx, another product", in_nnx(lstm, change=own_product), "dense_h has a dot_general of its own"),
    ("nnx bfloat16", in_nnx(lambda: lstm(dtype=jnp.bfloat16)), "has dtype bfloat16 and computes in it"),
    ("nnx, another RNN", in_nnx(lstm, kind=TwiceOfNNX), "rnn is a TwiceOfNNX, with a __call__ of its own"),
    ("nnx, a loop", lambda: lstmx.record_flax(Looped(), None, X), "its cells 'cell' run by themselves"),
]


@pytest.mark.parametrize(("build", "expected"), [case[1:] for case in CORPUS], ids=[case[0] for case in CORPUS])
def test_the_corpus(build, expected):
    if expected is not True:
        with pytest.raises((ValueError, TypeError), match=expected):
            build()
        return
    history, outputs, how = build()
    carry, outputs = outputs if how.get("return_carry") else (None, outputs)
    outputs, lengths = outputs if how.get("time_major") else jnp.swapaxes(outputs, 0, 1), how.get("seq_lengths")
    if how.get("keep_order"):
        outputs = flip_sequences(outputs, lengths, 1, True)
    counted = np.ones(outputs.shape[:2], bool) if lengths is None else np.arange(6)[:, None] < lengths
    np.testing.assert_allclose(history.hidden_state[counted], outputs[counted], rtol=1e-6, atol=1e-6)
    if carry is not None:
        last = carry if isinstance(carry, tuple) else (carry,)
        for found, expected in zip(history.states, last[::-1], strict=True):
            np.testing.assert_allclose(found[-1], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward_rnn", "backward_rnn"])
def test_both_directions_with_lengths(direction):
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Bidirectional(
                linen.RNN(linen.GRUCell(5), name="forward_rnn"), linen.RNN(linen.GRUCell(5), name="backward_rnn")
            )(x, seq_lengths=LENGTHS)

    model, rngs = Model(), nnx.Rngs(0)
    variables = stirred(model.init(jax.random.key(0), X))
    of_nnx = nnx.Bidirectional(*(nnx.RNN(nnx.GRUCell(4, 5, rngs=rngs)) for _ in "ab"))
    for history, outputs, lengths in (
        (lstmx.record_flax(model, variables, X, direction), model.apply(variables, X), LENGTHS),
        (lstmx.record_flax(of_nnx, None, X, direction), of_nnx(X), None),
    ):
        own = jnp.swapaxes(outputs, 0, 1)[..., :5] if direction == "forward_rnn" else None
        if own is None:
            own = flip_sequences(jnp.swapaxes(outputs, 0, 1)[..., 5:], lengths, 1, True)
        counted = np.ones(own.shape[:2], bool) if lengths is None else np.arange(6)[:, None] < lengths
        np.testing.assert_allclose(history.hidden_state[counted], own[counted], rtol=0, atol=1e-6)


# --------------------------------------------------------------------------------------------------- trees, files


def variables_of_a_model():
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Dense(3)(x)
            x = linen.RNN(linen.OptimizedLSTMCell(5, name="encoder"))(x)
            return linen.BatchNorm(use_running_average=True)(linen.RNN(linen.GRUCell(2, name="decoder"))(x))

    return Model().init(jax.random.key(0), X)


def layers_of_nnx():
    class Model(nnx.Module):
        def __init__(self):
            self.dense, self.rnn = nnx.Linear(4, 4, rngs=nnx.Rngs(0)), nnx.RNN(lstm(keep_rngs=False))

    return Model()


def assert_read(found, cell, expected):
    assert found[0] == cell
    for one, other in zip(found[1], expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_trees_as_people_hold_them():
    variables = variables_of_a_model()
    expected = convert.from_flax(variables["params"]["encoder"])
    for tree in (variables, variables["params"], core.freeze(variables), {"params": variables}):
        with pytest.raises(
            ValueError, match=r"several recurrent layers: choose one with layer=; those are: .*'.*enc"
        ):
            convert.from_flax(tree)
        name = "encoder" if "params" not in tree.get("params", {}) else "params/encoder"
        assert_read(convert.from_flax(tree, layer=name), lstmx.LSTM(3, 5), expected[1])
    with pytest.raises(ValueError, match=r"source, which holds 'params', has no recurrent layer that lstmx knows"):
        convert.from_flax({"params": {"Dense_0": variables["params"]["Dense_0"]}})
    model = layers_of_nnx()
    graph, state = nnx.split(model)
    expected = convert.from_flax(model.rnn.cell)
    pure = state.to_pure_dict() if hasattr(state, "to_pure_dict") else nnx.to_pure_dict(state)
    for tree in (model, state, nnx.state(model), nnx.state(model, nnx.Param), pure, nnx.merge(graph, state)):
        assert_read(convert.from_flax(tree), lstmx.LSTM(4, 5), expected[1])
    with pytest.raises(
        TypeError, match=r"source is a tuple; expected parameters by name, such as .* or an nnx.state"
    ):
        convert.from_flax((graph, state))
    plain = nnx.LSTMCell(4, 5, rngs=nnx.Rngs(0))
    assert_read(convert.from_flax(nnx.state(plain)), lstmx.LSTM(4, 5), convert.from_flax(plain)[1])
    with pytest.warns(UserWarning, match="keep_rngs"):
        drawing = lstm(keep_rngs=True)
    assert_read(convert.from_flax(nnx.state(drawing)), lstmx.LSTM(4, 5), convert.from_flax(drawing)[1])
    names = linen.LSTMCell(5, kernel_init=linen.with_partitioning(NORMAL, (None, "model")))
    boxed = names.init(jax.random.key(0), CARRY, X[:, 0])
    assert_read(convert.from_flax(boxed), lstmx.LSTM(4, 5), convert.from_flax(linen.unbox(boxed))[1])


def test_arrays_beside_the_cell_s_own_are_refused():
    params = convert.to_flax(lstmx.GRU(3, 2), lstmx.GRU(3, 2).init(np.random.default_rng(0)))
    for tree, words in (
        (params | {"hn_bias": np.ones(2, "float32")}, "the GRUCell has surplus hn_bias"),
        ({"params": params, "batch_stats": {"hn": {"mean": 1.0}}}, "in batch_stats: hn.mean"),
        ({"params": {"a": params}, "lora": {"a": {"hn": {"a": 1.0}}}}, "in lora: hn.a"),
        ({"rnn": jax.tree.map(lambda x: np.stack([x, x]), params)}, r"layers that nn.scan or vmap stacked"),
        ({"a": {"ih": {"kernel": 1.0}, "hh": {"kernel": 1.0}}}, "the ConvLSTMCell at 'a' has images for states"),
        (jax.tree.map(lambda x: x.astype("int8"), params), "is int8, as quantisation stores weights"),
        (jax.tree.map(lambda x: x.astype(jnp.bfloat16), params), "is bfloat16; .*with dtype="),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            convert.from_flax(tree)
    beside = {"params": params, "intermediates": {"hn": {"y": 1.0}}, "step": 3, "opt_state": {"0": params}}
    assert convert.from_flax(beside)[0] == lstmx.GRU(3, 2)


def test_msgpack_files(tmp_path):
    variables = variables_of_a_model()
    expected = convert.from_flax(variables, layer="decoder")
    (tmp_path / "m.msgpack").write_bytes(serialization.to_bytes(variables))
    with pytest.raises(ValueError, match="several recurrent layers: choose one with --layer"):
        read_weights(tmp_path / "m.msgpack")
    told = []
    cell, params, name, _ = read_weights(tmp_path / "m.msgpack", "decoder", Choices(tell=told.append))
    assert len(told) == 1
    assert "own GRUCell with gates of sigmoids, as names and shapes say; parameters do not tell its" in told[0]
    assert "taken to be tanh (--nonlinearity relu), nor its dtype" in told[0]
    assert name == "decoder"
    assert_read((cell, params), *expected)
    (tmp_path / "m.msgpack").write_bytes(serialization.to_bytes(variables)[:300])
    with pytest.raises(ValueError, match=r"is cut short, or not what flax.serialization.to_bytes wrote"):
        read_weights(tmp_path / "m.msgpack")
    (tmp_path / "m.msgpack").write_bytes(serialization.msgpack_serialize(np.ones(2)))
    with pytest.raises(ValueError, match="holds a ndarray; expected a dict of parameters"):
        read_weights(tmp_path / "m.msgpack")


def test_folders_of_orbax(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint", reason="it writes the folders")
    model = layers_of_nnx()
    expected = convert.from_flax(model)
    with orbax.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "one", {"model": nnx.state(model), "step": 3})
    with orbax.CheckpointManager(tmp_path / "many") as manager:
        for step in (1, 2):
            manager.save(step, args=orbax.args.StandardSave(variables_of_a_model()), force=True)
    for folder, layer, found in (
        ("one", None, expected),
        ("many/2", "encoder", convert.from_flax(variables_of_a_model(), layer="encoder")),
    ):
        cell, params, _, _ = read_weights(tmp_path / folder, layer)
        assert_read((cell, params), *found)
    with pytest.raises(ValueError, match=r"holds several checkpoints: give one of 1/default, 2/default"):
        read_weights(tmp_path / "many")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no checkpoint of Orbax: it has nothing"):
        read_weights(tmp_path / "none")
    (tmp_path / "none" / "_METADATA").write_text("{}")
    with pytest.raises(ValueError, match="is no whole checkpoint of Orbax"):
        read_weights(tmp_path / "none")
