"""The secret that signs what cpro tells itself where none is configured: a random one that `data_dir` keeps."""

import os
import secrets
from pathlib import Path

from cpro._fast import mapped
from cpro.errors import StartError

NAME = "secret"
LEAST_BYTES = 16


def kept_secret(data_dir: str) -> str:
    """The same at every start; StartError where `data_dir` can't keep one."""
    path = Path(data_dir) / NAME
    fd = mapped.open_own(str(path))
    if fd is not None:
        with os.fdopen(fd) as file:
            kept = file.read().strip()
        if len(kept) >= LEAST_BYTES:
            return kept
    return _make(path)


def _make(path: Path) -> str:
    made = secrets.token_urlsafe(32)
    unfinished = path.with_suffix(".new")
    try:
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError as error:
        raise StartError(f"data_dir: can't keep a secret in {path}: {error.strerror}") from error
    return made
