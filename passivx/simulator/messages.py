"""HTTP requests and answers as the fronts see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HttpReply", "HttpRequest"]


@dataclass(slots=True)
class HttpRequest:
    """A request as it came: ``query`` is the raw text after the ``?``, header names ignore case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class HttpReply:
    """An answer, as it will go out."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
