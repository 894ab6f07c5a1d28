"""Models of Flax and Equinox in files: .msgpack, folders of Orbax, and .eqx, which is refused with advice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lstmx.app.choices import Choices
from lstmx.arrays import jax, require
from lstmx.convert.flax import assumed, flax_cells, from_flax


def flax_readers(path: str | Path, choices: Choices) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """The recurrent cells of Flax in a .msgpack file or a folder of Orbax by path, each with what reads it.

    Args:
        path: what `flax.serialization.to_bytes` made, in a file; or the folder of a checkpoint, or one with a
            single checkpoint inside.
        choices: the nonlinearity of a SimpleCell, and the dtype.

    Raises:
        ValueError: the file is cut short or none of Flax; or the folder holds no checkpoint, or several.
        ImportError: Flax, or Orbax for a folder, is not installed.
    """
    choices.without(path, "reset")
    tree = _orbax(Path(path)) if Path(path).is_dir() else _msgpack(Path(path))

    def reader(name: str) -> Callable[[], tuple[Any, Any]]:
        def read() -> tuple[Any, Any]:
            made = from_flax(tree, choices.nonlinearity, name, choices.dtype)
            choices.tell(assumed(made[0], choices.nonlinearity))
            return made

        return read

    return {name: reader(name) for name in flax_cells(tree)}


def _msgpack(path: Path) -> dict[str, Any]:
    serialization = require("flax.serialization", f"reading {path.name}", "flax")
    try:
        tree = serialization.msgpack_restore(path.read_bytes())
    except Exception as error:  # of msgpack, of NumPy
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is cut short, or not what flax.serialization.to_bytes wrote: {reason}"
        ) from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds a {type(tree).__name__}; expected a dict of parameters")
    return tree


def _orbax(path: Path) -> dict[str, Any]:
    found = [path] if (path / "_METADATA").is_file() else sorted(one.parent for one in path.glob("**/_METADATA"))
    if len(found) != 1:
        listed = ", ".join(str(one.relative_to(path)) for one in found)
        inside = ", ".join(sorted(one.name for one in path.iterdir())[:6]) or "nothing"
        asked = (
            f"several checkpoints: give one of {listed}" if found else f"no checkpoint of Orbax: it has {inside}"
        )
        raise ValueError(f"the folder {path} holds {asked}")
    orbax = require("orbax.checkpoint", f"reading the folder {path}", "orbax-checkpoint")
    whole, absl = found[0].resolve(), logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.ERROR)  # a checkpoint inside a manager's folder has fewer files than it looks for
    try:
        with orbax.PyTreeCheckpointer() as checkpointer:
            known = checkpointer.metadata(whole)
            tree = getattr(getattr(known, "item_metadata", known), "tree", known)
            return checkpointer.restore(whole, restore_args=jax.tree.map(_as_numpy(orbax), tree))
    except Exception as error:  # of Orbax, of TensorStore
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the folder {path} is no whole checkpoint of Orbax: {reason}") from error
    finally:
        absl.setLevel(level)


def _as_numpy(orbax: Any) -> Callable[[Any], Any]:
    """How a leaf is restored: an array in NumPy, wherever it was when it was saved."""

    def restored(leaf: Any) -> Any:
        plain = hasattr(leaf, "shape") and "key" not in str(getattr(leaf, "dtype", ""))
        return orbax.RestoreArgs(restore_type=np.ndarray) if plain else orbax.RestoreArgs()

    return restored


def refuse_equinox(path: str | Path, choices: Choices) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Say what to do with a file that `equinox.tree_serialise_leaves` wrote.

    Raises:
        ValueError: always.
    """
    del choices
    raise ValueError(
        f"{path} holds the arrays of a model of Equinox in order, without their names; the model that wrote it "
        "knows these. Where `model` is one of the same form, with a cell:\n"
        f"  model = equinox.tree_deserialise_leaves({str(path)!r}, model)\n"
        '  lstmx.save("weights.safetensors", *lstmx.convert.from_equinox(model.cell))\n'
        "and give weights.safetensors"
    )
