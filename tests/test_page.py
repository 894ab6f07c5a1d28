"""The page as a file: its numbers, its size, and what it refuses."""

import base64
import json
import re

import jax
import numpy as np
import pytest

import lstmx

RNG = np.random.default_rng


def data_of(path):
    """What the script of a page reads."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def decoded(field, steps):
    """A field [steps, units] as the script has it; NaN where there is no number."""
    codes = np.frombuffer(base64.b64decode(field["codes"]), np.uint8).reshape(-1, steps).T.astype(float)
    low, high = np.array(field["low"]), np.array(field["high"])
    return np.where(codes == 255, np.nan, low + (high - low) * codes / 254)


def recorded(cell=None, length=60, batch=(), seed=0, **options):
    cell = cell or lstmx.LSTM(3, 7)
    xs = RNG(seed).normal(size=(length, *batch, 3)).astype("float32")
    return lstmx.record(cell, cell.init(RNG(1)), xs, **options)


@pytest.mark.parametrize(
    "cell", [lstmx.LSTM(3, 97), lstmx.GRU(3, 5), lstmx.SimpleRNN(3, 4), lstmx.LSTM(3, 6, projection=2)], ids=repr
)
def test_numbers_are_those_of_the_history(cell, tmp_path):
    history = recorded(cell)
    flow = lstmx.gradient_flow(history)
    (series,) = data_of(lstmx.page(history, tmp_path / "p.html", flow=flow))["series"]
    assert series["steps"] == list(range(60))
    seen = set()
    for field in series["fields"]:
        name = field["name"].replace(" ", "_")
        if name.startswith("gradient"):
            values = np.log10(np.abs(flow.hidden if "of_h" in name else flow.cell).astype(float))
        else:
            values = np.asarray(getattr(history, name))
            seen.add(name)
        spread = np.ptp(values, axis=0)
        assert (np.abs(decoded(field, 60) - values) <= spread / 255 + 1e-6 * np.abs(values).max()).all()
        assert field["kind"] == ("sequential" if name.endswith("gate") or "gradient" in name else "diverging")
    assert (
        seen >= {"hidden_state", *history.cell.gate_names} or history.cell.output_size != history.cell.hidden_size
    )
    norms = {line["name"]: line["values"] for line in series["norms"]}
    np.testing.assert_allclose(norms["joint state"], flow.log_norm / np.log(10), rtol=1e-4)
    if history.cell.retention_gate is not None:
        scale = lstmx.gate_statistics(history).timescale
        np.testing.assert_allclose(series["timescale"], scale, rtol=1e-4)


def test_steps_that_do_not_count_have_no_numbers(tmp_path):
    mask = RNG(0).uniform(size=(30, 2)) > 0.3
    history = recorded(length=30, batch=(2,), mask=mask)
    flow = lstmx.gradient_flow(history)
    for b, series in enumerate(data_of(lstmx.page(history, tmp_path / "p.html", flow=flow))["series"]):
        assert series["name"] == f"sequence {b}"
        values = decoded(series["fields"][0], 30)
        np.testing.assert_array_equal(np.isnan(values).all(axis=1), ~mask[:, b])


def test_layers_and_directions_are_in_the_order_of_time(tmp_path):
    stack = lstmx.Stack([lstmx.Bidirectional(lstmx.LSTM(3, 4)), lstmx.GRU(8, 5)])
    xs = RNG(0).normal(size=(20, 3)).astype("float32")
    history = lstmx.record(stack, stack.init(RNG(0)), xs)
    flow = lstmx.gradient_flow(history)
    made = {one["name"]: one for one in data_of(lstmx.page(history, tmp_path / "p.html", flow=flow))["series"]}
    assert list(made) == ["layer 0, forward", "layer 0, backward", "layer 1"]
    backward = history.parts["layer 0"].parts["backward"]
    expected = np.asarray(backward.hidden_state)[::-1]
    np.testing.assert_allclose(decoded(made["layer 0, backward"]["fields"][0], 20), expected, atol=0.01)
    norms = {line["name"]: line["values"] for line in made["layer 0, backward"]["norms"]}
    np.testing.assert_allclose(norms["h"], flow["layer 0, backward"].log_norm_hidden[::-1] / np.log(10), rtol=1e-4)


def test_several_histories_a_text_and_signals(tmp_path):
    text = 'one (two) "three"\n' * 3
    xs = RNG(0).normal(size=(len(text), 3)).astype("float32")
    cells = {"LSTM": lstmx.LSTM(3, 4), "SimpleRNN": lstmx.SimpleRNN(3, 4)}
    passes = {name: lstmx.record(cell, cell.init(RNG(0)), xs) for name, cell in cells.items()}
    flows = {name: lstmx.gradient_flow(one) for name, one in passes.items()}
    own = np.arange(len(text))
    data = data_of(
        lstmx.page(passes, tmp_path / "p.html", text=text, flow=flows, signals={"own": own}, title="A < B")
    )
    assert [one["name"] for one in data["series"]] == ["LSTM", "SimpleRNN"]
    series = data["series"][0]
    assert "".join(series["tokens"]) == text
    assert series["signals"]["the depth of brackets"][:10] == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert series["signals"]["being inside double quotes"][9:19] == [0, 1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert series["signals"]["own"] == own.tolist()
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<title>A &lt; B</title>" in page
    words = data_of(lstmx.page(passes, tmp_path / "p.html", text=["</script>"] * len(text)))["series"][0]["tokens"]
    assert words == ["</script>"] * len(text)
    words = data_of(lstmx.page(passes, tmp_path / "p.html", text=["{{script}}"] * len(text)))["series"][0][
        "tokens"
    ]
    assert words == ["{{script}}"] * len(text)


def test_2000_steps_of_128_units_and_6_fields_are_at_most_3_megabytes(tmp_path):
    history = recorded(lstmx.LSTM(3, 128), length=2000)
    flow = lstmx.gradient_flow(history, outputs="norms")
    path = lstmx.page(history, tmp_path / "p.html", flow=flow, text="x" * 2000)
    series = data_of(path)["series"][0]
    assert (len(series["steps"]), len(series["fields"])) == (2000, 6)
    assert path.stat().st_size <= 3_000_000


@pytest.mark.parametrize("disk", [False, True])
def test_longer_passes_show_every_kth_step_and_say_so(disk, tmp_path):
    history = recorded(length=5000)
    if disk:
        history.save(tmp_path / "pass")
        history, whole = lstmx.load_history(tmp_path / "pass"), history
    else:
        whole = history
    path = lstmx.page(history, tmp_path / "p.html", text="abcde" * 1000, size=250_000)
    assert path.stat().st_size <= 250_000
    data = data_of(path)
    series = data["series"][0]
    every = series["steps"][1]
    assert f"One step in {every} is shown" in data["about"]
    assert series["tokens"][0] == ("abcde" * 1000)[:every]
    assert "".join(series["tokens"]) == "abcde" * 1000
    values = np.asarray(whole.forget_gate)[::every]
    (gate,) = [one for one in series["fields"] if one["name"] == "forget gate"]
    assert (np.abs(decoded(gate, len(values)) - values) <= np.ptp(values, axis=0) / 255).all()


def test_units_fields_and_sequences_that_are_chosen(tmp_path):
    history = recorded(length=20, batch=(2, 3))
    options = {"units": [4, 1], "fields": ["forget_gate"], "sequences": [(1, 2)]}
    (series,) = data_of(lstmx.page(history, tmp_path / "p.html", **options))["series"]
    assert (series["name"], len(series["fields"])) == ("sequence 1, 2", 1)
    assert series["fields"][0]["units"] == [4, 1]
    np.testing.assert_allclose(
        decoded(series["fields"][0], 20), np.asarray(history.forget_gate)[:, 1, 2][:, [4, 1]], atol=0.01
    )
    data = data_of(lstmx.page(history, tmp_path / "p.html"))
    assert len(data["series"]) == 4
    assert "Of the batch, 4 sequences are shown" in data["about"]


def test_no_page_asks_the_network(tmp_path):
    page = lstmx.page(recorded(), tmp_path / "p.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page)
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


def test_what_a_page_refuses(tmp_path):
    history = recorded()
    batch = recorded(batch=(2,))
    flow = lstmx.gradient_flow(history)
    path = tmp_path / "p.html"
    for given, options, words in (
        (history, {"text": "short"}, "text has 5 characters; the history has 60 steps"),
        (history, {"text": [1] * 60}, "text is a list; expected a str, or a list of str"),
        (batch, {"text": "x" * 60}, "text is a str; expected one text for each of 2 sequences"),
        (history, {"units": [7]}, r"units is \[7\]; expected indices from 0 to 6"),
        (history, {"units": ["a"]}, "units is .*; expected a list of indices of units"),
        (history, {"fields": ["gate"]}, "fields has 'gate'; LSTM has hidden_state, cell_state, input_gate"),
        (history, {"fields": "forget_gate"}, "fields is 'forget_gate'; expected a list of names"),
        (history, {"sequences": [0]}, "this history has no batch axes: expected None"),
        (batch, {"sequences": [2]}, r"sequences has \(2,\); expected indices within the batch axes \(2,\)"),
        (history, {"signals": {"s": np.ones(3)}}, r"signals\['s'\] is float64 of shape \(3,\)"),
        (history, {"flow": {"a": flow}}, "flow and history are to be of one kind"),
        (history, {"flow": 3}, "flow is a int; expected the GradientFlow of this history"),
        (history, {"size": 1000}, "size is 1,000 bytes; one step of 42 numbers and the page itself take more"),
        ({}, {}, "history is empty"),
        ({"a": history, "b": recorded(length=50)}, {}, "histories are of"),
        ({"a": history}, {"flow": {"b": flow}}, "flow has the name 'b'; the histories are 'a'"),
        (3, {}, "history is a int"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            lstmx.page(given, path, **options)
    assert not path.exists()

    @jax.jit
    def inside(history):
        lstmx.page(history, path)

    with pytest.raises(TypeError, match="history is inside a JAX transformation"):
        inside(jax.tree.map(jax.numpy.asarray, history))
