"""Where in a resource the links are that a transaction rewrites.

https://hl7.org/fhir/R4/http.html#trules: references, elements of type uri, url, oid and uuid, and
links in the narrative. Not canonicals, which name what they point at whatever server it is on, and
not strings, though they may look like one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any

from fhir_server.r4.definitions import Definitions, Element

Resource = dict[str, Any]
Replace = Callable[[str], str]

REFERENCE, URI, NARRATIVE, RESOURCE = "reference", "uri", "narrative", "resource"
_KINDS = {**dict.fromkeys(("uri", "url", "oid", "uuid"), URI), "xhtml": NARRATIVE}
_INLINE = ("BackboneElement", "Element")


@dataclass(frozen=True, slots=True)
class Replacements:
    """What is put in the place of a reference, of a uri, and of a narrative."""

    reference: Replace
    uri: Replace
    narrative: Replace


class Links:
    """Finds the links of resources of every type, by the definitions.

    For each path (``Patient``, ``Patient.contact``, ``Attachment``) it keeps what a JSON member
    holds: one of the kinds above, or the path of the object inside.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._members: dict[str, Mapping[str, str]] = {}

    def replaced(self, resource: Resource, by: Replacements) -> Resource:
        """Return ``resource`` with its links replaced; what is of no known type stays as it is.

        What has none to replace is not copied: it is the same object in both, and so is the whole.
        """
        type = resource.get("resourceType")
        known = isinstance(type, str) and type in self._definitions.types
        return self._object(resource, str(type), by) if known else resource

    def _object(self, value: Resource, path: str, by: Replacements) -> Resource:
        members = self._members.get(path) or self._of(path)
        changed: Resource = {}
        for name, member in value.items():
            if name in members:
                new = self._value(member, members[name], by)
                if new is not member:
                    changed[name] = new
        return {**value, **changed} if changed else value

    def _value(self, value: Any, kind: str, by: Replacements) -> Any:
        if type(value) is list:
            new = [self._value(one, kind, by) for one in value]
            return value if all(map(is_, new, value)) else new
        if type(value) is dict:
            return self.replaced(value, by) if kind == RESOURCE else self._object(value, kind, by)
        if type(value) is not str:
            return value
        if kind == REFERENCE:
            return by.reference(value)
        if kind == URI:
            return by.uri(value)
        return by.narrative(value) if kind == NARRATIVE else value

    def _of(self, path: str) -> Mapping[str, str]:
        members: dict[str, str] = {}
        type = path.partition(".")[0]
        for element in self._definitions.types[type].elements.get(path, ()):
            if element.content_reference is not None:
                members[element.name] = element.content_reference
            for name, member in element.members():
                if kind := self._kind(element, member.code):
                    members[name] = kind
                if self._definitions.types[member.code].kind == "primitive-type":
                    members[f"_{name}"] = "Element"
        self._members[path] = members
        return members

    def _kind(self, element: Element, type: str) -> str:
        if element.path == "Reference.reference":
            return REFERENCE
        if type in _INLINE:
            return element.path
        kind = self._definitions.types[type].kind
        if kind == "resource":
            return RESOURCE
        return _KINDS.get(type, "") if kind == "primitive-type" else type
