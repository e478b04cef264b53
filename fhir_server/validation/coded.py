"""Codes: bindings of every strength, and codes that their own system does not have.

https://hl7.org/fhir/R4/terminologies.html#strength
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import re2

from fhir_server.outcome import nearest, shown
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.questions import Coded, CodeInSystem, CodeInValueSet
from fhir_server.r4.structures import TYPE_URL
from fhir_server.validation.bindings import plain_codes
from fhir_server.validation.running import PENDING, Check, Item, Run

_CODED_TYPES = ("CodeableConcept", "Coding", "Quantity", "Age", "Duration", "Count", "Money")
_SEVERITIES = {"required": "error", "extensible": "warning", "preferred": "information"}
_VERBS = {
    "required": "its binding is required",
    "extensible": "its binding is extensible: others are for what the set has no code for",
    "preferred": "codes of the set are preferred",
}
_MAX_VALUE_SET = TYPE_URL + "elementdefinition-maxValueSet"
_MIN_VALUE_SET = TYPE_URL + "elementdefinition-minValueSet"
_ADDITIONAL = (
    TYPE_URL + "additional-binding",
    "http://hl7.org/fhir/tools/StructureDefinition/additional-binding",
)
_R4 = "4.0.1"


@dataclass(frozen=True, slots=True)
class Binding:
    """One value set that a code should be in, and how much that matters."""

    strength: str
    value_set: str


def bindings_of(element: Mapping[str, Any]) -> Iterator[Binding]:
    """Yield the bindings of an element: its own, the largest set allowed, and additional ones."""
    binding = element.get("binding")
    if not isinstance(binding, dict):
        return
    if isinstance(binding.get("valueSet"), str):
        yield Binding(str(binding.get("strength")), binding["valueSet"])
    for extension in binding.get("extension", ()):
        if extension.get("url") == _MAX_VALUE_SET:
            url = extension.get("valueCanonical") or extension.get("valueUri")
            if isinstance(url, str):
                yield Binding("required", url)
        elif extension.get("url") in _ADDITIONAL:
            yield from _additional(extension.get("extension", ()))
    for one in binding.get("additional", ()):  # the form of R5
        if one.get("purpose") in _PURPOSES and not one.get("usage"):
            yield Binding(_PURPOSES[one["purpose"]], str(one.get("valueSet")))


_PURPOSES = {
    "maximum": "required",
    "required": "required",
    "extensible": "extensible",
    "preferred": "preferred",
}


def _additional(parts: Any) -> Iterator[Binding]:
    """Yield what one additional binding demands; one for some usages only demands none."""
    found = {one.get("url"): one for one in parts}
    if "usage" in found:
        return
    purpose = (found.get("purpose") or {}).get("valueCode")
    value_set = (found.get("valueSet") or {}).get("valueCanonical")
    if purpose in _PURPOSES and isinstance(value_set, str):
        yield Binding(_PURPOSES[purpose], value_set)


def binding_check(binding: Binding, where: str) -> Check | None:
    """Return the check of ``binding``; ``None`` where it demands nothing."""
    severity = _SEVERITIES.get(binding.strength)
    if severity is None:
        return None

    def check(run: Run, item: Item) -> None:
        if run.options.codes:
            _bound(run, item, binding, severity, where)

    return check


def _bound(run: Run, item: Item, binding: Binding, severity: str, where: str) -> None:
    codes = list(codes_of(item))
    if not codes:
        if item.type == "CodeableConcept" and binding.strength in ("required", "extensible"):
            value = item.value
            if isinstance(value, dict) and ("text" in value or "coding" in value):
                text = f"{item.name} has no code; {_wanted(binding, where)}."
                run.add("code-invalid", text, item, severity)
        return
    verdicts = [membership(run, binding.value_set, *code) for code in codes]
    if any(one is PENDING for one in verdicts) or any(one.result for one in verdicts):
        return
    if any(one.result is None for one in verdicts):
        if binding.strength == "required":
            why = next((one.message for one in verdicts if one.message), "")
            why = why.removeprefix("It cannot be told here: ")
            text = (
                f"Whether {_listed(codes)} is in {binding.value_set} cannot be told here"
                f"{': ' + why if why else ', as not all of its codes are loaded.'}"
            )
            run.add("not-supported", text, item, "warning")
        return
    near = next((one.nearest for one in verdicts if one.nearest), "")
    hint = f" Did you mean {near}?" if near else _nearest(run.definitions, binding, codes[0][1])
    text = f"{item.name} has {_listed(codes)}; {_wanted(binding, where)}.{hint}"
    run.add("code-invalid", text, item, severity)


def _wanted(binding: Binding, where: str) -> str:
    return f"{where} expects a code of {binding.value_set}, and {_VERBS[binding.strength]}"


def _listed(codes: list[tuple[str, str, str]]) -> str:
    return ", ".join(
        shown(f"{system}#{code}".lstrip("#"), most=120) for system, code, _ in codes[:4]
    )


def _nearest(definitions: Definitions, binding: Binding, code: str) -> str:
    known = definitions.codes(binding.value_set.partition("|")[0])
    return nearest(code, sorted(plain_codes(known) - {code})) if known else ""


def codes_of(item: Item) -> Iterator[tuple[str, str, str]]:
    """Yield ``(system, code, display)`` of what ``item`` is coded with."""
    value = item.value
    if isinstance(value, str):
        yield "", value, ""
    elif isinstance(value, dict):
        codings = value.get("coding")
        for one in codings if isinstance(codings, list) else (value,):
            if isinstance(one, dict) and isinstance(one.get("code"), str):
                system, display = one.get("system"), one.get("display")
                yield (
                    system if isinstance(system, str) else "",
                    one["code"],
                    display if isinstance(display, str) else "",
                )


def membership(run: Run, value_set: str, system: str, code: str, display: str = "") -> Any:
    """Return :class:`Coded` on whether the value set has the code, or :data:`PENDING`."""
    del display  # a wrong display is told once, where the coding itself is judged
    url, _, version = value_set.partition("|")
    known = run.definitions.codes(url) if version in ("", _R4) else None
    if known is not None:
        found = (system, code) in known if system else code in plain_codes(known)
        return _YES if found else _NO
    answer = run.answer(CodeInValueSet(value_set, system, code))
    return answer if isinstance(answer, Coded) or answer is PENDING else _UNKNOWN


_YES, _NO, _UNKNOWN = Coded(True), Coded(False), Coded(None)


def coding_check(run: Run, item: Item) -> None:
    """Judge one Coding by itself: its system is absolute and no value set, and has the code."""
    value = item.value
    if not isinstance(value, dict):
        return
    system, code = value.get("system"), value.get("code")
    if not isinstance(system, str) or not system:
        return
    if ":" not in system:
        text = f"The system {shown(system)} of the Coding is relative; expected an absolute URI."
        run.add("value", text, item, below="system")
        return
    if system.startswith("http://hl7.org/fhir/ValueSet/") or run.definitions.artifact(
        "ValueSet", system
    ):
        text = f"The system {shown(system)} is a value set; expected the code system of the code."
        run.add("value", text, item, below="system")
        return
    if isinstance(code, str) and run.options.codes:
        _known_code(run, item, system, code, value)


def _display(run: Run, item: Item, found: str, right: str) -> None:
    """A display is that of the code system, case and spaces aside."""
    severity = run.options.displays
    if not right or severity == "ignore" or _folded(found) == _folded(right):
        return
    text = f"The display is {shown(found)}; that of the code is {shown(right)}."
    run.add("value", text, item, severity, below="display")


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


_SCTID = re2.compile(r"[0-9]{6,18}")
_DIHEDRAL = (
    "01234567891234067895234017895634012895674012395678"
    "59876043216598710432765982104387659321049876543210"
)
_PERMUTED = "01234567891576283094580379614289160435279453126870428657390127938064157046913258"


def is_snomed(code: str) -> bool:
    """Return whether ``code`` may be of SNOMED CT: its check digit is right (Verhoeff).

    An expression of several concepts is not looked into.

    >>> is_snomed("276885007"), is_snomed("276885008")
    (True, False)
    """
    if not _SCTID.fullmatch(code):
        return any(sign in code for sign in "+:|= ")
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = int(_DIHEDRAL[check * 10 + int(_PERMUTED[place % 8 * 10 + int(digit)])])
    return check == 0


def _known_code(run: Run, item: Item, system: str, code: str, value: Mapping[str, Any]) -> None:
    local = run.rules.system_codes(system)
    if local is not None and local:
        if code not in local:
            text = f"The code system {system} has no code {shown(code)}.{nearest(code, local)}"
            run.add("code-invalid", text, item, below="code")
        elif isinstance(value.get("display"), str):
            _display(run, item, value["display"], run.rules.system_displays(system).get(code, ""))
        return
    if system == "http://snomed.info/sct" and not is_snomed(code):
        text = f"{shown(code)} is no code of SNOMED CT: its digits do not add up, or are none."
        run.add("code-invalid", text, item, below="code")
        return
    display, version = value.get("display"), value.get("version")
    answer = run.answer(
        CodeInSystem(
            system,
            code,
            display if isinstance(display, str) else "",
            version if isinstance(version, str) else "",
        )
    )
    if isinstance(answer, Coded) and answer.result is False:
        hint = f" Did you mean {answer.nearest}?" if answer.nearest else ""
        if answer.display and not answer.nearest and isinstance(display, str):
            _display(run, item, display, answer.display)
            return
        text = answer.message or f"The code system {system} has no code {shown(code)}."
        run.add("code-invalid", text + hint, item, below="code")
