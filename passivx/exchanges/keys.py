"""API keys: read from a file that only its owner can read, and never shown."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, NoReturn

import orjson

from passivx._core.wire import Hmac
from passivx.errors import ConfigError, Problem

__all__ = ["ApiKey", "KeyKind", "load_key"]

# The longest secret in use is a PEM text of a few hundred bytes.
_MAX_BYTES: Final = 16 << 10
_PEM: Final = "-----BEGIN "
_FORM: Final = 'a JSON list of two texts, ["KEY", "SECRET"]'


class KeyKind(StrEnum):
    """How requests are signed with a key."""

    HMAC = "hmac"
    ED25519 = "ed25519"


class ApiKey:
    """The name of an API key, and what signs with its secret.

    Nothing gives the secret back: it is in no repr, and the key cannot be copied or serialised.

    Parameters
    ----------
    secret
        The venue's text for ``KeyKind.HMAC``, a PKCS#8 PEM text for ``KeyKind.ED25519``.

    Raises
    ------
    ConfigError
        If either cannot be used. It quotes neither.
    """

    __slots__ = ("_key", "_kind", "_sign")

    def __init__(self, key: str, secret: str, kind: KeyKind = KeyKind.HMAC) -> None:
        if problem := _word_problem("key", key):
            raise ConfigError([problem])
        self._key = key
        self._kind = kind
        self._sign = _ed25519(secret) if kind is KeyKind.ED25519 else _hmac(secret)

    @property
    def key(self) -> str:
        """The text that requests carry; ASCII without blanks."""
        return self._key

    @property
    def kind(self) -> KeyKind:
        """How it signs."""
        return self._kind

    def signer(self) -> Callable[[bytes], bytes]:
        """Return what signs a message.

        HMAC-SHA256 as 64 lowercase hex digits, or Ed25519 as base64 with its ``+/=``:
        percent-encode that in a URL, not in a socket's JSON.
        """
        return self._sign

    def __repr__(self) -> str:
        return f"ApiKey(key={self._key[:4]}…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an ApiKey is not copied, and not sent to another process")


def load_key(path: Path) -> ApiKey:
    """Read ``["KEY", "SECRET"]``; a secret that is a PEM text makes an Ed25519 key.

    Raises
    ------
    ConfigError
        If the file is a link, no regular file, another user's or (on POSIX) open to others, or does
        not hold a key. It quotes nothing of the content.
    """
    content = _read(path)
    row = None
    if len(content) <= _MAX_BYTES:
        try:
            row = orjson.loads(content)
        except ValueError:
            row = None
    if not (isinstance(row, list) and len(row) == 2 and all(isinstance(x, str) for x in row)):
        raise ConfigError([Problem("", None, f"must be {_FORM}", "write it anew")], path)
    key, secret = row
    kind = KeyKind.ED25519 if secret.lstrip().startswith(_PEM) else KeyKind.HMAC
    try:
        return ApiKey(key, secret, kind)
    except ConfigError as e:
        problems = e.problems
    # Raised here, so that no context leads back to what was read.
    raise ConfigError(problems, path)


def _read(path: Path) -> bytes:
    # Neither a link nor a pipe that nobody writes to holds this up.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if path.is_symlink():
            raise ConfigError([Problem("", None, "is a link", "name the file itself")], path)
        descriptor = os.open(path, flags)
        try:
            if problem := _file_problem(path, os.fstat(descriptor)):
                raise ConfigError([problem], path)
            return os.read(descriptor, _MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as e:
        raise ConfigError([Problem("", None, f"cannot be read ({e.strerror})")], path) from None


def _file_problem(path: Path, status: os.stat_result) -> Problem | None:
    if not stat.S_ISREG(status.st_mode):
        return Problem("", None, "is not a regular file", "name a file")
    if os.name != "posix":
        return None
    if status.st_uid != os.geteuid():
        return Problem("", None, "belongs to another user", f"chown it, and chmod 600 {path}")
    if stat.S_IMODE(status.st_mode) & ~0o600:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        return Problem("", None, f"has mode {mode}, must be 0600", f"chmod 600 {path}")
    return None


def _word_problem(name: str, value: str) -> Problem | None:
    if value.isascii() and value.isprintable() and value and " " not in value:
        return None
    return Problem(name, None, "must be printable ASCII without blanks", "copy it again")


def _hmac(secret: str) -> Callable[[bytes], bytes]:
    if problem := _word_problem("secret", secret):
        raise ConfigError([problem])
    return Hmac(secret.encode()).sign


def _ed25519(secret: str) -> Callable[[bytes], bytes]:
    # Slow to import, and most keys are not of this kind.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private: object = None
    try:
        private = load_pem_private_key(secret.strip().encode(), password=None)
    except TypeError:
        message, remedy = "is encrypted", "write it without a password: openssl pkcs8 -nocrypt"
    except Exception:
        # The library names no closed set of errors for what is not a key.
        message, remedy = "is no private key", "paste the whole PEM text"
    else:
        message, remedy = "must be an Ed25519 key", "make one: openssl genpkey -algorithm ed25519"
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError([Problem("secret", None, message, remedy)])

    def sign(message: bytes) -> bytes:
        return base64.b64encode(private.sign(message))

    return sign
