"""Resources with the values that searches get wrong: made from a seed, always the same.

Partial dates, periods open at an end, time zones, leap days, comparators, units, names in several
scripts, accents, decimals with and without trailing zeros, references in every form.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from random import Random
from typing import Any

from tests.conformance.brute_values import interval

Resource = dict[str, Any]

DATES = """2016 2016-02 2016-02-29 2016-03-01 2015-12-31 2016-01-01 1900 1969-12-31 1970-01-01
0001-01-01 9999-12-31 2020-02-29 2000-02""".split()
MOMENTS = """2016-02-29T23:59:59Z 2016-02-29T23:30:00-05:00 2016-03-01T00:00:00+14:00
2016-03-01T00:00:00.000Z 2016-02-29T23:59:59.999Z 2016-01-01T00:00:00+05:30
2015-12-31T18:30:00Z 2016-12-31T23:59:59.5Z 2016-06-15T12:00:00.123456+06:00""".split()
NAMES = [
    *(
        "Møller",
        "Muller",
        "Müller",
        "MÜLLER",
        "Carreno Quiñones",
        "Smith-Jones",
        "O'Neill",
        "Śmiałek",
    ),
    *(
        "Đặng",
        "Straße",
        "STRASSE",
        "İnönü",
        "ﬁnch",
        "van der Berg",
        "Ångström",
        "A\u030angstro\u0308m",
    ),
    *("কামাল", "কিমাল", "রহমান", "মোহাম্মদ আলী", "محمد", "مُحَمَّد", "أحمد", "احمد", "علـي", "שָׁלוֹם"),
    *(
        "山田",
        "やまだ",
        "ガ",
        "カ",
        "김철수",
        "a,b",
        "c$d",
        "e|f",
        "g\\h",
        "J.R.R. Tolkien",
        "-",
        "  two  words ",
    ),
]
SYSTEMS = ["http://a.example/s", "http://a.example/S", "urn:oid:1.2.3", "http://b.example", ""]
CODES = ["a", "A", "b", "a-b", "a,b", "x|y", "x$y", "1", "1.0", "é", "কোড", "a b"]
UNITS = [
    "g",
    "kg",
    "mg",
    "ug",
    "mg/dL",
    "g/L",
    "mmol/L",
    "mm[Hg]",
    "kPa",
    "%",
    "{score}",
    "cm",
    "m",
]
NUMBERS = """0 0.0 1 1.0 1.00 5.4 5.40 5.35 5.45 100 99.5 100.5 1e2 1E-2 0.01 -1 -0.5 2.0 1.95 2.05
1000 123456789.123456789 0.1 0.10 60""".split()


def some(random: Random, choose: Callable[[], Any], most: int = 3) -> list[Any]:
    """Return one to ``most`` of what ``choose`` gives."""
    return [choose() for _ in range(random.randint(1, most))]


class Maker:
    """Makes awkward values from ``random``; ``base`` is what this server is called."""

    def __init__(self, random: Random, base: str) -> None:
        self.random = random
        self.base = base

    def maybe(self, members: dict[str, Callable[[], Any]], odds: float = 0.7) -> Resource:
        """Return those of ``members`` that chance keeps."""
        return {name: make() for name, make in members.items() if self.random.random() < odds}

    def date(self) -> str:
        """Return a date of any precision."""
        return self.random.choice(DATES)

    def moment(self) -> str:
        """Return a date or a time."""
        return self.random.choice(DATES + MOMENTS)

    def period(self) -> Resource:
        """Return a period that may be open at either end."""
        first, last = sorted((self.moment(), self.moment()), key=interval)
        return self.random.choice([{"start": first}, {"end": last}, {"start": first, "end": last}])

    def decimal(self) -> Decimal:
        """Return a number with the digits that somebody wrote."""
        return Decimal(self.random.choice(NUMBERS))

    def quantity(self) -> Resource:
        """Return a quantity, perhaps with a comparator, in a unit of UCUM, another or none."""
        found: Resource = {"value": self.decimal()}
        if self.random.random() < 0.25:
            found["comparator"] = self.random.choice(["<", "<=", ">", ">="])
        unit = self.random.choice(UNITS)
        kind = self.random.random()
        if kind < 0.7:
            found |= {"system": "http://unitsofmeasure.org", "code": unit}
        elif kind < 0.8:
            found |= {"system": "http://a.example/units", "code": unit, "unit": "Stück"}
        if kind < 0.3 or 0.8 < kind < 0.9:
            found["unit"] = self.random.choice([unit, "gram", "Punkte"])
        return found

    def range(self) -> Resource:
        """Return a Range that may be open at either end."""
        low, high = sorted((self.decimal(), self.decimal()))
        unit = {"system": "http://unitsofmeasure.org", "code": self.random.choice(UNITS)}
        ends = {"low": {"value": low, **unit}, "high": {"value": high, **unit}}
        kept = self.random.choice([("low",), ("high",), ("low", "high")])
        return {name: ends[name] for name in kept}

    def coding(self) -> Resource:
        """Return a Coding with or without a system."""
        found = {"code": self.random.choice(CODES)}
        if system := self.random.choice(SYSTEMS):
            found["system"] = system
        if self.random.random() < 0.5:
            found["display"] = self.random.choice(NAMES)
        return found

    def concept(self) -> Resource:
        """Return a CodeableConcept, sometimes of text alone."""
        if self.random.random() < 0.1:
            return {"text": self.random.choice(NAMES)}
        found: Resource = {"coding": some(self.random, self.coding)}
        if self.random.random() < 0.4:
            found["text"] = self.random.choice(NAMES)
        return found

    def identifier(self) -> Resource:
        """Return an Identifier, sometimes with a type, a system, a value."""
        found = {"value": self.random.choice(CODES)}
        if system := self.random.choice(SYSTEMS):
            found["system"] = system
        if self.random.random() < 0.1:
            del found["value"]
        return found | self.maybe({"type": self.concept}, 0.4) or {"use": "usual"}

    def reference(self, *types: str) -> Resource:
        """Return a Reference in any of its forms."""
        place = f"{self.random.choice(types)}/g{self.random.randint(0, 19)}"
        text = self.random.choice(
            [place] * 5
            + [
                f"{self.base}/{place}",
                f"http://elsewhere.example/fhir/{place}",
                f"{place}/_history/{self.random.randint(1, 2)}",
                "#inside",
                "urn:uuid:0a8ae3e6-7b3c-4e9b-8d38-3a4ad8d2a0a1",
                "",
            ]
        )
        found: Resource = {"reference": text} if text else {"display": "somebody"}
        return found | self.maybe({"identifier": self.identifier}, 0.2)

    def name(self) -> Resource:
        """Return a HumanName."""
        names = self.random.choice
        return self.maybe(
            {
                "family": lambda: names(NAMES),
                "given": lambda: some(self.random, lambda: names(NAMES), 2),
                "text": lambda: names(NAMES),
            }
        ) or {"use": "official"}

    def address(self) -> Resource:
        """Return an Address."""
        names = self.random.choice
        found = {"line": [names(NAMES)], "city": names(NAMES), "country": names(NAMES)}
        return found | self.maybe({"postalCode": lambda: names(CODES), "use": lambda: "home"})

    def url(self) -> str:
        """Return a canonical url, some of them beginnings of others."""
        return self.random.choice(
            [
                *("http://x.example/fhir", "http://x.example/fhir/ValueSet/a", "urn:oid:1.2.3.4"),
                *("http://x.example/fhir/ValueSet/A", "http://x.example/fhir/ValueSet/a%20b"),
                *("http://x.example/fhir/ValueSet", "https://x.example/fhir/ValueSet/a"),
            ]
        )

    def canonical(self) -> str:
        """Return a url with or without a version."""
        return self.url() + self.random.choice(["", "", "|1", "|1.2", "|1.2.3"])


def resources(seed: int, base: str) -> Iterator[Resource]:
    """Yield some 200 resources of ten types, ``[type]/g0`` and so on."""
    make = Maker(Random(seed), base)
    makers: dict[str, Callable[[], Resource]] = {
        "Patient": lambda: _patient(make),
        "Observation": lambda: _observation(make),
        "Organization": lambda: make.maybe(
            {
                "name": lambda: make.random.choice(NAMES),
                "alias": lambda: some(make.random, lambda: make.random.choice(NAMES)),
                "identifier": lambda: some(make.random, make.identifier),
                "type": lambda: some(make.random, make.concept),
                "address": lambda: some(make.random, make.address),
                "partOf": lambda: make.reference("Organization"),
            }
        ),
        "RiskAssessment": lambda: _risk(make),
        "Encounter": lambda: make.maybe(
            {
                "period": make.period,
                "subject": lambda: make.reference("Patient", "Group"),
                "type": lambda: some(make.random, make.concept),
                "length": make.quantity,
                "class": make.coding,
                "serviceProvider": lambda: make.reference("Organization"),
                "partOf": lambda: make.reference("Encounter"),
            }
        ),
        "CarePlan": lambda: _plan(make),
        "ValueSet": lambda: _definition(make),
        "Library": lambda: _definition(make),
        "Questionnaire": lambda: _definition(make),
        "QuestionnaireResponse": lambda: make.maybe(
            {
                "questionnaire": make.canonical,
                "authored": make.moment,
                "subject": lambda: make.reference("Patient", "Organization"),
            }
        ),
        "Goal": lambda: make.maybe(
            {
                "startDate": make.date,
                "target": lambda: some(make.random, lambda: make.maybe({"dueDate": make.date}), 2),
                "subject": lambda: make.reference("Patient", "Organization"),
            }
        ),
    }
    for type, one in makers.items():
        for place in range(40 if type in ("Patient", "Observation") else 20):
            found = {name: value for name, value in one().items() if value not in ([], [{}], {})}
            yield {"resourceType": type, "id": f"g{place}", **found}


def _patient(make: Maker) -> Resource:
    return make.maybe(
        {
            "name": lambda: some(make.random, make.name, 2),
            "birthDate": make.date,
            "gender": lambda: make.random.choice(["male", "female", "other", "unknown"]),
            "active": lambda: make.random.random() < 0.5,
            "identifier": lambda: some(make.random, make.identifier),
            "address": lambda: some(make.random, make.address),
            "telecom": lambda: [{"system": "phone", "value": make.random.choice(CODES)}],
            "generalPractitioner": lambda: some(
                make.random, lambda: make.reference("Organization", "Practitioner")
            ),
            "managingOrganization": lambda: make.reference("Organization"),
            "deceasedBoolean": lambda: make.random.random() < 0.5,
        }
    )


def _observation(make: Maker) -> Resource:
    values: dict[str, Callable[[], Any]] = {
        "valueQuantity": make.quantity,
        "valueCodeableConcept": make.concept,
        "valueString": lambda: make.random.choice(NAMES),
        "valueDateTime": make.moment,
        "valuePeriod": make.period,
    }
    times: dict[str, Callable[[], Any]] = {
        "effectiveDateTime": make.moment,
        "effectivePeriod": make.period,
        "effectiveInstant": lambda: make.random.choice(MOMENTS),
        "effectiveTiming": lambda: {"event": some(make.random, make.moment)},
    }

    def component() -> Resource:
        kind = make.random.choice(["valueQuantity", "valueCodeableConcept"])
        return {"code": make.concept(), kind: values[kind]()}

    found = make.maybe(
        {
            "code": make.concept,
            "category": lambda: some(make.random, make.concept),
            "status": lambda: make.random.choice(["final", "amended", "preliminary"]),
            "subject": lambda: make.reference("Patient", "Group"),
            "component": lambda: some(make.random, component),
        }
    )
    for form in (values, times):
        if make.random.random() < 0.8:
            name = make.random.choice(list(form))
            found[name] = form[name]()
    return found


def _risk(make: Maker) -> Resource:
    def prediction() -> Resource:
        number = {"probabilityDecimal": make.decimal()}
        return make.random.choice([number, number, {"probabilityRange": make.range()}])

    return make.maybe(
        {
            "prediction": lambda: some(make.random, prediction),
            "subject": lambda: make.reference("Patient", "Group"),
            "occurrenceDateTime": make.moment,
            "code": make.concept,
        }
    )


def _plan(make: Maker) -> Resource:
    def detail() -> Resource:
        name, value = make.random.choice(
            [
                ("scheduledPeriod", make.period()),
                ("scheduledTiming", {"event": some(make.random, make.moment)}),
                ("scheduledTiming", {"repeat": {"boundsPeriod": make.period()}}),
                ("scheduledString", make.random.choice([make.date(), "every day"])),
            ]
        )
        return {"detail": {name: value}}

    return make.maybe(
        {
            "activity": lambda: some(make.random, detail),
            "period": make.period,
            "subject": lambda: make.reference("Patient", "Group"),
            "category": lambda: some(make.random, make.concept),
            "instantiatesCanonical": lambda: some(make.random, make.canonical),
        }
    )


def _definition(make: Maker) -> Resource:
    return make.maybe(
        {
            "url": make.url,
            "version": lambda: make.random.choice(["1", "1.2", "1.2.3", "A"]),
            "name": lambda: make.random.choice(NAMES),
            "title": lambda: make.random.choice(NAMES),
            "date": make.moment,
            "effectivePeriod": make.period,
            "useContext": lambda: [
                {"code": make.coding(), make.random.choice(["valueQuantity"]): make.quantity()}
            ],
        }
    )
