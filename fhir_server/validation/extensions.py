"""Extensions: whether they are known, whether they may stand where they do, what is inside.

https://hl7.org/fhir/R4/extensibility.html, https://hl7.org/fhir/R4/defining-extensions.html#context
"""

from collections.abc import Iterator, Mapping
from typing import Any

import re2

from fhir_server.outcome import shown
from fhir_server.r4.structures import TYPE_URL
from fhir_server.validation.running import PENDING, Check, Item, Run

# https://hl7.org/fhir/R4/versions.html#extensions: an element of another version of FHIR.
_OTHER_VERSION = re2.compile(
    r"http://hl7\.org/fhir/[0-9]\.[0-9]/StructureDefinition/extension-([A-Za-z.]+)"
)
# Extensions of HL7 that came after R4, and are published one by one: used by all, known to few.
_HL7 = (TYPE_URL, "http://hl7.org/fhir/tools/StructureDefinition/")
# Contexts that later versions name for what has a canonical url.
_EVERYWHERE = frozenset(("Element", "Resource", "DomainResource", "CanonicalResource", "Base"))
_DEPTH_MAX = 60


def extension_check(is_modifier: bool) -> Check:
    """Return the check of one extension, in ``extension`` or in ``modifierExtension``."""

    def check(run: Run, item: Item) -> None:
        value = item.value
        url = value.get("url") if isinstance(value, dict) else None
        if not isinstance(url, str) or not url:
            return  # the structural validator says so
        is_inside = item.parent is not None and item.parent.type == "Extension"
        if ":" not in url:
            if not is_inside:
                text = f"The url of the extension is {shown(url)}; expected an absolute URL."
                run.add("value", text, item, below="url")
            return
        structure = run.structure(url)
        if structure is PENDING:
            return
        if structure is None:
            _unknown(run, item, url, is_modifier)
        elif structure.get("type") != "Extension":
            text = f"{shown(url)} is the definition of a {structure.get('type')}, no extension."
            run.add("extension", text, item, below="url")
        else:
            _known(run, item, structure, url, is_modifier)

    return check


def _unknown(run: Run, item: Item, url: str, is_modifier: bool) -> None:
    if is_modifier:
        text = (
            f"The modifier extension {shown(url, most=300)} is not known here, and without it what "
            "the resource says may be misunderstood (isModifier)."
        )
        run.add("extension", text, item)
        return
    severity: str = run.options.unknown_extensions
    if severity in ("error", "warning") and (url.startswith(_HL7) or _is_known_element(run, url)):
        severity = "information"
    if severity != "ignore":
        text = f"The extension {shown(url, most=300)} is not known here, so it was not checked."
        run.add("extension", text, item, severity)


def _is_known_element(run: Run, url: str) -> bool:
    """Return whether ``url`` is that of an element of another version which R4 has as well."""
    found = _OTHER_VERSION.fullmatch(url)
    if found is None:
        return False
    path = found.group(1)
    owner = run.definitions.types.get(path.partition(".")[0])
    parent, _, name = path.rpartition(".")
    return owner is not None and any(one.name == name for one in owner.elements.get(parent, ()))


def _known(run: Run, item: Item, structure: Mapping[str, Any], url: str, is_modifier: bool) -> None:
    compiled = run.rules.profile_rule(run, url)
    if compiled is None:
        return
    if run.rules.is_modifier(url) is not is_modifier:
        found, right = (
            ("modifierExtension", "extension")
            if is_modifier
            else (
                "extension",
                "modifierExtension",
            )
        )
        text = f"The extension {shown(url, most=300)} is in {found}; it belongs in {right}."
        run.add("extension", text, item)
    _context(run, item, structure, url)
    compiled.apply(run, item)
    parts = run.rules.extension_parts(url)
    inside = item.value.get("extension")
    for index, one in enumerate(inside if isinstance(inside, list) else ()):
        name = one.get("url") if isinstance(one, dict) else None
        if isinstance(name, str) and ":" not in name and name not in parts:
            text = (
                f"The extension {shown(url, most=300)} has no part {shown(name)}"
                f"{'; expected is one of ' + ', '.join(sorted(parts)[:12]) if parts else ''}."
            )
            run.add("extension", text, item, below=f"extension[{index}].url")


def _context(run: Run, item: Item, structure: Mapping[str, Any], url: str) -> None:
    contexts = structure.get("context")
    if not isinstance(contexts, list) or not contexts or item.parent is None:
        return
    used = set(_USED_AT.get(url, ()))
    fits = any(_fits(run, item, one) for one in contexts if isinstance(one, dict))
    if not fits and used.isdisjoint(places_of(run, item.parent)):
        wanted = ", ".join(str(one.get("expression")) for one in contexts[:12])
        where = next(places_of(run, item.parent), "this element")
        text = f"The extension {shown(url, most=300)} is at {where}; it may stand at {wanted} only."
        run.add("extension", text, item)
        return
    for expression in structure.get("contextInvariant") or ():
        if run.rules.invariant(run, expression, item.parent) is False:
            text = f"The extension {shown(url, most=300)} may stand where {expression} only."
            run.add("extension", text, item)


# Where R4 itself has these, in every snapshot, whatever their own definitions say.
_USED_AT: Mapping[str, tuple[str, ...]] = {
    TYPE_URL + "structuredefinition-fhir-type": ("ElementDefinition.type",),
    TYPE_URL + "regex": ("ElementDefinition.type",),
}


def _fits(run: Run, item: Item, context: Mapping[str, Any]) -> bool:
    parent = item.parent
    assert parent is not None
    kind, expression = context.get("type"), str(context.get("expression", ""))
    if kind == "extension":
        return isinstance(parent.value, dict) and parent.value.get("url") == expression
    if kind == "fhirpath":
        return True  # said by an expression over the whole resource, which names no single place
    if "#" in expression or "//" in expression:
        return True  # an element of a profile
    return expression in _EVERYWHERE or expression in places_of(run, parent)


def places_of(run: Run, item: Item) -> Iterator[str]:
    """Yield the names by which a context may call the element ``item``, the most exact first."""
    types = run.definitions.types
    below = ""
    one: Item | None = item
    for _ in range(_DEPTH_MAX):
        if one is None:
            break
        # HumanName.family, Patient.name.family: from each type above, down to the element.
        yield one.type + below
        for base in _bases(one.type, types):
            yield base + below
        if one.type[:1].isupper() and "." in one.type:
            yield one.type + below
        name = one.name
        stepped = f".{name}{below}"
        if one.parent is not None:
            member = _member(one, types)
            if member:
                yield f"{one.parent.type}.{name}[x]{below}"
        below = stepped
        one = one.parent


def _bases(type: str, types: Mapping[str, Any]) -> Iterator[str]:
    for _ in range(8):
        found = types.get(type)
        if found is None or found.base is None:
            return
        type = found.base
        yield type


def _member(item: Item, types: Mapping[str, Any]) -> bool:
    """Return whether ``item`` is the value of a choice."""
    parent = item.parent
    assert parent is not None
    owner = types.get(parent.type.partition(".")[0])
    elements = owner.elements.get(parent.type, ()) if owner is not None else ()
    return any(one.name == item.name and one.is_choice for one in elements)
