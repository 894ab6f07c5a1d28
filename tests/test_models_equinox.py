"""Cells of Equinox as people have them, against what Equinox computes, or refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstmx
from lstmx import convert
from lstmx.app.weights import read_weights

equinox = pytest.importorskip("equinox", reason="modules are made with the framework itself")
nn = equinox.nn
pytestmark = [
    pytest.mark.slow,  # a framework to import
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
XS = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


class LSTMCell(nn.LSTMCell):
    """Of a known name, with equations of its own."""

    def __call__(self, x, state):
        h, c = super().__call__(x, state)
        return 2 * h, c


class Biased(nn.GRUCell):
    """With an array more, and the equations of its class."""

    more: jax.Array

    def __init__(self, *sizes, key):
        super().__init__(*sizes, key=key)
        self.more = jnp.ones(4, "float32")


class Factored(equinox.Module):
    """Weights as a product."""

    a: jax.Array
    b: jax.Array

    def __matmul__(self, x):
        return self.a @ (self.b @ x)


class Model(equinox.Module):
    """A cell under scan."""

    cell: nn.GRUCell

    def __call__(self, xs):
        def step(h, x):
            h = self.cell(x, h)
            return h, h

        return jax.lax.scan(step, jnp.zeros(4, "float32"), xs)[1]


def made(kind, sizes=(3, 4), change=lambda cell: cell, **options):
    return lambda: change(kind(*sizes, key=jax.random.key(0), **{"dtype": "float32"} | options))


def biased(cell):
    """With a bias that its use_bias does not read."""
    return equinox.tree_at(lambda c: c.bias, cell, jnp.ones(16, "float32"), is_leaf=lambda x: x is None)


def factored(cell):
    parts = Factored(jnp.ones((12, 2), "float32"), jnp.ones((2, 4), "float32"))
    return equinox.tree_at(lambda c: c.weight_hh, cell, parts)


CORPUS = [
    *(
        (
            f"{kind.__name__} of {d} and {h}, {'a bias' if bias else 'no bias'}",
            made(kind, (d, h), use_bias=bias),
            True,
        )
        for kind in (nn.LSTMCell, nn.GRUCell)
        for bias in (True, False)
        for d, h in ((3, 4), (3, 1), (3, 100))
    ),
    ("float64", made(nn.GRUCell, dtype="float64"), True),
    (
        "bfloat16",
        made(nn.LSTMCell, dtype=jnp.bfloat16),
        r"weight_ih is bfloat16; expected float32 or float64: cast the model",
    ),
    ("a bias that is not read", made(nn.LSTMCell, change=biased, use_bias=False), "the LSTMCell has surplus bias"),
    ("a class named LSTMCell", made(LSTMCell, dtype="float32"), "LSTMCell with a __call__ of its own"),
    ("an array more", lambda: Biased(3, 4, key=jax.random.key(0)), "the Biased has surplus more"),
    ("a product", made(nn.GRUCell, change=factored), "the GRUCell lacks weight_hh; it has .*weight_hh.a"),
    ("a model", lambda: Model(made(nn.GRUCell)()), r"expected an equinox.nn.LSTMCell or .*: convert module.cell"),
    (
        "a Linear",
        lambda: nn.Linear(3, 4, key=jax.random.key(0)),
        r"Linear; expected an equinox.nn.LSTMCell or GRUCell$",
    ),
]


@pytest.mark.parametrize(("build", "expected"), [case[1:] for case in CORPUS], ids=[case[0] for case in CORPUS])
def test_the_corpus(build, expected):
    module = build()
    if expected is not True:
        with pytest.raises((ValueError, TypeError), match=expected):
            convert.from_equinox(module)
        return
    cell, params = convert.from_equinox(module)
    xs = XS.astype(params.bias.dtype)
    h, state = module.hidden_size, None
    state = jnp.zeros(h, xs.dtype) if cell.state_type is lstmx.GRUState else (jnp.zeros(h, xs.dtype),) * 2
    outputs = []
    for x in xs:
        state = module(jnp.asarray(x), state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    np.testing.assert_allclose(lstmx.run(cell, params, xs)[0], np.stack(outputs), rtol=0, atol=1e-6)


def test_a_model_is_recorded_by_its_cell():
    model = Model(made(nn.GRUCell)())
    history = lstmx.record(*convert.from_equinox(model.cell), XS)
    np.testing.assert_allclose(history.hidden_state, model(XS), rtol=0, atol=1e-6)


def test_a_file_of_leaves_says_what_to_do(tmp_path):
    model = Model(made(nn.GRUCell)())
    equinox.tree_serialise_leaves(tmp_path / "m.eqx", model)
    with pytest.raises(ValueError, match="in order, without their names") as told:
        read_weights(tmp_path / "m.eqx")
    lines = str(told.value).splitlines()[1:3]
    scope = {"equinox": equinox, "lstmx": lstmx, "model": Model(made(nn.GRUCell)())}
    exec(
        "\n".join(line.strip() for line in lines).replace("weights.safetensors", f"{tmp_path}/w.safetensors"),
        scope,
    )
    cell, params, _, _ = read_weights(tmp_path / "w.safetensors")
    assert cell == lstmx.GRU(3, 4)
    np.testing.assert_array_equal(params.bias, model.cell.bias)


def test_what_is_no_module_is_named():
    with pytest.raises(TypeError, match=r"is a int; expected"):
        convert.from_equinox(3)
