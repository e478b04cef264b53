"""QBP: a query for patients to search parameters, and Patients to the segments of the RSP.

HL7 v2.5.1, 3.3.56 to 3.3.58; design/hl7v2.md, section 21. A query changes nothing.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.datatypes import authority, cx
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Message, Segment
from adapters.hl7v2.outbound.fields import Marks, joined
from adapters.hl7v2.outbound.pid import pid_of
from adapters.hl7v2.scene import Scene

Json = dict[str, Any]

MATCHES_MAX = 50
RESPONSES = {"Q21": "K21", "Q22": "K22", "Q23": "K23"}
_GENDERS = {"F": "female", "M": "male", "O": "other", "U": "unknown", "A": "other"}
# A component of a field of PID -> search parameter; CX.4 goes with its number.
_PARAMETERS = {
    "3": "identifier", "3.1": "identifier", "5": "family", "5.1": "family", "5.1.1": "family",
    "5.2": "given", "7": "birthdate", "7.1": "birthdate", "8": "gender", "8.1": "gender",
    "11": "address", "11.1": "address", "11.1.1": "address", "11.3": "address-city",
    "11.4": "address-state", "11.5": "address-postalcode", "11.6": "address-country",
}  # fmt: skip
_AUTHORITY = {"3.4": 1, "3.4.1": 1, "3.4.2": 2, "3.4.3": 3}


@dataclass(frozen=True, slots=True)
class Question:
    """A query: its tag, FHIR search parameters for Patient, and how many matches at most."""

    tag: str
    parameters: tuple[tuple[str, str], ...]
    count: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found: as many Patients as it may have, of ``total``. ``failed`` says that it
    could not be asked."""

    patients: tuple[Json, ...] = ()
    total: int = 0
    tag: str = ""
    failed: bool = False


def question(message: Message, scene: Scene) -> Question:
    """Return what a QBP asks. Raises :class:`MessageFault` 100 or 101 if it asks nothing usable,
    103 for a field that is not searched: without it others would be found."""
    qpd = next(iter(message.all("QPD")), None)
    if qpd is None:
        raise MessageFault(100, "QPD", "The query has no parameters (QPD).")
    if message.event in ("Q21", "Q23"):
        made = [cx(value, scene) for value in qpd.values(3)[:1]]
        parameters = [("identifier", _token(one["system"], one["value"])) for one in made if one]
    else:
        parameters = _candidates(qpd, scene)
    if not parameters:
        raise MessageFault(101, "QPD^1^3", "The query names nothing to search for.")
    wanted = message.text("RCP", 2)
    count = int(wanted[:4]) if wanted[:4].isdecimal() else MATCHES_MAX
    return Question(qpd.text(2), tuple(parameters), max(1, min(count, MATCHES_MAX)))


def _candidates(qpd: Segment, scene: Scene) -> list[tuple[str, str]]:
    parameters = []
    named: dict[int, str] = defaultdict(str)
    number = ""
    for value in qpd.values(3):
        field = value[1].upper().removeprefix("@PID.")
        if not value[2]:
            continue
        if part := _AUTHORITY.get(field):
            named[part] = value[2]
            continue
        name = _PARAMETERS.get(field)
        if name is None:
            text = "The query names a field that is not searched here: @PID.3, 5, 7, 8 and 11 are."
            raise MessageFault(103, "QPD^1^3", text)
        if name == "identifier":
            number = value[2]
        elif found := _searched(name, value[2]):
            parameters.append((name, found))
        else:
            text = "A value of the query is none of its field."
            raise MessageFault(102, "QPD^1^3", text)
    if number:
        system = authority(named[1], named[2], named[3], scene)
        parameters.append(("identifier", _token(system, number) if system else _escaped(number)))
    elif named:
        raise MessageFault(101, "QPD^1^3", "The query names an authority, and no number of it.")
    return parameters


def _token(system: str, value: str) -> str:
    return f"{_escaped(system)}|{_escaped(value)}"


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


def answered(message: Message, found: Found) -> list[str]:
    """Return the segments QAK, QPD and PID of the response, in the delimiters of ``message``.

    K23 answers with the numbers of the person, K21 and K22 with what PID holds.
    """
    delimiters = message.delimiters
    marks = Marks.of(delimiters)
    status = "AE" if found.failed else "OK" if found.patients else "NF"
    counts = (str(found.total), str(len(found.patients)), str(found.total - len(found.patients)))
    qpds = message.all("QPD")
    tag = found.tag or (qpds[0].text(2) if qpds else "")
    lines = [joined("QAK", {1: marks.text(tag), 2: status, 4: counts[0], 5: counts[1],
                            6: counts[2]}, marks)]  # fmt: skip
    lines += [delimiters.field.join(qpd.fields) for qpd in qpds]
    only_numbers = message.event == "Q23"
    lines += [
        joined("PID", _chosen(pid_of(patient, marks, str(number)), only_numbers), marks)
        for number, patient in enumerate(found.patients, 1)
    ]
    return lines


def _chosen(fields: Mapping[int, str], only_numbers: bool) -> Mapping[int, str]:
    return {n: text for n, text in fields.items() if n <= 3} if only_numbers else fields
