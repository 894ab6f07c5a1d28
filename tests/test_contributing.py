"""The Python of CONTRIBUTING.md, run as it stands, and its worked examples against independent truths."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from reference import logistic, to

import lstmx

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture(scope="module")
def made():
    """What the blocks define, run one after another."""
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    return names


def drawn(cell, *lead):
    draws = np.random.default_rng(3)
    params = jax.tree.map(lambda shape: draws.normal(0, 0.5, shape), cell.parameter_shapes(), is_leaf=_is_shape)
    return params, draws.normal(size=(*lead, cell.input_size))


def _is_shape(value):
    return type(value) is tuple


def test_the_files_it_names_are_there():
    root = Path(__file__).parents[1]
    named = set(re.findall(r"`((?:tests|lstmx)/[\w/]+(?:\.py|/))`", TEXT))
    assert len(named) > 10
    for name in named:
        assert (root / name).exists(), name


@pytest.mark.sample(1)
def test_its_cell_is_the_janet_that_forgets_what_it_takes_in(made, library):
    cell = made["UGRNN"](3, 8)
    params, xs = to(library, drawn(cell, 30, 2))
    janet, theirs = lstmx.JANET(3, 8, beta=0.0), lstmx.JANET(3, 8).parameter_shapes()
    same = type(theirs)(*params)
    mine, other = lstmx.record(cell, params, xs), lstmx.record(janet, same, xs)
    np.testing.assert_allclose(mine.outputs, other.outputs, rtol=0, atol=1e-13)
    flows = [lstmx.gradient_flow(history, "last") for history in (mine, other)]
    np.testing.assert_allclose(flows[0].log_norm, flows[1].log_norm, rtol=1e-10)
    for ours, known in zip(flows[0].parameters, flows[1].parameters, strict=True):
        np.testing.assert_allclose(ours, known, rtol=1e-9, atol=1e-12)
    mean = lstmx.gate_statistics(mine)["update_gate"].mean
    np.testing.assert_allclose(mean, np.mean(mine.update_gate, axis=(0, 1)), rtol=1e-12)


def test_its_cell_draws_kernels_of_orthogonal_blocks(made):
    cell = made["UGRNN"](3, 8)
    params = cell.init(np.random.default_rng(0), "float64")
    for block in np.split(params.recurrent_kernel, 2, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(8), atol=1e-14)
    assert np.abs(params.input_kernel).max() <= np.sqrt(6 / 11)
    assert not params.bias.any()
    with pytest.raises(ValueError, match="the critical gain of a UGRNN is not known in closed form"):
        lstmx.critical_gain(cell)


def test_a_wrong_sign_is_named_as_it_says(made):
    class Wrong(made["UGRNN"]):
        def linearise(self, *given):
            slopes = super().linearise(*given)
            return slopes._replace(update=-slopes.update)

    with pytest.raises(ValueError, match=r"∂hidden/∂update_gate \(factor update\) is off by"):
        lstmx.check_cell(Wrong(3, 8))


@pytest.mark.slow
def test_its_analysis_is_the_growth_that_a_product_of_jacobians_has(made, library):
    mask = np.ones((50, 2), bool)
    mask[:7, 0] = mask[20, 1] = False
    cell = made["UGRNN"](3, 4)
    params, xs = to(library, drawn(cell, 50, 2))
    history = lstmx.record(cell, params, xs, mask=to(library, mask))
    found = made["growth_rate"](history)
    if library == "jax":
        tangent = np.asarray(jax.random.normal(jax.random.split(jax.random.key(0))[1], (2, 1, 4), "float64"))[:, 0]
    else:
        tangent = np.random.default_rng(0).standard_normal((2, 1, 4))[:, 0]
    for b in range(2):
        pushed = tangent[b]
        for matrix in np.asarray(lstmx.jacobians(history))[:, b]:
            pushed = matrix @ pushed
        growth = np.log(np.linalg.norm(pushed) / np.linalg.norm(tangent[b])) / mask[:, b].sum()
        np.testing.assert_allclose(found[b], growth, rtol=1e-10)
    with pytest.raises(ValueError, match="growth_rate takes sequences that do not start anew"):
        made["growth_rate"](lstmx.record(cell, params, xs, resets=to(library, ~mask)))


def test_its_converter_gives_what_the_course_computes(made):
    draws = np.random.default_rng(0)
    source = {"Wx": draws.normal(size=(3, 32)), "Wh": draws.normal(size=(8, 32)), "b": draws.normal(size=32)}
    xs, h, c = draws.normal(size=(10, 3)), np.zeros(8), np.zeros(8)
    cell, params = made["from_cs231n"](source)
    outputs, _ = lstmx.run(cell, params, xs)
    for x, output in zip(xs, outputs, strict=True):
        i, f, o, g = np.split(x @ source["Wx"] + h @ source["Wh"] + source["b"], 4)
        c = logistic(f) * c + logistic(i) * np.tanh(g)
        h = logistic(o) * np.tanh(c)
        np.testing.assert_allclose(output, h, rtol=1e-12)
    for name, array in made["to_cs231n"](cell, params).items():
        np.testing.assert_array_equal(array, source[name])
    with pytest.raises(ValueError, match="the layer has surplus proj"):
        made["from_cs231n"](source | {"proj": np.zeros(3)})
    with pytest.raises(ValueError, match="CS231n cannot express LSTM"):
        made["to_cs231n"](lstmx.LSTM(3, 8, coupled=True), lstmx.LSTM(3, 8, coupled=True).init(0))
