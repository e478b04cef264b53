"""https://cds-hooks.hl7.org/2.0/: what a CDS service has to do, one test for each statement.

The numbers are those of design/cds.md, section 16.
"""

import base64
import json
import re
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from fhir_server.app import Server
from tests.conformance.cds_hooks.conftest import EC, ISSUER, OTHER, RSA, bundle, full, hook, order

SIGN = "/cds-services/drug-safety-sign"
AUDIENCE = f"https://cds.example.org{SIGN}"
NAPROXEN = order("n1", "naproxen", "draft")
VIAGRA = order("s1", "sildenafil", "draft")
NITRATE = order("i1", "isosorbide mononitrate", "draft")


def token(
    key: Any = EC,
    header: dict[str, Any] | None = None,
    **claims: Any,
) -> dict[str, str]:
    """Return the header of a call that is signed."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 120,
        "iat": now,
        "jti": str(uuid4()),
        **claims,
    }
    head = {"alg": "ES384", "typ": "JWT", "kid": "ec1", **(header or {})}
    algorithms = ["ES384", "RS384", "HS256", "ES256"]
    made = jwt.encode(
        head, {k: v for k, v in said.items() if v is not None}, key, algorithms=algorithms
    )
    return {"Authorization": f"Bearer {made}"}


async def cards_of(hooks: httpx.AsyncClient, body: dict[str, Any], path: str = SIGN) -> list[Any]:
    response = await hooks.post(path, json=body)
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["cards"]
    return found


async def test_s01_discovery_answers_with_services(hooks: httpx.AsyncClient) -> None:
    """S-01: GET /cds-services is 200 and an object with an array ``services``."""
    response = await hooks.get("/cds-services")

    assert response.status_code == 200
    assert isinstance(response.json()["services"], list)


async def test_s02_s03_s04_entries_say_what_they_need(hooks: httpx.AsyncClient) -> None:
    """S-02, S-03, S-04: hook, id, description, title; prefetch with allowed tokens and queries."""
    entries = (await hooks.get("/cds-services")).json()["services"]

    assert len(entries) == 8
    for entry in entries:
        assert all(isinstance(entry[name], str) for name in ("hook", "id", "description", "title"))
        assert "no pharmacist has reviewed" in entry["description"]
        for template in entry["prefetch"].values():
            assert set(re.findall(r"\{\{(.*?)\}\}", template)) == {"context.patientId"}
            assert re.fullmatch(
                r"\w+(/\{\{context\.patientId\}\}|\?patient=\{\{context\.patientId\}\}"
                r"(&status=active|&code=[\w:/.|-]+&_sort=-date&_count=1)?)",
                template,
            )


async def test_s05_one_id_for_each_hook(hooks: httpx.AsyncClient) -> None:
    """S-05: no id is used for several hooks."""
    entries = (await hooks.get("/cds-services")).json()["services"]

    assert len({entry["id"] for entry in entries}) == len(entries)


def empties(of: Any, place: str = "") -> list[str]:
    """Return the places of null, empty text, array and object."""
    if of is None or of in ("", [], {}):
        return [place]
    if isinstance(of, dict):
        return [found for name, value in of.items() for found in empties(value, f"{place}.{name}")]
    if isinstance(of, list):
        return [found for n, value in enumerate(of) for found in empties(value, f"{place}[{n}]")]
    return []


async def test_s06_nothing_is_empty(hooks: httpx.AsyncClient) -> None:
    """S-06: no null, empty text, array or object but ``cards``."""
    answers = [
        (await hooks.get("/cds-services")).json(),
        (await hooks.post(SIGN, json=full(NAPROXEN, VIAGRA, NITRATE))).json(),
        (await hooks.post(SIGN, json=full(order("x", "Herbal mixture", "draft")))).json(),
    ]

    assert [empties(one) for one in answers] == [[], [], []]


async def test_s07_json_only(hooks: httpx.AsyncClient) -> None:
    """S-07: application/json, whatever is asked for."""
    response = await hooks.post(SIGN, json=full(NAPROXEN), headers={"Accept": "application/xml"})

    assert response.headers["content-type"].startswith("application/json")


async def test_s08_production_names_https(closed_server: Server) -> None:
    """S-08: in production services are reached by https: a client's FHIR server is not http."""
    assert closed_server.context.settings.base_url.startswith("https://")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"hook": None}, 400),
        ({"hookInstance": None}, 400),
        ({"hookInstance": 7}, 400),
        ({"context": None}, 400),
        ({"context": {"userId": "Practitioner/1", "draftOrders": bundle()}}, 400),
        ({"hook": "order-select"}, 400),
        ({"fhirAuthorization": {"access_token": "x"}}, 400),
    ],
)
async def test_s10_what_cannot_be_answered(
    hooks: httpx.AsyncClient, change: dict[str, Any], status: int
) -> None:
    """S-10: 400 for what is missing, the wrong hook, or authorization without a server."""
    body = {k: v for k, v in {**full(NAPROXEN), **change}.items() if v is not None}
    response = await hooks.post(SIGN, json=body)

    assert response.status_code == status
    assert response.json()["resourceType"] == "OperationOutcome"


async def test_s10_unknown_services_and_bodies(hooks: httpx.AsyncClient) -> None:
    """S-10: 404 for an unknown id, 400 for no JSON, 413 for too much, 405 for another method."""
    assert (await hooks.post("/cds-services/none", json=full(NAPROXEN))).status_code == 404
    assert (await hooks.post("/cds-services/a/b", json={})).status_code == 404
    assert (await hooks.post(SIGN, content=b"{")).status_code == 400
    assert (await hooks.post(SIGN, content=b"[]")).status_code == 400
    assert (await hooks.post(SIGN, content=b" " * 1_048_577)).status_code == 413
    assert (await hooks.get(SIGN)).status_code == 405
    assert (await hooks.post("/cds-services")).status_code == 405


async def test_s11_nothing_to_say(hooks: httpx.AsyncClient) -> None:
    """S-11: 200 and no cards."""
    response = await hooks.post(
        "/cds-services/drug-safety-select",
        json={
            **full(order("z", "azithromycin", "draft")),
            "hook": "order-select",
            "context": {
                **full(order("z", "azithromycin", "draft"))["context"],
                "selections": ["MedicationRequest/z"],
            },
            "prefetch": {"medications": None, "allergies": None},
        },
    )

    assert (response.status_code, response.json()) == (200, {"cards": []})


async def test_s12_without_data(hooks: httpx.AsyncClient) -> None:
    """S-12: 412 with an OperationOutcome that names the keys."""
    response = await hooks.post(SIGN, json=hook(NAPROXEN))

    assert response.status_code == 412
    assert "medications and allergies" in response.json()["issue"][0]["diagnostics"]


async def test_s13_from_the_server_or_from_prefetch(hooks: httpx.AsyncClient) -> None:
    """S-13: an OperationOutcome in prefetch is no data; what is missing is read from our store."""
    failed = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "timeout"}],
    }
    base = "http://cds.example.org/fhir"
    amoxicillin = order("m1", "amoxicillin", "draft")
    by_server = await cards_of(hooks, hook(NAPROXEN, amoxicillin, fhirServer=base))
    by_failed = await cards_of(
        hooks, hook(NAPROXEN, amoxicillin, fhirServer=base, prefetch={"medications": failed})
    )

    said = [[card["summary"] for card in cards] for cards in (by_server, by_failed)]
    assert said[0] == said[1]
    assert any("naproxen with warfarin" in one for one in said[0])
    assert any("amoxicillin: recorded allergy to Penicillin" in one for one in said[0])


async def test_s14_the_access_token_is_not_kept(
    hooks: httpx.AsyncClient, open_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """S-14: the token is neither stored nor logged."""
    secret = f"secret-{uuid4()}"
    authorization = {"access_token": secret, "token_type": "Bearer", "expires_in": 300}
    body = full(
        NAPROXEN, fhirServer="https://elsewhere.example.org", fhirAuthorization=authorization
    )
    await cards_of(hooks, body)
    await open_server.registry.routes["/cds-services"].recorder.written()

    kept = await open_server.database["cds_calls"].find({}).to_list()
    assert kept
    assert secret not in str(kept) + caplog.text


async def test_s15_no_other_server_is_called(hooks: httpx.AsyncClient) -> None:
    """S-15: a server that nobody listed is never asked; its data are unknown."""
    response = await hooks.post(SIGN, json=hook(NAPROXEN, fhirServer="http://169.254.169.254/fhir"))

    assert response.status_code == 412


async def test_s16_unknown_fields(hooks: httpx.AsyncClient) -> None:
    """S-16: unknown fields and extensions are ignored."""
    cards = await cards_of(hooks, full(NAPROXEN, unknown={"a": 1}, extension={"x": [1]}))

    assert cards[0]["indicator"] == "warning"


async def test_s20_to_s26_the_shape_of_cards(hooks: httpx.AsyncClient) -> None:
    """S-20 to S-26: summary, indicator, source, uuid, selection behaviour, suggestions, actions."""
    long = order("l1", "naproxen " + "of a very long name " * 9, "draft")
    cards = await cards_of(hooks, full(long, VIAGRA, NITRATE, order("x", "Herbs <b>&", "draft")))

    assert len({card["uuid"] for card in cards}) == len(cards) >= 3
    for card in cards:
        assert 0 < len(card["summary"]) < 140
        assert card["indicator"] in ("info", "warning", "critical")
        assert card["source"]["label"]
        assert {"system", "code"} <= set(card["source"]["topic"])
        behaviours = ("any", "at-most-one") if "suggestions" in card else (None,)
        assert card.get("selectionBehavior") in behaviours
        suggestions = card.get("suggestions", [])
        assert sum(one["isRecommended"] for one in suggestions) <= 1
        for one in suggestions:
            assert one["label"]
            assert one["uuid"]
            assert one["actions"]


async def test_s23_names_from_outside_are_text(hooks: httpx.AsyncClient) -> None:
    """S-23: Markdown in a name stays what it is: no element, no link."""
    name = "[x](https://evil.example.org) <img src=x onerror=alert(1)> **bold**"
    (card,) = await cards_of(hooks, full(order("x", name, "draft")))

    assert "\\[x\\]" in card["detail"]
    assert "<img" not in card["detail"].replace("\\<", "")
    assert "://" not in card["detail"]


async def test_s27_actions_name_the_draft(hooks: httpx.AsyncClient) -> None:
    """S-27: each action is described; delete names the resource."""
    (card, *_) = await cards_of(hooks, full(NAPROXEN))

    (action,) = card["suggestions"][0]["actions"]
    assert action["type"] == "delete"
    assert action["resourceId"] == "MedicationRequest/n1"
    assert action["description"]


async def test_s28_override_reasons_are_codings(hooks: httpx.AsyncClient) -> None:
    """S-28: reasons have code, system and display."""
    (card, *_) = await cards_of(hooks, full(NAPROXEN))

    assert card["overrideReasons"]
    assert all(set(one) == {"code", "system", "display"} for one in card["overrideReasons"])


async def test_s29_s30_no_links_and_no_system_actions_by_default(hooks: httpx.AsyncClient) -> None:
    """S-29, S-30: links only where a site has them; ``systemActions`` is left out."""
    response = await hooks.post(SIGN, json=full(NAPROXEN))

    assert set(response.json()) == {"cards"}
    assert "links" not in response.json()["cards"][0]


async def test_s40_s41_s42_feedback(hooks: httpx.AsyncClient, open_server: Server) -> None:
    """S-40, S-41, S-42: feedback is checked, taken in batches, counted once, and never expected."""
    (card, *_) = await cards_of(hooks, full(NAPROXEN))
    item = {
        "card": card["uuid"],
        "outcome": "overridden",
        "overrideReason": {"reason": card["overrideReasons"][0], "userComment": "INR on Thursday"},
        "outcomeTimestamp": "2026-11-22T10:05:31Z",
    }
    accepted = {
        "card": card["uuid"],
        "outcome": "accepted",
        "acceptedSuggestions": [{"id": card["suggestions"][0]["uuid"]}],
        "outcomeTimestamp": "2026-11-22T10:05:32Z",
    }
    for body in ({"feedback": [item, accepted]}, {"feedback": [item]}):
        assert (await hooks.post(f"{SIGN}/feedback", json=body)).status_code == 200
    bad = {"feedback": [{**item, "outcomeTimestamp": "yesterday"}]}
    assert (await hooks.post(f"{SIGN}/feedback", json=bad)).status_code == 400

    kept = await open_server.database["cds_feedback"].count_documents({"card": card["uuid"]})
    assert kept == 2


async def test_s50_a_good_token(guarded: httpx.AsyncClient) -> None:
    """S-50: a token of a registered client is taken."""
    response = await guarded.post(SIGN, json=full(NAPROXEN), headers=token())

    assert response.status_code == 200


REFUSED: dict[str, Any] = {
    "expired": {"exp": 1},
    "lives too long": {"exp": int(time.time()) + 86_400},
    "issued in the future": {"iat": int(time.time()) + 3_600},
    "no exp": {"exp": None},
    "no jti": {"jti": None},
    "aud of another service": {"aud": AUDIENCE + "x"},
    "aud of the server": {"aud": "https://cds.example.org"},
    "unknown issuer": {"iss": "https://evil.example.org"},
    "another client's issuer": {"iss": OTHER},
    "unknown kid": {"header": {"kid": "ec9"}},
    "no kid": {"header": {"kid": ""}},
    "other type": {"header": {"typ": "at+jwt"}},
    "critical": {"header": {"crit": ["exp"]}},
    "another key": {"key": ECKey.generate_key("P-384", {"kid": "ec1"}, private=True)},
    "mac": {
        "key": OctKey.import_key("x" * 48),
        "header": {"alg": "HS256"},
    },
    "other curve": {
        "key": ECKey.generate_key("P-256", {"kid": "ec1"}, private=True),
        "header": {"alg": "ES256"},
    },
}


@pytest.mark.parametrize("what", REFUSED)
async def test_s51_s52_s53_s55_s56_bad_tokens(guarded: httpx.AsyncClient, what: str) -> None:
    """S-51, S-52, S-53, S-55, S-56: every bad token is the same 401, which does not say why."""
    try:
        headers = token(**REFUSED[what])
    except Exception:  # noqa: BLE001 - the library does not sign this; sign nothing then
        headers = {"Authorization": "Bearer a.b.c"}
    response = await guarded.post(SIGN, json=full(NAPROXEN), headers=headers)
    bare = await guarded.post(SIGN, json=full(NAPROXEN))

    assert response.status_code == bare.status_code == 401
    assert response.content == bare.content


async def test_s51_none_is_refused_and_rs384_is_taken(guarded: httpx.AsyncClient) -> None:
    """S-51: ``none`` is no signature; RS384 of a client that is registered with it is one."""

    def part(of: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(of).encode()).decode().rstrip("=")

    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "iat": now, "jti": "1"}
    unsigned = f"{part({'alg': 'none', 'typ': 'JWT', 'kid': 'ec1'})}.{part(claims)}."
    rsa = token(RSA, {"alg": "RS384", "kid": "rsa1"}, iss=OTHER, tenant="north")
    stranger = token(RSA, {"alg": "RS384", "kid": "rsa1"}, iss=OTHER, tenant="south")
    said = [
        (await guarded.post(SIGN, json=full(NAPROXEN), headers=headers)).status_code
        for headers in ({"Authorization": f"Bearer {unsigned}"}, rsa, stranger)
    ]

    assert said == [401, 200, 401]


async def test_s54_a_token_counts_once(guarded: httpx.AsyncClient) -> None:
    """S-54: a token that was used is refused, on every process of the server."""
    headers = token()
    said = [
        (await guarded.post(SIGN, json=full(NAPROXEN), headers=headers)).status_code
        for _ in range(2)
    ]

    assert said == [200, 401]


async def test_s15_services_of_a_client(guarded: httpx.AsyncClient) -> None:
    """S-15: a service that is not open to the client is 403, and not in its discovery."""
    path = "/cds-services/drug-safety-view"
    headers = token(aud=f"https://cds.example.org{path}")
    found = await guarded.get(
        "/cds-services", headers=token(aud="https://cds.example.org/cds-services")
    )

    assert (await guarded.post(path, json=full(NAPROXEN), headers=headers)).status_code == 403
    assert [one["id"] for one in found.json()["services"]] == ["drug-safety-sign"]


async def test_s57_the_log_has_no_token(
    guarded: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """S-57: why a token is refused is logged, the token is not."""
    headers = token(exp=1)
    with caplog.at_level("INFO", "fhir_server.cds"):
        await guarded.post(SIGN, json=full(NAPROXEN), headers=headers)

    assert "expired" in caplog.text
    assert headers["Authorization"].split(".")[2] not in caplog.text


async def test_s58_browsers(hooks: httpx.AsyncClient, guarded: httpx.AsyncClient) -> None:
    """S-58: preflights are answered for discovery, services and feedback, to listed origins."""
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in ("/cds-services", SIGN, f"{SIGN}/feedback"):
        good = await hooks.options(
            path, headers={"Origin": "https://sandbox.cds-hooks.org", **asked}
        )
        assert good.status_code == 204
        assert good.headers["access-control-allow-origin"] in ("*", "https://sandbox.cds-hooks.org")
        assert "Authorization" in good.headers["access-control-allow-headers"]
    mine = await guarded.options(SIGN, headers={"Origin": "https://ehr.example.org", **asked})
    evil = await guarded.options(SIGN, headers={"Origin": "https://evil.example.org", **asked})

    assert mine.headers["access-control-allow-origin"] == "https://ehr.example.org"
    assert "access-control-allow-origin" not in evil.headers
