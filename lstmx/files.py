"""Files that are written whole or not at all, that are on the disk, and that one writer at a time may write."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

has_locks_for_many = fcntl is not None
"""Whether a lock goes with the process that has it, whatever ends it, on a file that several machines share."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that has none
_TOGETHER = 16  # files that are handed to the disk at once, since one of its flushes serves all


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


def synced(paths: Iterable[Path]) -> None:
    """Return when files, or the names in folders, are on the disk, and no loss of power takes them."""
    with ThreadPoolExecutor(_TOGETHER) as pool:
        list(pool.map(_synced, paths))


def _synced(path: Path) -> None:
    folder = path.is_dir()
    if folder and os.name == "nt":  # which opens no folders
        return
    opened = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(opened)
    except OSError as error:
        if not folder or error.errno != errno.EINVAL:  # of a file system that knows no such thing of folders
            raise
    finally:
        os.close(opened)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the file `path`, which is there meanwhile, against every other thread and process.

    The system lets go of it when the process ends, however it does; the empty file may be left then, and holds
    nobody off.

    Raises:
        BlockingIOError: another one holds it.
    """
    opened = _held(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # on Windows, which removes no open files, it stays
            if _is_at(opened, path):
                os.unlink(path)
        if fcntl is not None:
            fcntl.flock(opened, fcntl.LOCK_UN)  # in processes that were forked meanwhile, too
        os.close(opened)


def _held(path: Path) -> int:
    """The file, opened and locked."""
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(opened, path)
        except BaseException:
            os.close(opened)
            raise
        if _is_at(opened, path):
            return opened
        os.close(opened)  # the one who held it took it away in between


def _lock(opened: int, path: Path) -> None:
    try:
        if fcntl is not None:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(opened, msvcrt.LK_NBLCK, 1)  # type: ignore  # where there is no fcntl
    except PermissionError as error:  # as Windows says it
        raise BlockingIOError(*error.args) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"the file system of {path.parent} has no locks: nothing keeps two calls from writing there at once",
            stacklevel=2,
        )


def _is_at(opened: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(opened), os.stat(path))
    return False
