"""The command line: reports, refusals, interruption; and the sentences of the summary."""

import numpy as np
import pytest

import lstmx
from lstmx.app.cli import main
from lstmx.app.reading import characters_that_matter, gate_by_character, tracked_properties
from lstmx.pages.signals import text_signals

TEXT = "".join(f'line {k}: the "quick" brown fox\n  jumps over {k * k} dogs.\n' for k in range(60))
SMALL = ["--hidden-size", "8", "--steps", "3"]
FIGURES = {
    "covariant.png",
    "dynamics.png",
    "saturation.png",
    "timescales.png",
    "comparison.png",
    "spectrum.png",
    "memory.png",
}
FILES = FIGURES | {"summary.txt", "parameters.safetensors", "history.npz"}


# Models of so few units match the first one's parameters by luck alone.
pytestmark = pytest.mark.filterwarnings("ignore:.* comes no nearer to the .* parameters of:UserWarning")


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.mark.slow  # trains three models; .ci/run makes a small deep dive on its own as well
def test_deep_dive_writes_its_report_and_again(tmp_path, text_file, capsys):
    arguments = ["deep-dive", "--text", str(text_file), *SMALL, "--output", str(tmp_path / "report")]
    assert main(arguments) == 0
    assert main(arguments) == 0
    folder = tmp_path / "report"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} >= FILES
    assert all((folder / name).stat().st_size > 5000 for name in FIGURES)
    printed = capsys.readouterr().out
    summary = (folder / "summary.txt").read_text(encoding="utf-8")
    assert summary in printed
    for word in (
        "character bigrams",
        "forget gate",
        "half",
        "SimpleRNN",
        "final cell state",
        "Lyapunov",
        "remembers",
    ):
        assert word in summary

    cell, params = lstmx.load(folder / "parameters.safetensors")
    assert isinstance(cell, lstmx.LSTM)
    with np.load(folder / "history.npz", allow_pickle=False) as saved:
        text = str(saved["text"])
        assert text == TEXT[round(len(TEXT) * 0.9) :][:2000]
        outputs, _ = lstmx.run(cell, params, saved["inputs"])
        np.testing.assert_allclose(saved["hidden_state"], outputs, atol=1e-6)
        assert saved["forget_gate"].shape == (len(text), 8)


@pytest.mark.slow
def test_a_deep_dive_of_another_cell(tmp_path, text_file):
    assert (
        main(["deep-dive", "--text", str(text_file), *SMALL, "--cell", "gru", "--output", str(tmp_path / "r")])
        == 0
    )
    assert isinstance(lstmx.load(tmp_path / "r" / "parameters.safetensors")[0], lstmx.GRU)


@pytest.mark.slow
def test_deep_dive_of_a_cell_without_gates_says_what_it_can(tmp_path, text_file):
    arguments = [
        "deep-dive",
        "--text",
        str(text_file),
        *SMALL,
        "--cell",
        "simple-rnn",
        "--output",
        str(tmp_path / "r"),
    ]
    assert main(arguments) == 0
    assert not (tmp_path / "r" / "saturation.png").exists()
    assert "final hidden state" in (tmp_path / "r" / "summary.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_foreign_folder_is_not_overwritten_unless_forced(tmp_path, text_file, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    arguments = ["deep-dive", "--text", str(text_file), *SMALL, "--output", str(folder)]
    assert main(arguments) == 2
    assert "holds files that no lstmx report wrote" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    assert main([*arguments, "--force"]) == 0
    assert (folder / "thesis.tex").read_text() == "years of work"


@pytest.mark.slow
def test_interrupted_training_still_reports(tmp_path, text_file, monkeypatch, capsys):
    from lstmx.app import cli

    def interrupted(text, **options):
        task = lstmx.tasks.next_character(text, **options)

        def batch(step):
            if step == 2:
                raise KeyboardInterrupt
            return task.batch(step)

        import dataclasses

        return dataclasses.replace(task, batch=batch)

    monkeypatch.setattr(cli, "next_character", interrupted)
    arguments = [
        "deep-dive",
        "--text",
        str(text_file),
        "--hidden-size",
        "8",
        "--steps",
        "9",
        "--output",
        str(tmp_path / "r"),
    ]
    assert main(arguments) == 0
    assert "interrupted: reporting on what was trained so far" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "r").iterdir()} >= FILES


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lstmx.LSTM, lstmx.GRU, lstmx.SimpleRNN])
def test_analyze_reports_on_your_own_arrays(tmp_path, kind):
    cell = kind(3, 5)
    params = cell.init(np.random.default_rng(0))
    np.savez(tmp_path / "p.npz", **params._asdict())
    np.save(tmp_path / "xs.npy", np.random.default_rng(1).standard_normal((40, 3)).astype("float32"))
    arguments = ["--inputs", str(tmp_path / "xs.npy"), "--parameters", str(tmp_path / "p.npz")]
    assert main(["analyze", *arguments, "--output", str(tmp_path / "out")]) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written >= {"dynamics.png", "summary.txt", "history.npz"}
    assert ("saturation.png" in written) == bool(cell.gate_blocks)
    assert repr(cell) in (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")


def _saved(tmp_path, xs, **arrays):
    np.savez(tmp_path / "p.npz", **arrays)
    np.save(tmp_path / "xs.npy", xs)
    return ["analyze", "--inputs", str(tmp_path / "xs.npy"), "--parameters", str(tmp_path / "p.npz")]


LSTM_ARRAYS = lstmx.LSTM(3, 5).init(np.random.default_rng(0))._asdict()
XS = np.zeros((4, 3), "float32")


@pytest.mark.parametrize(
    ("xs", "arrays", "match"),
    [
        (
            np.zeros((4, 7), "float32"),
            LSTM_ARRAYS,
            "xs.npy has 7 columns; the layer reads 3 features. Inputs are those of the layer",
        ),
        (np.zeros(4, "float32"), LSTM_ARRAYS, r"expected one sequence \[T, 3\]"),
        (
            np.zeros((4, 3), int),
            LSTM_ARRAYS,
            "xs.npy is int64; expected numbers of float32: --dtype float32 casts them",
        ),
        (np.array([{"a": 1}], dtype=object), LSTM_ARRAYS, "not a readable .npy file of numbers"),
        (XS, {"input_kernel": LSTM_ARRAYS["input_kernel"]}, "holds input_kernel; expected recurrent_kernel"),
        (XS, {**LSTM_ARRAYS, "peephole": XS}, r"has surplus peephole; LSTM\(.*\) has"),
        (XS, {**LSTM_ARRAYS, "bias": np.zeros(3, "float32")}, "params.bias has shape"),
        (XS, {k: v for k, v in LSTM_ARRAYS.items() if k != "bias"}, "lacks bias"),
    ],
)
def test_analyze_names_what_is_wrong(tmp_path, capsys, xs, arrays, match):
    arguments = _saved(tmp_path, xs, **arrays)
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    with pytest.raises(ValueError, match=match):
        raise ValueError(error)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_archive_is_named(tmp_path, capsys):
    (tmp_path / "p.npz").write_bytes(b"not an archive")
    np.save(tmp_path / "xs.npy", XS)
    main(["analyze", "--inputs", str(tmp_path / "xs.npy"), "--parameters", str(tmp_path / "p.npz")])
    assert "p.npz is not a readable .npz archive" in capsys.readouterr().err


def test_text_that_is_not_utf_8_is_named_with_its_byte(tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    assert main(["deep-dive", "--text", str(tmp_path / "latin.txt")]) == 2
    assert "is not UTF-8: byte 3 is 0xe9" in capsys.readouterr().err


def test_a_short_text_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "short.txt").write_text("too short")
    assert main(["deep-dive", "--text", str(tmp_path / "short.txt"), "--output", str(tmp_path / "r")]) == 2
    assert "text has 9 characters" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_text_signals_of_a_line():
    properties = text_signals('  a "bc" d\ne')
    np.testing.assert_array_equal(properties["the position in the line"], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1])
    np.testing.assert_array_equal(properties["the position in the word"], [0, 0, 1, 0, 1, 2, 3, 4, 0, 1, 0, 1])
    np.testing.assert_array_equal(properties["the line's indentation"], [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0])
    np.testing.assert_array_equal(properties["being inside double quotes"], [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0])


def test_a_unit_that_counts_is_found():
    rng = np.random.default_rng(0)
    cell = lstmx.LSTM(2, 6)
    history = lstmx.record(cell, cell.init(rng), rng.standard_normal((len(TEXT), 2)).astype("float32"))
    history.states.cell[:, 4] = -text_signals(TEXT)["the position in the line"]
    tracked = tracked_properties(history, TEXT)["the position in the line"]
    assert tracked.unit == 4
    assert tracked.correlation == pytest.approx(-1)


def test_gate_means_by_character():
    gate = np.array([[0.0, 0.2], [1.0, 1.0]] * 12)
    assert gate_by_character(gate, "ab" * 12) == pytest.approx({"a": 0.1, "b": 1.0})
    assert gate_by_character(gate, "ab" * 12, least=13) == {}


@pytest.mark.slow
def test_characters_that_matter_are_those_of_the_greatest_gradients():
    cell = lstmx.LSTM(2, 4)
    xs = np.random.default_rng(1).normal(size=(len(TEXT), 2)).astype("float32")
    flow = lstmx.gradient_flow(lstmx.record(cell, cell.init(np.random.default_rng(0)), xs))
    norms = np.linalg.norm(flow.inputs, axis=-1)
    lines = characters_that_matter(flow, TEXT, 3)
    assert [int(line.split()[1]) for line in lines] == np.argsort(-norms)[:3].tolist()
    step = int(np.argmax(norms))
    assert f"[{TEXT[step]}]".replace("\n", "⏎") in lines[0]


def test_version_and_help(capsys):
    for arguments in (["--version"], ["--help"], []):
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        assert exit.value.code == 0
    printed = capsys.readouterr().out
    assert f"lstmx {lstmx.__version__}" in printed
    assert printed.count("train small character models on English text") == 2
