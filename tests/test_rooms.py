"""A room imports only the rooms below it."""

import ast
import functools
import graphlib
from pathlib import Path

import lstmx

ROOMS = [
    *("arrays", "contents", "draws", "scaling", "checks", "files", "scans", "cells", "schemes", "strips"),
    *("history", "layers", "editing", "edits", "linear", "passes"),
    *("statistics", "gradients", "dynamics", "memory", "attribution", "objectives"),
    *(
        "units",
        "tasks",
        "observatory",
        "training",
        "comparison",
        "convert",
        "conformance",
        "plot",
        "pages",
        "app",
        "__main__",
    ),
]
HOUSE = Path(lstmx.__file__).parent


def room(module):
    """The room of a dotted module name, and its part inside the room."""
    name, _, part = module.removeprefix("lstmx.").partition(".")
    return name, part


@functools.cache
def files():
    """(room, part, tree) of every file but the table of contents."""
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        name, *parts = path.relative_to(HOUSE).with_suffix("").parts
        if name != "__init__":
            part = ".".join(part for part in parts if part != "__init__")
            found.append((name, part, ast.parse(path.read_text())))
    return found


def cell_files():
    return [(part, tree) for name, part, tree in files() if name == "cells"]


def imports(tree):
    """Dotted names of what a file imports from lstmx, wherever in the file it does."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            within = node.module == "lstmx"
            names = [f"lstmx.{alias.name}" for alias in node.names] if within else [node.module]
        yield from (name for name in names if name.split(".")[0] == "lstmx")


def test_every_room_has_its_floor():
    assert {name for name, _, _ in files()} <= set(ROOMS)


def test_a_room_imports_only_lower_rooms():
    found = [(name, other) for name, _, tree in files() for other in imports(tree)]
    assert len(found) > 20
    for name, other in found:
        allowed = other == "lstmx.__version__" or ROOMS.index(room(other)[0]) <= ROOMS.index(name)
        assert allowed, f"{name} must not import {other}"


def test_nothing_imports_itself_by_way_of_others():
    """Inside rooms too, and by imports inside functions."""
    known = {f"lstmx.{name}" + (f".{part}" if part else "") for name, part, _ in files()}
    graph = {}
    for name, part, tree in files():
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lstmx."):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & known) | ({node.module} if inner - known else set())
        graph[f"lstmx.{name}" + (f".{part}" if part else "")] = found
    graphlib.TopologicalSorter(graph).prepare()  # raises a CycleError that lists the circle


def test_a_cell_imports_no_other_cell():
    kinds = {part for part, tree in cell_files() if any(is_cell(node) for node in tree.body)} - {"base"}
    assert kinds >= {"lstm", "gru", "simple", "janet", "mgu", "minimal", "slstm", "zoneout", "step_function"}
    for part, tree in cell_files():
        others = {room(o)[1] for o in imports(tree) if room(o)[0] == "cells"}
        assert part in ("", "description") or not others & kinds, f"cells.{part} must not import {others & kinds}"


def is_cell(node):
    bases = [
        getattr(base, "id", getattr(getattr(base, "value", None), "id", "")) for base in getattr(node, "bases", [])
    ]
    return isinstance(node, ast.ClassDef) and bool({"Cell", "_Minimal"} & set(bases))


def test_the_table_of_contents_holds_no_code():
    tree = ast.parse((HOUSE / "__init__.py").read_text())
    docstring, *imported, version, names, published = tree.body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in imported)
    assert ast.unparse(version).startswith("__version__ =")
    assert ast.unparse(names).startswith("__all__ =")
    assert ast.unparse(published).startswith("_publish(__name__, headings=")
