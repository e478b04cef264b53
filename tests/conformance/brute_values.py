"""Values of each search type against what is asked of them, from the wording of the specification.

https://hl7.org/fhir/R4/search.html and SPEC_CHOICES.md, where the wording leaves a choice

Nothing of the server is used. ``None`` is the answer where this evaluator does not know, such as
for a unit that is not in its short table.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from datetime import date as calendar_date
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.conformance.brute_paths import Node

Answer = bool | None
Ends = tuple[Any, Any]

FOREVER = float("inf")
UCUM = "http://unitsofmeasure.org"
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")

# Search type -> the types of elements that it can read (search.html, the table of each type).
READS = {
    "token": "CodeableConcept Coding Identifier ContactPoint boolean string code id uri url "
    "canonical oid uuid",
    "string": "HumanName Address string markdown code id",
    "date": "date dateTime instant Period Timing string Age Range",
    "number": "integer decimal positiveInt unsignedInt Range",
    "quantity": "Quantity Age Count Distance Duration Money Range SampledData",
    "uri": "uri url oid uuid canonical",
    "reference": "Reference canonical uri",
    "special": "BackboneElement",
}

# Unit -> what it measures and how many of the unit of that it is.
UNITS: dict[str, tuple[str, Fraction]] = {
    "g": ("mass", Fraction(1)),
    "kg": ("mass", Fraction(1000)),
    "mg": ("mass", Fraction(1, 1000)),
    "ug": ("mass", Fraction(1, 10**6)),
    "[lb_av]": ("mass", Fraction("453.59237")),
    "m": ("length", Fraction(1)),
    "cm": ("length", Fraction(1, 100)),
    "mm": ("length", Fraction(1, 1000)),
    "[in_i]": ("length", Fraction("0.0254")),
    "s": ("time", Fraction(1)),
    "min": ("time", Fraction(60)),
    "h": ("time", Fraction(3600)),
    "d": ("time", Fraction(86400)),
    "g/L": ("density", Fraction(1)),
    "mg/dL": ("density", Fraction(1, 100)),
    "mmol/L": ("amount density", Fraction(1)),
    "umol/L": ("amount density", Fraction(1, 1000)),
    "mm[Hg]": ("pressure", Fraction("133.322")),
    "kPa": ("pressure", Fraction(1000)),
    "{beats}/min": ("rate", Fraction(1)),
    "/min": ("rate", Fraction(1)),
    "{score}": ("number", Fraction(1)),
    "%": ("number", Fraction(1, 100)),
    "1": ("number", Fraction(1)),
}


# --------------------------------------------------------------------------------- texts


def bare(text: str) -> str:
    """Return ``text`` without case, accents, punctuation and needless space."""
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text).casefold()
    text = unicodedata.normalize("NFKD", text)
    marked = "".join(sign for sign in text if not _is_ignored(sign))
    marked = unicodedata.normalize("NFC", marked)
    kept = "".join(sign for sign in marked if unicodedata.category(sign)[0] != "P")
    return " ".join(kept.split()) or " ".join(marked.split())


def _is_ignored(sign: str) -> bool:
    """Whether ``sign`` is a mark of a script in which marks are no letters, or an invisible one."""
    if (
        sign in "\u0640\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
        or "\ufe00" <= sign <= "\ufe0f"
    ):
        return True
    name = unicodedata.name(sign, "")
    scripts = ("COMBINING", "ARABIC", "HEBREW")
    is_letter = "KATAKANA" in name  # the voicing marks of Japanese
    mark = unicodedata.category(sign) in ("Mn", "Me")
    return mark and name.startswith(scripts) and not is_letter


def unescaped(text: str) -> str:
    """Return ``text`` without its backslashes."""
    return re.sub(r"\\(.)", r"\1", text)


def split(text: str, separator: str) -> list[str]:
    """Return the parts of ``text`` between separators that no backslash precedes."""
    parts = [""]
    for piece in re.findall(r"\\.|.", text, re.DOTALL):
        if piece == separator:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def texts_of(node: Node) -> list[str]:
    value = node.value
    names = {
        "HumanName": ("text", "family", "given", "prefix", "suffix"),
        "Address": ("text", "line", "city", "district", "state", "postalCode", "country"),
    }.get(node.type)
    if names is None:
        return [value]
    found: list[str] = []
    for name in names:
        part = value.get(name, [])
        found += part if isinstance(part, list) else [part]
    return [one for one in found if isinstance(one, str)]


def string(nodes: Iterable[Node], asked: str, modifier: str, definition: Any) -> Answer:
    """Whether one text begins with, is, or contains what is asked."""
    text = unescaped(asked)
    for node in nodes:
        for stored in texts_of(node):
            folded = bare(stored)[:1000]
            if modifier == "exact" and stored == text:
                return True
            if modifier == "contains" and bare(text) in folded:
                return True
            if not modifier and folded.startswith(bare(text)):
                return True
        if not modifier and (family := _family(node, definition)):
            words = re.split(r"[\s\-\u2010-\u2015]+", family)
            rests = (family[family.index(word, at) :] for at, word in _places(family, words))
            if any(bare(rest).startswith(bare(text)) for rest in rests):
                return True
    return False


def _places(text: str, words: list[str]) -> list[tuple[int, str]]:
    found, at = [], 0
    for word in words:
        at = text.index(word, at)
        if word:
            found.append((at, word))
        at += len(word)
    return found


def _family(node: Node, definition: Any) -> str:
    if node.type == "HumanName":
        return str(node.value.get("family", ""))
    is_family = any(one.endswith(".family") for one in definition["expression"].split(" | "))
    return str(node.value) if is_family else ""


# --------------------------------------------------------------------------------- tokens


def codes_of(node: Node) -> list[tuple[str | None, str | None, str]]:
    """Return (system, code, display) of every code that a node is."""
    value = node.value
    match node.type:
        case "CodeableConcept":
            some = value.get("coding", [])
            return [(one.get("system"), one.get("code"), one.get("display", "")) for one in some]
        case "Coding":
            return [(value.get("system"), value.get("code"), value.get("display", ""))]
        case "Identifier" | "ContactPoint":
            return [(value.get("system"), value.get("value"), "")]
        case "boolean":
            return [(None, "true" if value else "false", "")]
    return [(None, value, "")]


def token(nodes: Iterable[Node], asked: str, modifier: str, definition: Any) -> Answer:
    """Whether one code is the one asked for, or its text begins so."""
    if modifier == "text":
        return any(
            bare(text).startswith(bare(unescaped(asked)))
            for node in nodes
            for text in _labels(node)
            if text
        )
    parts = [unescaped(part) for part in split(asked, "|")]
    if modifier == "of-type":
        return any(
            [system, code, node.value.get("value")] == parts
            for node in nodes
            for kind in [node.value.get("type", {})]
            for system, code, _ in codes_of(Node("CodeableConcept", "", kind))
        )
    for node in nodes:
        for system, code, _ in codes_of(node):
            same = code == parts[-1]
            if node.type == "string" and len(parts) == 1:
                same = str(code).casefold() == parts[-1].casefold()
            match parts:
                case [_] if same:
                    return True
                case ["", _] if same and not system:
                    return True
                case [wanted, ""] if system == wanted:
                    return True
                case [wanted, _] if wanted and same and system == wanted:
                    return True
                case [wanted, _] if wanted and node.type == "code":
                    return None  # the system is that of a value set, which is not looked at here
    return False


def _labels(node: Node) -> list[str]:
    value = node.value
    if node.type == "Identifier":
        return [value.get("type", {}).get("text", "")]
    displays = [display for _, _, display in codes_of(node)] if isinstance(value, dict) else []
    return [value.get("text", ""), *displays] if node.type == "CodeableConcept" else displays


# --------------------------------------------------------------------------------- dates

_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?"
)
_DAY = 86_400_000


def _day(year: int, month: int, day: int) -> int:
    """Return the milliseconds from the beginning of the calendar; year 10000 is past its end."""
    if year == 10000:
        return calendar_date.max.toordinal() * _DAY + _DAY
    return calendar_date(year, month, day).toordinal() * _DAY


def interval(text: str) -> Ends:
    """Return the first millisecond of what ``text`` covers, and the first behind it."""
    found = _DATE.fullmatch(text)
    assert found, text
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    y, m = int(year), int(month or 1)
    if month is None:
        return _day(y, 1, 1), _day(y + 1, 1, 1)
    if day is None:
        return _day(y, m, 1), _day(y + m // 12, m % 12 + 1, 1)
    start = _day(y, m, int(day))
    if hour is None:
        return start, start + _DAY
    start += int(hour) * 3_600_000 + int(minute) * 60_000
    if zone and zone != "Z":
        shift = int(zone[1:3]) * 60 + int(zone[4:])
        start += shift * 60_000 * (1 if zone[0] == "-" else -1)
    if second is None:
        return start, start + 60_000
    start += int(second) * 1000
    if fraction is None:
        return start, start + 1000
    thousandths = int(fraction.ljust(3, "0")[:3])
    width = 10 ** max(0, 3 - len(fraction))
    return start + thousandths, start + thousandths + width


def intervals(node: Node) -> list[Ends]:
    value = node.value
    match node.type:
        case "Period":
            start, end = value.get("start"), value.get("end")
            if start is None and end is None:
                return []
            low = interval(start)[0] if start else -FOREVER
            return [(low, interval(end)[1] if end else FOREVER)]
        case "Timing":
            found = [interval(one) for one in value.get("event", ())]
            bounds = value.get("repeat", {}).get("boundsPeriod")
            found += intervals(Node("Period", "", bounds)) if bounds else []
            return [(min(one for one, _ in found), max(one for _, one in found))] if found else []
        case "Age" | "Range":
            return []
        case "string" if not _DATE.fullmatch(value):
            return []
    return [interval(value)]


def prefixed(asked: str) -> tuple[str, str]:
    """Return prefix and rest of what is asked."""
    return (asked[:2], asked[2:]) if asked[:2] in PREFIXES else ("eq", asked)


def date(nodes: Iterable[Node], asked: str, modifier: str, definition: Any) -> Answer:
    """Whether one range of time is as the prefix says to the one that is asked."""
    prefix, text = prefixed(unescaped(asked))
    low, high = interval(text)
    checks: dict[str, Callable[[Any, Any], Answer]] = {
        "eq": lambda first, last: low <= first and last <= high,
        "ne": lambda first, last: not (low <= first and last <= high),
        "gt": lambda first, last: last > high,
        "lt": lambda first, last: first < low,
        "ge": lambda first, last: last > high or (low <= first and last <= high),
        "le": lambda first, last: first < low or (low <= first and last <= high),
        "sa": lambda first, last: first >= high,
        "eb": lambda first, last: last <= low,
        # A tenth of the distance from now, which is not known here: overlap is certain.
        "ap": lambda first, last: True if first < high and last > low else None,
    }
    return some(checks[prefix](*one) for node in nodes for one in intervals(node))


def some(answers: Iterable[Answer]) -> Answer:
    """Return whether one is true; ``None`` if none is and one is not known."""
    found = list(answers)
    return True if True in found else None if None in found else False


# ------------------------------------------------------------------------------- numbers


def implicit(text: str) -> Ends:
    """Return the range that the digits of a number stand for."""
    number = Decimal(text)
    exponent = int(number.as_tuple().exponent)
    if "e" in text.lower() and len(number.as_tuple().digits) == 1:
        exponent -= 1  # "1e2 ... [95 ... 105)"
    half = Fraction(10) ** exponent / 2
    return Fraction(number) - half, Fraction(number) + half


def _compare(stored: Ends, prefix: str, text: str, factor: Fraction = Fraction(1)) -> bool:
    """Whether a stored range is as ``prefix`` says; ``factor`` brings what is asked to its unit."""
    first, last = stored
    exact = Fraction(Decimal(text)) * factor
    low, high = (end * factor for end in implicit(text))
    around = abs(exact) / 10
    checks: dict[str, bool] = {
        "eq": low <= first and last < high,
        "ne": not (low <= first and last < high),
        "gt": last > exact,
        "lt": first < exact,
        "ge": last >= exact,
        "le": first <= exact,
        "sa": first > exact,
        "eb": last < exact,
        "ap": first <= exact + around and last >= exact - around,
    }
    return checks[prefix]


def limits_of(node: Node) -> Ends | None:
    value = node.value
    if node.type == "SampledData":
        return None
    if node.type == "Range":
        low, high = (value.get(name, {}).get("value") for name in ("low", "high"))
        if low is None and high is None:
            return None
        return (
            -FOREVER if low is None else Fraction(low),
            FOREVER if high is None else Fraction(high),
        )
    if isinstance(value, dict):
        if value.get("value") is None:
            return None
        number = Fraction(value["value"])
        comparator = value.get("comparator", "")
        return (
            -FOREVER if comparator.startswith("<") else number,
            FOREVER if comparator.startswith(">") else number,
        )
    return Fraction(value), Fraction(value)


def number(nodes: Iterable[Node], asked: str, modifier: str, definition: Any) -> Answer:
    """Whether one number is as the prefix says to the one that is asked."""
    prefix, text = prefixed(unescaped(asked))
    found = (limits_of(node) for node in nodes)
    return any(_compare(one, prefix, text) for one in found if one)


def quantity(nodes: Iterable[Node], asked: str, modifier: str, definition: Any) -> Answer:
    """Whether one quantity is, in units that can be compared."""
    text, *unit = [unescaped(part) for part in split(asked, "|")]
    prefix, text = prefixed(text)
    return some(_is_quantity(node, prefix, text, unit) for node in nodes)


def _is_quantity(node: Node, prefix: str, text: str, asked: list[str]) -> Answer:
    limits = limits_of(node)
    if limits is None:
        return False
    stated = node.value
    if node.type == "Range":
        stated = stated.get("low") or stated["high"]
    if node.type == "Money":
        stated = {"system": "urn:iso:std:iso:4217", "code": stated.get("currency")}
    match asked:
        case [] | ["", ""]:
            return _compare(limits, prefix, text)
        case ["", unit]:
            same = unit in (stated.get("code"), stated.get("unit"))
            return same and _compare(limits, prefix, text)
        case [system, code] if system == UCUM and code:
            if stated.get("system") != UCUM or "code" not in stated:
                return False
            one, other = UNITS.get(stated["code"]), UNITS.get(code)
            if one is None or other is None:
                return None
            return one[0] == other[0] and _compare(limits, prefix, text, other[1] / one[1])
    system, code = asked
    same = stated.get("system") == system and (not code or stated.get("code") == code)
    return same and _compare(limits, prefix, text)


# ------------------------------------------------------------------------- addresses


def uri(nodes: Iterable[Node], asked: str, modifier: str, definition: Any) -> Answer:
    """Whether one address is, begins, or is the beginning of the one asked for."""
    text = unescaped(asked)
    stored = [one for node in nodes for one in addresses(node)]
    if modifier == "below":
        return any(one.startswith(text) for one in stored)
    if modifier == "above":
        return any(text.startswith(one) for one in stored)
    return text in stored


def addresses(node: Node) -> list[str]:
    url = node.value.partition("|")[0]
    return [node.value, url] if node.type == "canonical" else [node.value]
