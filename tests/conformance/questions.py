"""Random searches, written from values that some resource has: most of them find something.

https://hl7.org/fhir/R4/search.html
"""

import re
from decimal import Decimal
from random import Random
from typing import Any

from tests.conformance.awkward import UNITS
from tests.conformance.brute_force import Brute, combinations
from tests.conformance.brute_paths import Node, parameters
from tests.conformance.brute_values import PREFIXES, UCUM, bare

Pairs = list[tuple[str, str]]


def escaped(text: str) -> str:
    """Return ``text`` as a search value writes it."""
    for sign in "\\,|$":
        text = text.replace(sign, f"\\{sign}")
    return text


class Asker:
    """Writes searches over the resources of ``brute``."""

    def __init__(self, random: Random, brute: Brute) -> None:
        self.random = random
        self.brute = brute
        self._types = [
            type for type, some in brute.of_type.items() for _ in range(len(some) // 10 + 1)
        ]

    def question(self) -> tuple[str, Pairs]:
        """Return a type and the parameters of a search of it; an order at most once."""
        type = self.random.choice(self._types)
        kind = self.random.random()
        pairs = [self.term(type)]
        if kind < 0.15:
            pairs.append(self.term(type))
        elif kind < 0.3:
            pairs = [found] if (found := self.chain(type)) else pairs
        elif kind < 0.42:
            pairs = [found] if (found := self.reverse(type)) else pairs
        elif kind < 0.55:
            pairs = [("_sort", self.order(type))]
        return type, pairs

    def order(self, type: str) -> str:
        """Return what to sort by."""
        codes = [
            code
            for code, one in parameters(type).items()
            if one["type"] not in ("composite", "special") and code != "_lastUpdated"
        ]
        used = [code for code in codes if any(self.brute.nodes(r, code) for r in self._of(type))]
        return self.random.choice(["", "-"]) + self.random.choice(used or codes)

    def _of(self, type: str) -> list[Any]:
        return self.brute.of_type[type]

    def term(self, type: str) -> tuple[str, str]:
        """Return one parameter with its value or values."""
        resource = self.random.choice(self._of(type))
        codes = [
            code
            for code, one in parameters(type).items()
            if code != "_lastUpdated"
            and one["type"] != "special"
            and self.brute.nodes(resource, code)
        ]
        code = self.random.choice(codes)
        if self.random.random() < 0.06 and parameters(type)[code]["type"] != "composite":
            return f"{code}:missing", self.random.choice(["true", "false"])
        name, value = self.asked(resource, code)
        while self.random.random() < 0.2:
            other = self.random.choice(self._of(type))
            another, more = (
                self.asked(other, code) if self.brute.nodes(other, code) else (name, value)
            )
            if another == name:
                value = f"{value},{more}"
        return name, value

    def chain(self, type: str) -> tuple[str, str] | None:
        """Return a parameter of what a resource of ``type`` refers to."""
        for _ in range(5):
            resource = self.random.choice(self._of(type))
            for code, one in parameters(type).items():
                if one["type"] != "reference":
                    continue
                for link in self.brute.links(resource, code):
                    other = self.brute.by_place.get(link)
                    if other and self.random.random() < 0.5:
                        name, value = self.term(other["resourceType"])
                        return f"{code}:{other['resourceType']}.{name}", value
        return None

    def reverse(self, type: str) -> tuple[str, str] | None:
        """Return a parameter of what refers to a resource of ``type``."""
        for _ in range(20):
            other = self.random.choice(self._of(self.random.choice(self._types)))
            for code, one in parameters(other["resourceType"]).items():
                if one["type"] != "reference" or type not in one.get("target", ()):
                    continue
                if any(link.startswith(f"{type}/") for link in self.brute.links(other, code)):
                    name, value = self.term(other["resourceType"])
                    return f"_has:{other['resourceType']}:{code}:{name}", value
        return None

    def asked(self, resource: Any, code: str) -> tuple[str, str]:
        """Return the parameter ``code`` with a value that is near one of ``resource``."""
        definition = parameters(resource["resourceType"])[code]
        if code == "_id":
            return code, str(resource["id"])
        if definition["type"] == "composite":
            return code, self._composite(resource, definition)
        node = self.random.choice(self.brute.nodes(resource, code))
        modifier, value = self.value(node, definition["type"])
        return f"{code}{modifier}", value

    def value(self, node: Node, type: str) -> tuple[str, str]:
        """Return a modifier with its colon, or nothing, and a value written from ``node``."""
        return {
            "token": self._token,
            "string": self._string,
            "date": self._date,
            "number": lambda one: ("", self._prefix() + self._number(one)),
            "quantity": self._quantity,
            "uri": self._uri,
            "reference": self._reference,
        }[type](node)

    def _composite(self, resource: Any, definition: Any) -> str:
        parts = self.random.choice(self.brute.components(resource, definition))
        choices = combinations(parts)
        if not choices:
            return "$".join("2016" if kind["type"] == "date" else "1" for kind, _ in parts)
        texts: list[str] = []
        for (kind, _), node in zip(parts, self.random.choice(choices), strict=True):
            modifier, text = self.value(node, kind["type"])
            while modifier:
                modifier, text = self.value(node, kind["type"])
            texts.append(text)
        return "$".join(texts)

    def _prefix(self) -> str:
        return self.random.choice(["", "", "", *PREFIXES])

    def _token(self, node: Node) -> tuple[str, str]:
        value = node.value
        pick = self.random.random()
        if node.type in ("CodeableConcept", "Coding", "Identifier") and pick < 0.15:
            texts = [value.get("text"), value.get("display"), *_displays(value)]
            if node.type == "Identifier":
                texts = [value.get("type", {}).get("text")]
            if known := [text for text in texts if text and bare(text)]:
                return ":text", self._beginning(self.random.choice(known))
        if node.type == "Identifier" and pick < 0.3:
            kinds = value.get("type", {}).get("coding", [])
            if known := [one for one in kinds if one.get("system") and one.get("code")]:
                one = self.random.choice(known)
                three = (one["system"], one["code"], value.get("value") or "zz")
                return ":of-type", "|".join(map(escaped, three))
        if node.type == "CodeableConcept":
            value = self.random.choice(value.get("coding") or [{}])
        modifier = ":not" if self.random.random() < 0.15 else ""
        if not isinstance(value, dict):
            text = str(value).lower() if isinstance(value, bool) else value
            return modifier, self.random.choice(["", "", "|"]) + escaped(text)
        code = value.get("code") or value.get("value") or "zz"
        system = value.get("system", "")
        forms = [escaped(code), f"|{escaped(code)}", f"{escaped(system)}|{escaped(code)}"]
        forms += [f"{escaped(system)}|"] if system else []
        return modifier, self.random.choice([*forms, forms[0].swapcase()])

    def _beginning(self, text: str) -> str:
        """Return the beginning of ``text``, perhaps in other letters; enough to look for."""
        text = text[:150]
        part = text[: self.random.randint(1, len(text))]
        part = part if bare(part) and bare(text).startswith(bare(part)) else text
        return escaped(self.random.choice([part, part.upper(), part.lower(), part.title()]))

    def _string(self, node: Node) -> tuple[str, str]:
        value = node.value
        if isinstance(value, dict):
            parts = [one for one in value.values() if isinstance(one, str)]
            parts += [
                text
                for one in value.values()
                if isinstance(one, list)
                for text in one
                if isinstance(text, str)
            ]
            value = self.random.choice(parts or ["zz"])
        value = value[:300]
        match self.random.randint(0, 4):
            case 0:
                return ":exact", escaped(self.random.choice([value, value.swapcase()]))
            case 1:
                start = self.random.randint(0, len(value) - 1)
                part = value[start : start + self.random.randint(1, 8)]
                if bare(part) and bare(part) in bare(value):
                    return ":contains", escaped(part)
            case 2 if len(words := re.split(r"[\s\-]+", value)) > 1:
                return "", self._beginning(words[1]) if bare(words[1]) else escaped(value)
        return "", self._beginning(value)

    def _date(self, node: Node) -> tuple[str, str]:
        found: list[str] = []
        _collect(node.value, found)
        text = self.random.choice(found or ["2016"])
        zone = text[19:] if "T" in text else ""
        lengths = [size for size in (4, 7, 10) if size <= len(text)] + (
            [16, 19, len(text)] if zone else []
        )
        length = self.random.choice(lengths)
        if length == 16:
            plain = "+00:00" if zone.endswith("Z") else zone[-6:]
            return "", self._prefix() + text[:16] + plain
        if length == 19:
            return "", self._prefix() + text[:19] + self.random.choice(["Z", "", "+06:00"])
        return "", self._prefix() + text[:length]

    def _number(self, node: Node) -> str:
        value = node.value
        if isinstance(value, dict):
            value = (value.get("low") or value.get("high") or value).get("value", 1)
        digits = Decimal(value)
        match self.random.randint(0, 5):
            case 0:
                return str(digits * 10)
            case 1:
                return str(digits.quantize(Decimal(10) ** self.random.randint(-3, 0)))
            case 2:
                return str(digits + Decimal("0.05"))
        return str(digits)

    def _quantity(self, node: Node) -> tuple[str, str]:
        value = node.value
        stated = value.get("low") or value.get("high") or value
        text = self._prefix() + self._number(node)
        system, code = stated.get("system", ""), stated.get("code", "")
        if "currency" in stated:
            system, code = "urn:iso:std:iso:4217", stated["currency"]
        forms = [text]
        if system and code:
            forms += [f"{text}|{escaped(system)}|{escaped(code)}", f"{text}||{escaped(code)}"]
        if system:
            forms.append(f"{text}|{escaped(system)}|")
        if stated.get("unit"):
            forms.append(f"{text}||{escaped(stated['unit'])}")
        forms.append(f"{text}|{UCUM}|{self.random.choice(UNITS)}")
        return "", self.random.choice(forms)

    def _uri(self, node: Node) -> tuple[str, str]:
        text = str(node.value).partition("|")[0]
        match self.random.randint(0, 3):
            case 0 if not text.startswith("urn:") and len(text) < 300:
                return ":below", escaped(
                    text[: self.random.randint(5, len(text)) if len(text) > 5 else 1]
                )
            case 1 if not text.startswith("urn:") and len(text) < 300:
                return ":above", escaped(text + self.random.choice(["", "/x", "s"]))
        return "", escaped(
            self.random.choice([str(node.value).replace("|", "\\|") and text, text.upper(), text])
        )

    def _reference(self, node: Node) -> tuple[str, str]:
        if node.type in ("canonical", "uri"):
            return "", escaped(self.random.choice([node.value, node.value.partition("|")[0]]))
        if node.type != "Reference":
            return "", f"{node.value['resourceType']}/{node.value.get('id', 'zz')}"
        if (inner := node.value.get("identifier")) and self.random.random() < 0.4:
            modifier, text = self._token(Node("Boring", "", inner))
            if not modifier:
                return ":identifier", text
        text = node.value.get("reference", "")
        if not text or text.startswith("#"):
            return "", self.random.choice(["Patient/g1", "g1"])
        local = self.brute.references.local(text)
        type, slash, id = local.partition("/")
        if slash and "/" not in id and ":" not in type:
            forms = [
                ("", id),
                ("", local),
                ("", self.brute.references.base + local),
                (f":{type}", id),
                ("", text),
            ]
            modifier, text = self.random.choice(forms)
            return modifier, escaped(text)
        return "", escaped(text)


def _displays(value: Any) -> list[Any]:
    return [one.get("display") for one in value.get("coding", ())]


def _collect(value: Any, found: list[str]) -> None:
    """Collect every date in ``value``."""
    if isinstance(value, dict):
        for one in value.values():
            _collect(one, found)
    elif isinstance(value, list):
        for one in value:
            _collect(one, found)
    elif isinstance(value, str) and value[:4].isdigit() and (len(value) == 4 or value[4] == "-"):
        found.append(value)
