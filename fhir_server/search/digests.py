"""What tells whether stored search keys are those that would be written today.

A digest stands for one field of ``keys`` of one type: which elements it is read from and in what
form it is written. Where the digest that the database has for a field is another one, or none, the
keys of what is stored are of another make, and a search by them would find too little.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256

from fhir_server.r4.compartments import BESIDE
from fhir_server.r4.paths import Path
from fhir_server.search.keys import FORMS
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import COMPARTMENTS, CONTAINED, WORDS, ParameterTable

_DIGITS = 12
_TABLE, _ADDED = "table", "added"  # in the memo of a table, beside its types


def field_digests(table: ParameterTable, type: str) -> Mapping[str, str]:
    """Return the digest of each field that is written for resources of ``type``.

    The fields are names inside ``keys``, ``COMPARTMENTS``, ``CONTAINED``, and ``WORDS`` if words
    are written. What is contained may be of any type, and has the keys of that type.
    """
    if _TABLE not in table.memo:
        own = {each: _own_digests(table, each) for each in table.types}
        contained = _digest(
            [FORMS["contained"], *(repr(sorted(one.items())) for one in own.values())]
        )
        table.memo |= {each: {**fields, CONTAINED: contained} for each, fields in own.items()}
        table.memo[_TABLE] = _digest(repr(sorted(table.memo[each].items())) for each in table.types)
    digests: Mapping[str, str] = table.memo[type]
    return digests


def _own_digests(table: ParameterTable, type: str) -> Mapping[str, str]:
    found = {
        parameter.code: _digest(_said(parameter, table.reference_bases))
        for parameter in table.written(type).values()
        if parameter.key == parameter.code  # others share the field of a namesake
    }
    compartments = sorted(table.compartment_fields[type].items())
    beside = [FORMS["places"], repr(table.reference_bases)] if type in BESIDE else []
    forms = [FORMS["compartments"], *([FORMS["shared"]] if type == "Provenance" else ())]
    found[COMPARTMENTS] = _digest([*forms, repr(compartments), *beside])
    if table.text_search:
        found[WORDS] = _digest([FORMS["words"]])
    return found


def table_digest(table: ParameterTable) -> str:
    """Return what two servers have in common that write the same keys for every type."""
    field_digests(table, table.types[0])
    return str(table.memo[_TABLE])


def added_fields(table: ParameterTable, type: str) -> frozenset[str]:
    """Return the fields of ``type`` that would be written otherwise without what a site added."""
    if _ADDED not in table.memo:
        table.memo[_ADDED] = any(_only_added(table, each) for each in table.types)
    return _only_added(table, type) | {CONTAINED} if table.memo[_ADDED] else frozenset()


def _only_added(table: ParameterTable, type: str) -> frozenset[str]:
    """Return the fields of ``type`` that nothing but what a site added is read from."""
    parameters = [one for one in table.written(type).values() if one.key]
    own = {one.key for one in parameters if not one.added}
    return frozenset(one.key for one in parameters if one.key and one.key not in own)


def _said(parameter: Parameter, bases: tuple[str, ...]) -> Iterable[str]:
    """Yield everything that the keys of ``parameter`` depend on."""
    yield FORMS[parameter.type]
    yield f"{parameter.type} {parameter.single}"
    if parameter.type in ("reference", "composite"):
        yield repr(bases)
    yield from sorted(map(_written, parameter.paths))
    for whole, below in parameter.wholes:
        yield _written(whole)
        for part, paths in zip(parameter.components, below, strict=True):
            yield f"{FORMS[part.type]} {part.type} {sorted(map(_written, paths))}"


def _written(path: Path) -> str:
    steps = "/".join(step.key for step in path.steps)
    return f"{steps} {path.type} {path.from_resource} {path.resolved and path.targets}"


def _digest(texts: Iterable[str]) -> str:
    return sha256("\n".join(texts).encode()).hexdigest()[:_DIGITS]
