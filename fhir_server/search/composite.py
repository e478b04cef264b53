"""Composite parameters: values that must be true of the same element.

https://hl7.org/fhir/R4/search.html#composite

A key is ``{"a": key, "b": key}``: one key of each component, as the component's own type writes it.
An element whose components have several keys has every combination.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice, product
from typing import Any

from fhir_server.outcome import invalid_value
from fhir_server.r4.paths import Path
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import SEPARATOR, Filter, regex_text, shortened

# A code with ten codings and a value with ten is 100 already; more is no data but an attack.
COMBINATIONS_MAX = 1000

Converter = Callable[[Any], list[Any]]


def part_name(at: int) -> str:
    """Return what the component at ``at`` is called inside a key: ``a``, ``b``.

    MongoDB builds no ordinary index over a number as a name inside an array.
    """
    return chr(ord("a") + at)


@lru_cache(maxsize=1024)
def composite_index(
    components: tuple[tuple[tuple[Path, Converter], ...], ...],
) -> Callable[[Any, Any], list[Any]]:
    """Return the function ``(element, resource) -> keys``, one for all that write the same.

    ``components`` has, for each component, its paths below the element and how their values are
    written.
    """

    # The last component first: most composites of a type have a value of another form there.
    backwards = [list(paths) for paths in reversed(components)]
    begins = [name for paths in backwards if (name := _beginnings(paths))]

    def index(element: Any, resource: Any) -> list[Any]:
        if type(element) is not dict:
            return []
        for names in begins:
            if names.isdisjoint(element):
                return []
        found: list[list[Any]] = []
        for paths in backwards:
            keys: list[Any] = []
            for path, convert in paths:
                for value in path.values(element, resource):
                    keys += convert(value)
            if not keys:
                return []
            found.append(keys)
        combinations = islice(product(*reversed(found)), COMBINATIONS_MAX)
        return [{part_name(at): key for at, key in enumerate(keys)} for keys in combinations]

    return index


def _beginnings(paths: Sequence[tuple[Path, Converter]]) -> frozenset[str]:
    """Return the members of an element without which none of ``paths`` leads anywhere; nothing
    where one of them begins otherwise."""
    starts = [
        path.steps[0].name if path.steps and not path.from_resource else "" for path, _ in paths
    ]
    return frozenset(starts) if all(starts) else frozenset()


def compile_composite(
    field: str, value: str, components: Sequence[Callable[[str, str], Filter]]
) -> Filter:
    """Return the filter for one composite value, ``a$b``, against the keys at ``field``.

    ``components`` compile one part each: ``(field, value) -> filter``.

    Raises ``value`` for another number of parts, and what the components raise.
    """
    parts = split(value, "$")
    if len(parts) != len(components):
        raise invalid_value("A composite", value, f"{len(components)} parts with $ between them")
    conditions = [
        compile(part_name(at), part)
        for at, (compile, part) in enumerate(zip(components, parts, strict=True))
    ]
    return {field: {"$elemMatch": {"$and": conditions}}}


def compile_system(field: str, value: str) -> Filter | None:
    """Return the filter for a token component ``system|``, or ``None`` for any other form.

    A composite keeps no systems beside its keys, so the end of the key is looked at.
    """
    match split(value, "|"):
        case [system, ""] if system:
            pattern = f"{SEPARATOR}{regex_text(shortened(unescape(system)))}$"
            return {field: {"$regex": pattern}}
    return None
