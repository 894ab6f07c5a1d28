"""Histories on disk: what was saved comes back to the bit, by any reader of Zarr, and errors say what is wrong."""

import json
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import family
import jax
import numpy as np
import pytest
import xarray
import zarr
from reference import assert_close, assert_same, is_in, random_history, to

import lstmx
from lstmx.cells.description import cell_from, described
from lstmx.history import store as disk


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(disk, "_CHUNK", 64)


def recorded(name, batch=(), keep="all", library="numpy", length=7):
    cell = family.of_size(3, 4)[name]
    params, state, xs, _ = family.draw(cell, batch, length=length)
    return lstmx.record(cell, *to(library, (params, xs, state)), keep=keep)


def assert_bitwise(found, expected):
    assert found.cell == expected.cell
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


# ----------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", family.one_of_each_form(family.NAMES))
def test_a_cell_is_known_by_its_description(name):
    cell = family.of_size(3, 4)[name]
    assert cell_from(json.loads(json.dumps(described(cell)))) == cell


def test_cells_inside_cells_are_described():
    cell = lstmx.Zoneout(lstmx.JANET(2, 3, beta=np.float32(0.5)), hidden=0.25)
    assert cell_from(json.loads(json.dumps(described(cell)))) == cell


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"kind": "Perceptron", "options": {}}, "'Perceptron' is described; this version knows GRU, JANET, LSTM"),
        (
            {"kind": "LSTM", "options": {"input_size": 1, "hidden_size": 1, "depth": 2}},
            "described with depth, which this version",
        ),
        ({"kind": "LSTM", "options": {"input_size": 1}}, "hidden_size"),
        ({"kind": "LSTM"}, "described by its kind and options"),
    ],
)
def test_what_describes_no_cell(description, message):
    with pytest.raises(ValueError, match=message):
        cell_from(description)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("batch", "keep"),
    [
        ((), "all"),
        ((2, 3), "states"),
        *(pytest.param((2,), keep, marks=pytest.mark.slow) for keep in ("all", "states")),
    ],
)
def test_a_saved_history_comes_back(library, keep, batch, tmp_path):
    history = random_history(lstmx.LSTM, library, keep, batch=batch)
    history.save(tmp_path / "pass")
    found = lstmx.load_history(tmp_path / "pass")
    assert (len(found), found.batch, found.cell, found.keep) == (7, batch, history.cell, keep)
    assert found.finished
    assert is_in(library, found.read())
    assert_bitwise(found.read(), history)
    assert_bitwise(found[2:5], history[2:5])
    assert_bitwise(found[-3:], history[-3:])
    assert_same((found.final, found.initial, found.params), (history.final, history.initial, history.params))


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", family.one_of_each_form(family.NAMES))
def test_every_cell_can_be_saved(name, tmp_path):
    history = recorded(name, (2,))
    history.save(tmp_path / "pass")
    assert_bitwise(lstmx.load_history(tmp_path / "pass").read(), history)


def test_one_step_can_be_saved(library, tmp_path):
    history = recorded("GRU", library=library, length=1)
    history.save(str(tmp_path / "pass"))
    assert_bitwise(lstmx.load_history(str(tmp_path / "pass")).read(), history)


def test_padded_sequences_and_drawn_zoneouts_can_be_saved(tmp_path):
    cell = lstmx.Zoneout(lstmx.LSTM(3, 4))
    params = cell.init(np.random.default_rng(0))
    xs = np.random.default_rng(1).normal(size=(20, 2, 3)).astype("float32")
    history = lstmx.record(cell, params, xs, lengths=[20, 9], key=np.random.default_rng(2))
    history.save(tmp_path / "pass")
    found = lstmx.load_history(tmp_path / "pass")
    assert_bitwise(found.read(), history)
    np.testing.assert_array_equal(found.lengths, [20, 9])
    np.testing.assert_array_equal(found.counts, history.counts)
    assert found.controls.reset is None


@pytest.mark.parametrize("name", ["padded", "zoneout"])
def test_folders_of_version_1_open_as_histories_of_today(name, tmp_path):
    data = Path(__file__).parent / "data"
    cell, params, xs, options = runpy.run_path(str(data / "version_1.py"))["passes"]()[name]
    expected = lstmx.record(cell, params, xs, **options)
    found = lstmx.load_history(data / name)
    assert (found.cell, len(found), found.batch) == (cell, 6, (2,))
    np.testing.assert_array_equal(found.lengths, options["lengths"])
    whole = found.read()
    assert jax.tree.structure(whole) == jax.tree.structure(expected)
    assert_same(whole.rows[:1] + whole.rows[3:], expected.rows[:1] + expected.rows[3:])
    assert_close((whole.states, whole.initial, whole.params), (expected.states, expected.initial, params), 1e-15)
    assert_close(whole.where_counted(whole.stored), expected.where_counted(expected.stored), 1e-14)
    assert_bitwise(found[3:], whole[3:])
    assert_bitwise(lstmx.History.from_xarray(xarray.open_zarr(data / name, consolidated=False)), whole)
    whole.save(tmp_path / "today")
    assert_bitwise(lstmx.load_history(tmp_path / "today").read(), whole)


def test_a_history_in_jax_is_read_into_numpy(tmp_path):
    history = recorded("V", library="jax")
    history.save(tmp_path / "pass")
    found = lstmx.load_history(tmp_path / "pass").to_numpy()
    assert is_in("numpy", found.read())
    assert_bitwise(found.read(), history.to_numpy())


def test_float64_in_jax_is_not_rounded(tmp_path):
    recorded("V", library="jax").save(tmp_path / "pass")
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        lstmx.load_history(tmp_path / "pass")


# -------------------------------------------------------------------------------------------- other readers


def test_zarr_and_xarray_alone_read_it(tmp_path):
    history = recorded("projection", (2,))
    history.save(tmp_path / "pass")
    group = zarr.open(tmp_path / "pass", mode="r")
    np.testing.assert_array_equal(group["cell_state"][3:5], history.cell_state[3:5])
    assert group["inputs"].chunks[0] < 7
    dataset = xarray.open_zarr(tmp_path / "pass", consolidated=False)
    assert dataset.cell_state.dims == ("time", "batch", "unit")
    assert dataset.hidden_state.dims == ("time", "batch", "hidden_unit")
    assert dataset.cell_state.attrs == {"long_name": "cell state after each step", "units": "1"}
    np.testing.assert_array_equal(dataset.hidden_state, history.hidden_state)
    assert json.loads(dataset.attrs["cell"])["kind"] == "LSTM"


# --------------------------------------------------------------------------------------------------- errors


def test_nothing_is_overwritten(tmp_path):
    history = recorded("V")
    (tmp_path / "pass").write_text("mine")
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        history.save(tmp_path / "pass")
    assert (tmp_path / "pass").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def full(self, part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk.Store, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: the history could not be saved.*pass") as caught:
        recorded("V").save(tmp_path / "pass")
    assert caught.value.errno == 28
    assert not list(tmp_path.iterdir())


def test_histories_in_a_transformation_have_no_numbers(tmp_path):
    history = recorded("V", library="jax")
    with pytest.raises(TypeError, match="inside a JAX transformation"):
        jax.jit(lambda h: h.save(tmp_path / "pass"))(history)


def test_what_is_no_history_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there"):
        lstmx.load_history(tmp_path / "nothing")
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match="is a file; expected a folder"):
        lstmx.load_history(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is no Zarr group"):
        lstmx.load_history(tmp_path / "folder")
    zarr.open_group(tmp_path / "foreign", mode="w", zarr_format=3)
    with pytest.raises(ValueError, match="holds no history"):
        lstmx.load_history(tmp_path / "foreign")


def changed(path, **attributes):
    """Change attributes of a history as version 2 wrote them, which has no checksums of what describes it."""
    described = json.loads((path / "zarr.json").read_text())
    for name in ("checksum", "checksums"):
        del described["attributes"][name]
    described["attributes"] |= {"format_version": 2} | attributes
    (path / "zarr.json").write_text(json.dumps(described))


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"format_version": 4}, "format version 4; this version of lstmx reads 1 to 3"),
        (
            {"cell": json.dumps({"kind": "Perceptron", "options": {}})},
            "'Perceptron' is described; this version knows",
        ),
        ({"cell": "no JSON"}, "describes no cell"),
        *(
            ({"finished_steps": value}, re.escape(f"finished_steps is {value!r}; expected 0 to 7"))
            for value in (8, -1, None, "x", [7], float("nan"), 1.5, True)
        ),
        ({"finished_steps": 0}, "no finished step"),
    ],
)
def test_other_attributes_are_refused(attributes, message, tmp_path):
    recorded("V").save(tmp_path / "pass")
    changed(tmp_path / "pass", **attributes)
    with pytest.raises(ValueError, match=message):
        lstmx.load_history(tmp_path / "pass")


def test_missing_and_misshapen_arrays_are_refused(tmp_path):
    recorded("V").save(tmp_path / "pass")
    changed(tmp_path / "pass")
    group = zarr.open_group(tmp_path / "pass", mode="r+")
    group.create_array("initial_cell", shape=(5,), dtype="float64", overwrite=True)
    with pytest.raises(ValueError, match=r"initial_cell is \(\(5,\).*expected"):
        lstmx.load_history(tmp_path / "pass")
    del group["initial_cell"]
    with pytest.raises(ValueError, match="lacks initial_cell"):
        lstmx.load_history(tmp_path / "pass")


def test_slices_of_a_history_on_disk_are_stretches(tmp_path):
    recorded("V").save(tmp_path / "pass")
    found = lstmx.load_history(tmp_path / "pass")
    with pytest.raises(TypeError, match="sliced by time"):
        found[3]
    with pytest.raises(ValueError, match="skips steps"):
        found[::2]
    with pytest.raises(ValueError, match="is empty"):
        found[5:5]
    with pytest.raises(TypeError, match="not iterated"):
        iter(found)
    assert "7 steps, float64, NumPy, keep='all'" in repr(found)


def test_a_missing_zarr_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"disk needs the package zarr.*pip install zarr$"):
        random_history(lstmx.LSTM, "numpy", "all").save(tmp_path / "pass")


# --------------------------------------------------------------------------------------------------- layers

STACKS = {
    "dropout": lstmx.Stack([lstmx.LSTM(3, 4), lstmx.GRU(4, 5), lstmx.LSTM(5, 2)], dropout=0.3),
    "nested": lstmx.Stack([lstmx.GRU(3, 4), lstmx.Bidirectional(lstmx.LSTM(4, 2))]),
    "both ways": lstmx.Bidirectional(lstmx.Zoneout(lstmx.GRU(3, 4))),
}


def layered(name, library, **options):
    layers = STACKS[name]
    params = layers.init(np.random.default_rng(0), "float64")
    xs = np.random.default_rng(1).normal(size=(20, 2, 3))
    key = np.random.default_rng(2) if library == "numpy" else jax.random.key(2)
    options = {"lengths": np.array([20, 9]), "key": None if name == "nested" else key} | options
    return lstmx.record(layers, *to(library, (params, xs)), **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", STACKS)
def test_a_history_of_layers_comes_back(name, library, tmp_path):
    history = layered(name, library)
    history.save(tmp_path / "pass")
    found = lstmx.load_history(tmp_path / "pass")
    assert (len(found), found.batch, found.cell) == (20, (2,), history.cell)
    assert is_in(library, found.read())
    assert_bitwise(found.read(), history)
    assert_bitwise(found.to_numpy().read(), history.to_numpy())
    assert_same(found.params, history.params)
    first = next(iter(history.parts))
    alone = lstmx.load_history(tmp_path / "pass" / first.replace(" ", "_"))
    assert_bitwise(alone.read(), history.parts[first])
    assert f"20 steps, batch (2,), '{tmp_path}" in repr(found)


@pytest.mark.slow
def test_a_stretch_of_layers_is_read_alone(tmp_path):
    history = layered("dropout", "numpy")
    history.save(tmp_path / "pass")
    found = lstmx.load_history(tmp_path / "pass")
    assert_bitwise(found[3:7], history[3:7])
    with pytest.raises(TypeError, match="sliced by time"):
        found[3]
    with pytest.raises(TypeError, match="not iterated"):
        iter(found)
    layered("nested", "numpy").save(tmp_path / "nested")
    with pytest.raises(TypeError, match="a layer reads in both directions"):
        lstmx.load_history(tmp_path / "nested")[3:7]
    with pytest.raises(TypeError, match=r"history is of layers on disk; .*history.read\(\)"):
        lstmx.gradient_flow(found)


@pytest.mark.slow
def test_layers_are_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    history = layered("dropout", "numpy")
    history.save(tmp_path / "pass")
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        history.save(tmp_path / "pass")
    original, count = disk.Store.write, iter(range(100))

    def full(self, part):
        if next(count) > 2:
            raise OSError(28, "No space left on device")
        original(self, part)

    monkeypatch.setattr(disk.Store, "write", full)
    with pytest.raises(OSError, match="No space left on device: the history could not be saved"):
        history.save(tmp_path / "other")
    assert [file.name for file in tmp_path.iterdir()] == ["pass"]
    with pytest.raises(TypeError, match="inside a JAX transformation"):
        jax.jit(lambda h: h.save(tmp_path / "other"))(layered("dropout", "jax"))


def test_layers_as_datasets_are_those_of_their_cells():
    history = layered("nested", "numpy")
    made = history.to_xarray()
    assert list(made) == ["layer 0", "layer 1, forward", "layer 1, backward"]
    for name, (part, _) in history.cells().items():
        assert_bitwise(lstmx.History.from_xarray(made[name]), part)


# -------------------------------------------------------------------------------------------- step functions


def stepped(params, state, x):
    """Two arrays in the state, one a matrix; and two shown."""
    h = jax.numpy.tanh(params["in"]["W"] @ x + params["out"][0] @ state["h"] + state["m"].sum(axis=0))
    gate = jax.nn.sigmoid(x[0] + h)
    return {"h": h, "m": 0.5 * state["m"] + gate * h}, {"reset": gate, "inner": {"a": 1}["a"] * state["m"]}


class Weights(NamedTuple):
    """Parameters that are no dicts, lists or tuples."""

    W: Any
    U: Any


def step_cell(step=stepped, **options):
    return lstmx.from_step(step, {"h": np.full(4, 0.1), "m": np.zeros((2, 4))}, 3, output="h", **options)


STEP_PARAMS = {"in": {"W": np.full((4, 3), 0.2)}, "out": [np.eye(4) / 3, np.zeros(())]}


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["all", "states"])
def test_the_history_of_a_step_function_comes_back_with_its_cell(keep, tmp_path):
    cell = step_cell()
    params, xs = to("jax", (STEP_PARAMS, np.random.default_rng(1).normal(size=(20, 2, 3))))
    history = lstmx.record(cell, params, xs, lengths=np.array([20, 9]), keep=keep)
    history.save(tmp_path / "pass")
    found = lstmx.load_history(tmp_path / "pass", cell=cell)
    assert found.keep == keep
    assert_bitwise(found.read(), history)
    assert_bitwise(found[3:7], history[3:7])
    assert found.read().reset.shape == (20, 2, 4)
    assert_bitwise(lstmx.History.from_xarray(history.to_xarray(), cell), history)
    opened = xarray.open_zarr(tmp_path / "pass", consolidated=False)
    assert opened.m_state.dims == ("time", "batch", "m_row", "m_column")
    if keep == "all":
        np.testing.assert_array_equal(opened.shown_reset, history.reset)
    with pytest.raises(ValueError, match=r"whose equations no file holds: pass the cell, load_history\(path"):
        lstmx.load_history(tmp_path / "pass")
    other = lstmx.from_step(stepped, {"h": np.full(3, 0.1)}, 3)
    for wrong in (other, lstmx.LSTM(3, 4)):
        with pytest.raises(ValueError, match="is of another cell than"):
            lstmx.load_history(tmp_path / "pass", cell=wrong)
    with pytest.raises(TypeError, match="cell is a str; expected the cell that ran"):
        lstmx.load_history(tmp_path / "pass", cell="stepped")


@pytest.mark.slow
def test_a_step_function_is_streamed_to_disk_and_gone_on_with(tmp_path, monkeypatch):
    cell = step_cell()
    params, xs = to("jax", (STEP_PARAMS, np.random.default_rng(1).normal(size=(50, 2, 3))))
    original, count = disk.Store.put, iter(range(100))

    def stopped(self, *part):
        if next(count) == 2:
            raise KeyboardInterrupt
        original(self, *part)

    with monkeypatch.context() as patched:
        patched.setattr(disk.Store, "put", stopped)
        with pytest.raises(KeyboardInterrupt):
            lstmx.record_to(tmp_path / "pass", cell, params, xs)
    assert 0 < len(lstmx.load_history(tmp_path / "pass", cell=cell)) < 50
    found = lstmx.record_to(tmp_path / "pass", cell, params, xs).read()
    assert_close(found, lstmx.record(cell, params, xs), 1e-14)
    mask = np.random.default_rng(2).random((50, 2)) < 0.7
    found = lstmx.record_to(tmp_path / "masked", cell, params, xs, mask=mask).read()
    assert_close(found, lstmx.record(cell, params, xs, mask=mask), 1e-14)


def test_parameters_of_another_tree_are_put_together_as_init_makes_them(tmp_path):
    def step(params, h, x):
        return jax.numpy.tanh(params.W @ x + params.U @ h)

    params = Weights(jax.numpy.ones((4, 3)) / 4, jax.numpy.eye(4) / 2)
    known = lstmx.from_step(step, np.zeros(4), 3, init=lambda key: params)
    history = lstmx.record(known, params, jax.numpy.ones((5, 3)))
    history.save(tmp_path / "pass")
    assert_bitwise(lstmx.load_history(tmp_path / "pass", cell=known).read(), history)
    with pytest.raises(ValueError, match="pass init= to from_step"):
        lstmx.load_history(tmp_path / "pass", cell=lstmx.from_step(step, np.zeros(4), 3))


def test_layers_with_a_step_function_need_their_cell(tmp_path):
    stack = lstmx.Stack([lstmx.GRU(3, 3), step_cell()])
    params = to("jax", (stack.cells[0].init(np.random.default_rng(0), "float64"), STEP_PARAMS))
    history = lstmx.record(stack, params, jax.numpy.ones((5, 3)))
    history.save(tmp_path / "pass")
    assert_bitwise(lstmx.load_history(tmp_path / "pass", cell=stack).read(), history)
    with pytest.raises(ValueError, match="whose equations no file holds"):
        lstmx.load_history(tmp_path / "pass")


def test_a_cell_of_your_own_is_told_to_the_reader(tmp_path):
    @dataclass(frozen=True, repr=False)
    class Mine(lstmx.GRU):
        """A cell that no file knows."""

    cell = Mine(3, 4)
    params = cell.init(np.random.default_rng(0))
    history = lstmx.record(cell, params, np.ones((5, 3), "float32"))
    history.save(tmp_path / "pass")
    assert_bitwise(lstmx.load_history(tmp_path / "pass", cell=cell).read(), history)
    with pytest.raises(ValueError, match="is of another cell than"):
        lstmx.load_history(tmp_path / "pass", cell=lstmx.GRU(3, 4))
