"""A damaged folder gives the numbers that were written, or an error that says where; never other numbers."""

import json
import shutil

import jax
import numpy as np
import pytest
from reference import to
from test_disk import STEP_PARAMS, layered, recorded, step_cell

import lstmx
from lstmx.app.cli import main
from lstmx.history import StoredHistory
from lstmx.history import store as disk

DAMAGES = ("flip", "zero", "cut", "remove")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(disk, "_CHUNK", 64)
    monkeypatch.setattr("lstmx.history.store.synced", lambda paths: None)


def damage(file, kind, draws):
    """Do a file harm; its bytes are others then."""
    whole = file.read_bytes()
    changed = bytearray(whole)
    at = int(draws.integers(len(whole)))
    if kind == "flip":
        changed[at] ^= 1 << int(draws.integers(8))
    elif kind == "zero":
        changed[at : at + 16] = bytes(len(changed[at : at + 16]))
    elif kind == "cut":
        del changed[at:]
    if kind == "remove":
        file.unlink()
    else:
        file.write_bytes(changed)
    return kind == "remove" or bytes(changed) != whole


def numbers(path, cell=None):
    """Every number that is read from a folder, and what three analyses say."""
    stored = lstmx.load_history(path, cell).to_numpy()
    found = [stored.read()]
    if isinstance(stored, StoredHistory) and cell is None:
        found += [lstmx.gate_statistics(stored), lstmx.gradient_flow(stored, outputs="norms").log_norm]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found)]


def harmed(path, folder, seed, cell=None, most=None):
    """Damage each file of a copy in turn, or `most` of them, in one of the ways; of how many the error tells.

    What is read is the same, or the error names the array and the chunk.
    """
    expected, draws, told = numbers(path, cell), np.random.default_rng(seed), 0
    files = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    for file in files if most is None else draws.choice(files, most, replace=False):
        shutil.copytree(path, folder)
        words = None
        if damage(folder / file, str(draws.choice(DAMAGES)), draws):
            try:
                assert numbers(folder, cell) == expected, file
            except (ValueError, FileNotFoundError) as error:
                words = str(error)
        shutil.rmtree(folder)
        if words is not None:
            chunk = f"chunk {file.name} of the array " if file.name != "zarr.json" else ""
            assert str(folder) in words
            assert f"{chunk}{file.parent.name}" in words
            told += 1
    return told


@pytest.mark.slow
def test_a_damaged_history_gives_no_other_numbers(tmp_path):
    cell = lstmx.LSTM(3, 4)
    xs = np.random.default_rng(1).normal(size=(9, 3))
    params = cell.init(np.random.default_rng(0), "float64")
    lstmx.record_to(tmp_path / "pass", cell, params, xs, resets=np.arange(9) == 4)
    files = [file for file in (tmp_path / "pass").rglob("*") if file.is_file()]
    assert harmed(tmp_path / "pass", tmp_path / "harmed", 0) > 0.8 * len(files)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["layers", "step function", "padded"])
def test_histories_of_every_kind_give_no_other_numbers(name, seed, tmp_path):
    cell = None
    if name == "layers":
        layered("dropout", "numpy").save(tmp_path / "pass")
    elif name == "step function":
        cell = step_cell()
        params, xs = to("jax", (STEP_PARAMS, np.random.default_rng(1).normal(size=(9, 2, 3))))
        lstmx.record(cell, params, xs, lengths=np.array([9, 4])).save(tmp_path / "pass")
    else:
        xs = np.random.default_rng(1).normal(size=(9, 2, 3)).astype("float32")
        cell_ = lstmx.Zoneout(lstmx.LSTM(3, 4))
        params, key = cell_.init(np.random.default_rng(0)), np.random.default_rng(2)
        lstmx.record(cell_, params, xs, lengths=[9, 4], key=key).save(tmp_path / "pass")
    assert harmed(tmp_path / "pass", tmp_path / "harmed", seed, cell, most=12) > 0


def test_a_large_shape_is_refused_before_memory_is_asked_for(tmp_path):
    """Of version 2, which has no checksums of shapes."""
    recorded("V", length=9).save(tmp_path / "pass")
    shutil.copytree(tmp_path / "pass", tmp_path / "old")
    for folder, version in (("pass", 3), ("old", 2)):
        for file in (tmp_path / folder).glob("**/zarr.json"):
            described = json.loads(file.read_text())
            if described["node_type"] == "array" and described["dimension_names"][0] == "time":
                described["shape"][0] = 10**12
            elif described["node_type"] == "group":
                described["attributes"] |= {"format_version": version, "finished_steps": 10**12}
                if version == 2:
                    for name in ("checksum", "checksums"):
                        del described["attributes"][name]
            file.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"pass is damaged: its zarr.json is not what was written"):
        lstmx.load_history(tmp_path / "pass")
    with pytest.raises(ValueError, match=r"old is damaged: chunk c\.\d+\.0 of the array \w+ is missing"):
        lstmx.load_history(tmp_path / "old").read()


@pytest.mark.parametrize("chunk", [0, 10**12])
def test_impossible_chunks_are_refused(chunk, tmp_path):
    """Of version 2, which has no checksums of them."""
    recorded("V").save(tmp_path / "pass")
    group, array = tmp_path / "pass" / "zarr.json", tmp_path / "pass" / "cell_state" / "zarr.json"
    described = json.loads(group.read_text())
    described["attributes"] = {
        name: value for name, value in described["attributes"].items() if not name.startswith("checksum")
    } | {"format_version": 2}
    group.write_text(json.dumps(described))
    described = json.loads(array.read_text())
    described["chunk_grid"]["configuration"]["chunk_shape"][0] = chunk
    array.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"pass is damaged: .*cell_state"):
        lstmx.load_history(tmp_path / "pass").read()


# ------------------------------------------------------------------------------------------------ the command


def checked(path, capsys):
    """The exit status of `lstmx check`, and its lines."""
    status = main(["check", str(path)])
    shown = capsys.readouterr()
    return status, (shown.out + shown.err).splitlines()


def test_check_reads_every_chunk(tmp_path, capsys):
    recorded("V", (2,), length=9).save(tmp_path / "pass")
    assert checked(tmp_path / "pass", capsys) == (0, [f"{tmp_path / 'pass'}: nothing wrong was found"])
    (tmp_path / "pass" / "inputs" / "c.1.0.0").unlink()
    damage(tmp_path / "pass" / "parameter_bias" / "c.0", "flip", np.random.default_rng(0))
    damage(tmp_path / "pass" / "hidden_state" / "c.0.0.0", "cut", np.random.default_rng(0))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    status, lines = checked(tmp_path / "pass", capsys)
    assert status == 1
    found = [line.partition(" is damaged: chunk ")[2].split(":")[0] for line in lines]
    assert found == [
        "c.0.0.0 of the array hidden_state",
        "c.1.0.0 of the array inputs is missing",
        "c.0 of the array parameter_bias",
    ]
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_check_goes_into_layers_and_looks(tmp_path, capsys):
    layered("nested", "numpy").save(tmp_path / "pass")
    assert checked(tmp_path / "pass", capsys)[0] == 0
    (tmp_path / "pass" / "layer_1" / "forward" / "hidden_state" / "c.0.0.0").unlink()
    shutil.rmtree(tmp_path / "pass" / "layer_0")
    status, lines = checked(tmp_path / "pass", capsys)
    assert (status, len(lines)) == (1, 2)
    assert "lacks layer_0" in lines[0]
    assert "layer_1/forward is damaged: chunk c.0.0.0 of the array hidden_state is missing" in lines[1]
    cell = lstmx.GRU(2, 3)
    observatory = lstmx.Observatory(cell, np.ones((6, 2), "float32"), 1, path=tmp_path / "looks")
    for step in range(3):
        observatory(step, cell.init(np.random.default_rng(step)))
    observatory.flush()
    assert checked(tmp_path / "looks", capsys) == (0, [f"{tmp_path / 'looks'}: nothing wrong was found"])
    (file,) = (tmp_path / "looks" / "horizon").glob("c*")
    damage(file, "flip", np.random.default_rng(0))
    status, lines = checked(tmp_path / "looks", capsys)
    assert (status, len(lines)) == (1, 1)
    assert "of the array horizon: " in lines[0]
    with pytest.raises(ValueError, match="of the array horizon"):
        lstmx.Observatory(cell, np.ones((6, 2), "float32"), 1, path=tmp_path / "looks")


def test_check_reads_files_of_weights(tmp_path, capsys):
    cell, file = lstmx.GRU(2, 3), tmp_path / "gru.safetensors"
    params = cell.init(np.random.default_rng(0))
    lstmx.save(file, cell, params)
    status, lines = checked(file, capsys)
    assert (status, len(lines)) == (0, 1)
    assert "nothing wrong was found; its numbers have no checksums" in lines[0]
    lstmx.save(file, cell, params._replace(bias=params.bias * np.float32("nan")))
    assert checked(file, capsys) == (
        1,
        [f"{file}: the cell: params.bias holds NaN or infinity; expected finite numbers"],
    )
    file.write_bytes(file.read_bytes()[:-5])
    status, lines = checked(file, capsys)
    assert (status, len(lines)) == (1, 1)
    assert "is cut short" in lines[0]


def test_check_says_what_it_cannot_read(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "zarr.json").write_text('{"attributes": {"format": "theirs"}}')
    for path, words in (
        ("nothing", "there is no file"),
        ("notes.txt", "ends in .txt; expected one of"),
        ("foreign", "holds no history and no looks of an observatory: its format is 'theirs'"),
    ):
        status, lines = checked(tmp_path / path, capsys)
        assert (status, len(lines)) == (2, 1)
        assert words in lines[0]
    (tmp_path / "foreign" / "zarr.json").write_text('{"attributes"')
    assert checked(tmp_path / "foreign", capsys)[0] == 1
    with pytest.raises(SystemExit) as caught:
        main(["check", "s3://bucket/pass"])
    assert caught.value.code == 2
    assert "an address; expected a path on this machine" in capsys.readouterr().err
