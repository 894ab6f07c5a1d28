"""Inputs as people have them: frames, lists, packed sequences, tables in files, and the batch first."""

import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import lstmx
from lstmx.app.cli import main
from lstmx.app.tables import read_table

CELL = lstmx.GRU(3, 4)
PARAMS = CELL.init(np.random.default_rng(0))
XS = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
RAGGED = [np.random.default_rng(k).normal(size=(t, 3)).astype("float32") for k, t in enumerate((4, 2, 5))]


def as_the_error_says(xs, call=lstmx.run, pattern=r"NumPy or JAX array: ([^\n]*)", **names):
    """What the lines of the error make of `xs`, run."""
    with pytest.raises(TypeError) as caught:
        call(CELL, PARAMS, xs)
    found = re.search(pattern, str(caught.value), re.DOTALL)
    return found[1], {"numpy": np, "xs": xs, **names}


@pytest.mark.parametrize("call", [lstmx.run, lstmx.record, lstmx.excerpt])
def test_a_frame_of_pandas(call):
    pandas = pytest.importorskip("pandas", reason="it takes its frames")
    line, names = as_the_error_says(pandas.DataFrame(XS.astype("float64"), columns=list("abc")), call)
    assert line == 'numpy.asarray(xs, dtype="float32")'
    np.testing.assert_array_equal(eval(line, names), XS)


@pytest.mark.slow  # a framework to import
def test_a_frame_of_polars():
    polars = pytest.importorskip("polars", reason="it takes its frames")
    line, names = as_the_error_says(polars.DataFrame(XS, schema=list("abc")))
    np.testing.assert_array_equal(eval(line, names), XS)


def test_a_data_array_of_xarray():
    xarray = pytest.importorskip("xarray", reason="it takes its arrays")
    line, names = as_the_error_says(xarray.DataArray(XS, dims=("time", "feature")))
    line, _, words = line.partition(", time first: ")
    assert words == "its axes are ('time', 'feature')"
    np.testing.assert_array_equal(eval(line, names), XS)


def test_parameters_in_float64_ask_for_it():
    params = CELL.init(np.random.default_rng(0), dtype="float64")
    with pytest.raises(TypeError, match=r'xs is a list; .*: numpy.asarray\(xs, dtype="float64"\)'):
        lstmx.run(CELL, params, XS.tolist())
    with pytest.raises(TypeError, match=r'mask is a list; .*: numpy.asarray\(mask, dtype="bool"\)'):
        lstmx.run(CELL, PARAMS, XS, mask=[True] * 5)
    stack = lstmx.Stack([CELL])
    with pytest.raises(TypeError, match=r'xs is a list; .*: numpy.asarray\(xs, dtype="float32"\)'):
        lstmx.run(stack, (PARAMS,), XS.tolist())


@pytest.mark.parametrize("kind", [list, tuple, "objects", "jax"])
def test_sequences_of_unequal_length_are_padded_as_the_error_says(kind):
    xs = RAGGED if kind in (list, "jax") else tuple(RAGGED)
    if kind == "jax":
        xs = [jnp.asarray(one) for one in xs]
    if kind == "objects":
        xs = np.empty(3, dtype=object)
        xs[:] = RAGGED
    lines, names = as_the_error_says(
        xs, pattern=r"are padded by\n(.*)\nand read up to their ends with lengths=leng"
    )
    for line in lines.splitlines():
        exec(line.strip(), names)
    outputs, _ = lstmx.run(CELL, PARAMS, names["xs"], lengths=names["lengths"])
    for k, one in enumerate(RAGGED):
        np.testing.assert_allclose(outputs[: len(one), k], lstmx.run(CELL, PARAMS, one)[0], atol=1e-6)


def test_sequences_of_one_length_are_no_batch_first():
    line, names = as_the_error_says([XS, 2 * XS])
    assert line == "numpy.stack(xs, axis=1) of sequences [T, D], numpy.stack(xs) of steps [B, D]"
    assert eval(line.partition(" of ")[0], names).shape == (5, 2, 3)


@pytest.mark.slow  # a framework to import
def test_a_packed_sequence_and_a_tensor(tmp_path):
    torch = pytest.importorskip("torch", reason="it takes its sequences")
    packed = torch.nn.utils.rnn.pack_sequence([torch.tensor(one) for one in RAGGED], enforce_sorted=False)
    line, names = as_the_error_says(packed, pattern=r"array: (.*), and pass lengths=lengths", torch=torch)
    exec(line, names)
    outputs, _ = lstmx.run(CELL, PARAMS, names["xs"], lengths=names["lengths"])
    np.testing.assert_allclose(outputs[:4, 0], lstmx.run(CELL, PARAMS, RAGGED[0])[0], atol=1e-6)
    line, names = as_the_error_says(torch.tensor(XS, requires_grad=True))
    np.testing.assert_array_equal(eval(line, names), XS)
    with pytest.raises(TypeError, match=r"xs is a Tensor; .* xs.detach\(\).cpu\(\).numpy\(\)"):
        lstmx.record_to(tmp_path / "pass", CELL, PARAMS, torch.tensor(XS))


@pytest.mark.parametrize("cell", [CELL, lstmx.Bidirectional(CELL)])
def test_lengths_show_that_the_batch_is_first(cell):
    params = PARAMS if cell is CELL else lstmx.Directions(PARAMS, PARAMS)
    xs, lengths = np.zeros((2, 7, 3), "float32"), np.array([7, 4])
    words = r"\(7,\). Time first: xs is \[T, B, D\]; yours look batch first: numpy.swapaxes\(xs, 0, 1\)"
    for call in (lstmx.run, lstmx.record):
        with pytest.raises(ValueError, match=words):
            call(cell, params, xs, lengths=lengths)
    outputs, _ = lstmx.run(cell, params, np.swapaxes(xs, 0, 1), lengths=lengths)
    assert outputs.shape[:2] == (7, 2)
    with pytest.raises(
        ValueError, match=r"lengths has shape \(3,\) and dtype int64; expected an integer for each"
    ):
        lstmx.run(cell, params, xs, lengths=np.array([1, 1, 1]))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64"])
def test_lengths_of_any_integer_dtype(dtype):
    xs = jnp.zeros((300, 2, 3), "float32")
    params = lstmx.GRUParams(*map(jnp.asarray, PARAMS))
    history = lstmx.record(CELL, params, xs, lengths=np.array([250, 4], dtype))
    assert history.lengths.tolist() == [250, 4]


# ------------------------------------------------------------------------------------------- tables in files


def read(path, size=3, dtype="float32"):
    return read_table(path, size, np.dtype(dtype))


@pytest.mark.parametrize("header", ["", "speed,load,heat\n", "\ufeffspeed, load, heat\r\n", "# speed,load,heat\n"])
def test_a_table_between_commas(tmp_path, header):
    rows = "\n".join(",".join(map(repr, row)) for row in XS.astype("float64").tolist())
    (tmp_path / "xs.csv").write_text(header + rows + "\n\n", encoding="utf-8", newline="")
    xs, words = read(tmp_path / "xs.csv")
    np.testing.assert_array_equal(xs, XS)
    assert (xs.dtype, words) == ("float32", ", cast from float64 to float32")
    assert read(tmp_path / "xs.csv", dtype="float64")[1] == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; expected a line of numbers for each step"),
        ("a;b;c\n1;2;3\n", "is no table of numbers between commas below its line of names"),
        ("1,2,3\n4,,6\n", "is no table of numbers between commas from its first line on"),
        ("1,2,3\n4,5\n", "is no table of numbers between commas"),
        ("a,b,c\n", "has one line, 'a,b,c', which holds no number"),
        (",a,b,c\n0,1,2,3\n", r"has the columns '', 'a', 'b', 'c'; the layer reads 3 features"),
    ],
)
def test_a_table_that_is_none(tmp_path, text, words):
    (tmp_path / "xs.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "xs.csv")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_are_cast_to_the_weights(tmp_path, dtype):
    np.save(tmp_path / "xs.npy", XS.astype(dtype))
    for other in ("float32", "float64"):
        xs, words = read(tmp_path / "xs.npy", dtype=other)
        np.testing.assert_array_equal(xs, XS)
        assert (xs.dtype, words) == (other, "" if other == dtype else f", cast from {dtype} to {other}")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".npy"])
def test_the_command_line_says_what_it_cast(tmp_path, capsys, suffix):
    np.savez(tmp_path / "p.npz", **PARAMS._asdict())
    path = tmp_path / f"xs{suffix}"
    xs = np.random.default_rng(0).normal(size=(20, 3))
    np.save(path, xs) if suffix == ".npy" else np.savetxt(path, xs, "%.17g", ",", header="a,b,c", comments="")
    out = tmp_path / "out"
    assert (
        main(["analyze", "--inputs", str(path), "--weights", str(tmp_path / "p.npz"), "--output", str(out)]) == 0
    )
    assert f"on 20 steps from {path}, cast from float64 to float32." in capsys.readouterr().out
    with np.load(out / "history.npz") as saved:
        np.testing.assert_array_equal(saved["inputs"], xs.astype("float32"))


@pytest.mark.slow  # a framework to import
def test_a_table_of_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="it reads .parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="it reads .parquet")
    path = tmp_path / "xs.parquet"
    parquet.write_table(pyarrow.table(dict(zip("abc", XS.T, strict=True))), path)
    xs, words = read(path)
    np.testing.assert_array_equal(xs, XS)
    assert (xs.dtype, words) == ("float32", "")
    parquet.write_table(pyarrow.table({"a": [0.5], "b": [2], "c": [3]}), path)
    assert read(path)[0].tolist() == [[0.5, 2.0, 3.0]]
    parquet.write_table(pyarrow.table({"a": [0.5], "b": ["two"], "c": [3]}), path)
    with pytest.raises(ValueError, match="has no numbers in the column 'b'; expected numbers alone"):
        read(path)
    path.write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"is no readable \.parquet file"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.parquet")


def test_without_pyarrow_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        ImportError, match=r"reading a \.parquet file needs the package pyarrow, which is not inst"
    ):
        read(tmp_path / "xs.parquet")


# ------------------------------------------------------------------------------------ tables on the command line


@pytest.mark.parametrize("names", ["0,1,2", "2019,2020,2021"])
def test_numbers_above_numbers_are_names_and_that_is_said(tmp_path, names):
    (tmp_path / "xs.csv").write_text(f"{names}\n.5,1,2\n1,2,3\n")
    xs, words = read(tmp_path / "xs.csv")
    assert (xs.tolist(), words) == (
        [[0.5, 1, 2], [1, 2, 3]],
        f", below its line of names {names.replace(',', ', ')}, cast from float64 to float32",
    )
    (tmp_path / "xs.csv").write_text(f"{names}\n1,2,3\n")
    assert read(tmp_path / "xs.csv")[0].shape == (2, 3)  # integers throughout


def test_tables_that_are_of_another_shape_say_what_to_do(tmp_path):
    (tmp_path / "xs.csv").write_text(",a,b,c\n0,1.5,2,3\n")
    with pytest.raises(
        ValueError, match=r"the columns '', 'a', 'b', 'c'; .* Its first column has no name, as an index"
    ):
        read(tmp_path / "xs.csv")
    np.save(tmp_path / "xs.npy", np.zeros((5, 2, 3), "float32"))
    with pytest.raises(
        ValueError, match=r"shape \(5, 2, 3\); expected one sequence \[T, 3\]. Of a batch, give one"
    ):
        read(tmp_path / "xs.npy")
    np.save(tmp_path / "xs.npy", np.zeros((5, 4), "float32"))
    with pytest.raises(
        ValueError, match=r"has 4 columns; the layer reads 3 features. Inputs are those of the layer"
    ):
        read(tmp_path / "xs.npy")
    np.save(tmp_path / "xs.npy", np.ones((5, 3), int))
    with pytest.raises(TypeError, match="is int64; expected numbers of float32: --dtype float32 casts them"):
        read(tmp_path / "xs.npy")
    xs, words = read_table(tmp_path / "xs.npy", 3, np.dtype("float32"), cast=True)
    assert (xs.dtype, words) == (np.float32, ", cast from int64 to float32")


def test_a_text_of_numbers_is_no_text(tmp_path, capsys):
    np.savetxt(tmp_path / "xs.txt", XS)
    lstmx.save(tmp_path / "p.safetensors", CELL, PARAMS)
    arguments = ["analyze", "--inputs", str(tmp_path / "xs.txt"), "--weights", str(tmp_path / "p.safetensors")]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert (
        "xs.txt holds lines of numbers, and is no text to read: give them as .npy or .csv"
        in capsys.readouterr().err
    )
