"""IN1 to Coverage, FT1 to ChargeItem.

HL7 v2.5.1, 6.5.1 and 6.5.6; design/hl7v2.md, section 13.
"""

from typing import Any

from adapters.hl7v2.codes import concept
from adapters.hl7v2.datatypes import cx, date_time, positive
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.quantities import decimal_of, money
from adapters.hl7v2.references import xcn, xon
from adapters.hl7v2.rows import Row, Table
from adapters.hl7v2.scene import Scene

Json = dict[str, Any]

SUBSCRIBER_ID = "http://hl7.org/fhir/5.0/StructureDefinition/extension-subscriberId"
COVERAGE_CLASS = "http://terminology.hl7.org/CodeSystem/coverage-class"


def _number(value: Value, scene: Scene) -> str | None:
    return value[1] or None


def _order(value: Value, scene: Scene) -> int | None:
    return positive(value, scene)


INSURANCE = Table(
    "Coverage",
    "IN1",
    [
        Row("IN1-4*", "payor[]", xon),
        Row("IN1-11", "policyHolder", xon),
        Row("IN1-12", "period.start", date_time),
        Row("IN1-13", "period.end", date_time),
        Row("IN1-15", "type", concept("PlanId", "0086")),
        Row("IN1-17", "relationship", concept("Relationship", "0063")),
        Row("IN1-22", "order", _order),
        Row("IN1-36*", "identifier[+]", cx),
        Row("IN1-49", "subscriberId", _number),
        Row("IN1-36", "subscriberId", _number, unless="IN1-49"),
        Row("IN1-49", f"extension[{SUBSCRIBER_ID}]", cx, "valueIdentifier"),
    ],
)


def classes(in1: Segment, scene: Scene) -> list[Json]:
    """Return Coverage.class: the plan of IN1-2, the group of IN1-8 and 9."""
    made = []
    plan, group = in1.value(2), in1.value(8)
    group_name = in1.text(9)
    for kind, value, name in (
        ("plan", plan[1] if plan else "", plan[2] if plan else ""),
        ("group", group[1] if group else group_name, group_name),
    ):
        if value or name:
            member: Json = {
                "type": {"coding": [{"system": COVERAGE_CLASS, "code": kind}]},
                "value": value or name,
            }
            if name:
                member["name"] = name
            made.append(member)
    return made


def payor_number(in1: Segment, scene: Scene) -> Json | None:
    """Return the payor of IN1-3, where IN1-4 has no name."""
    value = in1.value(3)
    number = cx(value, scene) if value else None
    return {"type": "Organization", "identifier": number} if number else None


def _quantity(value: Value, scene: Scene) -> Json | None:
    number = decimal_of(value[1])
    return {"value": number} if number is not None else None


def _procedure(value: Value, scene: Scene) -> Json | None:
    return concept()(value, scene)


def _performer(value: Value, scene: Scene) -> Json | None:
    actor = xcn(value, scene)
    return {"actor": actor} if actor else None


def _when(value: Value, scene: Scene) -> str | None:
    return date_time(value.subs(1), scene)


CHARGE = Table(
    "ChargeItem",
    "FT1",
    [
        Row("FT1-2", "identifier[+]", cx),
        Row("FT1-4", "occurrenceDateTime", _when),
        Row("FT1-5", "enteredDate", date_time),
        Row("FT1-25", "code", _procedure),
        Row("FT1-7", "code", _procedure, unless="FT1-25"),
        Row("FT1-10", "quantity", _quantity),
        Row("FT1-12", "priceOverride", money),
        Row("FT1-11", "priceOverride", money, unless="FT1-12"),
        Row("FT1-13", "performingOrganization", xon),
        Row("FT1-19*", "reason*", concept()),
        Row("FT1-20*", "performer[]", _performer),
        Row("FT1-21*", "performer[]", _performer),
    ],
)
