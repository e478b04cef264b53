"""Conditional references: ``Patient?identifier=…`` in the place of ``Patient/1``.

https://hl7.org/fhir/R4/http.html#trules

They are resolved when everything else of the transaction is written, so that they find it. Exactly
one resource must match. What is found may itself wait for a reference to be resolved; it is then
written in a later round.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.entries import in_entry, in_patch
from fhir_server.interactions.judging import check_profiles
from fhir_server.interactions.matching import criteria_of, matches
from fhir_server.interactions.rewriting import CONDITIONAL
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.route import query_parameters
from fhir_server.store.changes import Change
from fhir_server.store.documents import Stored


async def written_changes(changes: Mapping[int, Change], context: Context) -> dict[int, Stored]:
    """Make ``changes``, which are those of the entries by place; a conflict names its entry."""
    try:
        stored = await context.store.write(list(changes.values()), context.now())
    except FhirError as error:
        if error.place is None:
            raise
        index = list(changes)[error.place]
        refusal = in_patch(error) if changes[index].revise is not None else error
        raise in_entry(index, refusal) from error
    return dict(zip(changes, stored, strict=True))


async def resolved_and_written(
    changes: Mapping[int, Change], conditional: Mapping[int, frozenset[str]], context: Context
) -> dict[int, Stored]:
    """Resolve the references in ``conditional`` entries, and make the changes of those entries.

    Raises status 412, naming the entry, where none or several resources match.
    """
    stored: dict[int, Stored] = {}
    pending = dict(conditional)
    found: dict[str, str] = {}
    while pending:
        refusals: dict[str, FhirError] = {}
        for url in sorted(set().union(*pending.values()) - found.keys()):
            try:
                found[url] = await _place(url, context)
            except FhirError as error:
                refusals[url] = error
        ready = {index: urls for index, urls in pending.items() if urls <= found.keys()}
        if not ready:
            index, urls = next(iter(pending.items()))
            raise in_entry(index, refusals[min(urls & refusals.keys())])
        round = {index: _resolved(index, changes[index], found, context) for index in ready}
        stored |= await written_changes(round, context)
        pending = {index: urls for index, urls in pending.items() if index not in ready}
    await _check_again(found, conditional, context)
    return stored


async def _check_again(
    found: Mapping[str, str], conditional: Mapping[int, frozenset[str]], context: Context
) -> None:
    """Refuse what was the only match when it was resolved, and is not any more."""
    for url in found:
        try:
            await _place(url, context)
        except FhirError as error:
            index = next(index for index, urls in conditional.items() if url in urls)
            raise in_entry(index, error) from error


def _resolved(index: int, change: Change, places: Mapping[str, str], context: Context) -> Change:
    if change.revise is not None:
        revise = change.revise  # what comes of it is checked when it is written
        return replace(change, revise=lambda before: _replaced(revise(before), places))
    resource = _replaced(change.resource, places)
    if issues := context.validate(resource):  # what was found may be of a type not allowed there
        raise in_entry(index, FhirError(*issues))
    try:
        check_profiles(resource, context)
    except FhirError as error:
        raise in_entry(index, error) from error
    return replace(change, resource=resource)


async def _place(url: str, context: Context) -> str:
    match = CONDITIONAL.fullmatch(url)
    assert match is not None
    type, query = match.group(1), match.group(2)
    if type not in context.definitions.resource_types:
        raise FhirError(Issue("value", f"The reference {shown(url)} names no resource type."))
    criteria = criteria_of(type, query_parameters(query), context)
    entries, more = await matches(criteria, context)
    if len(entries) != 1 or more:
        count = "no resource" if not entries else "several resources"
        raise FhirError(
            Issue(
                "multiple-matches" if entries else "not-found",
                f"The conditional reference {shown(url)} finds {count}; it must find exactly one.",
            ),
            status=412,
        )
    return f"{type}/{entries[0].id}"


def _replaced(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_replaced(one, places) for one in value]
    if not isinstance(value, dict):
        return value
    result: Resource = {name: _replaced(one, places) for name, one in value.items()}
    if value.get("reference") in places:
        result["reference"] = places[value["reference"]]
    return result
