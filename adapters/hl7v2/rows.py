"""Row and Table: how the fields of a segment become the places of a resource.

design/hl7v2.md, section 11. A table is compiled once; applying it reads each field once.

===========================  ====================================================================
``Row("PID-7", …)``          the first repetition that says something
``Row("PID-3*", …)``         every repetition
``"birthDate"``              the element
``"name[]"``                 members of a list that this field owns: ids ``pid-5.1``, ``pid-5.2``
``"identifier[+]"``          a union: nothing is taken away
``"category*"``              the whole element is a list
``"extension[https://…]"``   the extension of that url; ``value`` says which ``value[x]`` it has
===========================  ====================================================================
"""

import builtins
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.codes import Primitive
from adapters.hl7v2.datatypes import Converter
from adapters.hl7v2.message import Segment
from adapters.hl7v2.scene import Scene

Json = dict[str, Any]
Condition = Callable[[Segment, Scene], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One field, the place it goes to, and the converter between them.

    ``when`` must hold; ``unless`` names fields of the segment of which none may be valued.
    """

    field: str
    place: str
    convert: Converter
    value: str = ""
    when: Condition | None = None
    unless: str = ""


@dataclass(slots=True)
class Filled:
    """What tables gave: places with values, and places whose field was ``""``."""

    set: dict[str, Any]
    remove: builtins.set[str]


_Compiled = tuple[int, str, Converter, bool, str, str, Condition | None, tuple[int, ...]]


class Table:
    """The rows of one segment for one resource type."""

    def __init__(self, type: str, segment: str, rows: Iterable[Row]) -> None:
        self.type = type
        self.segment = segment
        self.rows = tuple(rows)
        self._compiled = tuple(self._compile(row) for row in self.rows)
        self.owned = frozenset(place for row in self._compiled for place in _owned(row[1], row[4]))
        self.fields = frozenset(row[0] for row in self._compiled)

    def _compile(self, row: Row) -> _Compiled:
        name, _, number = row.field.partition("-")
        assert name == self.segment, f"{row.field} is not of {self.segment}"
        every = number.endswith("*")
        field = int(number.rstrip("*"))
        place, shape = row.place, ""
        if place.endswith("[]"):
            shape = f"{name.lower()}-{field}"
            place = f"{place[:-2]}[{shape}]"
        elif place.endswith("[+]"):
            shape = "+"
        elif place.endswith("*"):
            place, shape = place[:-1], "*"
        unless = tuple(int(other.partition("-")[2]) for other in row.unless.split())
        return (field, place, row.convert, every, shape, row.value, row.when, unless)

    def apply(self, segment: Segment, scene: Scene, filled: Filled | None = None) -> Filled:
        """Return what the segment says; added to ``filled`` if that is given."""
        result = filled if filled is not None else Filled({}, set())
        fields = segment.fields
        count = len(fields)
        segment.read |= self.fields
        for field, place, convert, every, shape, value, when, unless in self._compiled:
            if field >= count:
                continue
            raw = fields[field]
            if not raw or (when is not None and not when(segment, scene)):
                continue
            if raw == '""':
                if shape == "+":
                    scene.at(segment, field)
                    scene.note("null-ignored", "A number is never deleted by a message.")
                else:
                    result.remove.update(_owned(place, shape))
                continue
            if unless and any(segment.valued(other) for other in unless):
                continue
            scene.at(segment, field)
            if every or shape:
                found = segment.values(field) if every else segment.values(field)[:1]
                _put_all(result, place, shape, [convert(one, scene) for one in found])
            else:
                first = segment.value(field)
                made = convert(first, scene) if first is not None else None
                if made is not None:
                    _put(result, place, made, value)
        return result


def _owned(place: str, shape: str) -> tuple[str, ...]:
    if shape not in ("", "*") or place.endswith("]"):
        return (place,)
    head, _, last = place.rpartition(".")
    return (place, f"{head}._{last}" if head else f"_{last}")


def _put(result: Filled, place: str, made: Any, value: str) -> None:
    if isinstance(made, Primitive):
        beside = _owned(place, "")[1]
        result.set[place] = made.value
        result.set[beside] = {"extension": list(made.extension)}
        return
    if value:
        url = place[place.index("[") + 1 : -1]
        made = [{"url": url, value: made}]
    result.set[place] = made


def _put_all(result: Filled, place: str, shape: str, made: list[Any]) -> None:
    members: list[Any] = []
    for one in made:
        if isinstance(one, list):
            members += one
        elif one is not None:
            members.append(one)
    if not members:
        return
    if shape == "+":
        result.set[place] = [*result.set.get(place, []), *members]
    elif shape == "*":
        _put_list(result, place, members)
    else:
        named = enumerate(members, 1)
        result.set[place] = [{"id": f"{shape}.{n}", **member} for n, member in named]


def _put_list(result: Filled, place: str, members: list[Any]) -> None:
    """Set a list, of primitives perhaps, some of them with extensions."""
    plain = [one.value if isinstance(one, Primitive) else one for one in members]
    result.set[place] = plain
    if any(isinstance(one, Primitive) for one in members):
        result.set["_" + place] = [
            {"extension": list(one.extension)} if isinstance(one, Primitive) else None
            for one in members
        ]
