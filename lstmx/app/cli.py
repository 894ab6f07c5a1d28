"""The command line: `lstmx deep-dive`, `lstmx analyze`, `lstmx check` and `lstmx check-implementation`."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lstmx.app.checking import problems, unseen
from lstmx.app.choices import Choices
from lstmx.app.implementing import implementation_of
from lstmx.app.report import claim_folder, write_report
from lstmx.app.storage import save_with
from lstmx.app.tables import TABLES, is_number, read_table
from lstmx.app.weights import features_of_text, read_weights, recurrent_modules, vocabulary_of
from lstmx.arrays import dtype_of
from lstmx.cells import GRU, LSTM, SimpleRNN
from lstmx.checks import path as checked_path
from lstmx.checks import sequences
from lstmx.comparison import compare
from lstmx.conformance import check_against
from lstmx.conformance.frameworks import FRAMEWORKS
from lstmx.convert.named import in_a_list
from lstmx.draws import in_library
from lstmx.layers import Layers
from lstmx.passes.run import record
from lstmx.tasks import next_character
from lstmx.training import Model, adam

_CELLS: dict[str, Any] = {"lstm": LSTM, "gru": GRU, "simple-rnn": SimpleRNN}
_PASSAGE = 2000
_COMPILED = 30_000  # steps from which compiling for JAX takes less time than it saves


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for an error of the user's input, 1 for what is wrong."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given or ["--help"])
    try:
        return options.command(options) or 0
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"lstmx: error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"lstmx: error: not enough memory: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lstmx: interrupted; nothing more was written", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    from lstmx import __version__

    parser = argparse.ArgumentParser(prog="lstmx", description="A microscope for recurrent networks.")
    parser.add_argument("--version", action="version", version=f"lstmx {__version__}")
    commands = parser.add_subparsers(required=True, metavar="{deep-dive,analyze,check,check-implementation}")
    shown = argparse.ArgumentDefaultsHelpFormatter

    dive = commands.add_parser(
        "deep-dive",
        formatter_class=shown,
        help="train small character models on English text and report on their gates",
    )
    dive.set_defaults(command=deep_dive)
    dive.add_argument("--text", type=_path, help="a UTF-8 text file; Python's own help topics if not given")
    dive.add_argument("--cell", choices=list(_CELLS), default="lstm", help="the cell under the microscope")
    dive.add_argument("--hidden-size", type=int, default=128, help="units of that cell")
    dive.add_argument("--steps", type=int, default=800, help="training steps of each model")
    dive.add_argument("--seed", type=int, default=0, help="of parameters and batches")

    analyze_ = commands.add_parser(
        "analyze", formatter_class=shown, help="record and report on your own parameters and inputs"
    )
    analyze_.set_defaults(command=analyze)
    tables = (
        ".npy, .csv or .parquet of inputs, [T, D], a row for each step; or a text that a character model reads"
    )
    analyze_.add_argument("--inputs", type=_path, required=True, help=tables)
    kinds = (
        "what lstmx.save or PyTorch wrote (.safetensors, .pt, .pth, .pth.tar, .ckpt, .bin), a model of Keras "
        "(.keras, .h5), .onnx, .msgpack of Flax or a folder of Orbax, or .npz"
    )
    analyze_.add_argument("--weights", "--parameters", type=_path, required=True, metavar="WEIGHTS", help=kinds)
    analyze_.add_argument(
        "--layer", help='which recurrent layer of the model, where it has several; or "all" that the inputs fit'
    )
    analyze_.add_argument(
        "--nonlinearity",
        choices=("tanh", "relu"),
        help="of a layer in weights that do not say it, as of an RNN of PyTorch; tanh if not given",
    )
    analyze_.add_argument(
        "--reset",
        choices=("before", "after"),
        help="of a GRU of ONNX, the product; what the file says if not given, which old exporters wrote wrongly",
    )
    analyze_.add_argument("--dtype", choices=("float32", "float64"), help="cast weights and inputs to it")
    for command in (dive, analyze_):
        command.add_argument("--output", type=_path, default=Path("lstmx-report"), help="folder of the report")
        command.add_argument("--force", action="store_true", help="write into a folder that no report wrote")

    check_ = commands.add_parser(
        "check",
        help="look for damage in a recorded pass, the looks of an observatory or a file of weights",
        description="Reads every chunk and every array, compares checksums, and writes nothing. One line for each "
        "thing that is wrong; exit status 0 if nothing is, 1 if something is, 2 if it cannot be read at all.",
    )
    check_.set_defaults(command=check)
    check_.add_argument("path", type=_path, help="a folder that lstmx wrote, or a file that analyze reads")

    kit = commands.add_parser(
        "check-implementation",
        help="compare an implementation of recurrent cells with 40-digit truth, and name its mistakes",
        description="Gives an implementation 21 small cases, compares the gates, states, gradients, exponents "
        "and fixed points that it returns with the truth, and says which known mistakes explain what differs, or "
        "where it first differs. Exit status 0 if all is right, 1 if something differs, 2 if it cannot be run.",
    )
    kit.set_defaults(command=check_implementation)
    kit.add_argument(
        "implementation",
        help=f"{', '.join(FRAMEWORKS)}; or module:function, a function from a case to a dict of arrays, as "
        "help(lstmx.conformance) explains",
    )
    kit.add_argument("--case", action="append", metavar="NAME", help="try this case alone; may be given again")
    kit.add_argument(
        "--tolerance",
        type=float,
        help="what numbers of size 1 may be off by; 1000 roundings of the dtype that is returned if not given",
    )
    return parser


def _path(text: str) -> Path:
    try:
        return checked_path("it", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check(options: argparse.Namespace) -> int:
    """Print what is wrong with a folder or a file; 1 if something is."""
    damaged = 0
    for problem in problems(options.path):
        print(problem)
        damaged = 1
    if not damaged:
        print("; ".join(filter(None, (f"{options.path}: nothing wrong was found", unseen(options.path)))))
    return damaged


def check_implementation(options: argparse.Namespace) -> int:
    """Print what an implementation does right and wrong; 1 if something differs."""
    found = check_against(implementation_of(options.implementation), options.case, tolerance=options.tolerance)
    print(found)
    return int(not found.passed)


def deep_dive(options: argparse.Namespace) -> None:
    """Train three cells on text, record the first on a passage it was not trained on, and report."""
    text, source = _text(options.text)
    task = next_character(text, length=64, batch=32, seed=options.seed)
    chosen = _CELLS[options.cell]
    cells = [chosen(task.input_size, options.hidden_size)]
    cells += [kind(task.input_size, options.hidden_size) for kind in _CELLS.values() if kind is not chosen]
    folder = claim_folder(options.output, options.force)
    print(f"{source}: {len(text):,} characters, {len(task.vocabulary)} different; training {options.steps} steps")
    comparison = compare(cells, task, steps=options.steps, optimizer=adam(1e-2), seed=options.seed)
    if comparison.interrupted:
        print("interrupted: reporting on what was trained so far")

    cell, params = comparison.cells[0], comparison.trainings[0][0].params
    extras = {f"readout_{name}": value for name, value in params.readout._asdict().items()}
    extras["vocabulary"] = np.array([ord(character) for character in task.vocabulary.characters], np.uint32)
    save_with(folder / "parameters.safetensors", cell, params.cell, extras)
    passage = task.validation_text[:_PASSAGE]
    xs = task.vocabulary.one_hot(task.vocabulary.encode(passage))
    history = record(cell, params.cell, xs)
    start = Model(cell, task.output_size, task.loss).init(options.seed).cell
    others = {f"{comparison.names[0]} before training": record(cell, start, xs, keep="states")}
    for name, other, (training,) in list(
        zip(comparison.names, comparison.cells, comparison.trainings, strict=True)
    )[1:]:
        others[name] = record(other, training.params.cell, xs, keep="states")
    head = [
        f"Text: {source}, {len(task.train_text):,} characters to train on and {len(task.validation_text):,} more.",
        "",
        str(comparison),
        "",
        f"Under the microscope: {cell} on {len(passage):,} characters that it was not trained on.",
    ]
    summary = write_report(folder, history, head, passage, comparison, others, params.readout.kernel)
    print("\n" + summary)
    print(f"A page to explore is {folder / 'index.html'}; figures, summary, parameters and history are beside it")


def analyze(options: argparse.Namespace) -> None:
    """Record a user's own cell on a user's own inputs, and report."""
    assumed: list[str] = []
    choices = Choices(options.nonlinearity, options.reset, options.dtype, assumed.append)
    if options.layer == "all":
        _analyze_all(options, choices, assumed)
        return
    cell, params, name, part = read_weights(options.weights, options.layer, choices)
    inputs = _inputs(options, cell, params)
    inside = cell.cell_names() if isinstance(cell, Layers) else []
    if part and not inside:
        raise ValueError(f"{options.weights}: {name or 'the module'} is one cell, and has no {part!r} inside")
    if inside and part not in inside:
        listed = in_a_list(f"{name}: {one}" for one in inside)
        raise ValueError(
            f"{options.weights} has several layers: choose one with --layer NAME, or --layer all; those are "
            f"{listed}"
        )
    history = _recorded(cell, params, inputs)
    folder = claim_folder(options.output, options.force)
    print(_report(options, folder, history, name, part, inputs, assumed))
    print(f"A page to explore is {folder / 'index.html'}; figures, summary and history are beside it")


def _analyze_all(options: argparse.Namespace, choices: Choices, assumed: list[str]) -> None:
    """Report on every recurrent layer of a file that the inputs fit, each in a folder of its own."""
    found = recurrent_modules(options.weights, choices)
    fitting: dict[str, tuple[Any, Any, Inputs, list[str]]] = {}
    left: dict[str, str] = {}
    for name, read in found.items():
        assumed.clear()
        try:
            cell, params = read()
            inputs = _inputs(options, cell, params)
            sequences(cell, params, inputs.xs)
            fitting[name] = cell, params, inputs, list(assumed)
        except (ValueError, TypeError) as error:
            left[name] = str(error)
    listed = [f"Left out: {name or 'the layer'}: {why}" for name, why in left.items()]
    if not fitting:
        raise ValueError(
            "\n  ".join([f"{options.weights} has no recurrent layer that reads these inputs", *listed])
        )
    folder = claim_folder(options.output, options.force)
    folders: dict[Path, str] = {}
    for name, (cell, params, inputs, words) in fitting.items():
        history = _recorded(cell, params, inputs)
        for part in cell.cell_names() if isinstance(cell, Layers) else [""]:
            which = ": ".join(filter(None, (name, part))) or "layer"
            own = folder / re.sub(r"[^\w.-]+", "-", which).strip(".")
            while own in folders:  # of a layer whose name differs in such a character
                own = own.with_name(f"{own.name}_")
            folders[own] = which
            claim_folder(own, options.force)
            print(_report(options, own, history, name, part, inputs, words))
    summary = "\n".join([*(f"{which}: in {own}/" for own, which in folders.items()), *listed])
    (folder / "summary.txt").write_text(f"{summary}\n", encoding="utf-8")
    print(summary)


class Inputs(NamedTuple):
    """Inputs [T, D], the text that they are where they are one, and in words how it was read."""

    xs: np.ndarray
    text: str | None
    words: str


def _recorded(cell: Any, params: Any, inputs: Inputs) -> Any:
    return record(cell, in_library(params, None) if len(inputs.xs) >= _COMPILED else params, inputs.xs)


def _report(
    options: argparse.Namespace,
    folder: Path,
    history: Any,
    name: str,
    part: str,
    inputs: Inputs,
    assumed: list[str],
) -> str:
    """Write the report on a cell, or on the part of layers that has this name; returns its summary."""
    text = inputs.text
    if part:
        history = history.cells()[part][0]
        text = text[::-1] if text is not None and part.endswith("backward") else text  # in the order of reading
    source = ", ".join(filter(None, (str(options.weights), ": ".join(filter(None, (name, part))))))
    source += "," if name or part else ""
    head = [f"{history.cell} from {source} on {len(inputs.xs):,} steps from {options.inputs}{inputs.words}."]
    if part.endswith("backward"):
        head.append("It reads backwards: its step 0 is the last step of the inputs, in figures and files, too.")
    head += [f"Assumed: {words}." for words in assumed]
    return write_report(folder, history, head, text, progress=True)


def _inputs(options: argparse.Namespace, cell: Any, params: Any) -> Inputs:
    """The inputs that a layer reads, in the dtype of its parameters."""
    path, size, dtype = options.inputs, cell.input_size, dtype_of(params)
    if path.suffix.lower() in TABLES:
        xs, words = read_table(path, size, dtype, cast=options.dtype is not None)
        return Inputs(xs, None, words)
    text, _ = _text(path)
    lines = [re.split(r"[,;\s]+", line.strip()) for line in text.splitlines() if line.strip()]
    if lines and all(map(is_number, (word for line in lines for word in line if word))):
        raise ValueError(f"{path} holds lines of numbers, and is no text to read: give them as .npy or .csv")
    xs, words = features_of_text(text, size, vocabulary_of(options.weights))
    return Inputs(xs.astype(dtype), text if len(xs) == len(text) else None, f", {words}")


def help_topics() -> str:
    """The text of Python's own help topics: English about Python, part of every installation."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def _text(path: Path | None) -> tuple[str, str]:
    """The text to read and what to call it."""
    if path is None:
        return help_topics(), "Python's help topics"
    try:
        return path.read_bytes().decode("utf-8"), str(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from error
