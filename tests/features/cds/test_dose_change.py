"""design/cds.md, section 6: a dose is changed where exactly one value solves it."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.features.cds.dose_change import changed
from tests.conformance.cds_hooks.conftest import bundle, full, hook, order

SIGN = "/cds-services/drug-safety-sign"


def dosed(value: Any, times: int = 1, unit: str = "mg", **more: Any) -> dict[str, Any]:
    quantity = {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    timing = {"repeat": {"frequency": times, "period": 1, "periodUnit": "d"}}
    return {"timing": timing, "doseAndRate": [{"doseQuantity": quantity}], **more}


def paracetamol(*instructions: dict[str, Any], **more: Any) -> dict[str, Any]:
    note = {"note": [{"text": "kept"}], "unknown": {"also": "kept"}}
    return order("a1", "paracetamol", "draft", dosageInstruction=[*instructions], **note, **more)


async def updates(hooks: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is suggested as an update, as action and label."""
    cards = (await hooks.post(SIGN, json=body)).json()["cards"]
    return [
        {"label": suggestion["label"], **action, "card": card}
        for card in cards
        for suggestion in card.get("suggestions", ())
        for action in suggestion["actions"]
        if action["type"] == "update"
    ]


async def test_the_most_that_is_right_is_suggested(hooks: httpx.AsyncClient) -> None:
    """The whole draft with one value changed, beside its removal; the changed draft is quiet."""
    draft = paracetamol(dosed(2, 4, "g"))
    (found,) = await updates(hooks, full(draft))
    expected = paracetamol(dosed(1, 4, "g"))

    assert found["label"] == "Change to 1 g"
    assert found["resource"] == expected
    assert found["card"]["selectionBehavior"] == "at-most-one"
    assert [one["isRecommended"] for one in found["card"]["suggestions"]] == [False, False]
    again = (await hooks.post(SIGN, json=full(found["resource"]))).json()["cards"]
    assert [one for one in again if one["indicator"] != "info"] == []


@pytest.mark.parametrize(
    "draft",
    [
        paracetamol(dosed(2, 7, "g")),  # 4 g by 7 is no amount
        paracetamol(dosed(2, 4, "g", text="2 g four times a day")),
        paracetamol(dosed(2, 4, "g", patientInstruction="Take 2 g")),
        paracetamol(dosed(2, 2, "g"), dosed(2, 2, "g")),
        paracetamol(dosed(2, 4, "g", maxDosePerPeriod={"numerator": {"value": 7, "code": "g"}})),
        paracetamol(
            {
                **dosed(2, 4, "g"),
                "doseAndRate": [{"doseRange": {"high": {"value": 2, "code": "g"}}}],
            }
        ),
        order("a1", "methotrexate", "draft", dosageInstruction=[dosed(10)]),  # weekly, not less
        order("a1", "warfarin", "draft", dosageInstruction=[dosed(100)]),  # by INR
    ],
)
async def test_what_one_value_does_not_solve_is_not_suggested(
    hooks: httpx.AsyncClient, draft: dict[str, Any]
) -> None:
    """Words that would contradict it, several doses, odd amounts, other faults."""
    body = full(draft)
    if "warfarin" in str(draft):
        body["prefetch"]["medications"] = bundle()

    assert await updates(hooks, body) == []
    assert (await hooks.post(SIGN, json=body)).json()["cards"]


async def test_what_others_add_to_is_not_suggested(hooks: httpx.AsyncClient) -> None:
    """Two orders are too much together: which one to lower is the prescriber's choice."""
    other = {**paracetamol(dosed(1, 3, "g")), "id": "a2"}
    prefetch = {"allergies": None, "medications": None}

    assert await updates(hooks, hook(paracetamol(dosed(1, 3, "g")), other, prefetch=prefetch)) == []


@pytest.mark.parametrize(
    ("value", "unit", "scale", "expected"),
    [
        (8, "{tbl}", "1/2", "4"),
        (3, "{tbl}", "1/2", None),
        (3, "mg", "1/2", "1.5"),
        (Decimal("0.5"), "g", "1/2", "0.25"),
        (1000, "mg", "1/3", None),
        (1, "mg", "1/8", "0.125"),
        (1, "mg", "1/32", None),
        (1, "mg", "0", None),
        ("1", "mg", "1/2", None),
    ],
)
def test_only_amounts_that_are_written(value: Any, unit: str, scale: str, expected: Any) -> None:
    """Whole tablets, few digits, exactly."""
    found = changed(paracetamol(dosed(value, 1, unit)), Fraction(scale))
    quantity: Any = None if found is None else found.order["dosageInstruction"][0]["doseAndRate"]

    assert (None if quantity is None else str(quantity[0]["doseQuantity"]["value"])) == expected


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda of: (
            st.lists(of)
            | st.dictionaries(st.sampled_from(("doseAndRate", "doseQuantity", "value", "unit")), of)
        ),
    ),
    st.fractions(0, 1),
)
def test_any_dosage_is_changed_or_left(dosage: Any, scale: Fraction) -> None:
    """Nothing that a client may write breaks it, and the draft itself stays as it is."""
    draft = {"resourceType": "MedicationRequest", "id": "1", "dosageInstruction": dosage}
    before = repr(draft)
    changed(draft, scale)

    assert repr(draft) == before
