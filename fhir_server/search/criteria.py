"""One search parameter with its values -> one MongoDB filter.

https://hl7.org/fhir/R4/search.html#combining
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial

from fhir_server.outcome import invalid_value, unsupported_modifier
from fhir_server.search import string, uri
from fhir_server.search.composite import compile_composite, compile_system
from fhir_server.search.concepts import compile_concepts
from fhir_server.search.date import compile_date, compile_instant
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import Filter, any_of, conditions_in
from fhir_server.search.near import compile_near
from fhir_server.search.number import compile_number
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import ID, LAST_UPDATED, ParameterTable
from fhir_server.search.quantity import compile_quantity
from fhir_server.search.reference import (
    IDENTIFIER,
    compile_below,
    compile_kin,
    compile_reference,
)
from fhir_server.search.sort import is_ordered
from fhir_server.search.string import compile_string
from fhir_server.search.token import compile_of_type, compile_text, compile_token
from fhir_server.search.uri import compile_uri
from fhir_server.search.wanted import Wants

MISSING = "missing"

# Modifiers of each type beside :missing, which every type but composite has. Those of references
# also include the types that the parameter can point at.
MODIFIERS: dict[str, tuple[str, ...]] = {
    "token": ("not",),
    "string": string.MODIFIERS,
    "date": (),
    "number": (),
    "quantity": (),
    "uri": uri.MODIFIERS,
    "reference": ("identifier",),
    "composite": (),
    "special": (),
}


_NEGATING = ("not", "not-in")
_KIN = ("above", "below")
_TOKENS = {"text": compile_text, "of-type": compile_of_type}


# Conditions that are the same whenever they are asked: all but ``ap`` of a date, and what is looked
# up. The codes and dates of a panel are asked of one patient after the other.
_REMEMBERED = frozenset(("token", "string", "number", "quantity", "uri", "reference", "date"))
_COMPILED_MAX = 256
_CONDITIONS_MAX = 32  # of one; that is some KB
_CHARACTERS_MAX = 500


class Criteria:
    """Compiles the parameters of one search.

    ``now`` is what the prefix ``ap`` of a date is measured from. ``wants`` has what was looked up
    for this search, and remembers what still has to be.
    """

    def __init__(
        self, table: ParameterTable, now: datetime | None = None, wants: Wants | None = None
    ) -> None:
        self._table = table
        self.now = now
        self.wants = wants or Wants(table.definitions)

    def filter(self, parameter: Parameter, modifier: str, values: Sequence[str]) -> Filter:
        """Return the filter that is met where one of ``values`` is.

        ``values`` are the alternatives (commas already split), their escapes still in place.

        Raises ``not-supported`` for a modifier that the parameter does not have, and ``value`` for
        values that it cannot have.
        """
        if modifier == MISSING and parameter.type != "composite":
            return _missing(parameter, values)
        # Any type: what was stored before a profile narrowed the targets stays findable.
        types = self._table.types if parameter.type == "reference" else ()
        known = self.modifiers(parameter)
        if modifier and modifier not in known and modifier not in types:
            named = parameter.targets[:10] if types else ()
            offered = () if parameter.type == "composite" else (MISSING, *known, *named)
            raise unsupported_modifier(parameter.code, modifier, offered)
        compile = self._compiler(parameter, modifier)
        found = any_of([compile(parameter.field, value) for value in values])
        return {"$nor": [found]} if modifier in _NEGATING else found

    def counted(
        self, parameter: Parameter, modifier: str, values: Sequence[str]
    ) -> tuple[Filter, int]:
        """Return the same, and how many conditions that is; nobody may change it."""
        compiled = self._table.compiled
        key = (parameter.resource_type, parameter.code, parameter.field, *values)
        if not modifier and key in compiled:
            found: tuple[Filter, int] = compiled[key]
            return found
        filter = self.filter(parameter, modifier, values)
        found = filter, conditions_in(filter)
        is_small = found[1] <= _CONDITIONS_MAX
        if not modifier and is_small and _is_remembered(parameter, values):
            if len(compiled) >= _COMPILED_MAX:
                del compiled[next(iter(compiled))]  # the oldest
            compiled[key] = found
        return found

    def modifiers(self, parameter: Parameter) -> tuple[str, ...]:
        """Return the modifiers of ``parameter`` beside :missing and the types of references."""
        if parameter.code == ID:
            return MODIFIERS["token"]
        if parameter.type == "token":
            return parameter.token_modifiers
        if parameter.has_canonicals:
            return (*MODIFIERS["reference"], "below")
        if parameter.type == "reference" and self._table.hierarchies(parameter):
            return (*MODIFIERS["reference"], *_KIN)
        return MODIFIERS[parameter.type]

    def overlapping(self, parameter: Parameter, value: str) -> Filter:
        """Return the filter for dates whose range overlaps that of ``value``."""
        if parameter.code == LAST_UPDATED:
            return compile_instant(parameter.field, f"ap{value}")
        return compile_date(parameter.field, f"ap{value}", single=parameter.single)

    def _compiler(self, parameter: Parameter, modifier: str) -> Callable[[str, str], Filter]:
        """Return the function ``(field, value) -> filter`` for ``parameter``."""
        single = parameter.single
        match parameter.type:
            case "token" if parameter.code == ID:
                return _compile_id
            case "token":
                return self._token(parameter, modifier)
            case "string":
                return partial(
                    compile_string, modifier=modifier, single=single, parts=parameter.has_parts
                )
            case "date" if parameter.code == LAST_UPDATED:
                return partial(compile_instant, now=self.now)
            case "date":
                ordered = is_ordered(parameter, self._table.complete(parameter.resource_type))
                return partial(compile_date, single=single, ordered=ordered, now=self.now)
            case "number":
                return partial(compile_number, single=single)
            case "quantity":
                return partial(compile_quantity, single=single, units=self._table.definitions.units)
            case "uri" if parameter.code == "url" and not modifier:
                return partial(self._compile_canonical, parameter)
            case "uri":
                return partial(compile_uri, modifier=modifier, single=single)
            case "special":
                return partial(compile_near, units=self._table.definitions.units)
            case "composite":
                components = [self.component(part) for part in parameter.components]
                return partial(compile_composite, components=components)
        return self._reference(parameter, modifier)

    def _token(self, parameter: Parameter, modifier: str = "") -> Callable[[str, str], Filter]:
        if modifier in _TOKENS:
            return _TOKENS[modifier]
        value_sets = parameter.value_sets

        def implied(system: str) -> Collection[str]:
            codes = (self._table.definitions.codes(one) or () for one in value_sets)
            return {code for some in codes for owner, code in some if owner == system}

        if modifier in ("", "not"):
            return partial(
                compile_token,
                single=parameter.single,
                folds=parameter.has_strings,
                bare=parameter.is_bare,
                implied=implied if value_sets else None,
            )
        return partial(
            compile_concepts,
            modifier=modifier,
            wants=self.wants,
            implied=implied if value_sets else None,
        )

    def _reference(self, parameter: Parameter, modifier: str) -> Callable[[str, str], Filter]:
        if modifier == "identifier":
            return lambda field, value: compile_token(field + IDENTIFIER, value)
        if modifier in _KIN and not parameter.has_canonicals:
            return partial(
                compile_kin,
                modifier=modifier,
                hierarchies=self._table.complete_hierarchies(parameter),
                base_urls=self._table.base_urls,
                wants=self.wants,
            )
        if modifier == "below":
            return partial(compile_below, single=parameter.single)
        return partial(
            compile_reference,
            type=modifier,
            targets=parameter.id_types or self._table.types,
            base_urls=self._table.base_urls,
            narrower=parameter.narrower,
        )

    def _compile_canonical(self, parameter: Parameter, field: str, value: str) -> Filter:
        """Compile ``url|version``: the url of a definition, and its business version.

        https://hl7.org/fhir/R4/search.html#uri, "automatically detecting a |[version] portion"
        """
        version = self._table.of(parameter.resource_type).get("version")
        match split(value, "|"):
            case [url, text] if version and url and text:
                found = compile_uri(field, url, single=parameter.single)
                return {"$and": [found, self._token(version)(version.field, text)]}
        return compile_uri(field, value, single=parameter.single)

    def component(self, part: Parameter) -> Callable[[str, str], Filter]:
        """Return the function ``(field, value) -> filter`` for a part of a composite."""
        compile = self._compiler(part, "")
        if part.type != "token":
            return compile
        return lambda field, value: compile_system(field, value) or compile(field, value)


def _is_remembered(parameter: Parameter, values: Sequence[str]) -> bool:
    if parameter.type == "date" and any(value.startswith("ap") for value in values):
        return False
    return parameter.type in _REMEMBERED and sum(map(len, values)) <= _CHARACTERS_MAX


def _missing(parameter: Parameter, values: Sequence[str]) -> Filter:
    if list(values) not in (["true"], ["false"]):
        raise invalid_value(f"{parameter.code}:missing", ",".join(values), "true or false")
    return {parameter.field: {"$exists": values[0] == "false"}}


def _compile_id(field: str, value: str) -> Filter:
    text = unescape(value)
    if not text:
        raise invalid_value("An id", value, "a logical id")
    return {field: text}
