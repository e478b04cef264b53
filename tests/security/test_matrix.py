"""https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html

design/security.md, check A2: every interaction × type × principal is answered as the table says.
The table of rights is tests/security/rights.txt; here is what follows from it at the front door.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest

from fhir_server.app import Server, build_registry, opened
from fhir_server.context import Context
from fhir_server.dispatch import answer
from fhir_server.interactions.admitting import ADMINISTRATOR, NEEDS, OPEN, SIGNED_IN, admitted
from fhir_server.interactions.bodies import refused
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError
from fhir_server.patch.formats import JSON_PATCH, as_binary
from fhir_server.r4.json import decode, encode
from fhir_server.security.plan import NOTHING, AccessPlan, Rights
from fhir_server.security.principal import NOBODY, Principal
from fhir_server.settings import Settings
from fhir_server.store.changes import Change
from fhir_server.store.resources import ResourceStore
from tests.conftest import drop
from tests.security.principals import CASES, physician, user

BASE = "http://127.0.0.1:8080/fhir"


# ------------------------------------------------------------ every interaction × type × principal

# Of each interaction: groups of letters, of each of which one is needed; and what is then seen.
LETTERS_OF: Mapping[str, tuple[tuple[str, ...], str]] = {
    "capabilities": ((), "all"),
    "read": (("r",), "r"),
    "vread": (("r",), "r"),
    "history-instance": (("r",), "r"),
    "history-type": (("s",), "s"),
    "history-system": ((), "s"),
    "search-type": (("s",), "s"),
    "search-compartment": (("s",), "s"),
    "search-system": ((), "s"),
    "create": (("c",), "rs"),
    "conditional-create": (("c", "s"), "rs"),
    "update": (("u",), "rs"),
    "patch": (("u",), "rs"),
    "delete": (("d",), "rs"),
    "conditional-update": (("s", "cu"), "rs"),
    "conditional-patch": (("s", "u"), "rs"),
    "conditional-delete": (("s", "d"), "rs"),
    "transaction": ((), "rs"),
}
WITHOUT_TYPE = ("capabilities", "history-system", "search-system", "transaction")


def _asked(interaction: str, type: str) -> Request:
    if interaction == "conditional-create":
        return Request("create", type, if_none_exist="_id=1")
    if interaction == "search-compartment":
        return Request(interaction, "Patient", "a", type)
    return Request(interaction, "" if interaction in WITHOUT_TYPE else type)


async def _admission(request: Request, context: Context) -> int | Context:
    try:
        return await admitted(request, NEEDS[request.interaction], context)
    except FhirError as error:
        return refused(error).status


async def test_every_interaction_is_admitted_as_the_table_says(empty: Server) -> None:
    """For each interaction, type and principal: refused, or given what the table of rights says.

    That is all of them: 18 interactions, 146 types, 20 principals.
    """
    assert set(NEEDS) | {"conditional-create"} == set(LETTERS_OF)
    assert set(NEEDS) == set(empty.registry.interactions)
    types, count = empty.context.definitions.resource_types, 0
    differing: list[tuple[object, ...]] = []
    for name, case in CASES.items():
        if case.related_only:
            continue  # a setting; below, with a server of its own
        context = replace(empty.context, principal=case.principal)
        rights = await empty.context.access(case.principal, context)
        plans = {letters: _plan(rights, letters) for letters in ("all", "r", "s", "rs")}
        for interaction, (groups, letters) in LETTERS_OF.items():
            for type in types if interaction not in WITHOUT_TYPE else ("",):
                count += 1
                may = all(any((type, letter) in rights.may for letter in group) for group in groups)
                is_open = interaction == "capabilities"
                expected = 401 if name == "none" and not is_open else 200 if may else 403
                found = await _admission(_asked(interaction, type), context)
                if isinstance(found, int):
                    if found != expected:
                        differing.append((name, interaction, type, found, expected))
                elif expected != 200 or not _is_same(found.store.plan, plans[letters]):
                    differing.append((name, interaction, type, "plan", expected))
    assert differing == []
    assert count > 18 * 146 * 14


def _is_same(one: AccessPlan | None, other: AccessPlan | None) -> bool:
    return one is other or one == other  # it is the same as long as the parameters are


def _plan(rights: Rights, letters: str) -> AccessPlan | None:
    """Return the plan of a request that sees what ``letters`` open, which is as it should be."""
    if letters == "all":
        return None
    plan = rights.plan(letters)
    for type in {type for type, _ in rights.may}:
        opened = [
            one for (of, letter), one in rights.may.items() if of == type and letter in letters
        ]
        assert plan.seen(type) in (opened or [NOTHING]) or plan.seen(type) == {"$or": opened}
    assert dict(plan.change) == {key: one for key, one in rights.may.items() if key[1] in "cud"}
    return plan


# The operations there are -> what they need.
OPERATIONS: dict[str | tuple[str, str], str] = {
    **dict.fromkeys(("$expand", "$lookup", "$subsumes", "$translate"), SIGNED_IN),
    **dict.fromkeys(("$validate-code", "$find-matches", "$closure", "$validate"), SIGNED_IN),
    **dict.fromkeys(("$expunge", "$reindex", "$reindex-status"), ADMINISTRATOR),
    **dict.fromkeys(("$cds-report", "$reload-knowledge"), ADMINISTRATOR),
    **dict.fromkeys(("$hl7v2-to-fhir", "$hl7v2-inbox", "$hl7v2-replay"), ADMINISTRATOR),
    **dict.fromkeys(("$hl7v2-unmapped", "$hl7v2-senders"), ADMINISTRATOR),
    **dict.fromkeys(("$client-add", "$client-list", "$client-remove"), ADMINISTRATOR),
    "$client-rotate-secret": ADMINISTRATOR,
    **dict.fromkeys(("$export", "$export-status", "$export-cancel", "$export-file"), SIGNED_IN),
    **dict.fromkeys(("$break-glass", "$launch"), SIGNED_IN),
    **dict.fromkeys(("$hold", "$book"), "c"),
    "$allocate": "c s",
    **dict.fromkeys(("$confirm", "$cancel", "$reschedule", "$no-show", "$complete"), "u"),
    **dict.fromkeys(("$outbox", "$outbox-repeat"), ADMINISTRATOR),
    **dict.fromkeys(("$bulk-publish", "$bulk-publish-file"), OPEN),
    **dict.fromkeys(("$access-log", "$calendar-link"), "r"),
    "$everything": "r s",
    "$meta": "rs",
    "$meta-add": "u",
    "$meta-delete": "u",
    "$hl7v2": "r",
    **dict.fromkeys(("$issue-token", "$call-next", "$queue", "$board-link"), "r"),
    **dict.fromkeys(("$check-in", "$recall", "$skip", "$transfer", "$finish"), "u"),
    ("MedicationRequest", "$check-interactions"): "rs",
    ("Patient", "$check-interactions"): "r",
    ("Appointment", "$find"): "s",
}


def test_every_operation_says_what_it_needs() -> None:
    """What an operation needs is in the table; one that is not there is for administrators."""
    features = ("fhir_server.features.cds", "fhir_server.features.scheduling", "adapters.hl7v2")
    registry = build_registry(features)
    wrong = [
        (type, name, operation.needs)
        for (type, name), operation in registry.operations.items()
        if operation.needs != OPERATIONS.get((type, name), OPERATIONS.get(name, ADMINISTRATOR))
    ]

    assert wrong == []


# ------------------------------------------------------------- what is answered, over resources

LABEL = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "V"}


def _of(patient: str) -> dict[str, Any]:
    return {"reference": f"Patient/{patient}"}


def _resources(p: str) -> list[Resource]:
    """Return what belongs to the patient ``p``, one of each kind that access tells apart."""
    coded = {"text": "x"}
    return [
        {"resourceType": "Patient", "id": p, "gender": "other"},
        _named("Observation", p, status="final", code=coded, subject=_of(p)),
        _named("Device", p, patient=_of(p)),
        _named("Task", p, status="ready", intent="order", **{"for": _of(p)}),
        _named("Binary", p, contentType="text/plain", securityContext=_of(p)),
        _named("Communication", p, status="completed", subject=_of("c"), sender=_of(p)),
        _named("List", p, status="current", mode="working", subject=_of(p)),
        _named("Schedule", p, actor=[_of(p)]),
        _named("Bundle", p, type="document", **_document(p)),
    ]


def _document(p: str) -> dict[str, Any]:
    composition = {
        "resourceType": "Composition",
        "status": "final",
        "type": {"text": "x"},
        "subject": _of(p),
        "date": "2026",
        "author": [_of(p)],
        "title": "x",
    }
    entry = [{"fullUrl": "urn:uuid:00000000-0000-4000-8000-000000000001", "resource": composition}]
    identifier = {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{p}"}
    return {"identifier": identifier, "timestamp": "2026-01-01T00:00:00Z", "entry": entry}


def _named(kind: str, p: str, **members: Any) -> Resource:
    return {"resourceType": kind, "id": f"of-{p}", **members}


NOBODYS: list[Resource] = [
    {"resourceType": "Organization", "id": "org", "name": "x"},
    {"resourceType": "Organization", "id": "secret", "name": "x", "meta": {"security": [LABEL]}},
]
RESOURCES = [*_resources("a"), *_resources("b"), *NOBODYS]
WRITTEN = ("Patient", "Observation", "Communication", "Device", "Organization")


@dataclass(frozen=True, slots=True)
class World:
    """A server with the resources, and who may see which of them."""

    server: Server

    async def ask(self, principal: Principal, request: Request) -> Response:
        """Return the answer to ``request``, of which nothing stays."""
        context = replace(self.server.context, principal=principal)
        registry = self.server.registry
        writes = request.interaction not in _READING

        async def work(store: ResourceStore) -> Response:
            raise _Undone(await answer(registry, request, replace(context, store=store)))

        if not writes:
            return await answer(registry, request, context)
        try:
            return await context.store.in_transaction(work, [request.type or "Observation"])
        except _Undone as undone:
            return undone.response


class _Undone(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


_READING = frozenset(
    (
        *("read", "vread", "history-instance", "history-type", "history-system"),
        *("search-type", "search-system", "search-compartment", "capabilities"),
    )
)


@pytest.fixture(scope="module")
async def world(mongodb_uri: str) -> AsyncIterator[World]:
    """A server with the patients a and b, on a database that nothing is left in."""
    settings = Settings.model_validate(
        {"mongodb_database": "test-matrix", "care_relationship": "nurse"}
    )
    async with opened(settings, mongodb_uri) as server:
        await drop(server.database)
        changes = [
            Change("update", one["resourceType"], one["id"], decode(encode(one)))
            for one in RESOURCES
        ]
        await server.context.store.write(changes, server.context.now())
        yield World(server)
        await drop(server.database)


# Principal -> which resources it sees: of whom, which types not; what it may change of them.
A_SEES = {
    *{(one["resourceType"], one["id"]) for one in _resources("a")} - {("List", "of-a")},
    ("Organization", "org"),
}
B_SEES = {
    *{(one["resourceType"], one["id"]) for one in _resources("b")} - {("List", "of-b")},
    ("Organization", "org"),
}
EVERYTHING = {(one["resourceType"], one["id"]) for one in RESOURCES} - {("Organization", "secret")}
MESSAGES = {("Communication", "of-a"), ("Communication", "of-b")}
SEES: dict[str, set[tuple[str, str]]] = {
    "no role": set(),
    "no role, all scopes": set(),
    "A": A_SEES,
    "A as patient": A_SEES,
    "A without app": A_SEES,
    "A, no patient": set(),
    "B": B_SEES,
    "physician": EVERYTHING - MESSAGES,
    "clinician": EVERYTHING - MESSAGES,
    "clinician for A": A_SEES - MESSAGES,
    "backend": EVERYTHING,
    "backend of observations": {("Observation", "of-a"), ("Observation", "of-b")},
    "backend with user scopes": set(),
    "administrator": {("Organization", "org"), ("Schedule", "of-a"), ("Schedule", "of-b")},
    "nurse": {
        ("Organization", "org")
    },  # who sees those cared for only, by a setting of this server
}


@pytest.mark.parametrize("name", SEES)
async def test_what_each_principal_reads_and_finds(world: World, name: str) -> None:
    """Each way of reading gives each resource to whom the table says, and 404 or 403 to others."""
    principal, sees = CASES[name].principal, SEES[name]
    differing: list[tuple[object, ...]] = []
    rights = await world.server.context.access(
        principal, replace(world.server.context, principal=principal)
    )
    for resource in RESOURCES:
        type, id = resource["resourceType"], resource["id"]
        hidden = 404 if rights.allows(type, "r") else 403
        status = 200 if (type, id) in sees else hidden
        for interaction in ("read", "vread", "history-instance"):
            version = "1" if interaction == "vread" else ""
            found = await world.ask(principal, Request(interaction, type, id, version))
            if found.status != status:
                differing.append((interaction, type, id, found.status))
    for type in sorted({one["resourceType"] for one in RESOURCES}):
        here = {id for kind, id in sees if kind == type}
        expected = (200, here) if rights.allows(type, "s") else (403, set())
        for interaction in ("search-type", "history-type"):
            found = await world.ask(principal, Request(interaction, type, base_url=BASE))
            if (found.status, _ids(found, type)) != expected:
                differing.append((interaction, type, found.status, sorted(_ids(found, type))))
    assert differing == []


def _ids(response: Response, type: str = "") -> set[str]:
    """Return the ids of what is in the answer."""
    body = decode(response.body)
    found = (one["resource"] for one in body.get("entry", ()) if "resource" in one)
    return {
        one["id"]
        for one in found
        if one["resourceType"] != "OperationOutcome" and type in ("", one["resourceType"])
    }


@pytest.mark.parametrize("name", ["A", "clinician", "backend", "administrator", "no role"])
async def test_a_search_of_everything_is_narrowed_in_silence(world: World, name: str) -> None:
    """Without ``_type`` there is what the principal sees, with a type without scope a refusal."""
    principal, sees = CASES[name].principal, SEES[name]
    ask = Request("search-system", parameters=(("_count", "100"),), base_url=BASE)
    found = await world.ask(principal, ask)
    assert (found.status, len(decode(found.body).get("entry", ()))) == (200, len(sees))
    history = await world.ask(principal, Request("history-system", base_url=BASE))
    assert (history.status, len(decode(history.body).get("entry", ()))) == (200, len(sees))
    types = {one["resourceType"] for one in RESOURCES}
    rights = await world.server.context.access(principal, world.server.context)
    for type in types:
        one = replace(ask, parameters=(("_type", f"{type},Organization"),))
        may = rights.allows(type, "s") and rights.allows("Organization", "s")
        assert (await world.ask(principal, one)).status == (200 if may else 403), type


async def test_a_compartment_is_searched_as_its_types_are(world: World) -> None:
    """Another patient's compartment is empty, and a type without scope is refused."""
    a, only = CASES["A"].principal, user("a", "patient/Patient.rs", patient="a")
    for principal, patient, type, status, count in (
        (a, "a", "Observation", 200, 1),
        (a, "b", "Observation", 200, 0),
        (a, "a", "*", 200, len(A_SEES & _members("a"))),
        (a, "b", "*", 200, 0),
        (a, "a", "List", 403, 0),
        (only, "a", "Observation", 403, 0),
        (only, "a", "*", 200, 1),
    ):
        request = Request("search-compartment", "Patient", patient, type, base_url=BASE)
        found = await world.ask(principal, request)
        entries = decode(found.body).get("entry", ())
        assert (found.status, len(entries)) == (status, count), (patient, type)
    named = replace(
        Request("search-compartment", "Patient", "a", "*", base_url=BASE),
        parameters=(("_type", "Patient,Observation"),),
    )
    assert (await world.ask(only, named)).status == 403


def _members(p: str) -> set[tuple[str, str]]:
    """What is in the compartment of R4: neither devices, tasks, contents nor documents."""
    types = ("Patient", "Observation", "Communication", "Schedule")
    return {(type, id) for type, id in A_SEES if type in types and p in id}


async def test_what_comes_along_is_what_may_be_seen(world: World) -> None:
    """Types without scope are absent from a page, and nothing says that they are."""
    only = user("a", "patient/Observation.rs", patient="a")
    both = user("a", "patient/Observation.rs patient/Patient.rs", patient="a")
    request = Request(
        *("search-type", "Observation"),
        parameters=(("_include", "Observation:subject"),),
        base_url=BASE,
    )
    revinclude = replace(request, type="Patient", parameters=(("_revinclude", "List:subject"),))
    assert _ids(await world.ask(only, request)) == {"of-a"}
    assert _ids(await world.ask(both, request)) == {"of-a", "a"}
    assert _ids(await world.ask(both, revinclude)) == {"a"}


# ----------------------------------------------------------------------------------------- changes

# Principal -> letters that it may change by, of the resources that it sees.
CHANGES = {
    "no role, all scopes": {},
    "A": {
        "Patient": "ud",
        "Observation": "cud",
        "Communication": "cud",
        "Device": "cud",
    },
    "A as patient": {"Patient": "u", "Communication": "cu"},
    "B": {"Patient": "ud", "Observation": "cud", "Communication": "cud", "Device": "cud"},
    "clinician": {"Patient": "cu", "Observation": "cud", "Communication": "cu", "Device": "cud"},
    "clinician for A": {},
    "backend": dict.fromkeys(WRITTEN, "cud"),
    "backend of observations": {},
    "administrator": {"Organization": "cud"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
async def test_what_each_principal_changes(world: World, name: str) -> None:
    """Each way of changing is open to whom the table says; what is hidden is not there."""
    principal, may, sees = CASES[name].principal, CHANGES[name], SEES[name]
    context = replace(world.server.context, principal=principal)
    rights = await world.server.context.access(principal, context)
    differing = []
    for resource in RESOURCES:
        type, id = resource["resourceType"], resource["id"]
        if type not in WRITTEN:
            continue
        for request, letter in _changes(resource):
            seen = (type, id) in sees
            status = _expected(request, letter, type, seen, may.get(type, ""), rights)
            found = await world.ask(principal, request)
            if found.status != status:
                differing.append((request.interaction, type, id, found.status, status))
    assert differing == []


def _changes(resource: Resource) -> list[tuple[Request, str]]:
    """Return each way to change ``resource``, with the letter that it takes."""
    type, id = resource["resourceType"], resource["id"]
    by_id = (("_id", id),)
    same = decode(encode(resource))
    without = {name: one for name, one in same.items() if name != "id"}
    test = {"op": "test", "path": "/resourceType", "value": type}
    patch = as_binary(JSON_PATCH, encode([test]))
    return [
        (Request("create", type, body=without), "c"),
        (Request("create", type, body=without, if_none_exist=f"_id={id}"), "c"),
        (Request("update", type, id, body=same), "u"),
        (Request("patch", type, id, body=patch), "u"),
        (Request("delete", type, id), "d"),
        (Request("conditional-update", type, body=same, parameters=by_id), "u"),
        (Request("conditional-patch", type, body=patch, parameters=by_id), "u"),
        (Request("conditional-delete", type, parameters=by_id), "d"),
    ]


def _expected(
    request: Request, letter: str, type: str, seen: bool, letters: str, rights: Any
) -> int:
    """Return the status: 403 without the letter, else as if what is hidden were not there."""
    admitted = rights.allows(type, letter)
    if request.interaction == "conditional-update":
        admitted = rights.allows(type, "c") or rights.allows(type, "u")
    if request.interaction.startswith("conditional-") or request.if_none_exist:
        admitted = admitted and rights.allows(type, "s")
    if not admitted:
        return 403
    if request.interaction == "create":
        # What is made has an id of its own: of a patient, one that is nobody's yet.
        if request.if_none_exist and seen:
            return 200
        return 201 if letter in letters and seen else 403
    if seen:
        done = {"delete": 204, "conditional-delete": 204}.get(request.interaction, 200)
        return done if letter in letters else 403
    nothing = {"delete": 204, "conditional-delete": 204, "conditional-update": 404}
    return nothing.get(request.interaction, 404)


async def test_a_bundle_is_judged_entry_by_entry(world: World) -> None:
    """In a batch each entry has its answer; a transaction with one that is refused is refused."""
    a = user("a", "patient/Observation.cruds", patient="a")
    own, other = (
        {name: value for name, value in one.items() if name != "id"}
        for one in RESOURCES
        if one["resourceType"] == "Observation"
    )
    entries = [
        _entry("GET", "Observation/of-a"),
        _entry("GET", "Observation/of-b"),
        _entry("GET", "Patient/a"),
        _entry("GET", "Observation?_id=of-b"),
        _entry("POST", "Observation", own),
        _entry("POST", "Observation", other),
        _entry("DELETE", "Observation?_id=of-b"),
        _entry("PUT", "Patient?_id=a", {"resourceType": "Patient"}),
        _entry("GET", "List?subject=Patient/a"),
    ]
    batch = await world.ask(a, _bundle("batch", entries))
    statuses = [one["response"]["status"][:3] for one in decode(batch.body)["entry"]]
    assert statuses == ["200", "404", "403", "200", "201", "403", "204", "403", "403"]
    for entry, status in zip(entries, statuses, strict=True):
        found = await world.ask(a, _bundle("transaction", [entry]))
        assert found.status == (200 if status[0] == "2" else int(status)), entry


async def test_a_reference_by_criteria_finds_what_a_search_finds(world: World) -> None:
    """Who may read patients and not search them is told of none by criteria in a reference."""
    scopes = "patient/Observation.cruds patient/Patient.r"
    body = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "Patient?gender=other"},
    }
    asked = _bundle("transaction", [_entry("POST", "Observation", body)])
    for more, status in (("", 412), ("s", 200)):
        found = await world.ask(user("a", scopes + more, patient="a"), asked)
        assert found.status == status


def _entry(method: str, url: str, resource: Resource | None = None) -> dict[str, Any]:
    body = {"resource": resource} if resource else {}
    return {"request": {"method": method, "url": url}, **body}


def _bundle(type: str, entries: list[dict[str, Any]]) -> Request:
    body = decode(encode({"resourceType": "Bundle", "type": type, "entry": entries}))
    return Request("transaction", body=body, base_url=BASE)


async def test_a_condition_of_a_scope_holds_for_what_is_read_and_for_what_is_written(
    world: World,
) -> None:
    """A scope for final observations opens no others, and makes no others."""
    final = user(
        *("dr", "user/Observation.cruds?status=final"),
        roles=("physician",),
        fhir_user="Practitioner/dr",
    )
    other = replace(final, scopes=physician("user/Observation.cruds?status:not=final").scopes)
    own = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    create = Request("create", "Observation", body=own)
    amended = replace(create, body={**own, "status": "amended"})
    for principal, statuses in ((final, [200, 201, 403, 204]), (other, [404, 403, 201, 204])):
        asked = (
            Request("read", "Observation", "of-a"),
            create,
            amended,
            Request("delete", "Observation", "of-a"),
        )
        assert [(await world.ask(principal, one)).status for one in asked] == statuses
    count = Request("search-type", "Observation", parameters=(("_total", "accurate"),))
    assert [decode((await world.ask(one, count)).body)["total"] for one in (final, other)] == [2, 0]


async def test_refusals_name_what_is_missing(world: World) -> None:
    """401 without a token, 403 with the words of RFC 6750, and never whether there is something."""
    request = Request("read", "Observation", "of-a")
    nobody = await world.ask(NOBODY, request)
    no_scope = await world.ask(user("a", "patient/Patient.rs", patient="a"), request)
    hidden, absent = [
        await world.ask(CASES["B"].principal, replace(request, id=id)) for id in ("of-a", "of-x")
    ]

    assert (nobody.status, dict(nobody.headers)) == (401, {"WWW-Authenticate": "Bearer"})
    assert no_scope.status == 403
    assert 'error="insufficient_scope"' in dict(no_scope.headers)["WWW-Authenticate"]
    assert decode(no_scope.body)["issue"][0]["code"] == "forbidden"
    assert hidden.body.replace(b"of-a", b"of-x") == absent.body


async def test_only_administrators_call_what_is_about_the_server(world: World) -> None:
    """An operation that says nothing else is theirs, and sees the whole store."""
    status = Request("$reindex-status")
    for name, expected in (
        *(("administrator", 200), ("clinician", 403), ("backend", 403), ("A", 403)),
    ):
        assert (await world.ask(CASES[name].principal, status)).status == expected


async def test_terminology_is_for_whoever_is_signed_in(world: World) -> None:
    """Codes are looked up and resources judged by everybody but nobody."""
    code = (("system", "http://hl7.org/fhir/administrative-gender"), ("code", "male"))
    asked = (
        Request("$lookup", "CodeSystem", parameters=code, reading=True),
        Request("$validate", "Patient", body={"resourceType": "Patient"}),
    )
    for request, (name, status) in product(asked, (("no role", 200), ("A", 200), ("none", 401))):
        assert (await world.ask(CASES[name].principal, request)).status == status
