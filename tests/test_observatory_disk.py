"""An observatory on disk: what was seen comes back to the bit, goes on with the training, and xarray reads it."""

import shutil
import sys
import types

import numpy as np
import pytest
import xarray
import zarr
from test_observatory import MODEL, PROBE, TASK

import lstmx
from lstmx.observatory import observing
from lstmx.observatory.looking import READINGS


def observed(path=None, steps=8, every=2, resume=None):
    observatory = lstmx.Observatory(MODEL.cell, PROBE, every, path=path)
    training = lstmx.train(
        MODEL, MODEL.init(0), TASK.batch, steps=steps, progress=False, observe=observatory, resume=resume
    )
    return observatory, training


def same(left, right):
    np.testing.assert_array_equal(left.steps, right.steps)
    for name in READINGS:
        np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.slow
def test_looks_come_back_to_the_bit(tmp_path):
    observatory, _ = observed(tmp_path / "looks")
    again = lstmx.Observatory(MODEL.cell, PROBE, 2, path=tmp_path / "looks")
    same(again, observatory)
    assert len(again) == 5
    assert again.alarms == observatory.alarms


@pytest.mark.slow
def test_they_go_on_with_the_training(tmp_path):
    whole, _ = observed(steps=12)
    _, half = observed(tmp_path / "looks", steps=5)
    observed(tmp_path / "looks", steps=3, resume=half)  # is killed, and the training goes back to step 5
    resumed, _ = observed(tmp_path / "looks", steps=7, resume=half)
    same(resumed, whole)
    same(lstmx.Observatory(MODEL.cell, PROBE, 2, path=tmp_path / "looks"), whole)


@pytest.mark.slow
def test_xarray_reads_the_folder(tmp_path):
    observatory, _ = observed(tmp_path / "looks")
    dataset = xarray.open_zarr(tmp_path / "looks", consolidated=False)
    memory = observatory.to_xarray()
    assert dict(dataset.sizes) == {**memory.sizes, "time": 12, "batch": 3, "feature": 2}
    for name in READINGS:
        assert dataset[name].dims == memory[name].dims
        np.testing.assert_array_equal(dataset[name], memory[name])
        assert dataset[name].attrs == memory[name].attrs
    np.testing.assert_array_equal(dataset["step"], observatory.steps)
    assert dataset.attrs["gate"] == list(memory["gate"].values)
    assert float(memory["horizon"].sel(step=4, sequence=1)) == observatory["horizon"][2, 1]
    assert float(memory["gate_mean"].sel(step=4, gate="forget_gate", layer="LSTM")) > 0.5


@pytest.mark.slow
def test_what_was_begun_when_a_run_was_killed_is_not_there(tmp_path):
    observatory, _ = observed(tmp_path / "looks")
    group = zarr.open_group(tmp_path / "looks", mode="r+")
    group["horizon"].resize((7, 3))  # but no other array
    group["finite"].resize((6,))
    again = lstmx.Observatory(MODEL.cell, PROBE, 2, path=tmp_path / "looks")
    same(again, observatory)
    again(10, MODEL.init(1).cell)
    again.flush()
    assert xarray.open_zarr(tmp_path / "looks", consolidated=False).sizes["step"] == 6


@pytest.mark.slow
def test_two_trainings_do_not_mix_in_one_folder(tmp_path):
    path, params = tmp_path / "looks", MODEL.init(0).cell

    def at(observatory, *steps):
        for step in steps:
            observatory(step, params)
        observatory.flush()

    first, second = (lstmx.Observatory(MODEL.cell, PROBE, 1, path=path) for _ in range(2))
    at(first, 0, 1)
    with pytest.raises(ValueError, match=r"looks has been written to by another observatory"):
        at(second, 5)
    third = lstmx.Observatory(MODEL.cell, PROBE, 1, path=path)  # which knows of those looks
    at(third, 0, 1)
    with pytest.raises(ValueError, match=r"looks has been written to by another observatory"):
        at(first, 2)
    at(third, 2)
    assert lstmx.Observatory(MODEL.cell, PROBE, 1, path=path).steps.tolist() == [0, 1, 2]


def test_a_folder_that_is_gone_or_damaged_is_named(tmp_path):
    observatory, _ = observed(tmp_path / "looks")
    shutil.rmtree(tmp_path / "looks" / "horizon")
    observatory(10, MODEL.init(0).cell)
    for use in (observatory.flush, lambda: observed(tmp_path / "looks")):
        with pytest.raises(ValueError, match=r"looks is damaged: it lacks horizon"):
            use()
    shutil.rmtree(tmp_path / "looks")
    with pytest.raises(FileNotFoundError, match="looks is gone"):
        observatory.flush()
    assert not (tmp_path / "looks").exists()
    zarr.open_group(tmp_path / "looks", mode="w")
    with pytest.raises(FileNotFoundError, match="looks is gone, or no observatory any more"):
        observatory.flush()


def test_an_empty_folder_is_taken(tmp_path):
    observatory, _ = observed(tmp_path)
    same(lstmx.Observatory(MODEL.cell, PROBE, 2, path=tmp_path), observatory)


def test_a_folder_takes_a_hundredth_of_the_time(tmp_path, monkeypatch):
    """By a clock that only writing moves."""
    now, written = [0.0], []
    monkeypatch.setattr(observing.time, "monotonic", lambda: now[0])
    observatory = lstmx.Observatory(MODEL.cell, PROBE, 1, path=tmp_path / "looks")
    write = observatory._shelf.write

    def slowly(steps, rows, first):
        write(steps, rows, first)
        written.append((first, len(steps)))
        now[0] += 1.0

    monkeypatch.setattr(observatory._shelf, "write", slowly)
    params = MODEL.init(0).cell
    for step in range(4):
        observatory(step, params)
    now[0] += 99.0
    observatory(4, params)
    now[0] += 1.0
    observatory(5, params)
    assert written == [(0, 1), (1, 5)]
    observatory(6, params)
    observatory.flush()
    observatory.flush()
    assert written == [(0, 1), (1, 5), (6, 1)]


WRITERS = {}


class Writer:
    """What a writer of events is asked for."""

    def __init__(self, folder):
        self.scalars, self.texts, self.flushed = {}, [], 0
        WRITERS[folder] = self

    def add_scalar(self, tag, value, step):
        self.scalars[step, tag] = value

    def add_text(self, tag, text, step):
        self.texts.append((tag, text, step))

    def flush(self):
        self.flushed += 1


@pytest.mark.parametrize("package", ["tensorboardX", "torch.utils.tensorboard"])
def test_numbers_and_alarms_go_to_tensorboard(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, package, types.SimpleNamespace(SummaryWriter=Writer))
    observatory = lstmx.Observatory(MODEL.cell, PROBE, 5, tensorboard=tmp_path / "events")
    params = MODEL.cell.init(np.random.default_rng(0))
    observatory(0, params)
    observatory(5, params._replace(bias=params.bias * np.nan))
    written = WRITERS[str(tmp_path / "events")]
    assert written.scalars[0, "decay_rate"] == np.median(observatory["decay_rate"][0])
    assert written.scalars[0, "exponents/2"] == observatory["exponents"][0, 1]
    assert written.scalars[0, "gate_mean/LSTM/forget_gate"] == observatory["gate_mean"][0, 0, 1]
    assert written.scalars[0, "timescale/LSTM/0.5"] == observatory["timescale"][0, 0, 1]
    assert written.scalars[0, "finite"] == 1
    assert {tag for step, tag in written.scalars if step == 5} == {"finite"}
    assert np.isfinite(list(written.scalars.values())).all()
    assert written.texts == [("alarm", "step 5: the parameters or the states are not finite", 5)]
    assert written.flushed == 2


def test_without_tensorboard_it_is_named(tmp_path, monkeypatch):
    for package in ("tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="tensorboard= needs the package tensorboardX, or PyTorch with"):
        lstmx.Observatory(MODEL.cell, PROBE, tensorboard=tmp_path)


@pytest.mark.slow
def test_another_observatory_or_another_thing_is_left_alone(tmp_path):
    observed(tmp_path / "looks", steps=2)
    for given, match in (
        ((MODEL.cell, PROBE, 3), "whose every is 2, not 3"),
        ((lstmx.LSTM(2, 6), PROBE, 2), "whose cell is"),
        ((MODEL.cell, 2 * PROBE, 2), "with another probe"),
    ):
        with pytest.raises(ValueError, match=match):
            lstmx.Observatory(*given, path=tmp_path / "looks")
    with pytest.raises(ValueError, match="whose loss is 'last'"):
        lstmx.Observatory(MODEL.cell, PROBE, 2, loss=np.ones((12, 3, 5), "float32"), path=tmp_path / "looks")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    lstmx.record(MODEL.cell, MODEL.cell.init(np.random.default_rng(0)), PROBE).save(tmp_path / "history")
    for name in ("file", "folder", "history"):
        with pytest.raises(FileExistsError, match="is there already, and no observatory"):
            lstmx.Observatory(MODEL.cell, PROBE, 2, path=tmp_path / name)
    with pytest.raises(TypeError, match="path is"):
        lstmx.Observatory(MODEL.cell, PROBE, 2, path=3)
