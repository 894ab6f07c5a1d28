"""Masks with holes, resets and draws together: against plain autodiff, and each sequence alone and compacted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import assert_close, assert_same, to

import lstmx

T = 9
MASK = np.ones((T, 3), bool)
MASK[:3, 0] = MASK[4, 0] = MASK[[1, 2, 5, 8], 1] = MASK[6:, 2] = False  # left padding, holes, right padding
RESETS = np.zeros((T, 3), bool)
RESETS[[4, 6], 0] = RESETS[3, 1] = RESETS[7, 2] = True  # two of these at steps that do not count
LENGTHS = np.array([9, 4, 1])

CELLS = {
    "LSTM": lstmx.LSTM(2, 4),
    "wide LSTM": lstmx.LSTM(2, 96),
    "GRU": lstmx.GRU(2, 4),
    "GRU before": lstmx.GRU(2, 4, reset="before"),
    "wide GRU before": lstmx.GRU(2, 96, reset="before"),
    "SimpleRNN": lstmx.SimpleRNN(2, 4),
    "JANET": lstmx.JANET(2, 4),
}
LAYERS = {
    "Stack": lstmx.Stack([CELLS["LSTM"], lstmx.GRU(4, 3)]),
    "wide Stack": lstmx.Stack([lstmx.GRU(2, 96), lstmx.LSTM(96, 4)]),
    "Bidirectional": lstmx.Bidirectional(CELLS["GRU before"]),
    "both": lstmx.Stack([CELLS["JANET"], lstmx.Bidirectional(lstmx.LSTM(4, 3)), lstmx.SimpleRNN(6, 3)]),
}
ZONED = {f"Zoneout {name}": lstmx.Zoneout(CELLS[name], 0.3, 0.6) for name in ("LSTM", "GRU before", "wide LSTM")}
EVERY = CELLS | LAYERS | ZONED
SAID = {
    "lengths": {"lengths": LENGTHS},
    "mask": {"mask": MASK},
    "resets": {"resets": RESETS},
    "all": {"mask": MASK, "resets": RESETS},
}


def drawn(model, seed=0):
    """Parameters, inputs and a way to weigh outputs, NumPy float64."""
    draws = np.random.default_rng(seed)
    params = model.init(draws, "float64")
    xs = draws.normal(size=(T, 3, 2))
    return params, xs, draws.normal(size=(T, 3, model.output_size))


def loss_of(model, weights, params, xs, said, **options):
    outputs, final = lstmx.run(model, params, xs, **said, **options)
    return (outputs * weights).sum() + sum((field**2).sum() for field in jax.tree.leaves(final))


def gradient(model, weights, said, **options):
    """Of both arguments, compiled."""
    return jax.jit(jax.grad(lambda *given: loss_of(model, weights, *given, said, **options), (0, 1)))


def counted(said):
    """True where a step counts, [T, 3]."""
    if "lengths" in said:
        return np.arange(T)[:, None] < LENGTHS
    return said.get("mask", np.ones((T, 3), bool))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"),
    [
        *[("LSTM", said) for said in SAID],
        ("wide LSTM", "all"),
        ("GRU before", "lengths"),
        ("wide GRU before", "all"),
        ("SimpleRNN", "all"),
        ("Stack", "lengths"),
        ("wide Stack", "all"),
        ("Bidirectional", "lengths"),
        ("both", "all"),
        ("Zoneout LSTM", "all"),
        ("Zoneout GRU before", "all"),
        ("Zoneout wide LSTM", "lengths"),
    ],
)
def test_gradients_are_those_of_autodiff_and_of_each_compacted_sequence(name, said):
    model, said = EVERY[name], SAID[said]
    params, xs, weights = drawn(model)
    found = gradient(model, weights, said)(params, xs)
    assert_close(found, gradient(model, weights, said, differentiation="autodiff")(params, xs), 1e-11)
    counts, total = counted(said), jax.tree.map(np.zeros_like, params)
    outputs = lstmx.run(model, params, xs, **said)[0]
    for k in range(3):
        at = np.flatnonzero(counts[:, k])
        one = lstmx.record(model, params, xs[at, k], resets=said["resets"][at, k] if "resets" in said else None)
        own = lstmx.backward(one, weights[at, k], jax.tree.map(lambda x: 2 * x, one.final))
        total = jax.tree.map(np.add, total, own.parameters)
        np.testing.assert_allclose(found[1][at, k], own.inputs, atol=1e-11, rtol=1e-11)
        np.testing.assert_allclose(outputs[at, k], one.outputs, atol=1e-13)
    assert_close(found[0], total, 1e-11)
    assert not np.asarray(found[1])[~counts].any()
    assert not outputs[~counts].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide GRU before", "Bidirectional"])
def test_gradients_under_vmap_are_those_of_each_batch(name):
    model = EVERY[name]
    params, xs, weights = drawn(model)
    many = jnp.stack([xs, 2 * xs])
    masks = jnp.stack([MASK, MASK[:, ::-1]])

    def one(xs, mask):
        return jax.grad(lambda p, x: loss_of(model, weights, p, x, {"mask": mask, "resets": RESETS}), (0, 1))(
            params, xs
        )

    found = jax.jit(jax.vmap(one))(many, masks)
    for k in range(2):
        expected = gradient(model, weights, {"mask": np.asarray(masks[k]), "resets": RESETS})(params, many[k])
        assert_close(jax.tree.map(lambda x, k=k: x[k], found), expected, 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "said"), [("Zoneout GRU before", "all"), ("Zoneout wide LSTM", "lengths")])
def test_gradients_with_draws_are_those_of_autodiff(name, said):
    model, said = ZONED[name], SAID[said] | {"key": 3}
    params, xs, weights = drawn(model)
    found = gradient(model, weights, said)(params, xs)
    assert_close(found, gradient(model, weights, said, differentiation="autodiff")(params, xs), 1e-11)
    assert not np.asarray(found[1])[~counted(said)].any()
    back = lstmx.record(model, *to("jax", (params, xs)), **said)
    made = lstmx.backward(back, jnp.asarray(weights), jax.tree.map(lambda x: 2 * x, back.final))
    assert_close((made.parameters, made.inputs), found, 1e-11)


# ----------------------------------------------------------------------------- what stands where no step counts


def analyses(history):
    """Numbers of every analysis that takes padded passes, as NumPy arrays."""
    flow = lstmx.gradient_flow(history, "last")
    made = {
        "flow": (flow.parameters, flow.inputs, flow.log_norm, flow.decay_rate.rate, flow.horizon(0.5)),
        "backward": lstmx.backward(history, history.outputs),
        "statistics": lstmx.gate_statistics(history).timescale,
        "highway": lstmx.highway(history),
        "jacobians": lstmx.jacobians(history),
        "input jacobians": lstmx.input_jacobians(history),
        "influence": lstmx.influence(history).log_norms,
        "orders": lstmx.path_spectrum(history, max_order=2).log_norms,
        "kernel": lstmx.gate_kernel(history),
        "singular values": lstmx.isometry(history).singular_values,
        "product": lstmx.long_jacobian(history).log_singular_values,
        "spectrum": lstmx.lyapunov_spectrum(history, 2, transient=0, reorthonormalise=1, window=3).exponents,
    }
    return jax.tree.map(np.asarray, made)


@pytest.mark.slow
def test_what_stands_at_a_step_that_does_not_count_is_never_read(library):
    model, mask = CELLS["LSTM"], MASK[:, :2]
    params, xs, weights = drawn(model)
    xs, weights = xs[:, :2], weights[:, :2]
    junk = np.where(np.arange(T) % 2, np.nan, np.inf)[:, None, None]
    dirty = np.where(mask[..., None], xs, junk)
    clean, marred = (lstmx.record(model, *to(library, (params, x)), mask=to(library, mask)) for x in (xs, dirty))
    assert_same(marred.states, clean.states)
    assert_same(marred.inputs, clean.inputs)
    found, expected = analyses(marred), analyses(clean)
    for name, value in found.items():
        assert_same(value, expected[name])
    options = {"mask": mask}
    assert_same(lstmx.run(model, params, dirty, **options), lstmx.run(model, params, xs, **options))
    for differentiation in ("pullback", "autodiff"):
        one = gradient(model, weights, options, differentiation=differentiation)
        assert_same(one(params, dirty), one(params, xs))


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["wide LSTM", "both", "Zoneout LSTM"])
@pytest.mark.parametrize("said", ["lengths", "mask"])
def test_no_gradient_sees_what_is_not_read(name, said):
    model, said = EVERY[name], SAID[said]
    params, xs, weights = drawn(model)
    one = gradient(model, weights, said)
    assert_same(one(params, np.where(counted(said)[..., None], xs, np.nan)), one(params, xs))


def test_a_wrong_traced_length_makes_its_own_sequence_nan():
    model = CELLS["LSTM"]
    params, xs, _ = to("jax", drawn(model))
    run = jax.jit(lambda lengths: lstmx.run(model, params, xs, lengths=lengths))
    for wrong in (T + 1, 0, -2):
        outputs, final = run(jnp.array([9, wrong, 4]))
        right, last = run(jnp.array([9, 9, 4]))
        assert np.isnan(outputs[:, 1]).all()
        assert np.isnan(final.hidden[1]).all()
        assert_same(outputs[:, ::2], right[:, ::2])
        assert_same(jax.tree.map(lambda x: x[::2], final), jax.tree.map(lambda x: x[::2], last))


# ----------------------------------------------------------------------------------- analyses of padded passes


def alone(model, params, xs, k, said):
    """Sequence k, its steps that count alone."""
    at = np.flatnonzero(counted(said)[:, k])
    resets = said["resets"][at, k] if "resets" in said else None
    return at, lstmx.record(model, params, xs[at, k], resets=resets)


@pytest.mark.parametrize("name", ["LSTM", "GRU before", "Stack", "Zoneout LSTM"])
def test_analyses_of_a_mask_with_holes_are_those_of_each_compacted_sequence(name):
    model, said = EVERY[name], SAID["mask"]
    params, xs, _ = drawn(model, seed=2)
    history = lstmx.record(model, params, xs, **said)
    flow, reach = lstmx.gradient_flow(history), lstmx.influence(history)
    matrices, along = lstmx.jacobians(history), lstmx.input_jacobians(history)
    values, product = lstmx.isometry(history).singular_values, lstmx.long_jacobian(history)
    assert along.shape == (T, 3, history.cell.state_size, 2)
    for k in range(3):
        at, one = alone(model, params, xs, k, said)
        np.testing.assert_allclose(matrices[at, k], lstmx.jacobians(one), atol=1e-13)
        np.testing.assert_allclose(along[at, k], lstmx.input_jacobians(one), atol=1e-13)
        held = np.setdiff1d(np.arange(T), at)
        assert_same(matrices[held, k], np.broadcast_to(np.eye(matrices.shape[-1]), matrices[held, k].shape))
        assert not along[held, k].any()
        np.testing.assert_allclose(values[at, k], lstmx.isometry(one).singular_values, atol=1e-12)
        assert np.isnan(values[held, k]).all()
        expected = lstmx.long_jacobian(one).log_singular_values
        np.testing.assert_allclose(product.log_singular_values[k], expected, rtol=1e-9, atol=1e-9)
        own = lstmx.influence(one).log_norms
        np.testing.assert_allclose(reach.log_norms[np.ix_(at, at, [k])][..., 0], own, atol=1e-11)
        whole = lstmx.gradient_flow(one)
        for left, right in zip(getattr(flow, "flows", [flow]), getattr(whole, "flows", [whole]), strict=True):
            np.testing.assert_allclose(left.log_norm[at, k], right.log_norm, atol=1e-11)
            np.testing.assert_allclose(left.decay_rate.rate[k], right.decay_rate.rate, atol=1e-11)
            np.testing.assert_array_equal(left.horizon(0.5)[k], right.horizon(0.5))
            assert left.verdict[k] == right.verdict
        assert flow.verdict[k] == whole.verdict
    shown = str(lstmx.isometry(history))
    assert "nan" not in shown


def test_isometry_of_a_padded_pass_leaves_out_what_does_not_count():
    model = CELLS["LSTM"]
    draws = np.random.default_rng(0)
    params = model.init(np.random.default_rng(1), dtype="float64")
    params = params._replace(bias=params.bias - 2)
    history = lstmx.record(model, params, draws.normal(size=(100, 2, 2)), lengths=np.array([100, 5]))
    own = [lstmx.isometry(piece) for piece in history.pieces()]
    square = np.concatenate([one.mean_square for one in own])
    greatest = max(one.singular_values.max() for one in own)
    assert greatest < 1
    made = lstmx.isometry(history)
    np.testing.assert_allclose(np.nanmean(made.mean_square), square.mean(), rtol=1e-12)
    np.testing.assert_allclose(np.nanmax(made.singular_values), greatest, rtol=1e-12)
    assert f"mean squared singular value {square.mean():.4g}" in str(made)


def test_summaries_of_padded_passes_are_without_nan():
    history = lstmx.record(CELLS["LSTM"], *drawn(CELLS["LSTM"])[:2], mask=MASK)
    flow, report = lstmx.gradient_flow(history), lstmx.memory_report(history, lags=3)
    for said in (history.summary(), str(lstmx.isometry(history)), str(lstmx.gate_statistics(history)), str(flow)):
        assert "nan" not in said.lower()
    short = lstmx.record(CELLS["LSTM"], *drawn(CELLS["LSTM"])[:2], lengths=np.array([9, 8, 7]))
    assert "nan" not in str(lstmx.gradient_flow(short)).lower()
    assert all(not np.isnan(notion.value) for notion in report.notions if notion.name != "linear memory")


def test_a_report_of_a_padded_pass_is_that_of_its_sequences():
    model = lstmx.LSTM(1, 3)
    draws = np.random.default_rng(3)
    params, xs = model.init(draws, "float64"), draws.normal(size=(120, 2, 1))
    mask = np.ones((120, 2), bool)
    mask[::7, 1] = mask[100:, 0] = False
    found = lstmx.memory_report(lstmx.record(model, params, xs, mask=mask), lags=20)
    own = [lstmx.memory_report(lstmx.record(model, params, xs[mask[:, k], k]), lags=20) for k in range(2)]
    for name in ("gradient horizon", "influence lag"):
        np.testing.assert_allclose(found[name].value, np.median([one[name].value for one in own]), rtol=1e-9)
    reach = np.stack([one.influence.log_norms[0] for one in own], axis=-1)
    np.testing.assert_allclose(found.influence.log_norms[0], reach, atol=1e-10)


def test_the_history_of_a_padded_pass_is_of_the_cell_that_ran():
    for name, said in (("LSTM", SAID["lengths"]), ("Zoneout LSTM", SAID["all"] | {"key": 1})):
        params, xs, _ = drawn(EVERY[name])
        history = lstmx.record(EVERY[name], params, xs, **said)
        assert history.cell == EVERY[name]
        assert lstmx.input_jacobians(history).shape == (T, 3, 8, 2)


# --------------------------------------------------------------------------------------------------- Zoneout


def zoned(hidden=0.0, state=0.9, length=40, key=None):
    cell = lstmx.Zoneout(lstmx.LSTM(3, 4), hidden=hidden, state=state)
    params = cell.init(np.random.default_rng(1), dtype="float64")
    return lstmx.record(cell, params, np.random.default_rng(0).normal(size=(length, 3)), key=key)


@pytest.mark.parametrize("key", [None, 2])
def test_what_zoneout_keeps_counts_in_kernels_and_time_scales(key):
    history = zoned(key=key, state=0.6)
    d = 0.6 if key is None else history.controls.kept.cell
    kept = d + (1 - d) * history.forget_gate
    taken = (1 - d) * history.input_gate
    c = np.zeros(4)
    for k, i, g in zip(kept, taken, history.candidate, strict=True):
        c = k * c + i * g
    np.testing.assert_allclose(c, history.cell_state[-1], atol=1e-14)
    weights = np.array([(history.output_gate[-1] * taken[s] * kept[s + 1 :].prod(0)).sum() for s in range(40)])
    np.testing.assert_allclose(lstmx.gate_kernel(history)[-1], weights / weights.sum(), atol=1e-14)
    logs = np.log(kept)
    np.testing.assert_allclose(lstmx.gate_statistics(history).timescale, -1 / logs.mean(0), rtol=1e-12)
    np.testing.assert_allclose(lstmx.gate_statistics(history).timescale_arithmetic, -1 / np.log(kept.mean(0)))
    np.testing.assert_allclose(lstmx.highway(history), logs.sum(0), rtol=1e-12)
    report = lstmx.memory_report(history, lags=10)
    np.testing.assert_allclose(report["highway, geometric"].value, np.median(-1 / logs.mean(0)), rtol=1e-12)
    np.testing.assert_allclose(report["highway, slowest unit"].value, np.max(-1 / logs.mean(0)), rtol=1e-12)


def test_a_key_that_changes_nothing_changes_no_report():
    made = [lstmx.memory_report(zoned(0.0, 0.0, 300, key), lags=30) for key in (None, 5)]
    for left, right in zip(*(report.notions for report in made), strict=True):
        assert left.name == right.name
        np.testing.assert_allclose(left.value, right.value, rtol=1e-12)
    np.testing.assert_allclose(made[0].capacity, made[1].capacity, rtol=1e-12)
    assert made[0]["linear memory"].value > 0


@pytest.mark.parametrize("inner", [lstmx.LSTM(3, 8), lstmx.GRU(3, 8), lstmx.SimpleRNN(3, 8)], ids=str)
def test_the_critical_gain_of_a_zoneout_is_that_of_its_cell(inner):
    assert lstmx.critical_gain(lstmx.Zoneout(inner, 0.3, 0.5)) == lstmx.critical_gain(inner)


# ------------------------------------------------------------------------------------------- compiled functions


ANALYSES = {
    "gradient_flow": lambda history: lstmx.gradient_flow(history, "last").log_norm,
    "backward": lambda history: lstmx.backward(history, history.outputs).inputs,
    "jacobians": lstmx.jacobians,
    "input_jacobians": lstmx.input_jacobians,
    "isometry": lambda history: lstmx.isometry(history).mean_square,
    "influence": lambda history: lstmx.influence(history, [3]).log_norms,
    "path_spectrum": lambda history: lstmx.path_spectrum(history, max_order=2).log_norms,
    "gate_statistics": lambda history: lstmx.gate_statistics(history).timescale,
    "highway": lstmx.highway,
    "lyapunov_spectrum": lambda history: lstmx.lyapunov_spectrum(history, 2).exponents,
    "linearise": lambda history: lstmx.linearise(history).matrices(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ANALYSES)
def test_a_compiled_function_may_close_over_inputs_or_parameters(name):
    model = CELLS["LSTM"]
    params, xs, _ = to("jax", drawn(model))
    said = {} if name == "lyapunov_spectrum" else {"mask": MASK}

    def look(params, xs):
        return ANALYSES[name](lstmx.record(model, params, xs, **said))

    expected = jax.jit(look)(params, xs)
    assert_close(jax.jit(lambda params: look(params, xs))(params), expected, 1e-12)
    assert_close(jax.jit(functools.partial(look, params))(xs), expected, 1e-12)


@pytest.mark.slow
def test_summaries_may_be_compiled_around_inputs():
    model = CELLS["LSTM"]
    params, xs, _ = to("jax", drawn(model))
    compiled = jax.jit(lambda params: lstmx.summarise(model, params, xs).timescale)(params)
    np.testing.assert_allclose(compiled, lstmx.summarise(model, params, xs).timescale, rtol=1e-12)
