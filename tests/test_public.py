"""Every public name says what it is, what it takes and what it holds."""

import dataclasses
import importlib.metadata
import importlib.resources
import inspect
import pydoc
import re

import pytest

import lstmx
from lstmx.cells import Cell

NAMESPACES = ["conformance", "convert", "edits", "objectives", "plot", "schemes", "tasks"]
PUBLIC = {name: getattr(lstmx, name) for name in lstmx.__all__}
for namespace in NAMESPACES:
    PUBLIC |= {f"{namespace}.{name}": getattr(PUBLIC[namespace], name) for name in PUBLIC[namespace].__all__}
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
CLASSES = [name for name, value in PUBLIC.items() if inspect.isclass(value)]
NAMED_TUPLES = [name for name in CLASSES if hasattr(PUBLIC[name], "_fields")]
DATACLASSES = [name for name in CLASSES if dataclasses.is_dataclass(PUBLIC[name])]

DESIGNED = {
    *("LSTM", "LSTMParams", "LSTMState", "GRU", "GRUParams", "GRUState"),
    *("SimpleRNN", "SimpleRNNParams", "SimpleRNNState", "run", "record", "History"),
    *("gate_statistics", "GateStatistics", "UnitStatistics", "backward", "Gradients"),
    *("gradient_flow", "GradientFlow", "plot"),
}


def section(docstring, title):
    """The lines of a section of a Google-style docstring, dedented."""
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    return inspect.cleandoc(found[1]) if found else ""


def entries(text):
    """The names that a section explains: what stands before the colon at its margin."""
    names = re.findall(r"^([\w*, ]+):", text, re.MULTILINE)
    return [name.strip(" *") for listed in names for name in listed.split(",")]


def arguments(function):
    """Names of what a caller passes."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def field_docstrings(kind):
    """Names of class attributes that a string follows in the source."""
    return re.findall(r"^    (\w+): [^\n]*\n    \"\"\"", inspect.getsource(kind), re.MULTILINE)


def test_the_designed_names_are_there():
    assert set(PUBLIC) >= DESIGNED


def test_nothing_leaks_into_the_public_names():
    assert sorted(name for name, value in PUBLIC.items() if inspect.ismodule(value)) == NAMESPACES
    assert len(FUNCTIONS) + len(CLASSES) + len(NAMESPACES) == len(PUBLIC)
    for name in FUNCTIONS + CLASSES:
        assert PUBLIC[name].__module__.startswith("lstmx.")
        assert PUBLIC[name].__name__ == name.rpartition(".")[2]


def test_dir_shows_the_public_names_alone():
    assert dir(lstmx) == sorted([*lstmx.__all__, "__version__"])
    for name in NAMESPACES:
        assert dir(PUBLIC[name]) == sorted(PUBLIC[name].__all__)


@pytest.mark.parametrize("module", [lstmx, *(PUBLIC[name] for name in NAMESPACES)], ids=lambda it: it.__name__)
def test_help_has_a_line_for_every_public_name(module):
    shown = pydoc.render_doc(module, renderer=pydoc.plaintext)
    for name in module.__all__:
        first = getattr(module, name).__doc__.strip().splitlines()[0]
        assert re.search(rf"^ +{name} +{re.escape(first)}$", shown, re.MULTILINE), name


def test_help_lists_names_under_what_they_are_for():
    headings = re.findall(r"^\n(\S.*)\n  (\w+)  ", lstmx.__doc__, re.MULTILINE)
    assert {
        ("Run a model", "run"),
        ("Gradients", "backward"),
        ("Disk", "save"),
        ("Figures and pages", "plot"),
    } <= set(headings)


@pytest.mark.parametrize("name", ["chrono", "clamp", "Edit", "adding_problem", "Task", "Batch"])
def test_what_stands_in_a_namespace_stands_nowhere_else(name):
    assert not hasattr(lstmx, name)


def test_the_package_says_that_its_types_are_to_be_read():
    assert importlib.resources.files("lstmx").joinpath("py.typed").is_file()


def test_the_version_is_that_of_the_distribution():
    assert lstmx.__version__ == importlib.metadata.version("lstmx")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_of_its_own(name):
    docstring = PUBLIC[name].__doc__ or ""
    first = docstring.strip().splitlines()[0] if docstring.strip() else ""
    assert len(first.split()) >= 3 or first.endswith(".")
    assert not first.startswith(f"{name}(")  # what Python writes for a dataclass or a NamedTuple without one


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_explains_every_argument_and_what_it_returns(name):
    function = PUBLIC[name]
    assert entries(section(function.__doc__, "Args")) == arguments(function)
    if inspect.signature(function).return_annotation != "None":
        assert section(function.__doc__, "Returns")


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_method_says_what_it_does_and_lists_all_arguments_or_none(name):
    for attribute, value in vars(PUBLIC[name]).items():
        function = getattr(value, "__func__", value)
        if attribute.startswith("_") or not inspect.isfunction(function) or issubclass(PUBLIC[name], Cell):
            continue  # a cell's faces are explained in cells/base.py
        assert function.__doc__, f"{name}.{attribute}"
        explained = entries(section(function.__doc__, "Args"))
        assert explained in ([], arguments(function)), f"{name}.{attribute}"


@pytest.mark.parametrize("name", ["init", "step"])
def test_a_face_explains_every_argument_and_what_it_returns(name):
    face = getattr(Cell, name)
    assert entries(section(face.__doc__, "Args")) == arguments(face)
    assert section(face.__doc__, "Returns")


@pytest.mark.parametrize("name", NAMED_TUPLES)
def test_a_named_tuple_explains_every_field(name):
    kind = PUBLIC[name]
    explained = set(field_docstrings(kind)) | set(entries(section(kind.__doc__, "Attributes")))
    assert explained >= set(kind._fields)


@pytest.mark.parametrize("name", DATACLASSES)
def test_a_dataclass_explains_every_field(name):
    explained = set()
    for kind in filter(dataclasses.is_dataclass, PUBLIC[name].__mro__):
        explained |= set(field_docstrings(kind)) | set(entries(section(kind.__doc__, "Attributes")))
    assert explained >= {field.name for field in dataclasses.fields(PUBLIC[name])}
