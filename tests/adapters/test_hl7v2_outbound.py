"""Resources as v2 messages: what ``$hl7v2`` writes, our own reader reads back as the same facts.

design/hl7v2.md, sections 11 to 15, the other way round. A message is written from what a generator
or a table gives, read into an empty memory, and compared: every fact must be there again.
"""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.hl7v2.charset import decoded
from adapters.hl7v2.message import Delimiters, read
from adapters.hl7v2.outbound.fields import Marks, joined
from adapters.hl7v2.outbound.messages import Envelope, Subject, event_of, message_of
from tests.adapters.memory import Memory

Json = dict[str, Any]

BASE = "https://fhir.example/fhir"
ENVELOPE = Envelope("C1", "20260105120000+0000")
LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
V3 = "http://terminology.hl7.org/CodeSystem/v3-"
# What the copy says in its own way: ids, versions, references to ids, and the id of a member.
LEFT_OUT = ("id", "meta", "text", "subject", "encounter", "result", "specimen", "basedOn")


def taken(subject: Subject, event: str = "") -> Memory:
    """Return a memory with what the message of ``subject`` has become."""
    memory = Memory()
    memory.take(message_of(subject, ENVELOPE, BASE, event))
    return memory


def lost(fact: Any, copy: Any, place: str = "") -> list[str]:
    """Return the places of what ``fact`` says and ``copy`` does not. Lists are sets; moments are
    the same whatever their offset; what the copy says besides is not looked at."""
    if isinstance(fact, dict):
        if not isinstance(copy, dict):
            return [place]
        found: list[str] = []
        for name, value in fact.items():
            if name not in LEFT_OUT:
                found += lost(value, copy.get(name), f"{place}.{name}")
        return found
    if isinstance(fact, list):
        members = copy if isinstance(copy, list) else []
        return [
            f"{place}[{at}]: {best[0] if best else ''}"
            for at, one in enumerate(fact)
            if (best := min((lost(one, other) for other in members), key=len, default=[""]))
        ]
    return [] if same(fact, copy) else [f"{place}: {fact!r} became {copy!r}"]


def same(left: Any, right: Any) -> bool:
    """Whether two primitive values say the same."""
    if isinstance(left, str) and isinstance(right, str) and "T" in left and left[:4].isdigit():
        return datetime.fromisoformat(left) == datetime.fromisoformat(right)
    return bool(left == right)


# ---------------------------------------------------------------------------------------- escapes

# Everything a FHIR string may hold that is no control character, blanks at the ends apart.
texts = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Cn"), include_characters="\n\t|^~\\&"),
    min_size=1,
    max_size=30,
).filter(lambda text: text == text.strip() and text.strip("^~& \n\t") != "")
words = st.text(
    st.characters(categories=("L", "N"), include_characters="|^~\\&'-. "), min_size=1, max_size=12
).filter(lambda text: text == " ".join(text.split()) and any(map(str.isalnum, text)))
USUAL = Delimiters("|")


@given(st.lists(st.one_of(texts, st.just('""')), min_size=1, max_size=6))
def test_any_text_survives_at_every_level(leaves: list[str]) -> None:
    """As components, subcomponents and repetitions; and no text becomes a segment."""
    marks = Marks.of(USUAL)
    written = {
        1: marks.leaves(*leaves),
        2: marks.subs(*leaves),
        3: marks.repeated(map(marks.text, leaves)),
    }
    message = read("MSH|^~\\&|\r" + joined("ZZZ", written, marks) + "\rPID|1\r")

    assert [one.name for one in message.segments] == ["MSH", "ZZZ", "PID"]
    segment = message.segments[1]
    first, second = segment.value(1), segment.value(2)
    assert first is not None
    assert second is not None
    assert [first[n] for n in range(1, len(leaves) + 1)] == leaves
    assert [second.sub(1, n) for n in range(1, len(leaves) + 1)] == leaves
    assert [value.text for value in segment.values(3)] == leaves


def test_without_an_escape_character_nothing_breaks_out() -> None:
    """Who asks with fewer delimiters is answered with blanks in place of those he has."""
    marks = Marks.of(Delimiters("|", escape=""))

    assert marks.text("a|b^c\rPID|2") == "a b c PID 2"


# ---------------------------------------------------------------------------------------- patient

names = st.fixed_dictionaries(
    {"family": words},
    optional={
        "given": st.lists(words, min_size=1, max_size=2),
        "prefix": st.lists(words, min_size=1, max_size=1),
        "suffix": st.lists(words, min_size=1, max_size=2),
        "use": st.sampled_from(["usual", "official", "temp", "nickname", "anonymous", "old",
                                "maiden"]),
    },
)  # fmt: skip
addresses = st.fixed_dictionaries(
    {"city": words},
    optional={
        "line": st.lists(words, min_size=1, max_size=3),
        "state": words,
        "postalCode": words,
        "country": words,
        "district": words,
        "use": st.sampled_from(["home", "work", "temp", "old", "billing"]),
    },
)
telecoms = st.fixed_dictionaries(
    {"system": st.sampled_from(["phone", "fax", "email", "pager"]), "value": words},
    optional={"use": st.sampled_from(["home", "work"]), "rank": st.integers(1, 9)},
)
systems = st.one_of(
    st.sampled_from(
        [
            "urn:oid:1.2.36.146", "urn:uuid:5c1dd4a8-6ff5-5d0b-9e83-4b5c5a2a7a02",
            "urn:hl7v2:authority:ACME", "urn:hl7v2:facility:CLINIC", "http://a.example/mrn?x=1&y=2",
        ]
    ),
    st.from_regex(r"https://[a-z]{1,8}\.example/[a-z&^~|]{1,8}", fullmatch=True),
)  # fmt: skip
identifiers = st.fixed_dictionaries({"system": systems, "value": words})
times = st.tuples(
    st.dates(date(1900, 1, 1), date(2026, 1, 1)), st.integers(0, 59), st.integers(0, 999)
).map(lambda one: f"{one[0]}T08:00:{one[1]:02d}.{one[2]:03d}+06:00")
dates = st.dates(date(1900, 1, 1), date(2026, 1, 1))
partial = st.tuples(dates, st.sampled_from([4, 7, 10])).map(lambda one: f"{one[0]}"[: one[1]])
patients = st.fixed_dictionaries(
    {
        "resourceType": st.just("Patient"),
        "id": st.just("p"),
        "identifier": st.lists(identifiers, min_size=1, max_size=3),
        "name": st.lists(names, min_size=1, max_size=2),
    },
    optional={
        "gender": st.sampled_from(["female", "male", "other", "unknown"]),
        "birthDate": partial,
        "address": st.lists(addresses, min_size=1, max_size=2),
        "telecom": st.lists(telecoms, min_size=1, max_size=3),
        "maritalStatus": st.sampled_from("ADILMSTUWC").map(
            lambda code: {"coding": [{"system": f"{V3}MaritalStatus", "code": code}]}
        ),
        "deceasedDateTime": times,
        "multipleBirthInteger": st.integers(1, 9),
        "contact": st.lists(
            st.fixed_dictionaries(
                {"name": names},
                optional={
                    "telecom": st.lists(telecoms, min_size=1, max_size=2),
                    "gender": st.sampled_from(["female", "male"]),
                },
            ),
            min_size=1,
            max_size=2,
        ),
    },
)


@settings(max_examples=60, deadline=None)
@given(patients, st.sampled_from(["A08", "A28", "A31"]))
def test_a_patient_comes_back(patient: Json, event: str) -> None:
    """By each event: all names, numbers, addresses, contacts."""
    copy = taken(Subject(patient, patient), event).one("Patient")

    assert lost(patient, copy) == []


def test_a_patient_in_full_comes_back() -> None:
    """What generators do not make: extensions, languages, a citizen, periods, a mobile number."""
    extension = "http://hl7.org/fhir/StructureDefinition/patient-"
    patient: Json = {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2", "value": "7", "period": {"start": "2020-01-01"},
                        "type": {"coding": [{"code": "MR", "system":
                                 "http://terminology.hl7.org/CodeSystem/v2-0203"}]}}],
        "name": [{"family": "Özgür", "period": {"start": "2001", "end": "2002-03"}}],
        "telecom": [{"system": "phone", "value": "+880 17", "use": "mobile"}],
        "extension": [
            {"url": extension + "mothersMaidenName", "valueString": "Smith & Sons"},
            {"url": extension + "birthPlace", "valueAddress": {"text": "Dhaka"}},
        ],
        "birthDate": "1980-02-03",
        "_birthDate": {"extension": [{"url": extension + "birthTime",
                                      "valueDateTime": "1980-02-03T04:05:00+06:00"}]},
        "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "bn"}]}}],
        "deceasedBoolean": False,
        "multipleBirthBoolean": True,
        "generalPractitioner": [{"identifier": {"system": "urn:oid:1.3", "value": "D1"},
                                 "display": "Dr. O'Hara | Sons"}],
    }  # fmt: skip
    copy = taken(Subject(patient, patient)).one("Patient")

    assert lost(patient, copy) == []


def test_nothing_is_said_that_was_not() -> None:
    """A number of no use gets none by its field; a unit of no system gets none by its look."""
    points = [
        {"system": system, "value": f"{system}-1"} for system in ("phone", "fax", "email", "pager")
    ]
    patient = {**PATIENT, "telecom": points}
    one = observation(valueQuantity={"value": Decimal(2), "unit": "mg"})
    memory = taken(Subject(one, patient, results=[one]))
    found = [
        {name: value for name, value in point.items() if name != "id"}
        for point in memory.one("Patient")["telecom"]
    ]

    assert sorted(found, key=str) == sorted(points, key=str)
    assert memory.one("Observation")["valueQuantity"] == one["valueQuantity"]


def test_a_patient_without_a_number_has_that_of_its_place() -> None:
    """Without one no receiver could tell who it is."""
    patient = {"resourceType": "Patient", "id": "a1", "name": [{"family": "X"}]}
    copy = taken(Subject(patient, patient)).one("Patient")

    assert lost([{"system": f"{BASE}/Patient", "value": "a1"}], copy["identifier"]) == []


EVENTS = {
    ("Patient", "1", True): "A28",
    ("Patient", "2", True): "A31",
    ("Patient", "2", False): "A29",
}


@pytest.mark.parametrize(("said", "event"), EVENTS.items())
def test_the_event_of_a_patient(said: tuple[str, str, bool], event: str) -> None:
    """Added, updated, deleted; the last reads back as not active."""
    type, version, active = said
    patient = {"resourceType": type, "id": "p", "active": active, "meta": {"versionId": version}}

    assert event_of(patient) == event
    assert taken(Subject(patient, patient)).one("Patient")["active"] is active


# ---------------------------------------------------------------------------------------- visits

VISIT_EVENTS = {"planned": "A05", "in-progress": "A01", "onleave": "A21", "finished": "A03",
                "cancelled": "A11", "entered-in-error": "A23", "unknown": "A08",
                "arrived": "A04"}  # fmt: skip


@pytest.mark.parametrize(("status", "event"), VISIT_EVENTS.items())
def test_the_event_of_an_encounter(status: str, event: str) -> None:
    """By its status; outpatients under way are registered."""
    visit = {"resourceType": "Encounter", "status": status}

    assert event_of(visit) == event
    if status == "in-progress":
        assert event_of({**visit, "class": {"code": "AMB"}}) == "A04"


PATIENT: Json = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"system": "urn:oid:1.2.3", "value": "P1"}],
    "name": [{"family": "Rahman"}],
}
STATUSES = {
    "planned": "planned",
    "arrived": "in-progress",  # v2 does not tell these three apart
    "triaged": "in-progress",
    "in-progress": "in-progress",
    "onleave": "onleave",
    "finished": "finished",
    "cancelled": "cancelled",
    "entered-in-error": "entered-in-error",
}


@pytest.mark.parametrize(("status", "after"), STATUSES.items())
def test_an_encounter_comes_back_by_its_status(status: str, after: str) -> None:
    """With class, numbers, times, places and people."""
    encounter: Json = {
        "resourceType": "Encounter",
        "id": "e1",
        "status": status,
        "class": {"system": f"{V3}ActCode", "code": "IMP"},
        "identifier": [{"system": "urn:oid:1.2", "value": "V1"}],
        "period": {"start": "2026-01-02T08:00:00+06:00"},
        "location": [{"location": {"display": "Ward 3 & 4"}}],
        "participant": [
            {"type": [{"coding": [{"system": f"{V3}ParticipationType", "code": "ATND"}]}],
             "individual": {"display": "Dr. Khan", "identifier": {"system": "urn:oid:1.5",
                                                                  "value": "77"}}}
        ],
        "reasonCode": [{"text": "Fever^high"}],
    }  # fmt: skip
    if status == "finished":
        encounter["period"]["end"] = "2026-01-03T09:30:00+06:00"
    copy = taken(Subject(encounter, PATIENT)).one("Encounter")

    assert lost({**encounter, "status": after}, copy) == []


def test_an_encounter_of_unknown_class_and_status_stays_unknown() -> None:
    """PV1-2 U is the one class that says so."""
    encounter = {"resourceType": "Encounter", "id": "e1", "status": "unknown"}

    assert taken(Subject(encounter, PATIENT)).one("Encounter")["status"] == "unknown"


# ---------------------------------------------------------------------------------------- results


def observation(**more: Any) -> Json:
    """Return an Observation."""
    return {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "718-7", "display": "Hemoglobin"}]},
        **more,
    }


def mmol(value: str) -> Json:
    """Return a Quantity in mmol/L."""
    return {"value": Decimal(value), "unit": "mmol/L", "system": UCUM, "code": "mmol/L"}


VALUES: dict[str, Json] = {
    "digits": {"valueQuantity": mmol("7.20")},
    "negative": {"valueQuantity": mmol("-0.050")},
    "comparator": {"valueQuantity": {**mmol("5"), "comparator": "<="}},
    "unit without code": {"valueQuantity": {"value": Decimal("2"), "unit": "tablets"}},
    "unit that looks like a code": {"valueQuantity": {"value": Decimal("2"), "unit": "mg"}},
    "code": {"valueCodeableConcept": {"coding": [
        {"system": "http://snomed.info/sct", "code": "260373001", "display": "Detected"},
        {"system": "https://acme.example/codes", "code": "P^1", "version": "2"}],
        "text": "found | seen"}},
    "text alone": {"valueCodeableConcept": {"text": "no growth"}},
    "string": {"valueString": "  see ~ below &\nsecond line "},
    "delete, as a text": {"valueString": '""'},
    "range": {"valueRange": {"low": mmol("1"), "high": mmol("2.5")}},
    "half a range": {"valueRange": {"high": mmol("2.5")}},
    "ratio": {"valueRatio": {"numerator": {"value": Decimal(1)},
                             "denominator": {"value": Decimal(128)}}},
    "time": {"valueTime": "08:30:00"},
    "dateTime": {"valueDateTime": "2026-01-02T03:04:05+06:00"},
    "period": {"valuePeriod": {"start": "2026-01-02", "end": "2026-01-03"}},
    "flag and range": {"valueQuantity": mmol("9"),
        "interpretation": [{"coding": [{"system": f"{V3}ObservationInterpretation", "code": "H"}]},
                           {"coding": [{"system": "urn:x:flags", "code": "L"}], "text": "odd"}],
        "referenceRange": [{"text": "3.5 - 5.1", "low": mmol("3.5"), "high": mmol("5.1")}]},
    "limits without text": {"valueQuantity": mmol("9"),
                            "referenceRange": [{"low": mmol("-3"), "high": mmol("5.1")}]},
    "all the rest": {"valueString": "x", "effectiveDateTime": "2026-01-01T01:02:03+06:00",
        "note": [{"text": "hemolysed\nrepeat"}, {"text": "second"}],
        "method": {"coding": [{"system": "http://snomed.info/sct", "code": "1"}]},
        "performer": [{"display": "Tech | 7"}],
        "device": {"identifier": {"system": "urn:oid:1.9", "value": "AN1"}},
        "bodySite": {"coding": [{"system": "http://snomed.info/sct", "code": "368209003"}]},
        "identifier": [{"system": "urn:oid:1.8", "value": "R1"}]},
}  # fmt: skip


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_an_observation_comes_back(value: Json) -> None:
    """By each type of value, and with what is beside it."""
    one = observation(**value)
    copy = taken(Subject(one, PATIENT, results=[one])).one("Observation")

    assert lost(one, copy) == []


quantities = st.decimals(-1_000_000, 1_000_000, allow_nan=False, places=4)


@settings(max_examples=60, deadline=None)
@given(quantities, words, texts)
def test_any_number_and_text_of_a_result_comes_back(number: Decimal, unit: str, note: str) -> None:
    """Digit for digit."""
    one = observation(
        valueQuantity={"value": number, "unit": unit},
        note=[{"text": note}],
        code={"text": unit},
    )
    copy = taken(Subject(one, PATIENT, results=[one])).one("Observation")

    assert lost(one, copy) == []
    assert str(copy["valueQuantity"]["value"]).lstrip("-") == format(abs(number), "f")


RESULT_STATUSES = ["registered", "preliminary", "final", "amended", "corrected", "cancelled",
                   "entered-in-error", "unknown"]  # fmt: skip


@pytest.mark.parametrize("status", RESULT_STATUSES)
def test_the_status_of_a_result_comes_back(status: str) -> None:
    """Also what table 0085 has no code for."""
    one = observation(status=status)
    memory = taken(Subject(one, PATIENT, results=[one]))

    assert memory.one("Observation")["status"] == status


def test_what_a_status_was_made_from_is_sent() -> None:
    """A verified result is sent as V again, not as F."""
    v2 = "http://terminology.hl7.org/CodeSystem/v2-0085"
    kept = {"coding": [{"system": v2, "code": "V"}]}
    url = "http://hl7.org/fhir/StructureDefinition/alternate-codes"
    beside = {"extension": [{"url": url, "valueCodeableConcept": kept}]}
    one = observation(_status=beside, valueString="x")

    assert "|x||||||V\r" in message_of(Subject(one, PATIENT, results=[one]), ENVELOPE, BASE)


def test_components_become_results_of_their_own() -> None:
    """v2 has no components: systolic and diastolic stand beside the panel."""
    parts = [
        {"code": {"coding": [{"system": LOINC, "code": code}]}, "valueQuantity": mmol(value)}
        for code, value in (("8480-6", "120"), ("8462-4", "80"))
    ]
    one = observation(component=parts)
    found = taken(Subject(one, PATIENT, results=[one])).all("Observation")

    assert len(found) == 3
    assert lost(parts, found) == []


REPORT_STATUSES = {"final": "final", "partial": "partial", "registered": "registered",
                   "preliminary": "preliminary", "corrected": "corrected", "amended": "corrected",
                   "cancelled": "cancelled", "unknown": "unknown"}  # fmt: skip


@pytest.mark.parametrize(("status", "after"), REPORT_STATUSES.items())
def test_a_report_comes_back_with_all_that_it_names(status: str, after: str) -> None:
    """Results with one code twice, the visit, two specimens, a document."""
    report: Json = {
        "resourceType": "DiagnosticReport",
        "id": "r1",
        "status": status,
        "code": {"coding": [{"system": LOINC, "code": "58410-2", "display": "CBC"}]},
        "identifier": [
            {"system": "urn:oid:1.2", "value": kind,
             "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203",
                                  "code": kind}]}}
            for kind in ("PLAC", "FILL")
        ],
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074",
                                  "code": "HM"}]}],
        "effectivePeriod": {"start": "2026-01-02T08:00:00Z", "end": "2026-01-02T09:00:00Z"},
        "issued": "2026-01-02T10:00:00.123Z",
        "resultsInterpreter": [{"display": "Dr. Sen"}],
        "presentedForm": [{"contentType": "application/pdf", "data": "JVBERi0xLjQ="}],
    }  # fmt: skip
    results = [observation(id=f"o{n}", valueString=f"isolate {n}") for n in (1, 2)]
    specimens = [
        {"resourceType": "Specimen", "id": f"s{n}", "status": "available",
         "identifier": [{"system": "urn:oid:1.7", "value": f"S{n}"}],
         "type": {"coding": [{"system": "http://snomed.info/sct", "code": "119297000"}]},
         "receivedTime": "2026-01-02T08:30:00Z",
         "collection": {"collectedDateTime": "2026-01-02T08:00:00Z"}}
        for n in (1, 2)
    ]  # fmt: skip
    visit = {"resourceType": "Encounter", "id": "e1", "status": "in-progress",
             "identifier": [{"system": "urn:oid:1.2", "value": "V1"}],
             "class": {"system": f"{V3}ActCode", "code": "AMB"}}  # fmt: skip
    memory = taken(Subject(report, PATIENT, visit, results, specimens))

    assert lost({**report, "status": after}, memory.one("DiagnosticReport")) == []
    assert lost(results, memory.all("Observation")) == []
    text = message_of(Subject(report, PATIENT, visit, results, specimens), ENVELOPE, BASE)
    obxs = read(text).all("OBX")
    assert [obx.text(4) for obx in obxs] == ["1", "2", ""]  # one code, twice: told apart
    assert lost(specimens, memory.all("Specimen")) == []
    assert lost(visit, memory.one("Encounter")) == []
    assert len(memory.one("DiagnosticReport")["result"]) == 3  # the document is a result as well


@pytest.mark.parametrize(("charset", "codec"), [("8859/1", "latin-1"), ("UNICODE UTF-8", "utf-8")])
def test_the_charset_is_told_and_kept(charset: str, codec: str) -> None:
    """What is written in a charset is read in it."""
    patient = {**PATIENT, "name": [{"family": "Müller"}]}
    text = message_of(
        Subject(patient, patient), Envelope("C1", "2026", charset=charset), BASE, "A08"
    )
    back = decoded(text.encode(codec))

    assert (back.text, back.issues) == (text, ())
