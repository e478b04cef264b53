"""QBP: a query for patients to search parameters, and Patients to the segments of the RSP.

HL7 v2.5.1, 3.3.56 to 3.3.58; design/hl7v2.md, section 21. A query changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Delimiters, Message, escaped

Json = dict[str, Any]

MATCHES_MAX = 50
RESPONSES = {"Q21": "K21", "Q22": "K22", "Q23": "K23"}
_GENDERS = {"F": "female", "M": "male", "O": "other", "U": "unknown", "A": "other"}
_SEXES = {"female": "F", "male": "M", "other": "O", "unknown": "U"}
# The first components of a field of PID -> search parameter.
_PARAMETERS = {
    "3": "identifier", "3.1": "identifier", "5.1": "family", "5.1.1": "family", "5.2": "given",
    "7": "birthdate", "7.1": "birthdate", "8": "gender", "11.1": "address", "11.3": "address-city",
    "11.4": "address-state", "11.5": "address-postalcode",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A query: its tag, FHIR search parameters for Patient, and how many matches at most."""

    tag: str
    parameters: tuple[tuple[str, str], ...]
    count: int


def question(message: Message) -> Question:
    """Return what a QBP asks. Raises :class:`MessageFault` 100 or 101 if it asks nothing usable."""
    qpd = next(iter(message.all("QPD")), None)
    if qpd is None:
        raise MessageFault(100, "QPD", "The query has no parameters (QPD).")
    if message.event in ("Q21", "Q23"):
        number = qpd.text(3)
        parameters = [("identifier", _escaped(number))] if number else []
    else:
        parameters = [
            (name, found)
            for value in qpd.values(3)
            if (name := _PARAMETERS.get(value[1].upper().removeprefix("@PID.")))
            and (found := _searched(name, value[2]))
        ]
    if not parameters:
        raise MessageFault(101, "QPD^1^3", "The query names nothing to search for.")
    wanted = message.text("RCP", 2)
    count = int(wanted[:4]) if wanted[:4].isdecimal() else MATCHES_MAX
    return Question(qpd.text(2), tuple(parameters), max(1, min(count, MATCHES_MAX)))


def _searched(name: str, text: str) -> str:
    if name == "gender":
        return _GENDERS.get(text.upper(), "")
    if name == "birthdate":
        digits = text[:8]
        parts = (digits[:4], digits[4:6], digits[6:8])
        return "-".join(part for part in parts if part) if digits.isdecimal() else ""
    return _escaped(text)


def _escaped(text: str) -> str:
    for mark in "\\,|$":
        text = text.replace(mark, "\\" + mark)
    return text


def answered(message: Message, tag: str, patients: Sequence[Json], *, failed: bool) -> list[str]:
    """Return the segments QAK, QPD and PID of the response, in the delimiters of ``message``."""
    marks = message.delimiters
    status = "AE" if failed else "OK" if patients else "NF"
    bar = marks.field
    found = str(len(patients))
    lines = [bar.join(("QAK", escaped(tag, marks), status, "", found, found, "0"))]
    lines += [bar.join(qpd.fields) for qpd in message.all("QPD")]
    lines += [_pid(number, patient, marks) for number, patient in enumerate(patients, 1)]
    return lines


def _pid(number: int, patient: Mapping[str, Any], marks: Delimiters) -> str:
    numbers = _repeated(map(_cx_of(marks), patient.get("identifier", ())), marks)
    fields = ["PID", str(number), "", numbers]
    fields += ["", _repeated((_xpn(name, marks) for name in patient.get("name", ())), marks), ""]
    fields.append(str(patient.get("birthDate", "")).replace("-", ""))
    fields += [_SEXES.get(str(patient.get("gender")), ""), "", ""]
    fields.append(_repeated((_xad(one, marks) for one in patient.get("address", ())), marks))
    return marks.field.join(fields).rstrip(marks.field)


def _repeated(parts: Any, marks: Delimiters) -> str:
    return (marks.repetition or " ").join(part for part in parts if part)


def _components(parts: Sequence[str], marks: Delimiters) -> str:
    mark = marks.component or " "
    return mark.join(escaped(part, marks) for part in parts).rstrip(mark)


def _cx_of(marks: Delimiters) -> Any:
    def cx(identifier: Mapping[str, Any]) -> str:
        system = str(identifier.get("system", ""))
        codings = identifier.get("type", {}).get("coding", [{}])
        kind = str(codings[0].get("code", ""))
        head = _components([str(identifier.get("value", "")), "", ""], marks)
        sub = marks.subcomponent or " "
        if system.startswith("urn:oid:"):
            named = f"{sub}{escaped(system.removeprefix('urn:oid:'), marks)}{sub}ISO"
        else:
            name = system.removeprefix("urn:hl7v2:authority:")
            named = escaped(name.removeprefix("urn:hl7v2:facility:"), marks)
        mark = marks.component or " "
        return f"{head}{mark * 3}{named}{mark}{escaped(kind, marks)}".rstrip(mark)

    return cx


def _xpn(name: Mapping[str, Any], marks: Delimiters) -> str:
    given = [str(one) for one in name.get("given", ())]
    parts = [str(name.get("family", "")), *given[:1], " ".join(given[1:])]
    return _components(parts, marks)


def _xad(address: Mapping[str, Any], marks: Delimiters) -> str:
    lines = [str(one) for one in address.get("line", ())]
    parts = [" ".join(lines), ""]
    parts += [str(address.get(name, "")) for name in ("city", "state", "postalCode", "country")]
    return _components(parts, marks)
