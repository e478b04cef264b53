"""Resource -> what is written beside it: search keys, compartments, security labels.

https://hl7.org/fhir/R4/search.html, https://hl7.org/fhir/R4/compartmentdefinition.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fhir_server.r4.compartments import BESIDE, places
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.text import text_keys
from fhir_server.search.tree import Found

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a document holds besides the resource itself.

    ``keys`` has one field for each search parameter with something to find, in the form of the
    parameter's module: bare where the parameter is single, else in a list. An element that is there
    but has nothing to search is an empty list or ``None``: it is not missing.

    ``compartments`` are such as ``Patient/1``, and what ``r4/compartments.py`` adds; ``labels`` are
    ``system|code`` of ``meta.security``.
    ``contained`` has id, type and keys of each resource that this one contains.
    """

    keys: dict[str, Any]
    compartments: tuple[str, ...]
    labels: tuple[str, ...]
    contained: tuple[dict[str, Any], ...] = ()


def index(resource: Resource, table: ParameterTable) -> Indexed:
    """Return what is written beside ``resource``, whose type must be known to ``table``.

    Does not fail for an invalid resource: what cannot be read has no key.
    """
    name = resource["resourceType"]
    found: Found = {}
    table.tree(name).walk(resource, resource, found)
    keys = _keys(found, table.singles(name))
    if table.text_search:
        keys |= text_keys(resource)
    return Indexed(
        keys=keys,
        compartments=_compartments(resource, found, table),
        labels=_labels(resource),
        contained=tuple(_contained(resource, table)) if "contained" in resource else (),
    )


def _contained(resource: Resource, table: ParameterTable) -> Iterator[dict[str, Any]]:
    inside = resource["contained"]
    for one in inside if type(inside) is list else ():
        kind, id = (one.get("resourceType"), one.get("id")) if type(one) is dict else ("", "")
        if kind in table.definitions.types and kind in table.types and type(id) is str:
            found: Found = {}
            table.tree(kind).walk(one, one, found)
            yield {"_id": id, "type": kind, "keys": _keys(found, table.singles(kind))}


def _keys(found: Found, singles: frozenset[str]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for field, values in found.items():
        if field in singles:
            if values:
                keys[field] = values[0]
            else:
                keys[field] = None
        elif len(values) > 1:
            keys[field] = _distinct(values)
        else:
            keys[field] = values
    return keys


def _distinct(values: list[Any]) -> list[Any]:
    if type(values[0]) is str:
        return list(dict.fromkeys(values))
    return values


def _compartments(resource: Resource, found: Found, table: ParameterTable) -> tuple[str, ...]:
    """Return the compartments that the references put ``resource`` in, and its own.

    Patient/1 is in the compartment of Patient/1, whether or not the definition says so.
    """
    type = resource["resourceType"]
    inside = set(places(resource, table.base_urls)) if type in BESIDE else set()
    for compartment, fields in table.compartment_fields[type].items():
        if not fields and compartment != type:
            continue
        prefix = f"{compartment}/"
        for field in fields:
            for key in found.get(field, ()):
                if key.startswith(prefix):
                    inside.add(key)
        if compartment == type and "id" in resource:
            inside.add(f"{type}/{resource['id']}")
    return tuple(sorted(inside))


def _labels(resource: Resource) -> tuple[str, ...]:
    meta = resource.get("meta")
    security = meta.get("security") if type(meta) is dict else None
    if type(security) is not list:
        return ()
    codings = (coding for coding in security if type(coding) is dict)
    return tuple(f"{coding.get('system', '')}|{coding.get('code', '')}" for coding in codings)
