"""The Bundle that a search answers: matches, what comes along, what is to be said, and links.

https://hl7.org/fhir/R4/bundle.html#searchset
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from fhir_server.context import Context
from fhir_server.interactions.links import Neighbours, page_links, said_of_links
from fhir_server.interactions.parameters import Subset
from fhir_server.messages import Parameters, Request, Response
from fhir_server.outcome import Issue, operation_outcome
from fhir_server.r4.bundles import bundle, entry, framing
from fhir_server.r4.json import encode
from fhir_server.search.page import AFTER, UNTIL, Edge, cursor
from fhir_server.search.parse import CURSOR, REST
from fhir_server.search.plan import rest_subject
from fhir_server.search.wanted import Kin, Listing, Wanted
from fhir_server.store.documents import Shown
from fhir_server.store.includes import Included
from fhir_server.store.search import Page


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page is an answer to.

    ``place`` is relative to ``[base]``, ``subject`` what page links are bound to. ``understood``
    are the parameters that were obeyed; ``here`` those of the link that led to this page, with
    empty texts for those that it does not have; ``ignored`` says what was not obeyed. ``looked_up``
    is what had to be known before the search could be read.
    """

    place: str
    subject: str
    understood: Parameters
    here: Parameters
    ignored: tuple[Issue, ...]
    looked_up: tuple[Wanted, ...] = ()


def searchset(
    page: Page[Shown],
    asked: Asked,
    subset: Subset,
    request: Request,
    context: Context,
    matches: Sequence[bytes] | None = None,
) -> Response:
    """Return the answer whose entries are those of ``page``, each as the ``subset`` of it.

    ``matches`` are the entries of its matches where these are not what is stored, but part of it.
    """
    here = tuple(pair for pair in asked.here if pair[1])
    others = _neighbours(page, asked.subject, context.link_key, is_rest=REST in dict(here))
    understood = (*asked.understood, *here)
    links = page_links(request, asked.place, understood, others, context.link_key)
    if matches is None:
        matches = entries_of(page.entries, "match", subset, request, context)
    # The elements are those of what is searched for; what comes along has others.
    along = Subset(subset.summary)
    included = page.included.entries
    entries = [*matches, *entries_of(included, "include", along, request, context)]
    long_links = said_of_links(links, asked.place, context.settings.url_bytes_max)
    if issues := (*asked.ignored, *long_links, *_said_of(page.included), *_explained(page, asked)):
        outcome = encode(operation_outcome(issues))
        entries.append(entry("", outcome, search={"mode": "outcome"}))
    shown = (*page.entries, *included)
    concerns = list(dict.fromkeys(chain.from_iterable(one.compartments for one in shown)))
    return Response(
        200, bundle("searchset", entries, links=links, total=page.total), concerns=concerns
    )


def entries_of(
    rows: Sequence[Shown], mode: str, subset: Subset, request: Request, context: Context
) -> list[bytes]:
    """Return the entries of ``rows``; ``mode`` is ``match`` or ``include``."""
    if not rows:
        return []
    framed = framing(request.base_url, search={"mode": mode})
    if subset.is_all:
        return [framed(one.type, one.id, one.json) for one in rows]
    definitions = context.definitions
    return [framed(one.type, one.id, subset.applied(one.json, definitions)) for one in rows]


def _neighbours(page: Page[Shown], subject: str, page_key: bytes, *, is_rest: bool) -> Neighbours:
    """Return the pages beside ``page``.

    Behind it comes the rest of what it includes, if there is more of it, and then the next matches.
    ``is_rest`` says that the page has such a rest itself: before it is the page it is the rest of.
    """

    def link(direction: str, edge: Edge | None) -> Parameters:
        if edge is None:
            return ()
        return ((CURSOR, cursor((direction, *edge.key), subject, page_key)),)

    here = link(AFTER, page.before)
    if page.included.after:
        until = page.after.key if page.after else ()
        rest = cursor((*page.included.after, *until), rest_subject(subject), page_key)
        next = (*here, (REST, rest))
    else:
        next = link(AFTER, page.after)
    return Neighbours(next, here if is_rest else link(UNTIL, page.before) or None)


def _explained(page: Page[Shown], asked: Asked) -> tuple[Issue, ...]:
    """Return how the page came about: each step a JSON object, for programs and people."""
    if not page.explained:
        return ()
    first = (encode({"step": "look-up", "of": _words(one)}).decode() for one in asked.looked_up)
    texts = (*first, *page.explained)
    return tuple(Issue("informational", one, severity="information") for one in texts)


def _words(wanted: Wanted) -> str:
    if isinstance(wanted, Kin):
        return f"what is {'above' if wanted.above else 'below'} {wanted.type}/{wanted.id}"
    if isinstance(wanted, Listing):
        return f"codes of {wanted.system}"
    return f"{wanted.type} {wanted.name}"


def _said_of(included: Included) -> tuple[Issue, ...]:
    if included.after:
        text = "More comes along with these matches than one page holds: the next link leads to it."
        return (Issue("incomplete", text, severity="information"),)
    if not included.complete:
        text = "More comes along than can be followed; include less, or ask for it by itself."
        return (Issue("too-costly", text, severity="warning"),)
    return ()
