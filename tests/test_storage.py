"""Cells and layers in safetensors files: what comes back, and what a file that is none says."""

import json
import stat

import jax
import numpy as np
import pytest
from reference import assert_same, is_in, to
from safetensors.numpy import load_file, save_file

import lstmx
from lstmx.arrays import leaves

STACK = lstmx.Stack(
    [
        lstmx.Zoneout(lstmx.GRU(3, 4, reset="before"), hidden=0.2),
        lstmx.Bidirectional(lstmx.LSTM(4, 2, projection=1, peepholes=True), merge="sum"),
        lstmx.SimpleRNN(1, 3, activation="relu"),
    ],
    dropout=0.25,
)
CELL = lstmx.LSTM(3, 5, forget_bias=2.5, coupled=True)


def saved(tmp_path, cell=CELL, dtype="float32"):
    params = cell.init(np.random.default_rng(0), dtype)
    lstmx.save(tmp_path / "cell.safetensors", cell, params)
    return tmp_path / "cell.safetensors", params


@pytest.mark.parametrize(
    "cell", [CELL, STACK, STACK.cells[0], STACK.cells[1]], ids=lambda cell: type(cell).__name__
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_one_library_saved_the_other_loads_and_back(tmp_path, cell, dtype, library):
    path, params = saved(tmp_path, cell, dtype)
    loaded, there = lstmx.load(path, library)
    assert loaded == cell
    assert is_in(library, there)
    assert_same(there, params)
    assert {x.dtype for x in leaves(there)} == {np.dtype(dtype)}
    other = "numpy" if library == "jax" else "jax"
    lstmx.save(path, loaded, there)
    assert_same(lstmx.load(path, other)[1], params)


def test_jax_is_what_is_loaded_where_it_is_installed(tmp_path):
    path, _ = saved(tmp_path)
    assert isinstance(lstmx.load(path)[1].bias, jax.Array)
    path, _ = saved(tmp_path, dtype="float64")
    with (
        jax.enable_x64(False),
        pytest.raises(ValueError, match=r"cell.safetensors: dtype is float64, but"),
    ):
        lstmx.load(path)
    assert lstmx.load(path, "numpy")[1].bias.dtype == np.float64


def test_names_and_metadata_can_be_read_without_lstmx(tmp_path):
    path, params = saved(tmp_path, STACK)
    arrays = load_file(path)
    np.testing.assert_array_equal(arrays["1.backward.projection"], params[1].backward.projection)
    assert set(arrays) >= {"0.input_kernel", "1.forward.peephole", "2.bias"}
    head = path.read_bytes()
    words = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])["__metadata__"]
    assert words["lstmx"] == "1"
    cell = json.loads(words["cell"])
    assert (cell["kind"], cell["options"]["dropout"]) == ("Stack", 0.25)
    assert cell["options"]["cells"][0]["options"]["cell"]["options"]["reset"] == "before"


def test_an_older_file_stays_where_a_new_one_cannot_be_written(tmp_path, monkeypatch):
    path, params = saved(tmp_path)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        lstmx.save(path, CELL, CELL.init(1))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert_same(lstmx.load(path, "numpy")[1], params)
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


# ------------------------------------------------------------------------------------------------------ errors


def changed(path, words=None, **arrays):
    """The file with other metadata, and with arrays added or (None) taken away."""
    head = path.read_bytes()
    metadata = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])["__metadata__"]
    whole = {name: array for name, array in (load_file(path) | arrays).items() if array is not None}
    save_file(whole, path, metadata=metadata | (words or {}))


@pytest.mark.parametrize(
    ("words", "arrays", "message"),
    [
        ({"lstmx": "2"}, {}, "is of format 2; this version of lstmx reads format 1"),
        ({"cell": "{"}, {}, "cell.safetensors: "),
        ({"cell": "[]"}, {}, "a cell is described by its kind and options"),
        (
            {"cell": '{"kind": "TCN", "options": {}}'},
            {},
            "a cell 'TCN' is described; this version knows",
        ),
        (
            {"cell": '{"kind": "GRU", "options": {"input_size": 3, "hidden_size": 5, "flux": 1}}'},
            {},
            "GRU is described with flux, which this version does not know",
        ),
        ({"cell": '{"kind": "GRU", "options": {"input_size": 3}}'}, {}, "options that it refuses: .*hidden_size"),
        ({"cell": '{"kind": "GRU", "options": {"input_size": 3, "hidden_size": -5}}'}, {}, "hidden_size is -5"),
        ({}, {"bias": None}, r"cell.safetensors: lacks bias; LSTM\(.*\) has input_kernel, recurrent_kernel, bias"),
        ({}, {"peephole": np.zeros(3, "float32")}, "has surplus peephole"),
        ({}, {"bias": np.zeros(3, "float32")}, r"params.bias has shape \(3,\); LSTM.* expects \(15,\)"),
    ],
)
def test_a_file_that_does_not_fit_says_why(tmp_path, words, arrays, message):
    path, _ = saved(tmp_path)
    changed(path, words, **arrays)
    with pytest.raises(ValueError, match=message):
        lstmx.load(path)


def test_arrays_of_another_dtype_are_refused(tmp_path):
    path, params = saved(tmp_path)
    changed(path, bias=params.bias.astype("float16"))
    with pytest.raises(TypeError, match=r"cell.safetensors: params hold float16, float32; expected float32 or"):
        lstmx.load(path)


def test_arrays_of_layers_are_named_where_they_are_missing_or_surplus(tmp_path):
    path, _ = saved(tmp_path, STACK)
    changed(path, **{"1.forward.bias": None})
    with pytest.raises(ValueError, match=r"lacks 1.forward.bias"):
        lstmx.load(path)
    path, _ = saved(tmp_path, STACK)
    changed(path, **{"3.bias": np.zeros(3, "float32")})
    with pytest.raises(ValueError, match=r"surplus 3.bias; Stack"):
        lstmx.load(path)


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_file_cut_short_says_so(tmp_path, size):
    path, _ = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"cell.safetensors is cut short, or no safetensors file"):
        lstmx.load(path)


def test_foreign_and_absent_files_are_named(tmp_path):
    save_file({"weight_ih_l0": np.zeros((20, 3), "float32")}, tmp_path / "torch.safetensors")
    with pytest.raises(ValueError, match=r"holds no cell of lstmx, but weight_ih_l0; .* lstmx.convert"):
        lstmx.load(tmp_path / "torch.safetensors")
    with pytest.raises(FileNotFoundError):
        lstmx.load(tmp_path / "nothing.safetensors")
    path, params = saved(tmp_path)
    with pytest.raises(ValueError, match="library is 'torch'; expected one of 'jax', 'numpy'"):
        lstmx.load(path, "torch")
    with pytest.raises(TypeError, match=r"params is a LSTMParams; GRU.* expects GRUParams"):
        lstmx.save(path, lstmx.GRU(3, 5), params)


def test_a_saved_stack_runs_as_before(tmp_path, library):
    path, params = saved(tmp_path, STACK)
    xs = np.random.default_rng(1).normal(size=(6, 2, 3)).astype("float32")
    stack, loaded = lstmx.load(path, library)
    given = to(library, (params, xs))
    assert_same(lstmx.run(stack, loaded, given[1]), lstmx.run(STACK, *given))
