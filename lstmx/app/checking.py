"""What is wrong with a folder or a file that lstmx reads: every chunk, every array."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lstmx.app.weights import reader_of, recurrent_modules
from lstmx.checks import finite_parameters
from lstmx.history.schema import CHECKSUMS_SINCE, FORMAT
from lstmx.history.store import Store, finished_steps, opened_group
from lstmx.history.verified import MARKER, read_marker
from lstmx.observatory.disk import FORMAT as LOOKS
from lstmx.observatory.disk import opened_looks
from lstmx.observatory.looking import READINGS


def problems(path: Path) -> Iterator[str]:
    """What is wrong, a line for each; nothing is written.

    Args:
        path: a folder that `history.save`, `record_to` or an `Observatory` wrote, or a file of weights that
            `lstmx analyze` reads.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is of no kind that lstmx reads.
        OSError: it cannot be read.
        ImportError: a package that reads it is not installed.
    """
    if not (path / MARKER).is_file():
        return _of_weights(path)
    try:
        kind = _attributes(path).get("format")
    except ValueError as error:
        return iter([str(error)])
    if kind not in (FORMAT, LOOKS):
        raise ValueError(f"{path} holds no history and no looks of an observatory: its format is {kind!r}")
    return _of_history(path) if kind == FORMAT else _of_looks(path)


def unseen(path: Path) -> str:
    """What `problems` does not see there, in words; empty where it sees all."""
    if not (path / MARKER).is_file():
        return "its numbers have no checksums of ours: they are finite, and what they were is not known"
    attributes = _attributes(path)
    if attributes["format"] == LOOKS and "checksums" in attributes:
        return ""
    version = attributes["format_version"]
    if attributes["format"] == FORMAT and version >= CHECKSUMS_SINCE:
        return ""
    return "what wrote it kept no checksums yet: numbers that were changed are not seen"


def _attributes(path: Path) -> dict[str, Any]:
    found = read_marker(path).get("attributes")
    return found if isinstance(found, dict) else {}


def _of_history(path: Path) -> Iterator[str]:
    try:
        attributes, arrays = opened_group(path)
        if "layers" in attributes:
            for array in arrays.values():
                yield from array.problems()
            for part in attributes.get("parts") or _groups(path):
                if (path / part / MARKER).is_file():
                    yield from _of_history(path / part)
                else:
                    yield f"{path} is damaged: it lacks {part}, or its {MARKER}"
            return
        if _is_described(attributes.get("cell")):
            Store(path)
        finished = finished_steps(attributes, arrays["inputs"].shape[0], path)
    except (ValueError, KeyError) as error:
        yield str(error)
        return
    for name, array in arrays.items():
        yield from array.problems(None if name.startswith(("parameter_", "initial_")) else finished)


def _groups(path: Path) -> list[str]:
    """The groups in one of layers that does not list them."""
    names = sorted(file.parent.name for file in path.glob(f"*/{MARKER}"))
    return [name for name in names if read_marker(path, name).get("node_type") == "group"]


def _is_described(cell: Any) -> bool:
    """Whether a cell can be made from what a file tells of it; of what is no JSON, too, for the error."""
    try:
        return "shown" not in json.loads(cell)
    except (TypeError, ValueError):
        return True


def _of_looks(path: Path) -> Iterator[str]:
    try:
        looks, arrays = opened_looks(path)
    except ValueError as error:
        yield str(error)
        return
    for name, array in arrays.items():
        yield from array.problems(looks if name in ("step", *READINGS) else None)


def _of_weights(path: Path) -> Iterator[str]:
    reader_of(path)  # raises where it is of no kind of these

    def found() -> Iterator[str]:
        try:
            modules = recurrent_modules(path)
        except (ValueError, TypeError) as error:
            yield str(error) if str(path) in str(error) else f"{path}: {error}"
            return
        for name, read in modules.items():
            try:
                finite_parameters(read()[1])
            except (ValueError, TypeError) as error:
                yield str(error) if str(path) in str(error) else f"{path}: {name or 'the cell'}: {error}"

    return found()
