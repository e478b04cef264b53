"""Patients and what a clinic writes about them, made by rule: the same number gives the same text.

``patient_record(7)`` is one Patient with about 110 resources: 100 Observations, 4 Encounters, 3
Conditions, 3 MedicationRequests, an Appointment and often an AllergyIntolerance. A clinic is
a Practitioner and an Organization, one for each :data:`PATIENTS_A_CLINIC` patients. Codes are
skewed as in a clinic (one in eleven observations is a heart rate, one in two thousand a G6PD), and
dates spread over :data:`YEARS` years. Ids say nothing about the order in which they were made.

Nobody in here exists: names are drawn from lists, addresses and identifiers are counted.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

from fhir_server.messages import Resource
from fhir_server.r4.json import decode

PATIENTS_A_CLINIC = 50
YEARS = 5
START = datetime(2020, 1, 1, tzinfo=UTC)
OBSERVATIONS = 100
RARE_CODE, RARE_ONE_IN = "32546-4", 2000

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
HL7 = "http://terminology.hl7.org/CodeSystem"
EXAMPLE = "https://fhir.example.org"


class Kind(NamedTuple):
    """A kind of observation: its code, how many of a hundred are such, and what it measures."""

    code: str
    display: str
    category: str
    weight: int
    low: float
    high: float
    unit: str


KINDS = (
    Kind("8867-4", "Heart rate", "vital-signs", 9, 50, 120, "/min"),
    Kind("8480-6", "Systolic blood pressure", "vital-signs", 9, 95, 180, "mm[Hg]"),
    Kind("8462-4", "Diastolic blood pressure", "vital-signs", 9, 55, 110, "mm[Hg]"),
    Kind("29463-7", "Body weight", "vital-signs", 8, 3, 110, "kg"),
    Kind("8302-2", "Body height", "vital-signs", 7, 50, 190, "cm"),
    Kind("8310-5", "Body temperature", "vital-signs", 7, 36, 40, "Cel"),
    Kind("9279-1", "Respiratory rate", "vital-signs", 6, 10, 30, "/min"),
    Kind("2708-6", "Oxygen saturation in Arterial blood", "vital-signs", 5, 88, 100, "%"),
    Kind("39156-5", "Body mass index", "vital-signs", 5, 15, 38, "kg/m2"),
    Kind("2339-0", "Glucose [Mass/volume] in Blood", "laboratory", 4, 60, 280, "mg/dL"),
    Kind("4548-4", "Hemoglobin A1c in Blood", "laboratory", 3, 4, 12, "%"),
    Kind("718-7", "Hemoglobin [Mass/volume] in Blood", "laboratory", 3, 7, 17, "g/dL"),
    Kind("6690-2", "Leukocytes in Blood by automated count", "laboratory", 3, 3, 15, "10*3/uL"),
    Kind("777-3", "Platelets in Blood by automated count", "laboratory", 3, 90, 450, "10*3/uL"),
    Kind("2160-0", "Creatinine in Serum or Plasma", "laboratory", 3, 0.5, 3, "mg/dL"),
    Kind("2951-2", "Sodium in Serum or Plasma", "laboratory", 2, 130, 148, "mmol/L"),
    Kind("2823-3", "Potassium in Serum or Plasma", "laboratory", 2, 3, 6, "mmol/L"),
    Kind("2093-3", "Cholesterol in Serum or Plasma", "laboratory", 2, 120, 290, "mg/dL"),
    Kind("2571-8", "Triglyceride in Serum or Plasma", "laboratory", 2, 60, 350, "mg/dL"),
    Kind("1742-6", "Alanine aminotransferase in Serum", "laboratory", 2, 8, 90, "U/L"),
    Kind("1920-8", "Aspartate aminotransferase in Serum", "laboratory", 2, 8, 90, "U/L"),
    Kind("3016-3", "Thyrotropin in Serum or Plasma", "laboratory", 1, 0.2, 9, "m[IU]/L"),
    Kind("1975-2", "Bilirubin total in Serum or Plasma", "laboratory", 1, 0.2, 4, "mg/dL"),
    Kind("14957-5", "Microalbumin in Urine", "laboratory", 1, 2, 300, "mg/L"),
    Kind("5811-5", "Specific gravity of Urine", "laboratory", 1, 1, 1.03, "{ratio}"),
)
RARE = Kind(
    RARE_CODE, "Glucose-6-Phosphate dehydrogenase in RBC", "laboratory", 0, 5, 14, "U/g{Hb}"
)
_KIND_WEIGHTS = tuple(accumulate(kind.weight for kind in KINDS))

# What was found, ordered or prescribed: code, text, and how many of a hundred.
CONDITIONS = (
    ("38341003", "Hypertensive disorder", 24),
    ("44054006", "Diabetes mellitus type 2", 20),
    ("195967001", "Asthma", 10),
    ("235595009", "Gastroesophageal reflux disease", 10),
    ("62315008", "Diarrhea", 9),
    ("54150009", "Upper respiratory infection", 9),
    ("271737000", "Anemia", 7),
    ("73211009", "Diabetes mellitus", 5),
    ("56265001", "Heart disease", 3),
    ("38362002", "Dengue", 2),
    ("61462000", "Malaria", 1),
)
MEDICATIONS = (
    ("860975", "metformin 500 MG Oral Tablet", 24),
    ("197361", "amlodipine 5 MG Oral Tablet", 22),
    ("313782", "acetaminophen 500 MG Oral Tablet", 18),
    ("308182", "amoxicillin 250 MG Oral Capsule", 12),
    ("198051", "omeprazole 20 MG Oral Capsule", 12),
    ("314076", "lisinopril 10 MG Oral Tablet", 8),
    ("745679", "albuterol 0.09 MG Inhaler", 3),
    ("855332", "warfarin sodium 5 MG Oral Tablet", 1),
)
ALLERGIES = (
    ("91936005", "Allergy to penicillin", 50),
    ("91935009", "Allergy to peanut", 20),
    ("300913006", "Shellfish allergy", 20),
    ("293586001", "Allergy to aspirin", 10),
)
GIVEN = {
    "female": (
        ("Rahima", "রহিমা"),
        ("Fatema", "ফাতেমা"),
        ("Ayesha", "আয়েশা"),
        ("Nasrin", "নাসরিন"),
        ("Salma", "সালমা"),
        ("Shirin", "শিরিন"),
        ("Lakshmi", "লক্ষ্মী"),
        ("Maria", "মারিয়া"),
        ("Zoë", "জোয়ি"),
        ("Sumaiya", "সুমাইয়া"),
    ),
    "male": (
        ("Rahim", "রহিম"),
        ("Karim", "করিম"),
        ("Kamal", "কামাল"),
        ("Abdul", "আব্দুল"),
        ("Hasan", "হাসান"),
        ("Tanvir", "তানভীর"),
        ("Anik", "অনিক"),
        ("José", "হোসে"),
        ("Bimal", "বিমল"),
        ("Sohel", "সোহেল"),
    ),
}
FAMILY = (
    ("Khatun", "খাতুন", 14),
    ("Begum", "বেগম", 14),
    ("Islam", "ইসলাম", 13),
    ("Hossain", "হোসেন", 12),
    ("Ahmed", "আহমেদ", 11),
    ("Rahman", "রহমান", 10),
    ("Das", "দাস", 8),
    ("Chowdhury", "চৌধুরী", 6),
    ("Sarkar", "সরকার", 5),
    ("Barua", "বড়ুয়া", 4),
    ("Tripura", "ত্রিপুরা", 2),
    ("O'Neill", "ও'নিল", 1),
)
CITIES = ("Riverton", "Lakeside", "Hillview", "Oldport", "Greenfield", "Stonebridge", "Eastgate")


def id_of(kind: str, number: int) -> str:
    """Return the id of the resource ``number`` of its kind."""
    return blake2b(f"{kind}{number}".encode(), digest_size=10).hexdigest()


def records(first: int, last: int) -> Iterator[list[Resource]]:
    """Yield the resources of the patients from ``first`` up to before ``last``, one list each.

    A clinic comes with its first patient.
    """
    for number in range(first, last):
        shared = [] if number % PATIENTS_A_CLINIC else shared_record(number // PATIENTS_A_CLINIC)
        yield [*shared, *patient_record(number)]


def shared_record(number: int) -> list[Resource]:
    """Return the Organization and the Practitioner of clinic ``number``."""
    chance = Random(f"clinic {number}")
    name = _name(chance, chance.choice(("female", "male")))
    organization = {
        "resourceType": "Organization",
        "id": id_of("org", number),
        "identifier": [{"system": f"{EXAMPLE}/clinic", "value": f"C-{number:05}"}],
        "active": True,
        "name": f"Clinic {number:04} {CITIES[number % len(CITIES)]}",
        "address": [{"city": CITIES[number % len(CITIES)], "country": "XX"}],
    }
    practitioner = {
        "resourceType": "Practitioner",
        "id": id_of("prac", number),
        "identifier": [{"system": f"{EXAMPLE}/license", "value": f"L-{number:05}"}],
        "active": True,
        "name": name,
    }
    return [organization, practitioner]


def patient_record(number: int) -> list[Resource]:
    """Return patient ``number`` and what was written about them."""
    chance = Random(f"patient {number}")
    clinic = number // PATIENTS_A_CLINIC
    here = _Here(
        number,
        {"reference": f"Patient/{id_of('pat', number)}"},
        {"reference": f"Practitioner/{id_of('prac', clinic)}"},
        {"reference": f"Organization/{id_of('org', clinic)}"},
    )
    visits = sorted(_moment(chance) for _ in range(4))
    found = [
        _patient(here, chance),
        *(_encounter(here, at, when, chance) for at, when in enumerate(visits)),
        *(_condition(here, at, chance) for at in range(3)),
        *(_medication_request(here, at, chance) for at in range(3)),
        *(_observation(here, at, visits, chance) for at in range(OBSERVATIONS)),
        _appointment(here, chance),
    ]
    if chance.random() < 0.6:
        found.append(_allergy(here, chance))
    return found


class _Here(NamedTuple):
    """Whom a record is about, and who wrote it."""

    number: int
    patient: Resource
    practitioner: Resource
    organization: Resource


def _decimal(text: str) -> Any:
    """Return the number as the server reads it: with the digits that it was written with."""
    return decode(b'{"n":' + text.encode() + b"}")["n"]


def _moment(chance: Random) -> datetime:
    return START + timedelta(seconds=chance.randrange(YEARS * 365 * 86_400))


def _instant(when: datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%S}+00:00"


def _pick(chance: Random, table: tuple[tuple[str, str, int], ...]) -> tuple[str, str]:
    [(first, second, _)] = chance.choices(table, [weight for *_, weight in table])
    return first, second


def _concept(system: str, code: str, display: str) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def _narrative(text: str) -> Resource:
    return {
        "status": "generated",
        "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{text}</p></div>',
    }


def _name(chance: Random, gender: str) -> list[Resource]:
    given, given_bangla = chance.choice(GIVEN[gender])
    family, family_bangla = _pick(chance, FAMILY)
    return [
        {"use": "official", "family": family, "given": [given]},
        {"use": "usual", "text": f"{given_bangla} {family_bangla}"},
    ]


def _patient(here: _Here, chance: Random) -> Resource:
    gender = chance.choice(("female", "male"))
    born = START - timedelta(days=chance.randrange(90 * 365))
    return {
        "resourceType": "Patient",
        "id": id_of("pat", here.number),
        "identifier": [
            {
                "use": "official",
                "type": _concept(f"{HL7}/v2-0203", "MR", "Medical record number"),
                "system": f"{EXAMPLE}/mrn",
                "value": f"MRN-{here.number:07}",
            },
            {"system": f"{EXAMPLE}/national", "value": f"{1_990_000_000_000 + here.number * 7}"},
        ],
        "active": True,
        "name": _name(chance, gender),
        "telecom": [{"system": "phone", "value": f"+00 17 {here.number:08}", "use": "mobile"}],
        "gender": gender,
        # Of some only the year is known.
        "birthDate": f"{born:%Y-%m-%d}" if chance.random() < 0.95 else f"{born:%Y}",
        "address": [
            {
                "use": "home",
                "line": [f"{chance.randrange(1, 400)} Station Road"],
                "city": chance.choice(CITIES),
                "postalCode": f"{1000 + chance.randrange(9000)}",
                "country": "XX",
            }
        ],
        "generalPractitioner": [here.practitioner],
        "managingOrganization": here.organization,
    }


def _encounter(here: _Here, at: int, when: datetime, chance: Random) -> Resource:
    # One in ten stays for days: a period longer than most keys of dates.
    stays = chance.random() < 0.1
    length = (
        timedelta(days=chance.randrange(2, 12))
        if stays
        else timedelta(minutes=chance.randrange(10, 90))
    )
    return {
        "resourceType": "Encounter",
        "id": id_of("enc", here.number * 4 + at),
        "text": _narrative(f"Visit of {when:%d %B %Y}"),
        "status": "finished",
        "class": {"system": f"{HL7}/v3-ActCode", "code": "IMP" if stays else "AMB"},
        "type": [_concept(SNOMED, "185349003", "Encounter for check up")],
        "subject": here.patient,
        "participant": [{"individual": here.practitioner}],
        "period": {"start": _instant(when), "end": _instant(when + length)},
        "serviceProvider": here.organization,
    }


def _condition(here: _Here, at: int, chance: Random) -> Resource:
    code, display = _pick(chance, CONDITIONS)
    when = _moment(chance)
    status = chance.choices(("active", "resolved", "inactive"), (60, 35, 5))[0]
    return {
        "resourceType": "Condition",
        "id": id_of("cond", here.number * 3 + at),
        "text": _narrative(display),
        "clinicalStatus": _concept(f"{HL7}/condition-clinical", status, status.title()),
        "verificationStatus": _concept(f"{HL7}/condition-ver-status", "confirmed", "Confirmed"),
        "category": [_concept(f"{HL7}/condition-category", "problem-list-item", "Problem List")],
        "code": _concept(SNOMED, code, display),
        "subject": here.patient,
        "onsetDateTime": f"{when:%Y-%m-%d}" if chance.random() < 0.7 else f"{when:%Y}",
        "recordedDate": f"{when:%Y-%m-%d}",
        "recorder": here.practitioner,
    }


def _medication_request(here: _Here, at: int, chance: Random) -> Resource:
    code, display = _pick(chance, MEDICATIONS)
    when = _moment(chance)
    return {
        "resourceType": "MedicationRequest",
        "id": id_of("med", here.number * 3 + at),
        "text": _narrative(f"{display}, twice a day after food"),
        "status": chance.choices(("active", "completed", "stopped"), (40, 52, 8))[0],
        "intent": "order",
        "medicationCodeableConcept": _concept(
            "http://www.nlm.nih.gov/research/umls/rxnorm", code, display
        ),
        "subject": here.patient,
        "encounter": {"reference": f"Encounter/{id_of('enc', here.number * 4 + at)}"},
        "authoredOn": f"{when:%Y-%m-%d}",
        "requester": here.practitioner,
        "dosageInstruction": [
            {
                "text": "one tablet twice a day after food",
                "timing": {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}},
                "doseAndRate": [{"doseQuantity": {"value": 1, "unit": "tablet"}}],
            }
        ],
    }


def _observation(here: _Here, at: int, visits: list[datetime], chance: Random) -> Resource:
    rare = chance.randrange(RARE_ONE_IN) == 0
    kind = RARE if rare else chance.choices(KINDS, cum_weights=_KIND_WEIGHTS)[0]
    visit = chance.randrange(len(visits))
    # Most are of a visit, the others were sent from home or from a laboratory.
    when = visits[visit] + timedelta(minutes=at) if chance.random() < 0.6 else _moment(chance)
    value = f"{kind.low + (kind.high - kind.low) * chance.random():.1f}"
    status = chance.choices(("final", "preliminary", "amended"), (96, 3, 1))[0]
    narrative = f"{kind.display} of {when:%d %B %Y}: {value} {kind.unit}, by the clinic's method"
    return {
        "resourceType": "Observation",
        "id": id_of("obs", here.number * OBSERVATIONS + at),
        "meta": {"profile": [f"{EXAMPLE}/StructureDefinition/{kind.category}-observation"]},
        "text": _narrative(narrative),
        "identifier": [{"system": f"{EXAMPLE}/result", "value": f"R{here.number:07}-{at:03}"}],
        "status": status,
        "category": [
            _concept(f"{HL7}/observation-category", kind.category, kind.category.replace("-", " "))
        ],
        "code": _concept(LOINC, kind.code, kind.display),
        "subject": here.patient,
        "encounter": {
            "reference": f"Encounter/{id_of('enc', here.number * 4 + visit)}",
            "display": f"Visit of {visits[visit]:%d %B %Y}",
        },
        "effectiveDateTime": _instant(when),
        "issued": f"{when + timedelta(hours=2):%Y-%m-%dT%H:%M:%S.000}+00:00",
        "performer": [here.practitioner],
        "valueQuantity": {
            "value": _decimal(value),
            "unit": kind.unit,
            "system": UCUM,
            "code": kind.unit,
        },
        "method": _concept(SNOMED, "272394005", "Technique"),
        "interpretation": [_concept(f"{HL7}/v3-ObservationInterpretation", "N", "Normal")],
        "referenceRange": [
            {
                "low": {"value": _decimal(f"{kind.low:.1f}"), "unit": kind.unit},
                "high": {"value": _decimal(f"{kind.high:.1f}"), "unit": kind.unit},
                "type": _concept(f"{HL7}/referencerange-meaning", "normal", "Normal Range"),
                "text": f"{kind.low} to {kind.high} {kind.unit}",
            }
        ],
    }


def _appointment(here: _Here, chance: Random) -> Resource:
    when = _moment(chance)
    return {
        "resourceType": "Appointment",
        "id": id_of("app", here.number),
        "status": chance.choices(("booked", "fulfilled", "noshow"), (30, 60, 10))[0],
        "serviceType": [_concept(f"{HL7}/service-type", "124", "General Practice")],
        "description": "Check-up",
        "start": _instant(when),
        "end": _instant(when + timedelta(minutes=20)),
        "participant": [
            {"actor": here.patient, "status": "accepted"},
            {"actor": here.practitioner, "status": "accepted"},
        ],
    }


def _allergy(here: _Here, chance: Random) -> Resource:
    code, display = _pick(chance, ALLERGIES)
    return {
        "resourceType": "AllergyIntolerance",
        "id": id_of("all", here.number),
        "clinicalStatus": _concept(f"{HL7}/allergyintolerance-clinical", "active", "Active"),
        "code": _concept(SNOMED, code, display),
        "patient": here.patient,
        "recordedDate": f"{_moment(chance):%Y-%m-%d}",
    }
