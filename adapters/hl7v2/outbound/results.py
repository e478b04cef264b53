"""DiagnosticReport, Observation and Specimen to OBR, OBX, NTE and SPM.

HL7 v2.5.1, 7.4.1 to 7.4.3; the tables of ``segments/obr.py``, ``obx.py`` and ``spm.py`` the other
way round. OBX-20 and OBX-21 are of v2.7, and used here as many do before.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from adapters.hl7v2.outbound.fields import Marks, joined
from adapters.hl7v2.outbound.pid import extension_of
from adapters.hl7v2.outbound.values import code_of, cwe, cx, dtm, ei, ndl, own, type_of, xcn
from adapters.hl7v2.quantities import DIGITS_MAX, UCUM
from adapters.hl7v2.segments.obx import ANALYSIS_TIME, INTERPRETATION, VALUE_ATTACHMENT
from adapters.hl7v2.vocabulary import source

Json = Mapping[str, Any]

ALTERNATE_CODES = "http://hl7.org/fhir/StructureDefinition/alternate-codes"
_TEXT_CHARACTERS_MAX = 199  # of ST; TX is longer
_REPORT_STATUSES = {"final": "F", "partial": "A", "preliminary": "P", "registered": "O",
                    "amended": "C", "corrected": "C", "appended": "C", "cancelled": "X",
                    "entered-in-error": "X", "unknown": "Z"}  # fmt: skip
_RESULT_STATUSES = {"final": "F", "amended": "A", "corrected": "C", "preliminary": "P",
                    "cancelled": "X", "entered-in-error": "W", "registered": "I"}  # fmt: skip
# A status that table 0085 lacks is sent as what no table has: it is read as unknown.
_UNKNOWN = "Z"


def _status(resource: Json, table: str, statuses: Mapping[str, str]) -> str:
    """Return the status as v2 has it: the code it was made from, else its image."""
    kept = extension_of(resource.get("_status", {}), ALTERNATE_CODES).get("valueCodeableConcept")
    return code_of(kept, "", table) or statuses.get(str(resource.get("status")), _UNKNOWN)


# ---------------------------------------------------------------------------------------- report


def numbers_of(report: Json, marks: Marks) -> tuple[Json | None, Json]:
    """Return the placer's and the filler's number; without one it is our own id."""
    numbers = [one for one in report.get("identifier", ()) if one.get("value")]
    placer = next((one for one in numbers if type_of(one) == "PLAC"), None)
    filler = next((one for one in numbers if type_of(one) == "FILL"), None)
    filler = filler or next((one for one in numbers if one is not placer), None)
    kind = str(report.get("resourceType", ""))
    return placer, filler or own(kind, str(report.get("id", "unknown")), marks)


def order_segments(report: Json, marks: Marks) -> list[str]:
    """Return OBR and its NTE, of a DiagnosticReport or of an Observation that stands alone."""
    is_report = report.get("resourceType") == "DiagnosticReport"
    placer, filler = numbers_of(report, marks)
    period = report.get("effectivePeriod", {})
    start = report.get("effectiveDateTime") or report.get("effectiveInstant")
    section = next(
        (code for one in report.get("category", ()) if (code := code_of(one, "", "0074"))), ""
    )
    statuses = _status(report, "0123", _REPORT_STATUSES)
    interpreters = (ndl(one, marks) for one in report.get("resultsInterpreter", ()))
    obr = {
        1: "1",
        2: ei(placer, marks),
        3: ei(filler, marks),
        4: cwe(report.get("code"), marks),
        7: dtm(start or period.get("start", "")),
        8: dtm(period.get("end", "")),
        22: dtm(report.get("issued", "")),
        24: marks.text(section),
        25: statuses if is_report else _REPORT_STATUSES.get(str(report.get("status")), "Z"),
        32: marks.repeated(interpreters),
        34: marks.repeated(ndl(one, marks) for one in report.get("performer", ()))
        if is_report
        else "",
    }
    notes = [one.get("valueAnnotation", {}) for one in report.get("extension", ())]
    return [joined("OBR", obr, marks), *note_segments(notes, marks)]


def note_segments(notes: Sequence[Json], marks: Marks) -> list[str]:
    """Return an NTE for each Annotation."""
    said = [one for one in notes if str(one.get("text", "")).strip()]
    return [
        joined("NTE", {1: str(number), 3: marks.text(one["text"]), 6: dtm(one.get("time"))}, marks)
        for number, one in enumerate(said, 1)
    ]


# --------------------------------------------------------------------------------------- results


def result_segments(results: Sequence[Json], marks: Marks) -> list[str]:
    """Return OBX and NTE of Observations. Those with one code are told apart by OBX-4."""
    segments: list[str] = []
    number = 0
    for at, one in enumerate(results, 1):
        repeats = sum(1 for other in results if _asked(other) == _asked(one)) > 1
        parts = one.get("component", ())
        sub = str(at) if repeats or parts else ""
        for nth, part in enumerate((one, *(_part(one, part) for part in parts))):
            number += 1
            fields = {1: str(number), 4: f"{sub}.{nth}" if nth else sub, **_obx(part, marks)}
            segments.append(joined("OBX", fields, marks))
            segments += note_segments(part.get("note", ()) if not nth else (), marks)
    return segments


def _asked(result: Json) -> str:
    return str(result.get("code"))


def _part(whole: Json, part: Json) -> dict[str, Any]:
    """Return a component as an Observation of its own: v2 has no other way."""
    kept = {
        name: value
        for name, value in whole.items()
        if name.startswith(("effective", "status", "_status", "performer"))
    }
    return {**kept, **part}


def _obx(result: Json, marks: Marks) -> dict[int, str]:
    kind, value, unit = _value(result, marks)
    status = _status(result, "0085", _RESULT_STATUSES)
    when = result.get("effectiveDateTime") or result.get("effectiveInstant")
    analysed = extension_of(result, ANALYSIS_TIME).get("valueDateTime", "")
    numbers = [one for one in result.get("identifier", ()) if one.get("value")]
    return {
        2: kind,
        3: cwe(result.get("code"), marks),
        5: value,
        6: unit,
        7: _range(result, marks),
        8: marks.repeated(_flag(one, marks) for one in result.get("interpretation", ())),
        11: status,
        14: dtm(when or result.get("effectivePeriod", {}).get("start", "")),
        16: marks.repeated(xcn(one, marks) for one in result.get("performer", ())),
        17: cwe(result.get("method"), marks),
        18: ei(result.get("device", {}).get("identifier"), marks),
        19: dtm(analysed),
        20: cwe(result.get("bodySite"), marks, "BodySite", "0163"),
        21: ei(next(iter(numbers), None), marks),
    }


def _flag(concept: Json, marks: Marks) -> str:
    """Return a flag. One of another system than v3's stands second: the first is read as v3's."""
    codings = concept.get("coding", ())
    if codings and codings[0].get("system") == INTERPRETATION:
        first = codings[0]
        named = marks.leaves(first.get("code", ""), concept.get("text", ""), "HL70078")
        return named if source("InterpretationCodes", str(first.get("code"))) else ""
    return cwe(concept, marks, "InterpretationCodes", "0078")


def _range(result: Json, marks: Marks) -> str:
    found: Json = next(iter(result.get("referenceRange", ())), {})
    low, high = (_number(found.get(one, {}).get("value")) for one in ("low", "high"))
    if found.get("text"):
        return marks.text(found["text"])
    if low and high:
        return f"{low}-{high}"
    return f">={low}" if low else f"<={high}" if high else ""


# ---------------------------------------------------------------------------------------- values


def _number(value: Any) -> str:
    """Return a number in digits alone; "" where they are more than v2 readers take."""
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        return ""
    written = format(Decimal(str(value)), "f")
    return written if len(written) <= DIGITS_MAX else ""


def _unit(quantity: Json, marks: Marks) -> str:
    """Return OBX-6. A unit that is text alone stands second: in the first place it is a code."""
    code, shown = quantity.get("code", ""), quantity.get("unit", "")
    if quantity.get("system") == UCUM and code:
        return marks.leaves(code, shown, "UCUM")
    return marks.leaves("", shown or code)


_Said = tuple[str, str, str]
_NOTHING: _Said = ("", "", "")


def _quantity(value: Json, marks: Marks) -> _Said:
    number = _number(value.get("value"))
    if not number:
        return _text(_shown(value), marks)
    if comparator := str(value.get("comparator", "")):
        return "SN", marks.leaves(comparator, number), _unit(value, marks)
    return "NM", number, _unit(value, marks)


def _span(value: Json, marks: Marks) -> _Said:
    low, high = value.get("low", {}), value.get("high", {})
    first, last = _number(low.get("value")), _number(high.get("value"))
    unit = _unit(low or high, marks)
    if not (first or last) or (low and high and _unit(high, marks) != unit):
        return _text(f"{_shown(low)} - {_shown(high)}", marks)
    if first and last:
        return "SN", marks.leaves("", first, "-", last), unit
    return "NR", marks.leaves(first, last), unit


def _ratio(value: Json, marks: Marks) -> _Said:
    over, under = value.get("numerator", {}), value.get("denominator", {})
    first, last = _number(over.get("value")), _number(under.get("value"))
    plain = not ("comparator" in over or "comparator" in under)
    if first and last and plain and _unit(over, marks) == _unit(under, marks):
        return "SN", marks.leaves("", first, ":", last), _unit(over, marks)
    return _text(f"{_shown(over)} : {_shown(under)}", marks)


def _shown(quantity: Json) -> str:
    unit = quantity.get("unit", quantity.get("code", ""))
    parts = (quantity.get("comparator", ""), quantity.get("value", ""), unit)
    return " ".join(str(part) for part in parts if part != "")


def _text(value: Any, marks: Marks) -> _Said:
    text = str(value)
    kind = "TX" if "\n" in text or len(text) > _TEXT_CHARACTERS_MAX else "ST"
    return kind, marks.text(text), ""


def _time(value: Any, marks: Marks) -> _Said:
    return "TS", dtm(value), ""


def _clock(value: Any, marks: Marks) -> _Said:
    return "TM", str(value).replace(":", ""), ""


def _coded(value: Json, marks: Marks) -> _Said:
    return "CWE", cwe(value, marks), ""


def _period(value: Json, marks: Marks) -> _Said:
    return "DR", marks.leaves(dtm(value.get("start", "")), dtm(value.get("end", ""))), ""


def _yes_no(value: bool, marks: Marks) -> _Said:
    said = ("Y", "Yes") if value else ("N", "No")
    return "CWE", marks.leaves(*said, "HL70136"), ""


def _whole(value: int, marks: Marks) -> _Said:
    return "NM", str(value), ""


def _attachment(value: Json, marks: Marks) -> _Said:
    """Return ED of data, RP of a url."""
    main, _, sub = str(value.get("contentType", "application/octet-stream")).partition("/")
    sub = sub.partition(";")[0]
    if value.get("data"):
        return "ED", marks.leaves("", main, sub, "Base64", value["data"]), ""
    return ("RP", marks.leaves(value["url"], "", main, sub), "") if value.get("url") else _NOTHING


_VALUES = {
    "valueQuantity": _quantity, "valueCodeableConcept": _coded, "valueString": _text,
    "valueBoolean": _yes_no, "valueInteger": _whole, "valueRange": _span, "valueRatio": _ratio,
    "valueTime": _clock, "valueDateTime": _time, "valuePeriod": _period,
}  # fmt: skip


def _value(result: Json, marks: Marks) -> _Said:
    """Return OBX-2, OBX-5 and OBX-6."""
    for name, write in _VALUES.items():
        if name in result:
            return write(result[name], marks)
    attached = extension_of(result, VALUE_ATTACHMENT).get("valueAttachment")
    return _attachment(attached, marks) if attached else _NOTHING


def form_segments(report: Json, results: Sequence[Json], begin: int, marks: Marks) -> list[str]:
    """Return an OBX for each presented form that no result has already."""
    known = [extension_of(one, VALUE_ATTACHMENT).get("valueAttachment", {}) for one in results]
    seen = {one.get("hash") or one.get("url") for one in known}
    forms = [
        one
        for one in report.get("presentedForm", ())
        if (one.get("hash") or one.get("url")) not in seen or not (one.get("hash"))
    ]
    segments = []
    for number, form in enumerate(forms, begin):
        kind, value, _ = _attachment(form, marks)
        fields = {1: str(number), 2: kind, 3: cwe(report.get("code"), marks), 5: value, 11: "F"}
        segments += [joined("OBX", fields, marks)] if kind else []
    return segments


# -------------------------------------------------------------------------------------- specimens


def specimen_segment(specimen: Json, number: int, marks: Marks) -> str:
    """Return SPM."""
    numbers = [one for one in specimen.get("identifier", ()) if one.get("value")]
    filler = next((one for one in numbers if type_of(one) != "PLAC"), None)
    placer = next((one for one in numbers if type_of(one) == "PLAC"), None)
    if not numbers:
        filler = own("Specimen", str(specimen.get("id", "unknown")), marks)
    collected = specimen.get("collection", {})
    period = collected.get("collectedPeriod", {})
    start = dtm(collected.get("collectedDateTime") or period.get("start", ""))
    status = str(specimen.get("status", ""))
    spm = {
        1: str(number),
        2: marks.components(_paired(placer, marks), _paired(filler, marks)),
        4: cwe(specimen.get("type"), marks, "SpecimenType", "0487"),
        7: cwe(collected.get("method"), marks, "SpecimenCollectionMethod", "0488"),
        8: cwe(collected.get("bodySite"), marks, "SpecimenSourceSite", "0543"),
        14: marks.repeated(marks.text(one.get("text", "")) for one in specimen.get("note", ())),
        17: marks.components(start, dtm(period.get("end", ""))),
        18: dtm(specimen.get("receivedTime", "")),
        20: {"available": "Y", "unavailable": "N"}.get(status, ""),
        30: cx(specimen.get("accessionIdentifier", {}), marks),
    }
    return joined("SPM", spm, marks)


def _paired(identifier: Json | None, marks: Marks) -> str:
    if identifier is None:
        return ""
    from_system = ei(identifier, marks).split(marks.delimiters.component)
    return (marks.delimiters.subcomponent or " ").join(from_system)
