"""The page as a file: its numbers, its size, and what it refuses."""

import base64
import json
import re
import signal

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
    data = data_of(lstmx.page(history, tmp_path / "p.html", flow=flow))
    (series,) = data["series"]
    assert (data["steps"], data["every"]) == (60, 1)
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
        skipped = np.concatenate([np.arange(*run) for run in series["skipped"]])
        np.testing.assert_array_equal(skipped, np.flatnonzero(~mask[:, b]))


@pytest.mark.parametrize("disk", [False, True])
def test_time_scales_are_those_of_each_sequence(disk, tmp_path):
    history = recorded(length=60, batch=(2,), lengths=np.array([60, 25]))
    scales = [lstmx.gate_statistics(history.sequence(b)).timescale for b in range(2)]
    if disk:
        history.save(tmp_path / "pass")
        history = lstmx.load_history(tmp_path / "pass")
    for series, scale in zip(data_of(lstmx.page(history, tmp_path / "p.html"))["series"], scales, strict=True):
        np.testing.assert_allclose(series["timescale"], scale, rtol=1e-4)


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


def test_contributions_are_those_of_each_sequence(tmp_path):
    stack = lstmx.Stack([lstmx.Bidirectional(lstmx.GRU(3, 4)), lstmx.LSTM(8, 6)])
    xs = RNG(0).normal(size=(20, 2, 3)).astype("float32")
    history = lstmx.record(stack, stack.init(RNG(1)), xs, lengths=np.array([20, 7]))
    found = lstmx.attribute(history, np.ones(6, "float32"))
    data = data_of(lstmx.page(history, tmp_path / "p.html", attribution=found))
    for one in data["series"]:
        sequence = int(one["name"][-1])
        np.testing.assert_allclose(one["contribution"], found.steps[:, sequence], rtol=1e-4)


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
    (read,) = data["texts"]
    assert "".join(read["tokens"]) == text
    assert read["signals"]["the depth of brackets"][:10] == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert read["signals"]["being inside double quotes"][9:19] == [0, 1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert "the line's indentation" not in read["signals"]  # it is 0 throughout
    assert data["signals"] == {"own": own.tolist()}
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<title>A &lt; B</title>" in page
    words = data_of(lstmx.page(passes, tmp_path / "p.html", text=["</script>"] * len(text)))["texts"][0]["tokens"]
    assert words == ["</script>"] * len(text)
    words = data_of(lstmx.page(passes, tmp_path / "p.html", text=["{{script}}"] * len(text)))["texts"][0]["tokens"]
    assert words == ["{{script}}"] * len(text)


def test_2000_steps_of_128_units_and_6_fields_are_at_most_3_megabytes(tmp_path):
    history = recorded(lstmx.LSTM(3, 128), length=2000)
    flow = lstmx.gradient_flow(history, outputs="norms")
    path = lstmx.page(history, tmp_path / "p.html", flow=flow, text="x" * 2000)
    data = data_of(path)
    assert (data["steps"], data["every"], len(data["series"][0]["fields"])) == (2000, 1, 6)
    assert path.stat().st_size <= 3_000_000


@pytest.mark.parametrize("disk", [False, True])
def test_longer_passes_show_every_kth_step_and_say_so(disk, tmp_path):
    history = recorded(length=5000)
    if disk:
        history.save(tmp_path / "pass")
        history, whole = lstmx.load_history(tmp_path / "pass"), history
    else:
        whole = history
    path = lstmx.page(history, tmp_path / "p.html", text="abcde" * 1000, size=130_000)
    assert path.stat().st_size <= 130_000
    data = data_of(path)
    series = data["series"][0]
    every = data["every"]
    assert f"One step in {every} is shown" in data["about"]
    tokens = data["texts"][0]["tokens"]
    assert tokens[0] == ("abcde" * 1000)[:every]
    assert "".join(tokens) == "abcde" * 1000
    values = np.asarray(whole.forget_gate)[::every]
    (gate,) = [one for one in series["fields"] if one["name"] == "forget gate"]
    assert (np.abs(decoded(gate, len(values)) - values) <= np.ptp(values, axis=0) / 255).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["codes", "text", "norms and signals"])
def test_a_size_is_a_bound_that_is_used(kind, tmp_path):
    history = recorded(length=4000)
    options = {
        "codes": {},
        "text": {"text": ["<é\n\x01" * 9] * 4000, "fields": ["hidden_state"], "units": [0]},
        "norms and signals": {
            "flow": lstmx.gradient_flow(history, outputs="norms"),
            "signals": {"s": np.exp(np.arange(4000) / 50)},
        },
    }[kind]
    whole = lstmx.page(history, tmp_path / "p.html", size=10**9, **options).stat().st_size
    with pytest.raises(
        ValueError, match=r"size is 2,000 bytes; one step of .* and the page itself take"
    ) as refused:
        lstmx.page(history, tmp_path / "p.html", size=2000, **options)
    least = int(re.search(r"take ([\d,]+):", str(refused.value))[1].replace(",", ""))
    for size in (least, least + 2000, (least + whole) // 2, whole + 20_000):
        path = lstmx.page(history, tmp_path / "p.html", size=size, **options)
        every = data_of(path)["every"]
        assert path.stat().st_size <= size
        if every > 1:  # one step fewer between those shown were too many
            more = (size - least) / (every - 1) * every
            assert path.stat().st_size >= size - (more - (size - least)) - 2500
    assert every == 1


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "p.html"
    path.write_text("older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as of a disk that is full
        with pytest.raises(OSError, match="File too large"):
            lstmx.page(recorded(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("older", [path])


def test_half_of_a_character_is_refused_by_name(tmp_path):
    path = tmp_path / "p.html"
    path.write_text("older")
    history = recorded()
    for given, options, words in (
        (history, {"text": "x" * 9 + "\ud800" * 51}, r"text has '\\ud800' at character 9"),
        (history, {"text": ["x"] * 59 + ["\ud800"]}, r"text has '\\ud800'"),
        (history, {"title": "\ud800"}, r"title has '\\ud800' at character 0, half of a character"),
        (history, {"signals": {"\ud800": np.arange(60)}}, "a name of signals has"),
        ({"\ud800": history}, {}, "a name of history has"),
    ):
        with pytest.raises(ValueError, match=words):
            lstmx.page(given, path, **options)
    assert path.read_text() == "older"


def test_a_flow_of_another_pass_is_refused(tmp_path):
    history, batch = recorded(), recorded(batch=(3,))
    flow_of = lstmx.gradient_flow
    stacks = [lstmx.Stack([lstmx.GRU(3, 3) for _ in range(count)]) for count in (2, 3)]
    two, three = (recorded(stack) for stack in stacks)
    wider = recorded(lstmx.Stack([lstmx.GRU(3, 3), lstmx.GRU(3, 4)]))
    for given, flow, words in (
        (
            history,
            flow_of(recorded(length=50)),
            r"flow is of another pass, of \[T, \*batch\] = \(50,\); .* \(60,\)",
        ),
        (history, flow_of(batch), r"flow is of another pass, .* \(60, 3\); expected \(60,\)"),
        (batch, flow_of(history), r"flow is of another pass, .* \(60,\); expected \(60, 3\)"),
        (batch, flow_of(recorded(batch=(2,))), r"\(60, 2\); expected \(60, 3\)"),
        (history, flow_of(recorded(lstmx.LSTM(3, 5))), "flow is of another cell, with LSTMParams of shapes"),
        (history, flow_of(recorded(lstmx.GRU(3, 7))), "with GRUParams of shapes .*; expected LSTMParams"),
        (two, flow_of(three), "flow is of layer 0, layer 1, layer 2; the history is of layer 0, layer 1"),
        (two, flow_of(wider), r"flow\['layer 1'\] is of another cell"),
    ):
        with pytest.raises(ValueError, match=words):
            lstmx.page(given, tmp_path / "p.html", flow=flow)
    with pytest.raises(ValueError, match=r"flow\['a'\] is of another pass"):
        lstmx.page({"a": history}, tmp_path / "p.html", flow={"a": flow_of(batch)})


def test_what_the_page_says_of_itself(tmp_path):
    path = tmp_path / "p.html"
    assert data_of(lstmx.page(recorded(length=1), path))["about"] == f"{lstmx.LSTM(3, 7)!r}: 1 step."
    both = lstmx.Bidirectional(lstmx.LSTM(3, 4))
    assert data_of(lstmx.page(recorded(both), path, units=[3]))["about"].split("\n") == [
        f"{both!r}: 60 steps.",
        "Of the units, 1 is shown.",
    ]
    lstmx.page(recorded(batch=(5,)), path)
    assert "<title>gates of LSTM</title>" in path.read_text(encoding="utf-8")
    assert data_of(path)["about"].endswith("4 of 5 sequences are shown: sequences= names others.")


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
    assert "4 of 6 sequences are shown" in data["about"]


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
        (history, {"text": [1] * 60}, "text has a int; expected a str, or a list of str"),
        (history, {"text": [None] * 60}, "text has a NoneType; expected a str, or a list of str"),
        (batch, {"text": "x" * 60}, "text is a str; expected a list with one text for each of 2 sequences"),
        (history, {"units": [7]}, r"units is \[7\]; expected indices from 0 to 6"),
        (history, {"units": ["a"]}, "units is .*; expected a list of indices of units"),
        (history, {"fields": ["gate"]}, "fields has 'gate'; LSTM has hidden_state, cell_state, input_gate"),
        (history, {"fields": "forget_gate"}, "fields is 'forget_gate'; expected a list of names"),
        (history, {"sequences": [0]}, "this history has no batch axes: expected None"),
        (batch, {"sequences": [2]}, r"sequences has \(2,\); expected indices within the batch axes \(2,\)"),
        (batch, {"sequences": 1}, r"sequences is 1; expected a list of sequences, such as \[0, 3\]"),
        (batch, {"sequences": [True]}, r"sequences has \(True,\); expected integers"),
        (batch, {"sequences": [0, 0]}, r"sequences is \[0, 0\]; expected at least one, none twice"),
        (history, {"fields": ["hidden_state"] * 2}, "fields is .*; expected a list of names, none twice"),
        (history, {"signals": [1, 2]}, r"signals is a list; expected a dict of numbers \[T\] by name"),
        (history, {"signals": {1: np.ones(60)}}, "a name of signals is 1; expected a str"),
        (history, {"signals": {"s": np.ones(3)}}, r"signals\['s'\] has shape \(3,\); expected \[T\], \(60,\)"),
        (history, {"signals": {"s": ["a"] * 60}}, r"signals\['s'\] is a list; expected real numbers or booleans"),
        (
            history,
            {"signals": {"s": [*range(59), np.nan]}},
            r"signals\['s'\] holds NaN or infinity, first at step 59",
        ),
        (history, {"title": 5}, "title is 5; expected a str"),
        ({1: history}, {}, "a name of history is 1; expected a str"),
        (history, {"flow": {"a": flow}}, "flow and history are to be of one kind"),
        (history, {"attribution": flow}, "attribution is a GradientFlow; expected what lstmx.attribute gives"),
        (
            history,
            {"attribution": lstmx.attribute(recorded(length=40), np.ones(7, "float32"))},
            r"attribution is of another pass, of .* = \(40,\); expected \(60,\)",
        ),
        (history, {"flow": 3}, "flow is a int; expected the GradientFlow of this history"),
        (history, {"size": 1000}, "size is 1,000 bytes; one step of 42 numbers and the page itself take"),
        ({}, {}, "history is empty"),
        (
            {"a": history, "b": recorded(length=50)},
            {},
            r"passes of different \[T, \*batch\], 'a': \(60,\), 'b': \(50,\)",
        ),
        ({"a": history}, {"flow": {"b": flow}}, "flow has the name 'b'; the histories are 'a'"),
        (3, {}, "history is a int"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            lstmx.page(given, path, **options)
    assert not path.exists()
    for name in ("", "a\0b", str(tmp_path)):
        with pytest.raises(ValueError, match=r"path is '.*'; expected the name of a file, such as 'gates.html'"):
            lstmx.page(history, name)

    @jax.jit
    def inside(history):
        lstmx.page(history, path)

    with pytest.raises(TypeError, match="history is inside a JAX transformation"):
        inside(jax.tree.map(jax.numpy.asarray, history))
