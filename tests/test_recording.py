"""`excerpt`, the memory of an earlier pass that `reuse` takes, and `summarise`."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, assert_same, draw_pass, is_in, to

import lstmx
from lstmx import statistics
from lstmx.history.excerpt import decode, encode, fields_of

each_batch = pytest.mark.parametrize("batch", [(), (1,), (2, 3)], ids=str)


def kept_fields(history):
    cell = history.cell
    states = {f"{name}_state": value for name, value in history.states._asdict().items()}
    return states | history.gates._asdict() | {"cell": cell}


# ------------------------------------------------------------------------------------------- excerpts


@pytest.mark.sample(4)
@each_batch
@pytest.mark.parametrize("every", [1, 3, 12, *(pytest.param(every, marks=pytest.mark.slow) for every in (2, 7))])
def test_an_excerpt_is_the_history_at_its_steps(kind, library, batch, every):
    cell, *given = draw_pass(kind, batch=batch)
    given = to(library, given)
    whole = lstmx.record(cell, *given)
    fields = fields_of(cell)
    made = lstmx.excerpt(cell, *given, every=every, fields=fields)
    expected = kept_fields(whole)
    assert list(made.steps) == [t for t in range(7) if (6 - t) % every == 0]
    assert len(made) == len(made.steps)
    for name in fields:
        assert_close(getattr(made, name), expected[name][made.steps], 1e-14)
    assert_close(made.final, whole.final, 1e-14)
    assert is_in(library, (made.stored, made.final))
    assert set(fields) <= set(dir(made))


@pytest.mark.sample(3)
@pytest.mark.parametrize("batch", [(), pytest.param((2,), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_half_precision_rounds_what_is_stored_and_not_what_runs(kind, library, batch, every, dtype, bits):
    cell, *given = draw_pass(kind, batch=batch, dtype="float32")
    given = to(library, given)
    whole = kept_fields(lstmx.record(cell, *given))
    made = lstmx.excerpt(cell, *given, every=every, dtype=dtype)
    assert {str(x.dtype) for x in made.stored.values()} == {"float16" if dtype == "float16" else "uint16"}
    for name in made.stored:
        value = getattr(made, name)
        assert value.dtype == "float32"
        np.testing.assert_allclose(value, whole[name][made.steps], rtol=2.0**-bits, atol=1e-6)
    assert_close(made.final, lstmx.run(cell, *given)[1], 1e-6)
    assert is_in("numpy", made.to_numpy())


def test_bfloat16_is_rounded_as_the_hardware_does(library):
    draws = np.random.default_rng(0)
    bits = draws.integers(0, 2**32, 5000, dtype="uint32")
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38], "float32")
    x = np.concatenate([bits[~np.isnan(bits.view("float32"))].view("float32"), special])
    found = decode(encode(to(library, x), "bfloat16"), "float32")
    expected = np.asarray(jnp.asarray(x).astype(jnp.bfloat16).astype("float32"))
    np.testing.assert_array_equal(found, expected)


def test_an_excerpt_says_what_it_holds():
    cell, *given = draw_pass(lstmx.LSTM)
    made = lstmx.excerpt(cell, *given, fields=["forget_gate", "cell_state"])
    assert list(made.stored) == ["forget_gate", "cell_state"]
    with pytest.raises(AttributeError, match="has no input_gate; it holds: forget_gate, cell_state"):
        _ = made.input_gate
    assert repr(made) == f"Excerpt({cell}: forget_gate, cell_state; 7 of 7 steps)"
    for analysis in (lstmx.gradient_flow, lstmx.gate_statistics, lstmx.path_spectrum, lstmx.influence):
        with pytest.raises(TypeError, match="history is an Excerpt, which keeps too little"):
            analysis(made)
    with pytest.raises(TypeError, match="history is an Excerpt, which keeps too little"):
        lstmx.backward(made, np.zeros((7, 4)))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"every": 0}, ValueError, "every is 0"),
        ({"every": 1.5}, TypeError, "every is 1.5"),
        ({"fields": "forget_gate"}, ValueError, "expected a list of names"),
        ({"fields": []}, ValueError, "expected a list of names"),
        ({"fields": ["gate"]}, ValueError, "a name in fields is 'gate'; expected one of 'hidden_state'"),
        ({"dtype": "float8"}, ValueError, "dtype is 'float8'; expected one of 'float16', 'bfloat16'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_options_are_named(library, options, error, words):
    cell, *given = draw_pass(lstmx.LSTM)
    with pytest.raises(error, match=words):
        lstmx.excerpt(cell, *to(library, given), **options)


def test_excerpts_go_through_jit():
    cell, *given = draw_pass(lstmx.LSTM)
    given = to("jax", given)
    made = jax.jit(lambda *given: lstmx.excerpt(cell, *given, every=3))(*given)
    assert_close(made, lstmx.excerpt(cell, *given, every=3), 1e-14)


# ------------------------------------------------------------------------------- in the memory of a dead pass

FORMS = [
    (lstmx.record, {}),
    (lstmx.record, {"keep": "states"}),
    (lstmx.excerpt, {"every": 2}),
    (lstmx.excerpt, {"dtype": "float16", "fields": ["hidden_state"]}),
]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("verb", "form"), FORMS, ids=lambda x: getattr(x, "__name__", str(x)))
@pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "wide"])
def test_a_pass_in_old_memory_is_a_fresh_one(kind, library, verb, form, narrow, monkeypatch):
    if not narrow:
        jax.clear_caches()  # the form is chosen when JAX traces
        monkeypatch.setattr("lstmx.passes.forward._NARROW", 0)
    cell, params, xs, state = draw_pass(kind, batch=(2,))
    params, xs, state = to(library, (params, xs, state))
    old = verb(cell, params, xs, **form)
    kept = jax.tree.map(np.array, old)
    copies = jax.tree.map(np.copy, kept)
    made = verb(cell, params, -xs, state, reuse=old, **form)
    assert_same(made, verb(cell, params, -xs, state, **form))
    assert_same(kept, copies)
    for touch in (lambda: old.hidden_state, lambda: old.stored, lambda: jax.tree.leaves(old), lambda: old.gates):
        with pytest.raises(RuntimeError, match=r"was handed to record\(\.\.\., reuse=\.\.\.\)"):
            touch()
    with pytest.raises(RuntimeError, match="was handed to record"):
        verb(cell, params, xs, reuse=old, **form)
    if not narrow:
        jax.clear_caches()


@pytest.mark.sample(3)
@pytest.mark.parametrize("keep", ["all", "states"])
@pytest.mark.parametrize("batch", [(), (64, 16)], ids=["narrow", "wide"])
def test_the_memory_is_the_old_one(keep, batch):
    cell, *given = draw_pass(lstmx.LSTM, length=50, batch=batch)
    given = to("jax", given)
    old = lstmx.record(cell, *given, keep=keep)
    places = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((old.states, old.stored))}
    made = lstmx.record(cell, *given, keep=keep, reuse=old)
    assert {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((made.states, made.stored))} == places


def test_another_form_is_refused_and_nothing_is_lost(library):
    cell, params, xs, state = draw_pass(lstmx.LSTM, features=4, batch=(2,))
    params, xs, state = to(library, (params, xs, state))
    old = lstmx.record(cell, params, xs)
    other = lstmx.LSTM(4, 5)
    single = jax.tree.map(lambda x: x.astype("float32"), (params, xs))
    for call in (
        lambda: lstmx.record(cell, params, xs[:5], reuse=old),
        lambda: lstmx.record(cell, params, xs[:, :1], reuse=old),
        lambda: lstmx.record(cell, params, xs, keep="states", reuse=old),
        lambda: lstmx.record(other, to(library, other.init(np.random.default_rng(0), "float64")), xs, reuse=old),
        lambda: lstmx.record(cell, *single, reuse=old),
        lambda: lstmx.record(cell, params, old.hidden_state, reuse=old),
        lambda: (
            lstmx.record(cell, *to({"numpy": "jax", "jax": "numpy"}[library], (params, xs)), reuse=old.to_numpy())
            if library == "numpy"
            else lstmx.record(cell, params, xs, reuse=old.to_numpy())
        ),
    ):
        with pytest.raises(ValueError, match="reuse"):
            call()
    for call in (
        lambda: lstmx.record(cell, params, xs, reuse=3),
        lambda: lstmx.excerpt(cell, params, xs, every=2, reuse=old),
    ):
        with pytest.raises(TypeError, match="reuse is a "):
            call()
    assert_same(old, lstmx.record(cell, params, xs))


# ------------------------------------------------------------------------------------------- summarise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "batch"), [(1, ()), (7, (1,)), (300, (2, 3)), (521, ())], ids=["T = 1", "7", "300", "prime"]
)
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU], ids=["LSTM", "GRU"])
def test_summarise_is_the_statistics_of_the_history(kind, library, length, batch):
    cell, *given = draw_pass(kind, length, batch)
    given = to(library, given)
    found = lstmx.summarise(cell, *given)
    assert_close(found, lstmx.gate_statistics(lstmx.record(cell, *given)), 1e-12)
    assert str(found) == str(lstmx.gate_statistics(lstmx.record(cell, *given)))


@pytest.mark.slow
def test_float32_sums_hold_over_many_steps():
    cell, params, xs, _ = draw_pass(lstmx.LSTM, 50_000, dtype="float32", hidden=2)
    exact = lstmx.summarise(cell, *jax.tree.map(lambda x: x.astype("float64"), (params, xs)))
    with jax.enable_x64(False):
        found = lstmx.summarise(cell, *to("jax", (params, xs)))
    for gate in found.gates:
        for name in ("mean", "std", "min", "max"):
            np.testing.assert_allclose(getattr(found[gate], name), getattr(exact[gate], name), rtol=3e-6)
        for name in ("left", "right"):  # a gate within rounding of the threshold may count otherwise
            np.testing.assert_allclose(getattr(found[gate], name), getattr(exact[gate], name), atol=1e-4)
    np.testing.assert_allclose(found.timescale, exact.timescale, rtol=3e-6)
    np.testing.assert_allclose(found.timescale_arithmetic, exact.timescale_arithmetic, rtol=3e-6)


def test_what_is_not_finite_is_named(library):
    cell, params, xs, state = draw_pass(lstmx.LSTM)
    xs[3, 1] = np.nan
    with pytest.raises(ValueError, match="inputs is nan first at step 3, feature 1"):
        lstmx.summarise(cell, *to(library, (params, xs)))
    xs[3, 1] = 0
    bad = state._replace(cell=state.cell * np.inf)
    with pytest.raises(ValueError, match=r"state\.cell is"):
        lstmx.summarise(cell, *to(library, (params, xs, bad)))
    with pytest.raises(ValueError, match=r"params\.bias holds"):
        lstmx.summarise(cell, *to(library, (params._replace(bias=params.bias * np.nan), xs)))
    with pytest.raises(ValueError, match="a SimpleRNN has no gates"):
        lstmx.summarise(lstmx.SimpleRNN(3, 4), lstmx.SimpleRNN(3, 4).init(0), np.zeros((2, 3), "float32"))


@pytest.mark.slow
def test_summarise_takes_no_memory_for_the_pass():
    cell = lstmx.LSTM(2, 8)
    params = cell.init(0)

    def temporary(length):
        xs = jax.ShapeDtypeStruct((length, 2), "float32")
        compiled = jax.jit(lambda xs: statistics._accumulated(cell, params, xs, cell.initial_state(params), None))
        return compiled.lower(xs).compile().memory_analysis().temp_size_in_bytes

    assert (
        temporary(20_480) < temporary(2_048) + 10 * 80 < 2_048 * 32 * 4
    )  # a few bytes for each of 72 chunks more


@pytest.mark.slow
def test_the_same_again_is_traced_once():
    traced = []

    @dataclass(frozen=True)
    class Counted(lstmx.GRU):
        def update(self, before, a):
            traced.append(a.shape)  # Python comes here only when JAX traces
            return super().update(before, a)

        linearise = lstmx.GRU.linearise

    _, params, xs, _ = draw_pass(lstmx.GRU, batch=(2,))
    params, xs = to("jax", (params, xs))
    cell = Counted(3, 4)
    counts = []
    for factor in (1.0, 2.0, 3.0):
        history = lstmx.record(cell, params, xs)
        lstmx.record(cell, params, factor * xs, reuse=history)
        lstmx.excerpt(cell, params, factor * xs, every=2)
        lstmx.summarise(cell, params, factor * xs)
        counts.append(len(traced))
    assert counts[0] == counts[1] == counts[2] > 0
