"""The links of a page: ``self``, ``first``, ``previous`` and ``next``.

https://hl7.org/fhir/R4/http.html#paging

A search by POST may be longer than a URL. ``self`` still says all that was understood; the other
links then have everything in one parameter, :data:`PACKED`, so that they can be followed by GET.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from fhir_server.messages import Parameters, Request
from fhir_server.outcome import FhirError, Issue
from fhir_server.search.page import packed, unpacked
from fhir_server.search.parse import CURSOR, REST

PACKED = "_page"
# From this length on the parameters of a search are packed: what every browser and proxy carries.
QUERY_CHARACTERS_MAX = 2000


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The pages beside a page: what their links have besides the parameters of the search.

    ``previous`` is ``None`` where there is no page before, and empty where that is the first.
    """

    next: Parameters = ()
    previous: Parameters | None = None


def page_links(
    request: Request, place: str, understood: Parameters, others: Neighbours, page_key: bytes = b""
) -> tuple[tuple[str, str], ...]:
    """Return the links of the page at ``place``, which is relative to ``[base]``.

    ``understood`` are the parameters that were obeyed, those of page links among them. Long ones
    are packed if there is a ``page_key`` to sign them with.
    """
    without = tuple((name, value) for name, value in understood if name not in (CURSOR, REST))
    links = [("first", without)] if len(without) < len(understood) else []
    if others.previous is not None or others.next:
        links = [("first", without)]
    if others.previous is not None:
        links.append(("previous", (*without, *others.previous)))
    if others.next:
        links.append(("next", (*without, *others.next)))
    written = {pair: _written(*pair) for pair in understood}  # of all links the most part
    if page_key and len("&".join(written[pair] for pair in without)) >= QUERY_CHARACTERS_MAX:
        links = [(relation, _packed(all, place, page_key)) for relation, all in links]
    here = f"{request.base_url}/{place}" if place else request.base_url
    return tuple(
        (relation, _asked(here, [written.get(pair) or _written(*pair) for pair in pairs]))
        for relation, all in (("self", understood), *links)
        for pairs in ((*all, *request.format),)
    )


def _packed(parameters: Parameters, place: str, page_key: bytes) -> Parameters:
    text = packed(parameters, place, page_key)
    return ((PACKED, text),) if text else parameters


def unpacked_request(request: Request, place: str, page_key: bytes) -> Request:
    """Return ``request`` with the parameters that its page link has packed, if it is one.

    Raises ``value`` for what is not our link, and for a link with further parameters.
    """
    texts = [text for name, text in request.parameters if name == PACKED]
    if not texts:
        return request
    if len(request.parameters) > 1:
        text = f"{PACKED} of a page link holds the whole search; it stands alone."
        raise FhirError(Issue("value", text))
    return replace(request, parameters=unpacked(texts[0], place, page_key))


def said_of_links(
    links: tuple[tuple[str, str], ...], place: str, url_bytes_max: int
) -> tuple[Issue, ...]:
    """Return what a client has to know of links that are longer than a URL may be here."""
    if all(len(url) <= url_bytes_max for relation, url in links if relation != "self"):
        return ()
    text = (
        f"The page links are longer than the {url_bytes_max:,} bytes that a URL may have here. "
        "To follow one, send what is behind its question mark as the body of "
        f"POST {place}{'/' if place else ''}_search."
    )
    return (Issue("informational", text, severity="information"),)


def url_of(base_url: str, place: str, parameters: Parameters) -> str:
    """Return the URL of ``place`` with ``parameters``, percent-encoded."""
    path = f"{base_url}/{place}" if place else base_url
    return _asked(path, [_written(*pair) for pair in parameters])


def _asked(path: str, written: Sequence[str]) -> str:
    return f"{path}?{'&'.join(written)}" if written else path


def _written(name: str, value: str) -> str:
    # What has a meaning in search values stays readable, as far as RFC 3986 has it in a query.
    return f"{quote(name, safe=':._-')}={quote(value, safe=':,/._-$@')}"
