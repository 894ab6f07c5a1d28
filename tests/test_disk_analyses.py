"""Analyses of a history on disk, read stretch by stretch, are those of the same history in memory."""

import jax
import numpy as np
import pytest
from family import draw, of_size
from reference import slow_but, to

import lstmx
from lstmx.history import store as disk
from lstmx.history import stored


@pytest.fixture(autouse=True)
def _small_stretches(monkeypatch):
    monkeypatch.setattr(disk, "_CHUNK", 512)
    monkeypatch.setattr(stored, "_AT_ONCE", 2)


@pytest.fixture
def both(library, tmp_path):
    """A function that makes a history in memory and the same on disk."""

    def make(name="V", batch=(2,), keep="all", length=250, **options):
        cell = of_size(3, 4)[name]
        params, state, xs, _ = draw(cell, batch, length=length)
        params, xs, state = to(library, (params, xs, state))
        history = lstmx.record(cell, params, xs, state, keep=keep, **options)
        history.save(tmp_path / name)
        found = lstmx.load_history(tmp_path / name)
        assert found.at_once < length / 3
        return history, found

    return make


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


in_numpy = pytest.mark.parametrize("library", ["numpy"])  # JAX compiles, and reads the same stretches


@pytest.mark.parametrize(
    ("library", "name", "outputs"),
    slow_but(
        [
            ("numpy", "V", "norms"),
            ("numpy", "layer norm, projection", "all"),
            ("jax", "V", "all"),
            ("jax", "GRU before", "norms"),
        ],
        lambda library, name, outputs: library == "numpy" and name == "V",
    ),
)
def test_gradient_flow(both, name, outputs):
    history, found = both(name)
    loss = np.random.default_rng(3).normal(size=history.hidden_state.shape)
    assert_equal(
        lstmx.gradient_flow(found, loss, outputs=outputs), lstmx.gradient_flow(history, loss, outputs=outputs)
    )


@pytest.mark.slow
@pytest.mark.parametrize("library", ["jax"])
def test_gradient_flow_of_the_last_output_and_states_alone(both, capsys):
    history, found = both(batch=(), keep="states")
    expected = lstmx.gradient_flow(history, "last", outputs="norms")
    assert_equal(lstmx.gradient_flow(found, "last", outputs="norms"), expected)
    assert_equal(lstmx.gradient_flow(found, "last", outputs="norms", progress=True), expected)
    assert "250/250" in capsys.readouterr().err


@pytest.mark.slow
def test_a_flow_through_padding(both):
    history, found = both(lengths=[250, 90])
    loss = np.random.default_rng(3).normal(size=history.hidden_state.shape)
    assert_equal(lstmx.gradient_flow(found, loss), lstmx.gradient_flow(history, loss))
    assert_equal(lstmx.gate_statistics(found), lstmx.gate_statistics(history))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["V", "SLSTM"])
def test_gate_statistics(both, name, monkeypatch):
    from lstmx import statistics

    monkeypatch.setattr(statistics, "_CHUNK_ELEMENTS", 1024)
    history, found = both(name)
    assert_equal(lstmx.gate_statistics(found), lstmx.gate_statistics(history))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "name", "count"),
    [
        ("numpy", "V", "all"),
        ("numpy", "layer norm, projection", 2),
        ("jax", "V", 2),
        ("jax", "GRU before", "all"),
    ],
)
def test_lyapunov_spectrum(both, name, count):
    history, found = both(name)
    options = {"count": count, "transient": 30, "reorthonormalise": 2, "window": 6}
    assert_equal(lstmx.lyapunov_spectrum(found, **options), lstmx.lyapunov_spectrum(history, **options))


@pytest.mark.slow
@in_numpy
def test_lyapunov_spectrum_of_padded_sequences(both):
    history, found = both(lengths=[250, 90])
    options = {"count": 2, "transient": 30, "reorthonormalise": 2, "window": 6}
    assert_equal(lstmx.lyapunov_spectrum(found, **options), lstmx.lyapunov_spectrum(history, **options))


@in_numpy
def test_resets_are_refused(both):
    resets = np.zeros((250, 2), bool)
    resets[80, 1] = True
    found = both(resets=resets)[1]
    assert found.controls.reset.any()
    with pytest.raises(ValueError, match="this history has resets"):
        lstmx.lyapunov_spectrum(found)


@pytest.mark.slow
@in_numpy
def test_a_long_transient_is_walked_in_stretches(both):
    history, found = both(batch=())
    assert_equal(lstmx.lyapunov_spectrum(found, transient=120), lstmx.lyapunov_spectrum(history, transient=120))


@pytest.mark.slow
@in_numpy
def test_no_stretch_is_longer_than_it_should_be(both, monkeypatch):
    found = both()[1]
    original, read = disk.Store.read, []

    def reading(self, name, start=0, stop=None):
        if stop is not None:
            read.append(stop - start)
        return original(self, name, start, stop)

    monkeypatch.setattr(disk.Store, "read", reading)
    lstmx.gradient_flow(found, outputs="norms")
    lstmx.lyapunov_spectrum(found, count=2, transient=150, window=4)
    assert max(read) <= 64  # what is tried out first
    assert len(read) > 20


def test_the_first_step_that_is_no_number_is_named(tmp_path):
    cell = lstmx.LSTM(3, 4)
    params = cell.init(np.random.default_rng(0))
    xs = np.zeros((100, 2, 3), "float32")
    xs[70, 1, 2] = np.nan
    found = lstmx.record_to(tmp_path / "pass", cell, params, xs)
    for analysis in (lstmx.gradient_flow, lstmx.gate_statistics, lstmx.lyapunov_spectrum):
        with pytest.raises(ValueError, match=r"inputs is nan first at step 70, sequence \(1,\), feature 2"):
            analysis(found)


@in_numpy
def test_what_takes_a_history_in_memory_says_so(both):
    history, found = both()
    for analysis in (
        lstmx.jacobians,
        lstmx.influence,
        lambda h: lstmx.gradient_flow(h, lambda outputs: outputs.sum()),
    ):
        with pytest.raises(TypeError, match=r"history.read\(\)"):
            analysis(found)
    with pytest.raises(ValueError, match="audit"):
        lstmx.lyapunov_spectrum(found, audit=True)
    with pytest.raises(ValueError, match="loss has shape"):
        lstmx.gradient_flow(found, history.hidden_state[:5])
