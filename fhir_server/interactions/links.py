"""The links of a page: ``self``, ``first``, ``previous`` and ``next``. https://hl7.org/fhir/R4/http.html#paging"""

from dataclasses import dataclass
from urllib.parse import quote

from fhir_server.messages import Parameters
from fhir_server.search.parse import CURSOR, REST


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The pages beside a page: what their links have besides the parameters of the search.

    ``previous`` is ``None`` where there is no page before, and empty where that is the first.
    """

    next: Parameters = ()
    previous: Parameters | None = None


def page_links(
    base_url: str, place: str, understood: Parameters, others: Neighbours
) -> tuple[tuple[str, str], ...]:
    """Return the links of the page at ``place`` below ``base_url``.

    ``understood`` are the parameters that were obeyed, those of page links among them.
    """
    without = tuple((name, value) for name, value in understood if name not in (CURSOR, REST))
    links = [("self", understood)]
    if len(without) < len(understood) or others.previous is not None or others.next:
        links.append(("first", without))
    if others.previous is not None:
        links.append(("previous", (*without, *others.previous)))
    if others.next:
        links.append(("next", (*without, *others.next)))
    return tuple((relation, url_of(base_url, place, all)) for relation, all in links)


def url_of(base_url: str, place: str, parameters: Parameters) -> str:
    """Return the URL of ``place`` with ``parameters``, percent-encoded."""
    query = "&".join(
        # What has a meaning in search values stays readable: commas, bars, colons, slashes.
        f"{quote(name, safe=':._-')}={quote(value, safe=':,|/._-$@')}"
        for name, value in parameters
    )
    path = f"{base_url}/{place}" if place else base_url
    return f"{path}{'?' if query else ''}{query}"
