"""Functions of elements and resources, and what must be looked up for some of them.

https://hl7.org/fhir/R4/fhirpath.html#functions, http://hl7.org/fhirpath/N1/#tree-navigation
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fhir_server.r4.expansion import Unexpandable
from fhir_server.r4.fhirpath.environment import State, single, string
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.functions.function import Function
from fhir_server.r4.fhirpath.model import Node, Value, system, type_name
from fhir_server.r4.fhirpath.moments import date, date_time, time
from fhir_server.r4.questions import Canonical, CodeInValueSet, Target

_TYPE_URL = "http://hl7.org/fhir/StructureDefinition/"
_DESCENDANTS = "descendants"

# ------------------------------------------------------------------------------------------ tree


def _children(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    found: list[Value] = []
    for item in items:
        if type(item) is Node:
            found += item.shape.children(item)
    state.spend(1 + len(found))
    return found


def _descendants(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    """Each element before what is below it; the whole resource's are found once."""
    if len(items) == 1 and items[0] is state.environment.resource:
        memo = state.environment.memo
        if _DESCENDANTS not in memo:
            memo[_DESCENDANTS] = _walked(items, state)
        found: list[Value] = memo[_DESCENDANTS]
        return found
    return _walked(items, state)


def _walked(items: list[Value], state: State) -> list[Value]:
    found: list[Value] = []
    left: list[Value] = list(reversed(items))
    roots = len(items)
    while left:
        item = left.pop()
        if len(left) >= roots:
            found.append(item)
        else:
            roots -= 1
        if type(item) is Node:
            below = item.shape.children(item)
            state.spend(1 + len(below))
            left += reversed(below)
    return found


# -------------------------------------------------------------------------------------- elements


def _extension(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    url = string(given[0], "extension()")
    found: list[Value] = []
    for item in items:
        if type(item) is Node:
            below = item.shape.below(item, "extension")
            state.spend(1 + len(below))
            found += [
                one for one in below if type(one.value) is dict and one.value.get("url") == url
            ]
    return found


def _has_extension(items: list[Value], given: list[list[Value]], state: State) -> bool:
    return bool(_extension(items, given, state))


def _has_value(items: list[Value], given: list[list[Value]], state: State) -> bool:
    if len(items) != 1:
        return False
    item = items[0]
    return type(item) is not Node or (item.shape.is_primitive and item.value is not None)


def _get_value(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    return [system(items[0])] if _has_value(items, given, state) else []


def _type(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    return [_TypeInfo(*type_name(item)).node(state) for item in items]


class _TypeInfo:
    """What ``type()`` gives: an element with a namespace and a name."""

    def __init__(self, namespace: str, name: str) -> None:
        self._json = {"namespace": namespace, "name": name}

    def node(self, state: State) -> Node:
        return Node(state.environment.model.type_info, self._json)


# ----------------------------------------------------------------------------------- references


def _resolve(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    found: list[Value] = []
    for item in items:
        text = reference_text(item)
        if text:
            state.spend(1)
            found += resolved(text, state)
    return found


def reference_text(item: Value) -> str | None:
    """Return the text of a reference: of a Reference, a uri, a canonical or a string."""
    if type(item) is Node and type(item.value) is dict:
        text = item.value.get("reference")
    else:
        text = system(item)
    return text if type(text) is str else None


def resolved(text: str, state: State) -> list[Value]:
    """Return what the reference ``text`` leads to, in the resource or its Bundle; else it asks."""
    environment = state.environment
    if text.startswith("#"):
        return _contained(text[1:], environment.root_resource or environment.resource)
    inside = _entries(state).get(text)
    if inside is not None:
        return [inside]
    known = environment.ask(Target(text))
    return [environment.model.resource(known)] if type(known) is dict else []


def _contained(id: str, root: Node | None) -> list[Value]:
    if root is None:
        return []
    if not id:
        return [root]
    return [
        one
        for one in root.shape.below(root, "contained")
        if type(one.value) is dict and one.value.get("id") == id
    ]


def _entries(state: State) -> Mapping[str, Node]:
    """Return the resources of the Bundle around, by their urls and by type and id."""
    environment = state.environment
    found: dict[str, Node] | None = environment.memo.get("entries")
    if found is None:
        found = environment.memo["entries"] = {}
        root = environment.root_resource or environment.resource
        if root is not None and root.type == "Bundle" and type(root.value.get("entry")) is list:
            state.spend(len(root.value["entry"]))
            for url, json in _with_urls(root.value["entry"]):
                found.setdefault(url, environment.model.resource(json))
    return found


def _with_urls(entries: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in entries:
        json = entry.get("resource") if type(entry) is dict else None
        url = entry.get("fullUrl") if type(entry) is dict else None
        if type(json) is not dict or type(url) is not str:
            continue
        yield url, json
        if not url.startswith("urn:"):
            yield "/".join(url.rsplit("/", 2)[-2:]), json


# ------------------------------------------------------------------------------------- profiles


def _conforms_to(items: list[Value], given: list[list[Value]], state: State) -> bool | None:
    url = string(given[0], "conformsTo()")
    if len(items) != 1 or url is None or type(items[0]) is not Node:
        return None
    item = items[0]
    environment = state.environment
    type_url = url.partition("|")[0]
    if type_url.startswith(_TYPE_URL):
        name = type_url.removeprefix(_TYPE_URL)
        if name in environment.model.definitions.types:
            return name in item.shape.names
    if environment.conforms is not None:
        return environment.conforms(item, url)
    question = Canonical("StructureDefinition", url)
    if environment.ask(question) is None and question in environment.known:
        raise FhirPathError(f"the profile {url} is not known")
    return None


def _element_definition(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    """An element's own definition is not evaluated: no invariant of R4 asks for it."""
    return []


# ----------------------------------------------------------------------------------- terminology


def _codings(item: Value) -> list[Mapping[str, Any]] | str | None:
    """Return the codings of a concept, or the bare code that ``item`` is."""
    if type(item) is Node and type(item.value) is dict:
        found = item.value.get("coding") if item.type == "CodeableConcept" else [item.value]
        return [one for one in found if type(one) is dict] if type(found) is list else []
    value = system(item)
    return value if type(value) is str else None


def _member_of(items: list[Value], given: list[list[Value]], state: State) -> bool | None:
    url = string(given[0], "memberOf()")
    if len(items) != 1 or url is None:
        return None
    found = _codings(items[0])
    if found is None:
        return None
    codings: list[Mapping[str, Any]] = [{"code": found}] if type(found) is str else found  # type: ignore[assignment]
    results = [_is_member(one, url, state) for one in codings]
    return True if True in results else None if None in results else False


def _is_member(coding: Mapping[str, Any], url: str, state: State) -> bool | None:
    code, system = coding.get("code"), coding.get("system", "")
    if type(code) is not str or type(system) is not str:
        return False
    state.spend(1)
    version = coding.get("version")
    question = CodeInValueSet(url, system, code, version=version if type(version) is str else "")
    answer = state.environment.ask(question)
    return None if answer is None else answer.result


def _subsumes(items: list[Value], given: list[list[Value]], state: State) -> bool | None:
    return _any_subsumes(items, given[0], state)


def _subsumed_by(items: list[Value], given: list[list[Value]], state: State) -> bool | None:
    return _any_subsumes(given[0], items, state)


def _any_subsumes(above: list[Value], below: list[Value], state: State) -> bool | None:
    if len(above) != 1 or len(below) != 1:
        return None
    one, other = _codings(above[0]), _codings(below[0])
    if type(one) is not list or type(other) is not list:
        return None
    state.spend(len(one) * len(other))
    results = [_subsumes_code(left, right, state) for left in one for right in other]
    return True if True in results else None if None in results else False


def _subsumes_code(above: Mapping[str, Any], below: Mapping[str, Any], state: State) -> bool | None:
    system, code, lower = above.get("system"), above.get("code"), below.get("code")
    if system != below.get("system") or type(system) is not str or type(code) is not str:
        return False
    if code == lower:
        return True
    try:
        found = state.environment.model.definitions.hierarchy(system).below(code)
    except Unexpandable:
        return None
    return None if found is None else lower in found


# ---------------------------------------------------------------------------------------- clock


def _clock(name: str) -> Function:
    def run(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
        now = state.environment.now
        if now is None:
            raise FhirPathError(f"{name}() is not known here")
        text = now.isoformat(timespec="milliseconds")
        found = {
            "now": lambda: date_time(text),
            "today": lambda: date(text[:10]),
            "timeOfDay": lambda: time(text[11:23]),
        }[name]()
        assert found is not None  # a clock shows a time
        return [found]

    return Function(0, 0, run=run)


def _check_modifiers(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    """Raise for an element with a modifier extension that is none of those that are named."""
    urls = {string(one, "checkModifiers()") for one in given}
    for item in items:
        if type(item) is Node:
            for one in item.shape.below(item, "modifierExtension"):
                if type(one.value) is dict and one.value.get("url") not in urls:
                    raise FhirPathError("there is a modifier extension that is not understood")
    return items


def _single_value(items: list[Value]) -> Any:
    return single(items, "This function")


FUNCTIONS: Mapping[str, Function] = {
    "children": Function(0, 0, run=_children),
    "descendants": Function(0, 0, run=_descendants),
    "extension": Function(1, 1, run=_extension),
    "hasExtension": Function(1, 1, test=_has_extension),
    "hasValue": Function(0, 0, test=_has_value),
    "getValue": Function(0, 0, run=_get_value),
    "type": Function(0, 0, run=_type),
    "resolve": Function(0, 0, run=_resolve),
    "conformsTo": Function(1, 1, test=_conforms_to),
    "elementDefinition": Function(0, 0, run=_element_definition),
    "slice": Function(2, 2, run=_element_definition),
    "checkModifiers": Function(0, 20, run=_check_modifiers),
    "memberOf": Function(1, 1, test=_member_of),
    "subsumes": Function(1, 1, test=_subsumes),
    "subsumedBy": Function(1, 1, test=_subsumed_by),
    **{name: _clock(name) for name in ("now", "today", "timeOfDay")},
}
