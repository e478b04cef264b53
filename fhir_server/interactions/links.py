"""The links of a page: ``self``, ``first`` and ``next``. https://hl7.org/fhir/R4/http.html#paging"""

from urllib.parse import quote

from fhir_server.messages import Parameters
from fhir_server.search.parse import CURSOR, REST


def page_links(
    base_url: str, place: str, understood: Parameters, after: str, rest: str = ""
) -> tuple[tuple[str, str], ...]:
    """Return the links of the page at ``place`` below ``base_url``.

    ``understood`` are the parameters that were obeyed, the cursor among them; ``after`` is the
    cursor of the next page, or ``""`` on the last one. Before it comes the ``rest`` of what this
    page includes, if it is given.
    """
    without = tuple((name, value) for name, value in understood if name not in (CURSOR, REST))
    links = [("self", url_of(base_url, place, understood))]
    if len(without) < len(understood):
        links.append(("first", url_of(base_url, place, without)))
    if rest:
        here = tuple((name, value) for name, value in understood if name != REST)
        links.append(("next", url_of(base_url, place, (*here, (REST, rest)))))
    elif after:
        links.append(("next", url_of(base_url, place, (*without, (CURSOR, after)))))
    return tuple(links)


def url_of(base_url: str, place: str, parameters: Parameters) -> str:
    """Return the URL of ``place`` with ``parameters``, percent-encoded."""
    query = "&".join(
        # What has a meaning in search values stays readable: commas, bars, colons, slashes.
        f"{quote(name, safe=':._-')}={quote(value, safe=':,|/._-$@')}"
        for name, value in parameters
    )
    path = f"{base_url}/{place}" if place else base_url
    return f"{path}{'?' if query else ''}{query}"
