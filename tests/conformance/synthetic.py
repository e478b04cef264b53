"""The smallest resource that a search parameter finds something in, made from the definitions.

An expression is read the other way round: ``Patient.telecom.where(system='email')`` is filled as
``{"telecom": [{"system": "email", "value": …}]}``. One resource is made for each branch of a union
and each form of a choice. Every value has a number in it that no other resource has.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count, islice
from typing import Any

from tests.conformance.brute_paths import (
    Tree,
    by_url,
    elements,
    parameters,
    read,
    resource_types,
    shape,
)
from tests.conformance.brute_values import READS

Json = dict[str, Any]
_URLS = ("uri", "url", "canonical", "oid", "uuid")
_TIMES = ("dateTime", "instant")


@dataclass(frozen=True, slots=True)
class Filled:
    """A resource, and the search that finds it: a value of the parameter.

    ``unique`` says that no other resource can have that value.
    """

    definition: Any
    resource: Json
    value: str
    unique: bool


def sample(type: str, number: int, target: str) -> Any:
    """Return a value of ``type`` that has ``number`` in it."""
    day = (date(1900, 1, 1) + timedelta(days=number)).isoformat()
    text, code, url = f"Text{number}x", f"c{number}", f"http://u.example/{number}x"
    quantity = {"value": number, "system": "http://unitsofmeasure.org", "code": "kg"}
    samples: dict[str, Any] = {
        "CodeableConcept": {"coding": [{"system": "http://s.example", "code": code}]},
        "Coding": {"system": "http://s.example", "code": code},
        "Identifier": {"system": "http://s.example", "value": code},
        "ContactPoint": {"system": "phone", "value": code},
        "boolean": True,
        "HumanName": {"family": text},
        "Address": {"city": text},
        **dict.fromkeys(("string", "markdown"), text),
        **dict.fromkeys(("code", "id"), code),
        **dict.fromkeys(_URLS, url),
        "date": day,
        **dict.fromkeys(_TIMES, f"{day}T00:00:00Z"),
        "Period": {"start": day, "end": day},
        "Timing": {"event": [day]},
        **dict.fromkeys(("integer", "decimal", "positiveInt", "unsignedInt"), number),
        **dict.fromkeys(("Quantity", "Count", "Distance", "Duration", "Age"), quantity),
        "Range": {"low": quantity, "high": quantity},
        "Money": {"value": number, "currency": "XTS"},
        "Reference": {"reference": f"{target}/r{number}"},
        "Resource": {"resourceType": target, "id": f"r{number}"},
        "BackboneElement": {"longitude": number / 100, "latitude": 10},
    }
    return samples[type]


def asked(kind: str, type: str, number: int, target: str) -> str:
    """Return the search value for the sample of ``type``."""
    day = (date(1900, 1, 1) + timedelta(days=number)).isoformat()
    if type == "boolean":
        return "true"
    if kind == "token" and type == "string":
        return f"Text{number}x"
    return {
        "token": f"c{number}" if type not in _URLS else f"http://u.example/{number}x",
        "string": f"text{number}x" if type not in ("code", "id") else f"c{number}",
        "date": day,
        "number": str(number),
        "quantity": str(number),
        "uri": f"http://u.example/{number}x",
        "reference": f"{target}/r{number}"
        if type in ("Reference", "Resource")
        else f"http://u.example/{number}x",
        "special": f"10|{number / 100}|0.1|km",
    }[kind]


Form = tuple[str, Any]
"""The type of the value at the end, and the element that holds it."""


def steps(tree: Tree) -> list[Tree]:
    """Return an expression without unions as the steps that it takes, one after the other."""
    match tree:
        case ("dot", left, right):
            return [*steps(left), *steps(right)]
        case ("as", left, ("name", type)):
            return [*steps(left), ("as", type)]
        case ("item", left, _):
            return steps(left)
        case ("and", left, _):
            return steps(left)
        case ("call", "exists", _):
            return []
        case ("call", "where" | "extension" as name, (argument,)):
            return [(name, argument)]
        case ("call", "as" | "ofType", (("name", type),)):
            return [("as", type)]
        case ("name", name) if name in resource_types() or name in ("Resource", "DomainResource"):
            return []
        case ("name", _):
            return [tree]
    raise AssertionError(tree)


def branches(tree: Tree) -> Iterator[Tree]:
    """Yield the branches of a union."""
    if tree[0] == "|":
        yield from branches(tree[1])
        yield from branches(tree[2])
    else:
        yield tree


def begins(tree: Tree) -> str:
    """Return the name that an expression begins with."""
    while tree[0] != "name":
        tree = tree[1]
        if not isinstance(tree, tuple):
            return ""
    return str(tree[1])


class Maker:
    """Makes what one parameter reads. ``number`` is the one in its values."""

    def __init__(self, kind: str, number: int, target: str) -> None:
        self.reads = [*READS[kind].split(), *(["Resource"] if kind == "reference" else [])]
        self.number = number
        self.target = target

    def grow(self, type: str, at: str, left: list[Tree]) -> Iterator[Form]:
        """Yield an element of ``type`` for each form that the steps ``left`` can take."""
        if not left:
            yield from self._end(type)
            return
        step, *rest = left
        match step:
            case ("name", name):
                yield from self._member(at, name, rest)
            case ("as", name):
                if type in (name, name[0].lower() + name[1:]):
                    yield from self.grow(type, at, rest)
            case ("extension", (_, url)):
                for leaf, value in self.grow("Extension", "Extension", rest):
                    yield leaf, {"extension": [{"url": url, **value}]}
            case ("where", condition):
                for leaf, value in self.grow(type, at, rest):
                    if (met := self._where(condition, type, value)) is not None:
                        yield leaf, met

    def _member(self, at: str, name: str, rest: list[Tree]) -> Iterator[Form]:
        path, forms = shape(f"{at}.{name}")
        element = elements().get(path) or elements().get(f"{path}[x]") or {}
        for member, type, below in forms:
            for leaf, value in self.grow(type, below, rest):
                yield leaf, {member: [value] if element.get("max") == "*" else value}

    def _end(self, type: str) -> Iterator[Form]:
        without_value = ("SampledData", *(("Age", "Range") if "date" in self.reads else ()))
        if type == "Extension":
            yield from self.grow(type, type, [("name", "value")])
        elif type in self.reads and type not in without_value:
            yield type, self._leaf(type)

    def _leaf(self, type: str) -> Any:
        found = sample(type, self.number, self.target)
        if type == "string" and "date" in self.reads:
            return sample("date", self.number, "")
        return found

    def _where(self, condition: Tree, type: str, value: Any) -> Any:
        """Return ``value`` so that it meets the condition of a where()."""
        match condition:
            case ("=", ("name", name), (_, wanted)):
                return {**value, name: wanted}
            case ("call", "hasExtension", ((_, url),)):
                return {**value, "extension": [{"url": url, "valueBoolean": True}]}
            case ("is", ("call", "resolve", ()), ("name", target)):
                return value if type == "Reference" and target == self.target else None
        raise AssertionError(condition)


def _merged(one: Any, other: Any) -> Any:
    """Return two fragments of a resource as one."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            **one,
            **other,
            **{name: _merged(one[name], other[name]) for name in one.keys() & other},
        }
    if isinstance(one, list) and isinstance(other, list):
        return [_merged(one[0], other[0])]
    return other


def _targets(definition: Any, tree: Tree) -> list[str]:
    """Return the type that references are given: the one that resolve() is, or a possible one."""
    named = [one[1][2][1] for one in steps(tree) if one[0] == "where" and one[1][0] == "is"]
    return named or [*definition.get("target", ["Patient"])[:1]]


def _simple(type: str, definition: Any, numbers: Iterator[int]) -> Iterator[Filled]:
    kind = definition["type"]
    for branch in branches(read(definition["expression"])):
        name = begins(branch)
        if name in resource_types() and name != type:
            continue
        [target] = _targets(definition, branch)
        for place in count():
            number = next(numbers)
            forms = Maker(kind, number, target).grow(type, type, steps(branch))
            form = next(islice(forms, place, None), None)
            if form is None:
                break
            leaf, value = form
            text = asked(kind, leaf, number, target)
            unique = leaf != "boolean" and kind != "special"
            yield Filled(definition, value, text, unique)


def _composite(type: str, definition: Any, numbers: Iterator[int]) -> Iterator[Filled]:
    kinds = [by_url()[one["definition"]] for one in definition["component"]]
    if definition["id"] == "DocumentReference-relationship":
        kinds.reverse()
    for branch in branches(read(definition["expression"])):
        number = next(numbers)
        focus: Any = {}
        whole: Any = {}
        texts = []
        places = steps(branch)
        at = ".".join([type, *(step[1] for step in places)])
        for kind, one in zip(kinds, definition["component"], strict=True):
            tree = read(one["expression"])
            whole_too = tree[0] == "dot" and begins_at_resource(tree)
            leaf, value = next(_component_forms(kind, number, type if whole_too else at, tree))
            if whole_too:
                whole = _merged(whole, value)
            else:
                focus = _merged(focus, value)
            texts.append(asked(kind["type"], leaf, number, kind.get("target", ["Patient"])[0]))
        for step in reversed(places):
            path, _ = shape(f"{at}")
            many = elements()[path].get("max") == "*"
            focus = {step[1]: [focus] if many else focus}
        yield Filled(definition, _merged(whole, focus), "$".join(texts), True)


def begins_at_resource(tree: Tree) -> bool:
    """Whether an expression begins with ``%resource``."""
    while tree[0] == "dot":
        tree = tree[1]
    return bool(tree[0] == "%")


def _component_forms(kind: Any, number: int, at: str, tree: Tree) -> Iterator[Form]:
    maker = Maker(kind["type"], number, kind.get("target", ["Patient"])[0])
    for branch in branches(tree):
        left = _without_variable(branch)
        owner = elements()[at]["type"][0]["code"] if "type" in elements()[at] else at
        place = at if owner in ("BackboneElement", at) else owner
        yield from maker.grow("BackboneElement", place, left)


def _without_variable(tree: Tree) -> list[Tree]:
    match tree:
        case ("dot", ("%", _), right):
            return steps(right)
        case ("dot", left, right):
            return [*_without_variable(left), *steps(right)]
    return steps(tree)


def resources() -> Iterator[Filled]:
    """Yield resources for every parameter of every type; their ids are their places."""
    numbers = count(1)
    for type in sorted(resource_types()):
        for definition in parameters(type).values():
            make = _composite if definition["type"] == "composite" else _simple
            for filled in make(type, definition, numbers):
                number = next(numbers)
                whole = {"resourceType": type, "id": f"s{number}", **filled.resource}
                yield Filled(definition, whole, filled.value, filled.unique)


def exercised(filled: Iterable[Filled]) -> set[str]:
    """Return the ids of the definitions that ``filled`` is for."""
    return {str(one.definition["id"]) for one in filled}
