"""Which keys of a document tell whether a Consent means it by a code or by a time.

https://hl7.org/fhir/R4/consent.html: "If this code is found in an instance, then the rule applies".
It is looked for in the coded elements that can be searched. What has none of them, or contains
other resources, may be meant; so may a former version, of which no keys are kept.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from fhir_server.search.contained import CONTAINED
from fhir_server.search.keys import AFTER, SEPARATOR, on_element, shortened
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.token import token_key
from fhir_server.security.consent import Code
from fhir_server.security.denying import NEVER, PERHAPS, Judged
from fhir_server.security.plan import Filter

_DEMOGRAPHIC = ("Patient", "RelatedPerson")
_CODED = frozenset(("CodeableConcept", "Coding"))
# What a resource is about; the first of them that a type has.
_MAIN = ("code", "type", "vaccine-code", "service-type", "category", "class")
_ABSENT: Filter = {"$in": [None, []]}


class KeyFields:
    """The keys that are written by a table of search parameters."""

    def __init__(self, table: ParameterTable) -> None:
        """Read ``table``."""
        self._table = table

    def coded(self, type: str, codes: Sequence[Code]) -> Judged:
        """Judge whether one of ``codes`` is in a resource of ``type``; who somebody is, is coded
        in none."""
        if type in _DEMOGRAPHIC:
            return NEVER
        found = {one.code: one for one in self._parameters(type, "token") if _is_coded(one)}
        if not self._is_known(type, found.values()):
            return PERHAPS
        main = next((found[name] for name in _MAIN if name in found), None)
        fields = {one.field: one.single for one in found.values()}
        named = [_having(*one, code) for one in fields.items() for code in codes]
        unnamed: Filter = dict.fromkeys([main.field] if main else fields, _ABSENT)
        over = [*named, unnamed, {CONTAINED: {"$exists": True}}]
        surely: list[Filter] = [
            {field: token_key(code, system)} for field in fields for system, code in codes if system
        ]
        return Judged({"$or": over}, {"$or": surely} if surely else None)

    def dated(self, type: str, begins: datetime, ends: datetime) -> Judged:
        """Judge whether a resource of ``type`` is of the time from ``begins`` until ``ends``, UTC;
        who somebody is, is of no time."""
        if type in _DEMOGRAPHIC:
            return NEVER
        found = self._parameters(type, "date")
        if not self._is_known(type, found):
            return PERHAPS
        touching: list[Filter] = [
            _ranged(one, {"l": {"$lt": ends}, "h": {"$gt": begins}}) for one in found
        ]
        undated: Filter = {one.field: _ABSENT for one in found}
        singles = [one for one in found if one.single]
        inside = [_ranged(one, {"l": {"$gte": begins}, "h": {"$lte": ends}}) for one in singles]
        others: list[Filter] = [{one.field: _ABSENT} for one in found if not one.single]
        either: list[Filter] = [
            {"$or": [{one.field: _ABSENT}, there]}
            for one, there in zip(singles, inside, strict=True)
        ]
        surely: Filter | None = {"$and": [{"$or": inside}, *either, *others]} if inside else None
        return Judged({"$or": [*touching, undated]}, surely)

    def _parameters(self, type: str, kind: str) -> list[Parameter]:
        """Return those that R4 has for the elements of ``type``."""
        return [
            one
            for one in self._table.written(type).values()
            if one.type == kind and one.key is not None
            if not (one.added or one.code.startswith("_"))
        ]

    def _is_known(self, type: str, parameters: Collection[Parameter]) -> bool:
        """Whether there are some, and all that is stored has its keys by now."""
        pending = self._table.pending(type)
        return bool(parameters) and all(one.key not in pending for one in parameters)


def _is_coded(parameter: Parameter) -> bool:
    return any(path.type in _CODED for path in parameter.paths)


def _having(field: str, single: bool, code: Code) -> Filter:
    """Return the filter for what may have ``code`` at ``field``: no system may be any."""
    system, value = code
    if system:
        return {field: {"$in": [token_key(value, system), token_key(value)]}}
    low = shortened(value) + SEPARATOR
    return on_element(field, {"$gte": low, "$lt": low[:-1] + AFTER}, single)


def _ranged(parameter: Parameter, conditions: Filter) -> Filter:
    if parameter.single:
        return {f"{parameter.field}.{name}": one for name, one in conditions.items()}
    return {parameter.field: {"$elemMatch": conditions}}
