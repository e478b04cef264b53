"""The criteria of conditional interactions, and what they match.

https://hl7.org/fhir/R4/http.html#cond-update and the sections around it

A search that finds nothing does not keep another request from creating the same a moment later, not
even inside a transaction. Whoever writes because nothing was found therefore *claims* the criteria:
it writes a document that stands for them, and of two that do so the database lets one go on. The
other begins again, and finds what the first has written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256

import msgspec

from fhir_server.context import Context
from fhir_server.interactions.admitting import searchable
from fhir_server.interactions.asking import asked
from fhir_server.messages import Parameters
from fhir_server.outcome import FhirError, Issue, shown, unknown_type
from fhir_server.search.escape import split
from fhir_server.search.parse import Given, parse
from fhir_server.search.plan import plan
from fhir_server.store.documents import Stored

_ABOUT_THE_RESULT = (
    *("_sort", "_count", "_total", "_summary", "_elements", "_cursor", "_rest", "_page"),
    *("_include", "_revinclude", "_contained", "_containedType", "_query", "_explain"),
)
_IDENTIFIER = "identifier"


@dataclass(frozen=True, slots=True)
class Criteria:
    """What resources of ``type`` are to match, as search parameters."""

    type: str
    parameters: Parameters

    @property
    def claims(self) -> tuple[str, ...]:
        """What is written by whoever writes because nothing matches, in the order of writing.

        Criteria with an identifier are claimed by it: with or without its system, and whatever
        else is asked, they are about the same thing.
        """
        identifiers = {
            split(one, "|")[-1]
            for name, value in self.parameters
            if name == _IDENTIFIER
            for one in split(value, ",")
        }
        every = [(name, value) for name, value in sorted(self.parameters)]
        wanted = [[(_IDENTIFIER, one)] for one in identifiers] or [every]
        texts = (msgspec.json.encode([self.type, one]) for one in wanted)
        return tuple(sorted(sha256(text).hexdigest() for text in texts))

    @property
    def text(self) -> str:
        """The criteria as a person reads them; the same for the same in another order."""
        parts = sorted(f"{name}={value}" for name, value in self.parameters)
        return f"{self.type}?{'&'.join(parts)}"


def criteria_of(type: str, parameters: Sequence[tuple[str, str]], context: Context) -> Criteria:
    """Return the criteria that ``parameters`` state.

    Raises ``value`` where there are none and where one has no value: a search would leave it out
    and find what nobody asked for; ``not-supported`` for parameters about the form of a result.
    """
    if type not in context.definitions.resource_types:
        raise unknown_type(type, context.definitions.resource_types)
    if not parameters:
        text = (
            "If-None-Exist, and PUT, PATCH and DELETE without an id, need criteria: which "
            f"{type} is meant, such as {type}?identifier=system|value."
        )
        raise FhirError(Issue("value", text))
    for name, value in parameters:
        if not value:
            raise FhirError(Issue("value", f"{shown(name)} has no value to look for."))
        if name.partition(":")[0] in _ABOUT_THE_RESULT:
            text = f"{name} has no place in criteria."
            raise FhirError(Issue("not-supported", text))
    return Criteria(type, tuple(parameters))


async def matches(
    criteria: Criteria, context: Context, most: int = 1
) -> tuple[tuple[Stored, ...], bool]:
    """Return what meets ``criteria``, ``most`` resources at most, and whether there are more.

    Raises what the search does; lenient handling is none of it.
    """
    now = context.now()
    read = partial(
        parse, criteria.type, criteria.parameters, context.parameters, count_default=most
    )
    query = await asked(lambda known: read(given=Given(now, known)), context)
    if not (query.filters or query.joins):  # whatever it says, it would match everything
        text = f"{shown(criteria.text)} does not say which resource is meant."
        raise FhirError(Issue("not-supported", text))
    found = replace(plan(query, context.parameters), count=most)
    page = await searchable(context).search(found)
    return page.entries, page.after is not None


def several(criteria: Criteria) -> FhirError:
    """Return the refusal of criteria that do not tell which resource is meant."""
    text = f"{shown(criteria.text)} matches several resources; it must not match more than one."
    return FhirError(Issue("multiple-matches", text), status=412)
