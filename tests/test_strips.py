"""What results show of themselves in a notebook: static HTML, right numbers, no script."""

import re
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest

import lstmx
from lstmx.strips import Strip, shown


def recorded(cell=None, **options):
    cell = cell or lstmx.LSTM(3, 5)
    xs = np.random.default_rng(0).normal(size=(40, 2, 3)).astype("float32")
    return lstmx.record(cell, cell.init(np.random.default_rng(1)), xs, **options)


def table(made):
    """The rows of the table as (name, least, greatest, number of cells)."""
    tree = ET.fromstring(made[made.index("<table") :])
    rows = []
    for row in tree.iter("tr"):
        name, least, picture, greatest = list(row)
        rows.append((name.text, least.text, greatest.text, len(picture.findall(".//rect"))))
    return rows


@pytest.mark.parametrize(
    "make",
    [
        recorded,
        lambda: recorded(mask=np.random.default_rng(2).uniform(size=(40, 2)) > 0.4),
        lambda: lstmx.gate_statistics(recorded()),
        lambda: lstmx.gradient_flow(recorded()),
        lambda: lstmx.lyapunov_spectrum(recorded()),
    ],
)
def test_results_show_a_summary_and_strips_without_a_script(make):
    made = make()
    html = made._repr_html_()
    ET.fromstring(f"<div>{html}</div>")
    assert "<script" not in html
    assert len(html) < 120_000
    assert table(html)


def test_rows_of_a_history_are_means_over_units_and_sequences():
    history = recorded()
    rows = {name: rest for name, *rest in table(history._repr_html_())}
    assert list(rows) == ["hidden state", "cell state", "input gate", "forget gate", "candidate", "output gate"]
    means = np.asarray(history.cell_state, float).mean(axis=(1, 2))
    assert rows["cell state"] == [f"{means.min():.3g}", f"{means.max():.3g}", 40]
    assert rows["forget gate"][:2] == ["0", "1"]
    mask = np.ones((40, 2), bool)
    mask[10:15] = False
    assert {name: cells for name, _, _, cells in table(recorded(mask=mask)._repr_html_())}["forget gate"] == 35


def test_a_long_history_is_shown_at_some_steps(monkeypatch):
    monkeypatch.setattr("lstmx.history.recorded._SHOWN", 100)
    history = recorded(lstmx.GRU(3, 5))
    rows = {name: rest for name, *rest in table(history._repr_html_())}
    means = np.asarray(history.hidden_state, float).mean(axis=(1, 2))
    assert rows["hidden state"] == [f"{means.min():.3g}", f"{means.max():.3g}", 40]


def test_colours_and_blocks():
    made = shown("a < b", [Strip("x", np.array([0.0, np.nan, 1.0]))], "steps")
    assert made.startswith("<pre>a &lt; b</pre>")
    assert re.findall(r'fill="(#\w+)"', made) == ["#440154", "#fde725"]
    (row,) = table(shown("", [Strip("long", np.arange(1000.0), (0, 999))], "steps"))
    assert row == ("long", "0", "999", 143)


def test_inside_a_transformation_repr_is_shown():
    history = jax.tree.map(jax.numpy.asarray, recorded())
    seen = []
    jax.jit(lambda history: seen.append(history._repr_html_()))(history)
    assert seen == [None]
