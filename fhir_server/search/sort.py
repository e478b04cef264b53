"""The order of a search's results.

https://hl7.org/fhir/R4/search.html#sort
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.search.parameters import ID, LAST_UPDATED, Parameter

# Each key is one more field that a page's link has to carry and the database to compare.
KEYS_MAX = 8

# What of a key is compared, for the types whose keys are more than a text.
_MEMBERS = {"date": ".l", "number": ".l", "quantity": ".l"}


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of the order: the parameter's code and the field of the documents.

    ``single`` says that the field is no array; ``present`` that every document has it.
    """

    code: str
    field: str
    descending: bool
    single: bool
    present: bool


def sort_keys(names: Sequence[str], parameters: Mapping[str, Parameter]) -> tuple[SortKey, ...]:
    """Return the keys that ``names`` mean: codes of ``_sort``, with a minus sign to go down.

    Raises ``not-supported`` for an unknown parameter and for one that has no order, ``value`` for
    more than :data:`KEYS_MAX`.
    """
    if len(names) > KEYS_MAX:
        raise invalid_value("_sort", ",".join(names), f"at most {KEYS_MAX} parameters")
    first: dict[str, str] = {}  # a parameter that stands there again decides nothing
    for name in names:
        first.setdefault(name.removeprefix("-"), name)
    keys = [_sort_key(name, parameters) for name in first.values()]
    # Ids are unique: nothing behind one can matter.
    last = next((place for place, key in enumerate(keys) if key.code == ID), len(keys))
    return tuple(keys[: last + 1])


def _sort_key(name: str, parameters: Mapping[str, Parameter]) -> SortKey:
    code = name.removeprefix("-")
    parameter = parameters.get(code)
    if parameter is None:
        raise FhirError(
            Issue(
                "not-supported",
                f"_sort names {shown(code)}, which is no search parameter here."
                f"{nearest(code, parameters)}",
            )
        )
    if parameter.type in ("composite", "special"):
        raise FhirError(
            Issue("not-supported", f"_sort cannot order by {code}, which is {parameter.type}.")
        )
    own = code in (ID, LAST_UPDATED)
    return SortKey(
        code=code,
        field=parameter.field if own else parameter.field + _MEMBERS.get(parameter.type, ""),
        descending=name.startswith("-"),
        single=parameter.single,
        present=own,
    )
