# https://hl7.org/fhir/R4/search.html#modifiers
""":in, :not-in, :above and :below with a code system that lies in the database."""

from fhir_server.app import Server
from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.interactions.asking import json_of
from tests.terminology.systems import PLANTS, kept, loaded

CASES = [
    (f"code:below={PLANTS}|tree", {"oak", "rose"}),
    (f"code:below={PLANTS}|flower", {"rose"}),
    (f"code:above={PLANTS}|oak", {"oak", "plant"}),
    ("code:in=http://x/trees", {"oak", "rose"}),
    ("code:not-in=http://x/trees", {"plant"}),
    (f"code:in={PLANTS}?fhir_vs", {"oak", "plant", "rose"}),
]


async def test_modifiers(server: Server, fhir: Fhir) -> None:
    """The codes are looked up in the hierarchy of the large system; a wrong one is refused."""
    await loaded(server, fhir)
    part = {"system": PLANTS, "filter": [{"property": "concept", "op": "is-a", "value": "tree"}]}
    await fhir(
        Request(
            "update",
            "ValueSet",
            "trees",
            body=kept("ValueSet", "trees", compose={"include": [part]}),
        )
    )
    for code in ("oak", "rose", "plant"):
        coded = {"coding": [{"system": PLANTS, "code": code}]}
        subject = {"reference": "Patient/p"}
        body = {"resourceType": "Condition", "id": code, "code": coded, "subject": subject}
        assert (await fhir(Request("update", "Condition", code, body=body))).status == 201

    for query, expected in CASES:
        name, _, value = query.partition("=")
        answer = await fhir(Request("search-type", "Condition", parameters=((name, value),)))
        assert answer.status == 200, answer.body
        assert {one["resource"]["id"] for one in json_of(answer).get("entry", ())} == expected
    wrong = (("code:below", f"{PLANTS}|elm"),)
    assert (await fhir(Request("search-type", "Condition", parameters=wrong))).status == 400
