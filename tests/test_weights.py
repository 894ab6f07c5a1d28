"""`lstmx analyze --weights`: files of every kind, their layers, and what it says where they do not fit."""

import io
import os
import shutil
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

import lstmx
from lstmx.app import report
from lstmx.app.cli import main
from lstmx.app.storage import save_with
from lstmx.app.weights import features_of_text, read_weights, vocabulary_of

os.environ.setdefault("KERAS_BACKEND", "jax")
XS = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
slow = pytest.mark.slow
frameworks = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _figures_are_not_drawn(monkeypatch):
    """They are drawn in `test_cli.py`."""
    monkeypatch.setattr(report, "_save", lambda figure, path: None)


def state_dict(d=3, h=4, layers=1, prefix=""):
    """Of a GRU of PyTorch."""
    draws = np.random.default_rng(0)
    made = {}
    for k in range(layers):
        shapes = {"weight_ih": (3 * h, h if k else d), "weight_hh": (3 * h, h)}
        shapes |= {"bias_ih": (3 * h,), "bias_hh": (3 * h,)}
        made |= {f"{prefix}{n}_l{k}": draws.normal(size=s).astype("float32") for n, s in shapes.items()}
    return made


def analyze(tmp_path, weights, *options, inputs=XS):
    """Exit status of the command on this file."""
    path = tmp_path / "xs.npy"
    if isinstance(inputs, str):
        path = tmp_path / "text.txt"
        path.write_text(inputs, encoding="utf-8")
    else:
        np.save(path, inputs)
    return main(
        ["analyze", "--weights", str(weights), "--inputs", str(path), "--output", str(tmp_path / "out"), *options]
    )


def summary(tmp_path):
    return (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")


@slow  # every analysis of 210 steps; the test of layers is the quick one
def test_a_model_of_lstmx_reads_text_with_its_vocabulary(tmp_path, capsys):
    text = "the quick brown fox. " * 10
    characters = "".join(sorted(set(text)))
    cell = lstmx.LSTM(len(characters), 6)
    codes = np.array([ord(character) for character in characters], np.uint32)
    save_with(tmp_path / "m.safetensors", cell, cell.init(0), {"vocabulary": codes})
    assert vocabulary_of(tmp_path / "m.safetensors") == characters
    assert analyze(tmp_path, tmp_path / "m.safetensors", inputs=text) == 0
    printed = capsys.readouterr()
    assert "characters of the model's vocabulary" in summary(tmp_path)
    assert "The forget gate depends on what is read" in printed.out
    assert printed.err == ""  # no bar where the output is no terminal
    with np.load(tmp_path / "out" / "history.npz") as saved:
        np.testing.assert_array_equal(saved["inputs"].argmax(axis=1), [characters.index(c) for c in text])
    assert analyze(tmp_path, tmp_path / "m.safetensors", inputs="Zebra") == 2
    assert "the text has 'Z', which the model's" in capsys.readouterr().err


@pytest.mark.slow
def test_layers_are_listed_and_chosen(tmp_path, capsys):
    weights = tmp_path / "torch.safetensors"
    save_file(state_dict(prefix="encoder.rnn.", layers=2) | state_dict(prefix="decoder."), weights)
    assert analyze(tmp_path, weights) == 2
    assert "several recurrent layers: choose one with --layer NAME, or --layer all; those are" in (
        error := capsys.readouterr().err
    )
    assert "those are: 'decoder', 'encoder.rnn'" in error
    assert analyze(tmp_path, weights, "--layer", "encoder.rnn") == 2
    assert "those are 'encoder.rnn: layer 0', 'encoder.rnn: layer 1'" in capsys.readouterr().err
    assert analyze(tmp_path, weights, "--layer", "encoder") == 2
    assert "has no recurrent layer 'encoder'; those are" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert analyze(tmp_path, weights, "--layer", "encoder.rnn: layer 1") == 0
    assert "torch.safetensors, encoder.rnn: layer 1, on 60 steps" in summary(tmp_path)
    cell, params, _, _ = read_weights(weights, "encoder.rnn")
    with np.load(tmp_path / "out" / "history.npz") as saved:
        np.testing.assert_allclose(saved["hidden_state"], lstmx.run(cell, params, XS)[0], atol=1e-6)


def test_files_that_are_none_are_named(tmp_path, capsys):
    (tmp_path / "model.pkl").write_bytes(b"")
    assert analyze(tmp_path, tmp_path / "model.pkl") == 2
    assert "model.pkl ends in .pkl; expected one of .safetensors, .pt" in capsys.readouterr().err
    assert analyze(tmp_path, tmp_path / "absent.pt") == 2
    assert "there is no file" in capsys.readouterr().err
    save_file({"linear.weight": np.zeros(3, "float32")}, tmp_path / "other.safetensors")
    assert analyze(tmp_path, tmp_path / "other.safetensors") == 2
    assert "has no recurrent layer that lstmx knows" in capsys.readouterr().err


def test_text_whose_features_are_not_known_is_refused():
    codes, words = features_of_text("né", 256, None)
    assert (codes.argmax(axis=1).tolist(), words) == (list("né".encode()), "bytes of the text")
    codes, words = features_of_text("abca", 3, None)
    assert (codes.argmax(axis=1).tolist(), words) == ([0, 1, 2, 0], "the text's own characters in order")
    with pytest.raises(ValueError, match="the layer reads 4 features, and the text has 3 different characters"):
        features_of_text("abca", 4, None)


def test_cells_inside_layers_have_names():
    stack = lstmx.Stack([lstmx.GRU(3, 2), lstmx.Bidirectional(lstmx.GRU(2, 2))])
    assert stack.cell_names() == ["layer 0", "layer 1, forward", "layer 1, backward"]


@slow
@frameworks
def test_a_file_of_pytorch(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="it reads a file of PyTorch")
    module = torch.nn.Sequential(torch.nn.LSTM(3, 5, bidirectional=True))
    torch.save({"epoch": 3, "model": module.state_dict()}, tmp_path / "model.pt")
    assert analyze(tmp_path, tmp_path / "model.pt", "--layer", "model.0: backward") == 0
    with np.load(tmp_path / "out" / "history.npz") as saved:
        outputs = module[0](torch.tensor(XS))[0].detach().numpy()
        np.testing.assert_allclose(saved["hidden_state"][::-1], outputs[:, 5:], atol=1e-6)
    torch.save(module, tmp_path / "whole.pt")
    assert analyze(tmp_path, tmp_path / "whole.pt") == 2
    assert "save its weights alone, by torch.save(model.state_dict()" in capsys.readouterr().err
    (tmp_path / "short.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:500])
    assert analyze(tmp_path, tmp_path / "short.pt") == 2


@slow
@frameworks
@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_model_of_keras(tmp_path, suffix):
    keras = pytest.importorskip("keras", reason="it reads a model of Keras")
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(5, return_sequences=True, name="rnn")])
    model.save(tmp_path / f"model.{suffix}")
    assert analyze(tmp_path, tmp_path / f"model.{suffix}") == 0
    with np.load(tmp_path / "out" / "history.npz") as saved:
        np.testing.assert_allclose(saved["hidden_state"], np.asarray(model(XS[None]))[0], atol=1e-5)


@slow
@frameworks
def test_a_model_of_onnx_and_files_cut_short(tmp_path, capsys):
    pytest.importorskip("onnx", reason="it reads a model of ONNX")
    cell = lstmx.GRU(3, 4)
    params = cell.init(np.random.default_rng(0))
    whole = lstmx.convert.to_onnx(cell, params).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(whole)
    assert analyze(tmp_path, tmp_path / "model.onnx", "--layer", "gru") == 0
    assert "model.onnx, gru, on 60 steps" in summary(tmp_path)
    for name in ("short.onnx", "short.keras", "short.h5"):
        (tmp_path / name).write_bytes(whole[:100])
        assert analyze(tmp_path, tmp_path / name) == 2
        assert name in capsys.readouterr().err


# -------------------------------------------------------------------------------------- names, notes and damage


def test_a_part_of_a_module_of_one_cell_is_refused_and_whole_names_come_first(tmp_path, capsys):
    save_file(state_dict(prefix="rnn."), tmp_path / "m.safetensors")
    assert analyze(tmp_path, tmp_path / "m.safetensors", "--layer", "rnn: layer 7") == 2
    assert "rnn is one cell, and has no 'layer 7' inside" in capsys.readouterr().err
    both = state_dict(prefix="enc: fwd.") | state_dict(h=5, prefix="enc.")
    save_file(both, tmp_path / "m.safetensors")
    assert read_weights(tmp_path / "m.safetensors", "enc: fwd")[0].hidden_size == 4
    assert read_weights(tmp_path / "m.safetensors", "enc")[0].hidden_size == 5
    save_file(state_dict(prefix="state_dict.model.rnn."), tmp_path / "m.safetensors")
    assert read_weights(tmp_path / "m.safetensors", "model.rnn")[2:] == ("state_dict.model.rnn", "")


def test_choices_that_a_file_has_no_use_for_are_refused(tmp_path, capsys):
    save_file(state_dict(), tmp_path / "m.safetensors")
    lstmx.save(tmp_path / "own.safetensors", lstmx.GRU(3, 4), lstmx.GRU(3, 4).init(np.random.default_rng(0)))
    for name, options, words in (
        ("m", ("--reset", "after"), "leaves no reset to choose: expected none, got 'after'"),
        ("m", ("--nonlinearity", "relu"), "nonlinearity is 'relu'; the state dict holds a GRU"),
        ("own", ("--nonlinearity", "relu"), "leaves no nonlinearity to choose"),
    ):
        assert analyze(tmp_path, tmp_path / f"{name}.safetensors", *options) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_cast_and_a_backward_layer_are_said(tmp_path):
    arrays = state_dict() | {f"{name}_reverse": x for name, x in state_dict().items()}
    save_file({name: x.astype("float16") for name, x in arrays.items()}, tmp_path / "m.safetensors")
    options = ("--dtype", "float32", "--layer", ": backward")
    assert analyze(tmp_path, tmp_path / "m.safetensors", *options) == 0
    assert "Assumed: weights of another dtype are cast to float32, as asked for." in summary(tmp_path)
    assert "It reads backwards: its step 0 is the last step of the inputs" in summary(tmp_path)


@slow
@frameworks
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning", "ignore:.*TypedStorage:UserWarning")
def test_damaged_files_and_odd_arrays_end_in_one_sentence(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="it writes files of PyTorch")
    files = pytest.importorskip("safetensors.torch", reason="NumPy has no numbers of eight bits to write")
    onnx = pytest.importorskip("onnx", reason="it damages a model of ONNX")
    arrays = torch.nn.GRU(3, 4).state_dict()
    torch.save({k: v.to("meta") for k, v in arrays.items()}, tmp_path / "meta.pt")
    torch.save({k: v.to_sparse() for k, v in arrays.items()}, tmp_path / "sparse.pt")
    torch.save({k: v.to(torch.int32) for k, v in arrays.items()}, tmp_path / "int32.pt")
    files.save_file({k: v.to(torch.float8_e4m3fn) for k, v in arrays.items()}, tmp_path / "f8.safetensors")
    for name in ("junk.pt", "junk.keras", "junk.h5", "junk.onnx", "junk.msgpack"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 no such file")
    with zipfile.ZipFile(tmp_path / "n.npz", "w") as archive:
        archive.writestr("recurrent_kernel.npy", b"")
    cell = lstmx.GRU(3, 4)
    model = lstmx.convert.to_onnx(cell, cell.init(np.random.default_rng(0)))
    kind, short, words = (onnx.ModelProto() for _ in range(3))
    for one in (kind, short, words):
        one.CopyFrom(model)
    kind.graph.initializer[0].data_type = 99
    short.graph.initializer[0].raw_data = short.graph.initializer[0].raw_data[:-3]
    words.graph.node[0].attribute.append(onnx.helper.make_attribute("activations", [1, 2]))
    for name, one in (("kind", kind), ("short", short), ("words", words)):
        (tmp_path / f"{name}.onnx").write_bytes(one.SerializeToString())
    for name, said in {
        "meta.pt": "weight_ih_l0 holds no numbers (device meta)",
        "sparse.pt": "weight_ih_l0 is sparse",
        "int32.pt": "weight_ih_l0 is int32, as quantisation stores weights",
        "f8.safetensors": "holds numbers that quantisation stores",
        "junk.pt": "holds no plain weights, or is cut short",
        "junk.keras": "is cut short, or no .keras file",
        "junk.h5": "is no readable .h5 file",
        "junk.onnx": "is no readable model of ONNX",
        "junk.msgpack": "is cut short, or not what flax.serialization.to_bytes wrote",
        "n.npz": "holds 'recurrent_kernel', which is no array",
        "kind.onnx": "the tensor 'W' is damaged, or of an unknown kind",
        "short.onnx": "the tensor 'W' is damaged, or of an unknown kind",
        "words.onnx": "has activations [1, 2]; expected a list of str",
    }.items():
        assert analyze(tmp_path, tmp_path / name) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "weights_only" not in error


# ------------------------------------------------------------------------------------- files that promise more


def npy(shape, size):
    """An .npy whose header says `shape`, with `size` bytes behind it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(size)


@pytest.mark.parametrize("shape", [(10**6, 10**6), (10**30, 3), (-5, 3)])
def test_a_header_that_says_more_than_the_file_has_is_refused_before_anything_is_allocated(
    tmp_path, capsys, shape
):
    np.savez(tmp_path / "good.npz", **lstmx.SimpleRNN(3, 4).init(np.random.default_rng(0))._asdict())
    (tmp_path / "xs.npy").write_bytes(npy(shape, 16))
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as archive:
        archive.writestr("recurrent_kernel.npy", npy(shape, 16))
    xs, big = str(tmp_path / "xs.npy"), str(tmp_path / "big.npz")
    np.save(tmp_path / "right.npy", XS)
    for weights, inputs in ((tmp_path / "good.npz", xs), (big, tmp_path / "right.npy")):
        arguments = ["--weights", str(weights), "--inputs", str(inputs), "--output", str(tmp_path / "out")]
        assert main(["analyze", *arguments]) == 2
        error = capsys.readouterr().err
        assert f"is said to be {shape} of float32, and the file has" in error
        assert error.count("\n") == 1


def test_json_that_nests_without_end_is_one_line(tmp_path, capsys):
    deep = "[" * 100_000 + "]" * 100_000
    metadata = {"lstmx": "1", "cell": deep}
    save_file({"recurrent_kernel": np.zeros((4, 16), "float32")}, tmp_path / "m.safetensors", metadata)
    assert analyze(tmp_path, tmp_path / "m.safetensors") == 2
    assert capsys.readouterr().err.endswith("m.safetensors: its JSON is nested too deep to be read\n")
    with pytest.raises(ValueError, match="its JSON is nested too deep"):
        lstmx.load(tmp_path / "m.safetensors")


@slow  # a framework to import
@frameworks
def test_models_of_keras_with_more_units_than_numbers_are_not_built(tmp_path, capsys):
    keras = pytest.importorskip("keras", reason="it reads its files")
    h5py = pytest.importorskip("h5py", reason="it reads its files")
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, name="one")])
    model.save(tmp_path / "right.keras")
    model.save(tmp_path / "right.h5")
    units = ('"units": 4', f'"units": {10**9}')

    def changed(name, change):
        with zipfile.ZipFile(tmp_path / "right.keras") as old, zipfile.ZipFile(tmp_path / name, "w") as new:
            for part in old.namelist():
                new.writestr(part, change(part, old.read(part).decode("latin-1")).encode("latin-1"))

    deep = "[" * 100_000 + "]" * 100_000
    version = '{"keras_version": "2.12.0"}'
    changed("units.keras", lambda part, text: text.replace(*units))
    changed("old.keras", lambda part, text: version if part == "metadata.json" else text.replace(*units))
    changed("features.keras", lambda part, text: text.replace("3]", f"{10**9}]"))
    changed("deep.keras", lambda part, text: deep if part == "config.json" else text)
    changed("version.keras", lambda part, text: deep if part == "metadata.json" else text)
    changed("none.keras", lambda part, text: "" if part.endswith(".h5") else text)
    shutil.copy(tmp_path / "right.h5", tmp_path / "units.h5")
    with h5py.File(tmp_path / "units.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace(*units)
    with h5py.File(tmp_path / "said.weights.h5", "w") as file:
        file.create_dataset("a/a/lstm_cell/recurrent_kernel:0", (10**6, 4 * 10**6), "f4", chunks=(1000, 1000))
    much = "has units=1000000000, and the file holds 128 numbers in all: it is damaged"
    for name, words in {
        "units.keras": much,
        "old.keras": much,
        "units.h5": much.replace("128", "129"),
        "features.keras": "features, and the file holds",
        "deep.keras": "cannot be read: its JSON is nested too deep",
        "version.keras": "its JSON is nested too deep",
        "none.keras": "holds no readable weights",
        "said.weights.h5": "recurrent_kernel:0 is said to be (1000000, 4000000)",
    }.items():
        assert analyze(tmp_path, tmp_path / name) == 2, name
        error = capsys.readouterr().err
        assert words.split(", and the file holds")[0] in error, error
        assert error.count("\n") == 1
    assert read_weights(tmp_path / "right.keras")[0] == read_weights(tmp_path / "right.h5")[0]
