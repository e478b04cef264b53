"""What a search must find, decided resource by resource: nothing is indexed, compiled or clever.

https://hl7.org/fhir/R4/search.html
"""

import re
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from tests.conformance.brute_paths import (
    Node,
    by_url,
    parameters,
    plain,
    read,
    resource_types,
    root,
    values,
    walk,
)
from tests.conformance.brute_values import (
    READS,
    Answer,
    addresses,
    bare,
    codes_of,
    date,
    intervals,
    limits_of,
    number,
    quantity,
    some,
    split,
    string,
    texts_of,
    token,
    unescaped,
    uri,
)

# ---------------------------------------------------------------------------- references


class References:
    """Decides references; ``base`` is what this server is called."""

    def __init__(self, base: str) -> None:
        self.base = f"{base}/"

    def local(self, text: str) -> str:
        """Return a reference to this server as a relative one, without version."""
        return text.removeprefix(self.base).partition("/_history/")[0]

    def __call__(self, nodes: Iterable[Node], asked: str, modifier: str, definition: Any) -> Answer:
        """Whether one reference is the one asked for."""
        some_nodes = list(nodes)
        if modifier == "identifier":
            inner = [
                node.value.get("identifier") for node in some_nodes if node.type == "Reference"
            ]
            found = [Node("Identifier", "Identifier", one) for one in inner if one]
            return token(found, asked, "", definition)
        return any(self._is(node, unescaped(asked), modifier) for node in some_nodes)

    def _is(self, node: Node, asked: str, modifier: str) -> bool:
        if node.type in ("canonical", "uri"):
            return asked in (node.value, node.value.partition("|")[0])
        text = (
            node.value.get("reference", "")
            if node.type == "Reference"
            else f"{node.value['resourceType']}/{node.value.get('id')}"
        )
        if not text or text.startswith("#"):
            return False
        if "/_history/" in asked:
            return text.removeprefix(self.base) == asked.removeprefix(self.base)
        if modifier:
            asked = asked if "/" in asked else f"{modifier}/{asked}"
        if "/" in asked:
            return self.local(text) == self.local(asked)
        return re.fullmatch(rf"([A-Z]\w+/)?{re.escape(asked)}", self.local(text)) is not None


# ---------------------------------------------------------------------------- everything

Decide = Callable[[Iterable[Node], str, str, Any], Answer]


class Brute:
    """All resources, and whether a search finds them."""

    def __init__(self, resources: Iterable[Any], base: str) -> None:
        self.of_type: dict[str, list[Any]] = {}
        self.by_place: dict[str, Any] = {}
        for one in resources:
            self.of_type.setdefault(one["resourceType"], []).append(one)
            self.by_place[f"{one['resourceType']}/{one['id']}"] = one
        self.references = References(base)
        self._deciders: dict[str, Decide] = {
            "string": string,
            "token": token,
            "date": date,
            "number": number,
            "quantity": quantity,
            "uri": uri,
            "reference": self.references,
        }
        self._nodes: dict[tuple[int, str], list[Node]] = {}

    def nodes(self, resource: Any, code: str) -> list[Node]:
        """Return the elements of ``resource`` that the parameter ``code`` is about."""
        key = (id(resource), code)
        if key not in self._nodes:
            definition = parameters(resource["resourceType"])[code]
            reads = READS.get(definition["type"], "").split()
            found = values(resource, definition)
            self._nodes[key] = [
                one
                for one in found
                if one.type in reads
                or definition["type"] == "composite"
                or (definition["type"] == "reference" and one.type in resource_types())
            ]
        return self._nodes[key]

    def finds(self, resource: Any, name: str, asked: str) -> Answer:
        """Return whether ``name=asked`` finds ``resource``: all alternatives, chains and all."""
        if name.startswith("_has:"):
            _, type, code, rest = name.split(":", 3)
            place = f"{resource['resourceType']}/{resource['id']}"
            others = self.of_type.get(type, ())
            return some(
                self.finds(one, rest, asked) for one in others if place in self.links(one, code)
            )
        head, point, rest = name.partition(".")
        code, _, modifier = head.partition(":")
        if point:
            linked = [self.by_place.get(one) for one in self.links(resource, code)]
            known = [one for one in linked if one and modifier in ("", one["resourceType"])]
            return some(
                self.finds(one, rest, asked)
                for one in known
                if rest.partition(":")[0] in parameters(one["resourceType"])
            )
        definition = parameters(resource["resourceType"])[code]
        if modifier == "missing":
            return (not self.nodes(resource, code)) is (asked == "true")
        found = some(
            self._decide(resource, definition, "" if modifier == "not" else modifier, one)
            for one in split(asked, ",")
        )
        return found if modifier != "not" or found is None else not found

    def _decide(self, resource: Any, definition: Any, modifier: str, asked: str) -> Answer:
        code = definition["code"]
        if code == "_id":
            return bool(resource["id"] == unescaped(asked))
        if definition["type"] == "composite":
            return self._composite(resource, definition, split(asked, "$"))
        if code == "url" and "|" in asked and not modifier:
            url, version = split(asked, "|")
            stored = resource.get("version")
            return bool(resource.get("url") == unescaped(url) and stored == unescaped(version))
        decide = self._deciders[definition["type"]]
        return decide(self.nodes(resource, code), asked, modifier, definition)

    def components(self, resource: Any, definition: Any) -> list[list[tuple[Any, list[Node]]]]:
        """Return, for each element that a composite is about, each component and its values."""
        whole = root(resource)
        found = []
        for focus in self.nodes(resource, definition["code"]):
            parts = []
            kinds = [by_url()[one["definition"]] for one in definition["component"]]
            if definition["id"] == "DocumentReference-relationship":
                kinds.reverse()  # R4 has them the wrong way round
            for one, kind in zip(definition["component"], kinds, strict=True):
                below = plain(walk(read(one["expression"]), [focus], whole))
                reads = READS[kind["type"]].split()
                parts.append((kind, [node for node in below if node.type in reads]))
            found.append(parts)
        return found

    def _composite(self, resource: Any, definition: Any, asked: list[str]) -> Answer:
        """Whether one element has all parts: each by a value of its own."""
        return some(
            _all(
                some(self._deciders[kind["type"]]([node], text, "", kind) for node in below)
                for (kind, below), text in zip(parts, asked, strict=True)
            )
            for parts in self.components(resource, definition)
        )

    def links(self, resource: Any, code: str) -> list[str]:
        """Return ``Type/id`` of what ``resource`` refers to by the parameter ``code``."""
        nodes = self.nodes(resource, code)
        texts = (node.value.get("reference", "") for node in nodes if node.type == "Reference")
        return [self.references.local(text) for text in texts]

    def order(self, resource: Any, name: str) -> tuple[Any, ...] | None:
        """Return what ``resource`` is ordered by, or ``None`` where that is missing."""
        code = name.removeprefix("-")
        if code == "_id":
            return (resource["id"],)
        type = parameters(resource["resourceType"])[code]["type"]
        found: list[tuple[Any, ...]] = []
        for node in self.nodes(resource, code):
            match type:
                case "date":
                    found += [(low,) for low, _ in intervals(node)]
                case "number" | "quantity":
                    found += [(limits[0],) for limits in [limits_of(node)] if limits]
                case "string":
                    found += [(bare(text)[:1000],) for text in texts_of(node)]
                case "token":
                    fold = str.casefold if node.type == "string" else str
                    found += [
                        (fold(value), system or "") for system, value, _ in codes_of(node) if value
                    ]
                case "uri":
                    found += [(text,) for text in addresses(node)]
                case "reference":
                    found += [(one,) for one in self._reference_texts(node)]
        if not found:
            return None
        return max(found) if name.startswith("-") else min(found)

    def _reference_texts(self, node: Node) -> list[str]:
        if node.type in ("canonical", "uri"):
            return addresses(Node("canonical", "canonical", node.value))
        if node.type != "Reference":
            return [f"{node.type}/{node.value['id']}"] if "id" in node.value else []
        text = node.value.get("reference", "")
        return [] if not text or text.startswith("#") else [self.references.local(text)]


def _all(answers: Iterable[Answer]) -> Answer:
    found = list(answers)
    return False if False in found else None if None in found else True


def combinations(parts: list[tuple[Any, list[Node]]]) -> list[tuple[Node, ...]]:
    """Return every choice of one value for each component."""
    return list(product(*(below for _, below in parts)))
