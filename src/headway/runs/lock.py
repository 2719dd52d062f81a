"""One writer at a time in a folder: a lock that ends with its process, however that ends."""

import errno
import fcntl
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headway.types import HeadwayError

FILE = ".lock"

logger = logging.getLogger(__name__)


@contextmanager
def writing(folder: Path, name: str = FILE) -> Iterator[int]:
    """Holds a folder, made if it is not there, to write in it; gives the descriptor of the lock.

    A HeadwayError where another process holds it (says which), or nothing can be written. A file system without locks
    is a warning.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        cannot = f"{folder} cannot be written to ({error.strerror}); work on a copy of it"
        raise HeadwayError(f"{cannot}, or `headway compare {folder} --out FOLDER` reports on it elsewhere") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read(200).strip()
            raise HeadwayError(
                f"{folder} is in use by another process ({holder or 'unknown'}); two at once would write everything "
                "twice. Wait until it ends, or end it: the same command then continues"
            ) from error
        except OSError as error:
            logger.warning("%s cannot be locked (%s): start no second process on it", folder, error.strerror)
        file.truncate(0)
        print(f"process {os.getpid()} on {platform.node()}", file=file, flush=True)
        yield file.fileno()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder to work in, held by this process: empty at first, whatever a killed one left, and gone at the end."""
    with writing(folder):
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != FILE:
                left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
