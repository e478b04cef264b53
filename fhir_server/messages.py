"""What goes through the front door: a request, a response, and the resource in them.

https://hl7.org/fhir/R4/http.html
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fhir_server.outcome import Issue

Resource = dict[str, Any]
"""A FHIR resource as its JSON object; decimals are :class:`decimal.Decimal`."""

Parameters = tuple[tuple[str, str], ...]
"""Names and values of a query string, percent-decoded, in their order."""

ANY_VERSION = "*"
NO_ENTRY = -1
"""The place of what is no entry of a bundle."""

Pieces = AsyncIterator[bytes]
"""Bytes that come one piece after the other, so that nobody holds them all."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a Binary holds where that is too large for its document: ``size`` bytes kept under
    ``id``, with the digest ``sha256``."""

    id: str
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One interaction, wherever it came from.

    ``interaction`` is the specification's word (``read``, ``history-instance``) or an operation
    (``$validate``). ``version`` is the ``[vid]`` of a vread, as text. ``if_match`` and
    ``if_none_match`` hold version ids, or ``*``; ``None`` is a header that was not sent.
    ``prefer`` has the parts of the Prefer header: ``{"return": "minimal"}``. ``base_url`` is what
    the client calls ``[base]``, without a slash at the end. ``format`` are the parameters about the
    form of the answer, which only links repeat. ``reading`` says of an operation that it was called
    with GET, which changes nothing. ``idempotency_key`` makes a repeated write the same write.
    ``pieces`` is the body of a Binary by its own content type; it becomes the ``data`` of ``body``
    or, where it is large, the ``content`` beside it. ``text`` is the body of an operation as it was
    sent, JSON or XML, for those who say where something stands in it. ``entry`` is the place in the
    bundle that it came in, :data:`NO_ENTRY` for none. ``override`` is why a rule is not to hold for
    what is written (``store/rules.py``).
    """

    interaction: str
    type: str = ""
    id: str = ""
    version: str = ""
    body: Resource | None = None
    parameters: Parameters = ()
    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None
    if_modified_since: datetime | None = None
    if_none_exist: str | None = None
    prefer: Mapping[str, str] = field(default_factory=dict)
    base_url: str = ""
    format: Parameters = ()
    reading: bool = False
    idempotency_key: str | None = None
    pieces: Pieces | None = None
    content: Content | None = None
    text: bytes = b""
    entry: int = NO_ENTRY
    override: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request. ``body`` is JSON as served, or empty.

    ``version`` and ``last_updated`` become ETag and Last-Modified. ``location`` is relative to
    ``[base]``. ``headers`` are further ones. Where ``content`` is given, ``body`` is a Binary
    without its data, and ``pieces`` returns the bytes of it from one place to before another.
    ``remarks`` are what is to be said of a write that was made. ``concerns`` are the compartments
    of what was read, for the audit record. ``media_type`` is that of a body which is no resource,
    and of ``pieces`` without a ``content``.
    """

    status: int
    body: bytes = b""
    version: int = 0
    last_updated: datetime | None = None
    location: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    content: Content | None = None
    pieces: Callable[[int, int], Pieces] | None = None
    remarks: tuple[Issue, ...] = ()
    concerns: Sequence[str] = ()
    media_type: str = ""
