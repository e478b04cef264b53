"""What was found in other servers, each as a check that this one passes.

A check asserts twice: what is allowed works, and what leaked elsewhere does not come.
``test_advisories.py`` runs them; ``test_mutants.py`` runs them with their guard taken out, and each
has to fail then.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from fhir_server.app import Server
from fhir_server.r4.json import decode
from fhir_server.security.compartments import UNIVERSAL
from fhir_server.security.principal import NOBODY, Principal
from fhir_server.security.scopes import scopes_of
from tests.security.advisories.world import (
    A,
    B,
    asked,
    names,
    observation,
    patient,
    searched,
    stored,
)

Resource = dict[str, object]


async def a_missing_claim_is_not_everything(server: Server) -> None:
    """MSRC-128308: without a patient or a fhirUser claim the request was unrestricted."""
    for scopes in ("patient/*.rs", "user/*.rs"):
        unknown = Principal("user", "x", "app", scopes_of(scopes))
        for type in ("Patient", "Observation"):
            read = await asked(server, unknown, "read", type, "a")
            found = await asked(server, unknown, "search-type", type)
            assert read.status in (403, 404)
            assert found.status == 403 or not names(decode(found.body))


async def includes_and_reads_stay_in_the_compartment(server: Server) -> None:
    """Microsoft PR 5683 and issue 2934: includes and direct reads left it."""
    shared = {"reference": "Patient/b"}
    await stored(
        server,
        observation("of-b", "b"),
        observation("of-a", "a", hasMember=[{"reference": "Observation/of-b"}], focus=[shared]),
    )
    found = await searched(
        server, A, "Observation", "_include=Observation:has-member&_include=Observation:focus"
    )
    assert names(found) == {"Observation/of-a"}
    back = await searched(
        server, A, "Patient", "_revinclude=Observation:focus&_revinclude=Observation:subject"
    )
    assert names(back) == {"Patient/a", "Observation/of-a"}
    assert (await asked(server, A, "read", "Observation", "of-a")).status == 200
    assert (await asked(server, A, "read", "Observation", "of-b")).status == 404


async def chains_ask_nothing_of_what_is_hidden(server: Server) -> None:
    """Medplum PR 9973, HAPI 6065: values of hidden resources could be tried out by chains."""
    await stored(
        server,
        observation("of-a", "a", focus=[{"reference": "Patient/b"}, {"reference": "Patient/a"}]),
        observation("of-b", "b", focus=[{"reference": "Patient/a"}]),
    )
    for query, count in (
        ("focus:Patient.family=Familya", 1),
        ("focus:Patient.family=Familyb", 0),
        ("focus:Patient.family:missing=true", 0),
    ):
        assert (await searched(server, A, "Observation", query)).get("total") == count, query
    hidden = "_has:Observation:focus:_id=of-b"
    assert names(await searched(server, A, "Patient", hidden)) == set()
    shown = "_has:Observation:focus:_id=of-a"
    assert names(await searched(server, A, "Patient", shown)) == {"Patient/a"}


async def every_type_has_the_filter(server: Server) -> None:
    """CVE-2026-24487: one type, CareTeam, forgot it. Each type, by each way of reading."""
    database = server.database
    for type in server.context.definitions.resource_types:
        for id in "ab":
            place = {"_id": f"x{id}", "version": 1, "compartments": [f"Patient/{id}"], "keys": {}}
            body = {"resourceType": type, "id": f"x{id}"}
            row = {**place, "labels": [], "last_updated": datetime(2026, 1, 1, tzinfo=UTC)}
            text = f'{{"resourceType":"{type}","id":"x{id}"}}'.encode()
            row |= {"interaction": "create", "resource": body, "json": text}
            await database[type].replace_one({"_id": f"x{id}"}, row, upsert=True)
    for type in server.context.definitions.resource_types:
        if type in _SEEN_BY_ALL:
            continue
        read = await asked(server, A, "read", type, "xb")
        assert read.status in (403, 404, 405), type
        for interaction in ("search-type", "history-type"):
            found = await asked(server, A, interaction, type)
            assert b"xb" not in found.body, (interaction, type)
    for interaction in ("search-system", "history-system"):
        found = await asked(server, A, interaction, parameters=(("_count", "1000"),))
        leaked = {one for one in names(decode(found.body)) if one.endswith("/xb")}
        assert {one.partition("/")[0] for one in leaked} <= _SEEN_BY_ALL


async def the_id_in_the_body_does_not_win(server: Server) -> None:
    """CVE-2026-25164, -25744, -25745: an id in the body, documents by another way."""
    await stored(server, observation("of-a", "a"), observation("of-b", "b"))
    mixed = observation("of-b", "a")
    assert (await asked(server, A, "update", "Observation", "of-a", body=mixed)).status == 400
    assert b"Patient/b" in (await asked(server, B, "read", "Observation", "of-b")).body
    for id in "ab":
        body = {
            "resourceType": "Binary",
            "id": f"scan-{id}",
            "contentType": "text/plain",
            "data": "c2Vj",
            "securityContext": {"reference": f"Patient/{id}"},
        }
        await stored(server, body)
    assert (await asked(server, A, "read", "Binary", "scan-a")).status == 200
    assert (await asked(server, A, "read", "Binary", "scan-b")).status == 404


async def nothing_is_not_everything(server: Server) -> None:
    """An advisory of InterSystems: an empty list of rights meant all of them."""
    await stored(server, observation("of-a", "a"))
    for principal in (
        Principal("user", "e", "app", (), fhir_user="Patient/a", patient="a"),
        Principal("client", "e", "e", ()),
        NOBODY,
    ):
        assert (await asked(server, principal, "read", "Observation", "of-a")).status in (401, 403)
        found = await asked(server, principal, "search-system")
        assert found.status in (401, 403) or not names(decode(found.body))


async def two_missing_values_are_not_equal(server: Server) -> None:
    """Aidbox, ``matcho``: a claim that is missing matched a value that is missing."""
    nameless = {"resourceType": "Observation", "id": "nobodys", "status": "final"}
    await stored(server, {**nameless, "code": {"text": "x"}})
    for principal in (replace(A, patient=""), replace(A, patient="", fhir_user="")):
        assert (await asked(server, principal, "read", "Observation", "nobodys")).status in (
            403,
            404,
        )
        found = await asked(server, principal, "search-type", "Observation")
        assert found.status == 403 or not names(decode(found.body))


async def a_link_between_patients_opens_nothing(server: Server) -> None:
    """Our own: ``Patient.link`` is a claim of one record about another."""
    link = [{"other": {"reference": "Patient/a"}, "type": "seealso"}]
    await stored(server, patient("b", link=link), observation("of-b", "b"))
    assert (await asked(server, A, "read", "Patient", "a")).status == 200
    assert (await asked(server, A, "read", "Patient", "b")).status == 404
    assert names(await searched(server, A, "Patient", "")) == {"Patient/a"}
    assert names(await searched(server, A, "Patient", "link=Patient/a")) == set()
    assert names(await searched(server, A, "Observation", "")) == set()


async def what_is_contained_is_seen_with_its_container(server: Server) -> None:
    """Our own: a search among contained resources shows no others' containers."""
    inside = {"resourceType": "Practitioner", "id": "p", "name": [{"family": "Inside"}]}
    for id in "ab":
        more = {"contained": [inside], "performer": [{"reference": "#p"}]}
        await stored(server, observation(f"of-{id}", id, **more))
    own = "_contained=true&_containedType=container&family=Inside"
    found = await asked(
        server,
        A,
        "search-type",
        "Practitioner",
        parameters=tuple(tuple(o.split("=")) for o in own.split("&")),
    )
    assert b"of-b" not in found.body
    assert b"Patient/b" not in found.body


async def a_provenance_of_two_patients_is_of_neither(server: Server) -> None:
    """Our own: one target of another patient must not open what the other target says."""
    await stored(server, observation("of-a", "a"), observation("of-b", "b"))
    for id, targets in (("own", ["of-a"]), ("both", ["of-a", "of-b"]), ("other", ["of-b"])):
        await stored(
            server,
            {
                "resourceType": "Provenance",
                "id": id,
                "target": [{"reference": f"Observation/{one}"} for one in targets],
                "recorded": "2026-01-01T00:00:00Z",
                "agent": [{"who": {"display": "x"}}],
            },
        )
    assert (await asked(server, A, "read", "Provenance", "own")).status == 200
    assert (await asked(server, A, "read", "Provenance", "both")).status == 404
    assert (await asked(server, A, "read", "Provenance", "other")).status == 404
    found = await searched(server, A, "Observation", "_revinclude=Provenance:target")
    assert names(found) == {"Observation/of-a", "Provenance/own"}


async def a_version_of_another_subject_stays_hidden(server: Server) -> None:
    """Our own: a resource that was moved to another patient shows neither that one's versions."""
    await stored(server, observation("moved", "b"))
    await stored(server, observation("moved", "a"))
    assert (await asked(server, A, "vread", "Observation", "moved", "2")).status == 200
    assert (await asked(server, A, "vread", "Observation", "moved", "1")).status == 404
    assert (await asked(server, B, "vread", "Observation", "moved", "1")).status == 404
    history = await asked(server, A, "history-instance", "Observation", "moved")
    assert b"Patient/b" not in history.body


async def a_conditional_write_matches_what_is_seen(server: Server) -> None:
    """Our own: whether a hidden resource exists is not told by a conditional update."""
    secret = [{"system": "urn:s", "value": "1"}]
    await stored(server, observation("of-b", "b", identifier=secret))
    body = observation("", "a", identifier=secret)
    del body["id"]
    criteria = (("identifier", "urn:s|1"),)
    done = await asked(
        server, A, "conditional-update", "Observation", parameters=criteria, body=body
    )
    assert done.status in (201, 403)
    assert b"Patient/b" in (await asked(server, B, "read", "Observation", "of-b")).body
    gone = await asked(server, A, "conditional-delete", "Observation", parameters=criteria)
    assert gone.status in (200, 204, 404)
    assert (await asked(server, B, "read", "Observation", "of-b")).status == 200


async def a_page_link_is_of_whoever_got_it(server: Server) -> None:
    """Our own: the link to a further page is of no use to somebody else."""
    await stored(server, *(observation(f"n{number}", "a") for number in range(3)))
    found = await searched(server, A, "Observation", "_count=1")
    [following] = [one["url"] for one in found["link"] if one["relation"] == "next"]
    query = following.partition("?")[2]
    assert names(await searched(server, A, "Observation", query.replace("%3D", "=")))
    pairs = tuple(tuple(one.split("=", 1)) for one in query.split("&"))
    other = await asked(server, B, "search-type", "Observation", parameters=pairs)
    assert other.status == 400


async def reads_that_are_joined_are_judged_apart(server: Server) -> None:
    """Our own: reads of one moment go to the database together, never across principals."""
    await stored(server, observation("of-b", "b"))
    for _ in range(20):
        found = await asyncio.gather(
            *(asked(server, one, "read", "Observation", "of-b") for one in (A, B, A, B, A, B, A, B))
        )
        assert [one.status for one in found] == [404, 200] * 4


async def a_hidden_target_is_as_an_absent_one(server: Server) -> None:
    """Our own: that a reference leads to something hidden is not told; it leads to nothing."""
    await stored(server, observation("of-b", "b"))
    texts = []
    for target in ("of-b", "of-c"):
        body = observation("", "a", hasMember=[{"reference": f"Observation/{target}"}])
        del body["id"]
        done = await asked(server, A, "create", "Observation", body=body)
        texts.append(
            (
                done.status,
                done.body.replace(target.encode(), b"")[:40] if done.status > 299 else b"",
            )
        )
    assert texts[0] == texts[1]
    assert texts[0][0] == 422


# A directory, catalogues and definitions; each document above is about a patient all the same.
_SEEN_BY_ALL = UNIVERSAL | {"Schedule"}
