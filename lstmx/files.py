"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def written_whole(path: str | Path) -> Iterator[Any]:
    """A binary file that takes the place of `path` when all of it is written, or not at all."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"path is {path}, and there is no folder {folder} to write it into")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{Path(path).name}.", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    """The process's own; it can be read by setting it alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
