"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from passivx.errors import PassivxError

__all__ = ["atomic_write", "check_folder", "write_folder"]


def atomic_write(
    path: Path, content: bytes | str, *, mode: int = 0o666, durable: bool = True
) -> None:
    """Replace ``path`` with ``content`` in one step, on disk before this returns.

    Text is written as UTF-8. ``mode`` is narrowed by the umask, as for any new file. Without
    ``durable`` nothing waits for the disk: every reader still finds the old content or the new one
    whole, but a power cut may leave neither.

    Raises
    ------
    OSError
        If the folder cannot be written; ``path`` is then as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb"
        ) as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_names(path.parent)


def check_folder(folder: Path, names: Iterable[str], *, mark: str) -> None:
    """Raise what ``write_folder`` would refuse ``folder`` for, before the work is done."""
    folder = folder.resolve()
    try:
        held = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as e:
        raise PassivxError(f"{folder}: cannot be written ({e.strerror})") from e
    strange = sorted(held - set(names)) or sorted(held if mark not in held else ())
    if strange or folder == Path.cwd():
        why = f"holds {strange[0]}" if strange else "is the current folder"
        raise PassivxError(f"{folder} {why}: choose a folder of its own")


def write_folder(folder: Path, files: Mapping[str, bytes | str], *, mark: str) -> None:
    """Make ``folder`` hold ``files``, all of them or none.

    An empty folder is replaced, and one that holds ``mark`` and nothing but names of ``files``: an
    earlier result. A folder with anything else in it is left alone.

    Raises
    ------
    PassivxError
        If the folder holds something else, or cannot be written; it is then as it was.
    """
    folder = folder.resolve()
    check_folder(folder, files, mark=mark)
    token = secrets.token_hex(4)
    fresh, old = (folder.with_name(f".{folder.name}.{token}.{end}") for end in ("tmp", "old"))
    try:
        fresh.mkdir(parents=True)
        for name, content in files.items():
            atomic_write(fresh / name, content)
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
        _sync_names(folder.parent)
    except OSError as e:
        raise PassivxError(f"{folder}: cannot be written ({e.strerror})") from e
    finally:
        if old.exists() and not folder.exists():
            old.replace(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sync_names(folder: Path) -> None:
    # A new name lives in its folder: without this a power cut can take it back.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
