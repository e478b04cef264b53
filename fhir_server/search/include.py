"""``_include`` and ``_revinclude``: what comes along with the matches.

https://hl7.org/fhir/R4/search.html#revinclude

======================  ==========================================================
value                   what comes along
======================  ==========================================================
``Observation:subject`` what the observations refer to as their subject
``…:subject:Patient``   the same, if it is a patient
``Observation:*``       the same, for all reference parameters
``*``                   the same, for the types that are searched
======================  ==========================================================

``_revinclude`` reads it from the other end: the observations that refer to what was found. With
``:iterate`` it holds for what came along as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.search.chain import Link, link_of
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import ParameterTable

INCLUDE, REVINCLUDE = "_include", "_revinclude"
NAMES = (INCLUDE, REVINCLUDE)
ITERATE = "iterate"
ALL = "*"
_PARTS_MAX = 3

Place = tuple[int, str, str]
"""Where in the includes of a page one stands: the round it came in, its type, its id."""


@dataclass(frozen=True, slots=True)
class Include:
    """The references of resources of ``type`` through ``link``, to those of ``targets``.

    ``reverse`` says that what refers comes along, not what is referred to; ``iterate`` that it also
    holds for what came along.
    """

    type: str
    link: Link
    targets: tuple[str, ...]
    reverse: bool
    iterate: bool


def includes(
    name: str, value: str, types: Sequence[str], table: ParameterTable
) -> tuple[Include, ...]:
    """Return what ``name=value`` includes in a search for resources of ``types``.

    Raises ``not-supported`` for what is unknown, and for what could never include anything.
    """
    parameter, _, modifier = name.partition(":")
    if modifier not in ("", ITERATE):
        raise FhirError(
            Issue(
                "not-supported", f"{parameter} has no modifier {shown(modifier)}; it has :iterate."
            )
        )
    reverse, iterate = parameter == REVINCLUDE, modifier == ITERATE
    parts = value.split(":")
    if len(parts) > _PARTS_MAX or (len(parts) == 1 and parts != [ALL]):
        raise invalid_value(name, value, "[type]:[reference parameter], with :[target type], or *")
    target = parts[2] if len(parts) == _PARTS_MAX and parts[2] != ALL else ""
    for one in (parts[0], *((target,) if target else ())):
        if one != ALL and one not in table.types:
            near = nearest(one, table.types)
            raise FhirError(Issue("not-supported", f"{shown(one)} is no resource type.{near}"))
    found = tuple(
        Include(
            one.resource_type,
            link_of(one),
            (target,) if target else one.targets,
            reverse,
            iterate,
        )
        for one in _parameters(parts, (reverse or iterate), types, table)
    )
    useful = tuple(
        one
        for one in found
        if iterate or not set(types).isdisjoint(one.targets if reverse else (one.type,))
    )
    if not useful and parts[-1] != ALL:
        sought = types[0] if len(types) == 1 else "the types that are searched"
        text = (
            f"{shown(value)} has nothing to do with {sought}; for what comes along itself, say "
            f"{parameter}:{ITERATE}."
        )
        raise FhirError(Issue("not-supported", text))
    return useful


def _parameters(
    parts: list[str], every_type: bool, searched: Sequence[str], table: ParameterTable
) -> Iterator[Parameter]:
    """Yield the reference parameters that the first two ``parts`` mean."""
    if parts[0] == ALL:
        types = table.types if every_type else tuple(searched)
    else:
        types = (parts[0],)
    code = parts[1] if len(parts) > 1 else ALL
    for one in types:
        known = table.of(one)
        if code == ALL:
            by_field = {
                each.field: name for name, each in known.items() if each.type == "reference"
            }
            yield from (known[name] for name in by_field.values())
        elif code in known and known[code].type == "reference":
            yield known[code]
        else:
            references = [each for each, found in known.items() if found.type == "reference"]
            near = nearest(code, references)
            text = f"{one} has no reference parameter {shown(code)}.{near}"
            raise FhirError(Issue("not-supported", text))
