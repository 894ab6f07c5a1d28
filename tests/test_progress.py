"""Long passes in segments with a bar: the same numbers, and steps counted."""

import jax
import numpy as np
import pytest
from reference import to

import lstmx


@pytest.fixture
def history(library):
    rng = np.random.default_rng(0)
    cell = lstmx.LSTM(2, 3)
    params, xs = cell.init(rng, "float64"), rng.standard_normal((70, 2))
    return lstmx.record(cell, *to(library, (params, xs)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "analysis",
    [
        lambda h, **options: lstmx.gradient_flow(h, np.asarray(h.hidden_state) * 1.0, **options),
        lambda h, **options: lstmx.gradient_flow(h, "last", outputs="norms", **options),
        lambda h, **options: lstmx.path_spectrum(h, 3, **options),
        lambda h, **options: lstmx.path_spectrum(h, 3, matrix=True, **options),
        lambda h, **options: lstmx.influence(h, **options),
    ],
    ids=["flow", "norms", "paths", "matrix", "influence"],
)
def test_a_progress_bar_changes_no_number(history, analysis, capsys):
    plain, shown = analysis(history), analysis(history, progress=True)
    for left, right in zip(jax.tree.leaves(plain), jax.tree.leaves(shown), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-13, atol=1e-15)
    assert "100%" in capsys.readouterr().err
