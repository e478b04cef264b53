"""``$meta``, ``$meta-add`` and ``$meta-delete``: profiles, tags and security labels.

https://hl7.org/fhir/R4/resource-operation-meta.html, -meta-add.html and -meta-delete.html

They are sets. A tag or label is known by its system and code, a profile by its whole url. Adding
and deleting write a version like any update, over the version that is there in that moment.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.bodies import judging
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Resource, Response
from fhir_server.operations.bodies import parameters_in, parameters_out
from fhir_server.outcome import FhirError, Issue, operation_outcome
from fhir_server.r4.json import decode_stored
from fhir_server.registry import EVERY_TYPE, Operation
from fhir_server.search.token import token_key
from fhir_server.search.uri import canonical_keys
from fhir_server.store.changes import Change

_DEFINITION = "http://hl7.org/fhir/OperationDefinition/Resource-"
_CODINGS = ("security", "tag")
_PROFILE = "profile"
_VALUES_MAX = 1000  # of one answer about a type or the system: one look into an index for each

Meta = dict[str, Any]


async def meta(request: Request, context: Context) -> Response:
    """Return the ``meta`` of a resource or version; of a type or the system what is in use there.

    Raises ``not-found`` and ``deleted`` as read and vread do.
    """
    known_only(request, ())
    if not request.id:
        return await _in_use(request, context)
    word = "vread" if request.version else "read"
    reading = Request(word, request.type, request.id, request.version, base_url=request.base_url)
    found = await context.perform(reading, context)
    return replace(found, body=_returned(decode_stored(found.body)))


async def add(request: Request, context: Context) -> Response:
    """Add the profiles, tags and labels of the body's ``meta`` that are not there yet."""
    return await _revised(request, context, _with)


async def delete(request: Request, context: Context) -> Response:
    """Take away the profiles, tags and labels of the body's ``meta``, as far as they are there."""
    return await _revised(request, context, _without)


async def _revised(
    request: Request, context: Context, revised: Callable[[Meta, Meta], Meta]
) -> Response:
    known_only(request, ())
    given = parameters_in(request, context, {"meta": "valueMeta"})
    if "meta" not in given:
        text = f"{request.interaction} needs Parameters with one parameter meta, a valueMeta."
        raise FhirError(Issue("required", text))

    def revise(before: Resource) -> Resource:
        meta = revised(before["meta"], given["meta"])
        return {**before, "meta": meta}

    change = Change(
        "update",
        request.type,
        request.id,
        if_match=request.if_match,
        if_none_match=request.if_none_match,
        revise=revise,
        check=judging(context),
    )
    [stored] = await context.store.write([change], context.now())
    body = _returned(decode_stored(stored.json))
    return Response(200, body, stored.version, stored.last_updated)


def _with(before: Meta, given: Meta) -> Meta:
    after = dict(before)
    for name in _CODINGS:
        codings = list(before.get(name, ()))
        known = {_identity(one) for one in codings}
        for one in given.get(name, ()):
            if _identity(one) not in known:
                known.add(_identity(one))
                codings.append(one)
        _put(after, name, codings)
    profiles = list(before.get(_PROFILE, ()))
    profiles += [
        one for one in dict.fromkeys(given.get(_PROFILE, ())) if one and one not in profiles
    ]
    _put(after, _PROFILE, profiles)
    if f"_{_PROFILE}" in before:  # what is beside the urls stays in step with them
        beside = [*before[f"_{_PROFILE}"]]
        _put(after, f"_{_PROFILE}", beside + [None] * (len(profiles) - len(beside)))
    return after


def _without(before: Meta, given: Meta) -> Meta:
    after = dict(before)
    for name in _CODINGS:
        unwanted = {_identity(one) for one in given.get(name, ())}
        kept = [one for one in before.get(name, ()) if _identity(one) not in unwanted]
        _put(after, name, kept)
    pairs = [
        (url, beside)
        for url, beside in zip_longest(before.get(_PROFILE, ()), before.get(f"_{_PROFILE}", ()))
        if url is None or url not in given.get(_PROFILE, ())
    ]
    _put(after, _PROFILE, [url for url, _ in pairs])
    beside = [one for _, one in pairs]
    _put(after, f"_{_PROFILE}", beside if any(beside) else [])
    return after


def _put(meta: Meta, name: str, values: list[Any]) -> None:
    """Set ``name``, or take it away where nothing is left: an empty array is no JSON of FHIR."""
    if values:
        meta[name] = values
    else:
        meta.pop(name, None)


def _identity(coding: Any) -> Any:
    """What a tag or label is known by; one without a code and system is known by all it says."""
    if "code" not in coding and "system" not in coding:
        return tuple(sorted((name, str(value)) for name, value in coding.items()))
    return coding.get("system", ""), coding.get("code", "")


async def _in_use(request: Request, context: Context) -> Response:
    """Return what is used on the current resources of a type, or of all: one of each."""
    types = [request.type] if request.type else await context.store.indexes.existing()
    found: dict[str, dict[Any, Any]] = {_PROFILE: {}, "security": {}, "tag": {}}
    complete = True
    for type in types:
        for name, values in found.items():
            parameter = context.parameters.of(type)[f"_{name}"]
            room = _VALUES_MAX - sum(map(len, found.values()))
            keyed, all_of_them = await context.store.distinct(type, parameter.field, room)
            complete = complete and all_of_them
            for key, meta in keyed:
                for value in _meant(name, key, meta):
                    values.setdefault(key, value)
    meta = {name: list(values.values()) for name, values in found.items() if values}
    body: list[dict[str, Any]] = [{"name": "return", "valueMeta": meta}]
    if not complete:
        text = (
            f"More than {_VALUES_MAX:,} profiles, tags and labels are in use; here are the first."
        )
        issue = Issue("incomplete", text, severity="warning")
        body.append({"name": "outcome", "resource": operation_outcome([issue])})
    return Response(200, parameters_out(body))


def _meant(name: str, key: str, meta: Meta) -> Iterable[Any]:
    """Yield what ``key`` was written for, in the ``meta`` of a resource that has it."""
    if name == _PROFILE:
        # The bare url of a versioned profile is a key as well; nobody has stated it.
        yield from (one for one in meta.get(name, ()) if one and canonical_keys(one)[-1] == key)
    else:
        yield from (
            one
            for one in meta.get(name, ())
            if "code" in one and token_key(one["code"], one.get("system", "")) == key
        )


def _returned(resource: Resource) -> bytes:
    return parameters_out([{"name": "return", "valueMeta": resource["meta"]}])


META = Operation(
    *("$meta", f"{_DEFINITION}meta", meta),
    on=("", EVERY_TYPE),
    instance=True,
    version=True,
    needs="rs",
)
ADD = Operation(
    *("$meta-add", f"{_DEFINITION}meta-add", add, (EVERY_TYPE,)),
    whole=False,
    instance=True,
    affects_state=True,
    needs="u",
)
DELETE = Operation(
    *("$meta-delete", f"{_DEFINITION}meta-delete", delete, (EVERY_TYPE,)),
    whole=False,
    instance=True,
    affects_state=True,
    needs="u",
)
