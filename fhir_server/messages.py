"""What goes through the front door: a request, a response, and the resource in them.

https://hl7.org/fhir/R4/http.html
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Resource = dict[str, Any]
"""A FHIR resource as its JSON object; decimals are :class:`decimal.Decimal`."""

Parameters = tuple[tuple[str, str], ...]
"""Names and values of a query string, percent-decoded, in their order."""

ANY_VERSION = "*"


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


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request. ``body`` is JSON as served, or empty.

    ``version`` and ``last_updated`` become ETag and Last-Modified. ``location`` is relative to
    ``[base]``. ``headers`` are further ones.
    """

    status: int
    body: bytes = b""
    version: int = 0
    last_updated: datetime | None = None
    location: str = ""
    headers: tuple[tuple[str, str], ...] = ()
