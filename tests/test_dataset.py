"""`to_xarray` and `from_xarray`: named axes and variables, the same history back to the bit, and errors."""

import sys

import family
import jax
import numpy as np
import pytest
import xarray
from reference import is_in, random_history
from test_disk import assert_bitwise, recorded

import lstmx

GATES = ["input_gate", "forget_gate", "candidate", "output_gate"]


@pytest.mark.parametrize("name", family.NAMES)
def test_every_cell_comes_back(name):
    history = recorded(name, (2,))
    assert_bitwise(lstmx.History.from_xarray(history.to_xarray()), history)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("batch", "keep"),
    [
        ((), "all"),
        ((2, 3), "states"),
        *(pytest.param((2,), keep, marks=pytest.mark.slow) for keep in ("all", "states")),
    ],
)
def test_a_history_comes_back_in_its_library(library, keep, batch):
    history = random_history(lstmx.LSTM, library, keep, batch=batch)
    found = lstmx.History.from_xarray(history.to_xarray())
    assert is_in(library, found)
    assert_bitwise(found, history)
    assert_bitwise(lstmx.History.from_xarray(history[:1].to_xarray()), history[:1])


def test_axes_and_variables_have_names():
    history = recorded("V", (2,))
    dataset = history.to_xarray()
    assert dataset.sizes["time"] == 7
    assert dataset.inputs.dims == ("time", "batch", "feature")
    assert dataset.cell_state.dims == ("time", "batch", "unit")
    for gate in GATES:
        assert dataset[gate].dims == ("time", "batch", "unit")
        np.testing.assert_array_equal(dataset[gate], getattr(history, gate))
    forget = dataset.preactivations.sel(block="forget_gate")
    np.testing.assert_array_equal(forget, history.preactivations[..., 4:8])
    assert all({"units", "long_name"} <= set(dataset[name].attrs) for name in dataset.data_vars)
    assert recorded("V", (2, 3)).to_xarray().inputs.dims == ("time", "batch_0", "batch_1", "feature")


def test_a_dataset_is_a_copy():
    history = recorded("V")
    history.to_xarray().inputs[...] = 0
    assert np.any(history.inputs != 0)


def test_padded_sequences_come_back():
    cell = lstmx.LSTM(3, 4)
    xs = np.random.default_rng(1).normal(size=(20, 2, 3)).astype("float32")
    history = lstmx.record(cell, cell.init(np.random.default_rng(0)), xs, lengths=[20, 9])
    assert_bitwise(lstmx.History.from_xarray(history.to_xarray()), history)


def test_one_sequence_may_be_picked():
    history = recorded("V", (2, 3))
    picked = lstmx.History.from_xarray(history.to_xarray().isel(batch_0=1, batch_1=2))
    assert_bitwise(picked, history.sequence(1, 2))


def test_what_is_on_disk_is_such_a_dataset(library, tmp_path):
    history = recorded("projection", (2,), library=library)
    history.save(tmp_path / "pass")
    opened = xarray.open_zarr(tmp_path / "pass", consolidated=False)
    assert_bitwise(lstmx.History.from_xarray(opened), history)


# --------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("cell_state"), "lacks cell_state"),
        (lambda d: d.drop_vars("parameter_bias"), "lacks parameter_bias"),
        (lambda d: d.transpose("batch", ...), r"initial_hidden|dimensions \('batch', 'time'"),
        (lambda d: d.rename(feature="column"), "inputs has dimensions"),
        (lambda d: d.isel(feature=slice(2)), r"inputs is \(\(7, 2, 2\)"),
        (lambda d: d.isel(time=slice(2, 5)), "3 steps of a history of 7"),
        (lambda d: d.isel(time=slice(None, None, -1)), "cut the history instead"),
        (lambda d: d.assign(hidden_state=d.hidden_state.astype("float32")), "hidden_state is .*float32"),
        (lambda d: d.assign_attrs(format="another"), "holds no history"),
        (lambda d: d.assign_attrs(format_version=4), "format version 4"),
        (lambda d: d.assign_attrs(cell='{"kind": "Perceptron", "options": {}}'), "Perceptron"),
        (lambda d: d.assign_attrs(cell=None), "describes no cell"),
    ],
)
def test_other_datasets_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        lstmx.History.from_xarray(change(recorded("V", (2,)).to_xarray()))


def test_an_unfinished_run_is_no_history_yet(tmp_path):
    recorded("V").save(tmp_path / "pass")
    opened = xarray.open_zarr(tmp_path / "pass", consolidated=False).assign_attrs(finished_steps=5)
    with pytest.raises(ValueError, match="7 steps of a history of 5"):
        lstmx.History.from_xarray(opened)


def test_other_objects_are_refused(monkeypatch):
    with pytest.raises(TypeError, match=r"expected an xarray.Dataset"):
        lstmx.History.from_xarray({"inputs": 1})
    with pytest.raises(TypeError, match="inside a JAX transformation"):
        jax.jit(lambda h: h.to_xarray())(recorded("V", library="jax"))
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"to_xarray needs the package xarray.*pip install xarray$"):
        recorded("V").to_xarray()
