# https://hl7.org/fhir/R4/terminology-service.html
"""The operations on code systems and value sets, through the front door."""

import asyncio
import json
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.interactions import terms
from fhir_server.messages import Request, Response
from tests.conftest import Fhir
from tests.terminology.systems import PLANTS, kept, loaded

SETS = "http://hl7.org/fhir/ValueSet/"
GENDER = "http://hl7.org/fhir/administrative-gender"
UCUM = "http://unitsofmeasure.org"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"


def ask(path: str, *parameters: tuple[str, Any], id: str = "") -> Request:
    """Return ``Type/$operation`` with parameters in the URL."""
    type, _, name = path.partition("/")
    return Request(name, type, id, parameters=parameters, reading=True, base_url="http://x/fhir")


def post(path: str, *parameters: dict[str, Any], id: str = "") -> Request:
    """Return ``Type/$operation`` with a Parameters as its body."""
    type, _, name = path.partition("/")
    body = {"resourceType": "Parameters", "parameter": list(parameters)}
    return Request(name, type, id, body=body, base_url="http://x/fhir")


def body_of(response: Response) -> Any:
    return json.loads(response.body)


def values(response: Response) -> dict[str, Any]:
    """Return the plain parameters of an answer by name."""
    assert response.status == 200, response.body
    found = {}
    for one in body_of(response)["parameter"]:
        for member, value in one.items():
            if member.startswith("value"):
                found[one["name"]] = value
    return found


def properties(response: Response) -> list[tuple[str, Any]]:
    """Return the properties of a lookup."""
    found = []
    for one in body_of(response)["parameter"]:
        if one["name"] == "property":
            code, value = (part[next(m for m in part if m != "name")] for part in one["part"])
            found.append((code, value))
    return found


def refused(response: Response, status: int, words: str) -> None:
    assert response.status == status, response.body
    assert words in body_of(response)["issue"][0]["diagnostics"]


def codes(response: Response) -> list[str]:
    """Return the codes of an expansion, those inside others after them."""
    assert response.status == 200, response.body
    waiting = list(body_of(response)["expansion"].get("contains", ()))
    found = []
    while waiting:
        one = waiting.pop(0)
        found.append(one["code"])
        waiting = one.get("contains", []) + waiting
    return found


async def test_lookup_of_what_r4_defines(asked: Fhir) -> None:
    """Out of the box; by code and system, by a coding, in both methods."""
    for request in (
        ask("CodeSystem/$lookup", ("system", GENDER), ("code", "male")),
        ask("CodeSystem/$lookup", ("coding", f"{GENDER}|male")),
        post(
            "CodeSystem/$lookup",
            {"name": "coding", "valueCoding": {"system": GENDER, "code": "male"}},
        ),
        post(
            "CodeSystem/$lookup",
            {"name": "code", "valueCode": "male"},
            {"name": "system", "valueUri": GENDER},
            {"name": "version", "valueString": "4.0.1"},
        ),
    ):
        found = values(await asked(request))
        assert found["display"] == "Male"
        assert found["version"] == "4.0.1"


async def test_lookup_tells_properties(server: Server, fhir: Fhir) -> None:
    """Those that are asked for; parents and children of large and small systems alike."""
    await loaded(server, fhir)
    rose = (("system", PLANTS), ("code", "rose"))

    everything = await fhir(ask("CodeSystem/$lookup", *rose))
    assert properties(everything) == [("parent", "flower"), ("parent", "tree"), ("colour", "red")]
    one = await fhir(ask("CodeSystem/$lookup", *rose, ("property", "colour")))
    assert properties(one) == [("colour", "red")]
    bangla = await fhir(ask("CodeSystem/$lookup", *rose, ("displayLanguage", "bn-BD")))
    assert values(bangla)["display"] == "গোলাপ"
    tree = ask("CodeSystem/$lookup", ("system", PLANTS), ("code", "tree"), ("property", "child"))
    assert properties(await fhir(tree)) == [("child", "oak"), ("child", "rose")]
    small = (("system", VERIFICATION), ("code", "unconfirmed"), ("property", "child"))
    below = await fhir(ask("CodeSystem/$lookup", *small))
    assert ("child", "provisional") in properties(below)


SUPPLEMENT = kept(
    "CodeSystem",
    "more",
    content="supplement",
    supplements=PLANTS,
    concept=[{"code": "oak", "designation": [{"language": "de", "value": "Eiche"}]}],
)


async def test_supplements(server: Server, fhir: Fhir) -> None:
    """They count where they are named, stored or brought along."""
    await loaded(server, fhir)
    oak = [
        {"name": "system", "valueUri": PLANTS},
        {"name": "code", "valueCode": "oak"},
        {"name": "displayLanguage", "valueCode": "de"},
    ]
    used = {"name": "useSupplement", "valueCanonical": "http://x/more"}
    along = {"name": "tx-resource", "resource": SUPPLEMENT}

    assert values(await fhir(post("CodeSystem/$lookup", *oak)))["display"] == "Oak"
    refused(await fhir(post("CodeSystem/$lookup", *oak, used)), 404, "supplement")
    brought = await fhir(post("CodeSystem/$lookup", *oak, used, along))
    assert values(brought)["display"] == "Eiche"
    assert (await fhir(Request("update", "CodeSystem", "more", body=SUPPLEMENT))).status == 201
    assert values(await fhir(post("CodeSystem/$lookup", *oak, used)))["display"] == "Eiche"


REFUSED = [
    ("CodeSystem/$lookup", [("system", GENDER)], 400, "needs"),
    ("CodeSystem/$lookup", [("system", GENDER), ("code", "mail")], 404, "Did you mean male"),
    ("CodeSystem/$lookup", [("system", "http://no"), ("code", "a")], 404, "not here"),
    (
        "CodeSystem/$lookup",
        [("system", GENDER), ("code", "a"), ("date", "2020")],
        400,
        "not served",
    ),
    ("CodeSystem/$lookup", [("sistem", GENDER)], 400, "Did you mean system"),
    ("CodeSystem/$lookup", [("coding", "male")], 400, "system|code"),
    ("CodeSystem/$lookup", [("system", "a"), ("system", "b"), ("code", "c")], 400, "2 times"),
    ("CodeSystem/$lookup", [("tx-resource", "x")], 400, "cannot stand in a URL"),
    ("CodeSystem/$subsumes", [("system", UCUM), ("codeA", "m"), ("codeB", "s")], 400, "hierarchy"),
    ("CodeSystem/$subsumes", [("system", GENDER), ("codeA", "male")], 400, "needs"),
    ("CodeSystem/$validate-code", [("url", GENDER)], 400, "one of code, coding"),
    ("CodeSystem/$validate-code", [("code", "male")], 400, "url"),
    ("CodeSystem/$validate-code", [("url", "http://no"), ("code", "a")], 404, "not here"),
    ("ValueSet/$validate-code", [("url", "http://no"), ("coding", "a|b")], 404, "not here"),
    ("ValueSet/$validate-code", [("url", f"{SETS}languages"), ("code", "a")], 400, "system"),
    ("ValueSet/$validate-code", [("coding", "a|b")], 400, "a url, a valueSet"),
    ("ValueSet/$validate-code", [("context", "Patient.x"), ("code", "b")], 404, "no element"),
    ("ValueSet/$expand", [("url", "http://no")], 404, "not here"),
    ("ValueSet/$expand", [("url", f"{SETS}ucum-units")], 422, "nobody can list"),
    ("ValueSet/$expand", [("url", f"{SETS}clinical-findings")], 422, "snomed"),
    ("ValueSet/$expand", [("url", f"{SETS}languages"), ("count", "-1")], 400, "whole number"),
    ("ValueSet/$expand", [("url", f"{SETS}languages"), ("count", "9" * 20)], 400, "digits"),
    ("ValueSet/$expand", [("url", f"{SETS}languages"), ("activeOnly", "1")], 400, "true or false"),
    ("ValueSet/$expand", [("url", f"{SETS}languages"), ("filter", "a " * 11)], 400, "10 words"),
    (
        "ValueSet/$expand",
        [("url", f"{SETS}a"), ("context", "Patient.gender")],
        400,
        "one value set",
    ),
    ("ValueSet/$expand", [("url", '{"$gt": ""}')], 404, "not here"),
    ("ValueSet/$expand", [("url", "$where")], 404, "not here"),
]


@pytest.mark.parametrize(("path", "parameters", "status", "words"), REFUSED)
async def test_refusals(
    asked: Fhir, path: str, parameters: list[tuple[str, str]], status: int, words: str
) -> None:
    """Each says which parameter is wrong and what was expected."""
    refused(await asked(ask(path, *parameters)), status, words)


VALID: list[tuple[str, list[tuple[str, str]], bool]] = [
    ("CodeSystem", [("url", GENDER), ("code", "male")], True),
    ("CodeSystem", [("url", GENDER), ("code", "Male")], False),
    ("CodeSystem", [("url", GENDER), ("code", "male"), ("display", "male")], True),
    ("CodeSystem", [("url", GENDER), ("code", "male"), ("display", "Man")], False),
    ("CodeSystem", [("url", GENDER), ("version", "4.0.1"), ("code", "male")], True),
    ("CodeSystem", [("coding", f"{GENDER}|male")], True),
    ("CodeSystem", [("url", UCUM), ("coding", f"{GENDER}|male")], False),
    ("CodeSystem", [("url", UCUM), ("code", "kg/m2")], True),
    ("CodeSystem", [("url", UCUM), ("code", "kilo")], False),
    ("CodeSystem", [("url", "urn:iso:std:iso:3166"), ("code", "BGD")], True),
    ("CodeSystem", [("url", "urn:iso:std:iso:4217"), ("code", "BDT")], True),
    ("CodeSystem", [("url", "urn:ietf:bcp:47"), ("code", "bn-BD")], True),
    ("CodeSystem", [("url", "urn:ietf:bcp:47"), ("code", "bn"), ("display", "Bangla")], True),
    ("ValueSet", [("url", f"{SETS}administrative-gender"), ("coding", f"{GENDER}|male")], True),
    ("ValueSet", [("context", "Patient.gender"), ("code", "male")], True),
    ("ValueSet", [("url", f"{SETS}languages"), ("coding", "urn:ietf:bcp:47|bn")], True),
    ("ValueSet", [("url", f"{SETS}languages"), ("coding", "urn:ietf:bcp:47|sux")], False),
    (
        "ValueSet",
        [
            *(("url", f"{SETS}languages"), ("system", "urn:ietf:bcp:47")),
            *(("code", "de"), ("display", "Bengali")),
        ],
        False,
    ),
    (
        "ValueSet",
        [("url", f"{SETS}languages"), ("code", "bn"), ("system", "urn:ietf:bcp:47")],
        True,
    ),
]


@pytest.mark.parametrize(
    ("system", "code", "display"),
    [
        (UCUM, "mg/dL", "milligram per deciliter"),
        (UCUM, "min", "minute"),
        (UCUM, "mg/{nothing}", "mg/{nothing}"),
        ("urn:ietf:bcp:47", "bn", "Bengali"),
        ("urn:ietf:bcp:47", "de-CH", "German (Switzerland)"),
        ("urn:ietf:bcp:47", "sux", "sux"),
    ],
)
async def test_codes_of_a_grammar_have_names(
    asked: Fhir, system: str, code: str, display: str
) -> None:
    """As far as R4's value sets give them; else a code is its own name."""
    found = await asked(ask("CodeSystem/$lookup", ("system", system), ("code", code)))
    assert values(found)["display"] == display


@pytest.mark.parametrize(("type", "parameters", "expected"), VALID)
async def test_validate_code(
    asked: Fhir, type: str, parameters: list[tuple[str, str]], expected: bool
) -> None:
    """Right or wrong, with a message where it is wrong."""
    found = values(await asked(ask(f"{type}/$validate-code", *parameters)))

    assert found["result"] is expected
    assert expected or found["message"]


async def test_validate_code_of_what_came_along(fhir: Fhir) -> None:
    """A definition in the request, one called by its id, and a concept with several codings."""
    colours = kept("CodeSystem", "c", content="complete", concept=[{"code": "red"}])
    warm = kept("ValueSet", "w", compose={"include": [{"system": "http://x/c"}]})
    del warm["url"]
    red = {"name": "coding", "valueCoding": {"system": "http://x/c", "code": "red"}}
    both = {"coding": [{"system": "http://x/d", "code": "red"}, red["valueCoding"]]}
    concept = {"name": "codeableConcept", "valueCodeableConcept": both}
    along = {"name": "tx-resource", "resource": colours}
    inline = {"name": "valueSet", "resource": warm}

    for coded in (red, concept):
        found = await fhir(post("ValueSet/$validate-code", inline, along, coded))
        assert values(found)["result"] is True
    alone = values(await fhir(post("ValueSet/$validate-code", inline, red)))
    assert (alone["result"], "not here" in alone["message"]) == (False, True)
    system = {"name": "codeSystem", "resource": colours}
    assert values(await fhir(post("CodeSystem/$validate-code", system, red)))["result"]
    await fhir(Request("update", "CodeSystem", "c", body=colours))
    assert values(await fhir(post("CodeSystem/$validate-code", red, id="c")))["result"]
    gender = ask("CodeSystem/$validate-code", ("code", "male"), id="administrative-gender")
    assert values(await fhir(gender))["result"] is True
    refused(await fhir(ask("ValueSet/$expand", id="nothing")), 404, "does not exist")


STATES = kept(
    "CodeSystem",
    "st",
    version="2",
    content="complete",
    concept=[
        {
            "code": "group",
            "property": [{"code": "notSelectable", "valueBoolean": True}],
            "concept": [
                {"code": "new", "display": "New one"},
                {"code": "old", "property": [{"code": "status", "valueCode": "retired"}]},
            ],
        },
        {"code": "other", "display": "Another"},
    ],
)


async def test_abstract_and_inactive_codes(fhir: Fhir) -> None:
    """An abstract code is valid where the client says so; an inactive one comes with a word."""
    await fhir(Request("update", "CodeSystem", "st", body=STATES))
    group = (("url", "http://x/st"), ("code", "group"))
    abstract = await fhir(ask("CodeSystem/$validate-code", *group))
    assert values(abstract)["result"] is False
    allowed = await fhir(ask("CodeSystem/$validate-code", *group, ("abstract", "true")))
    assert values(allowed)["result"] is True
    old = await fhir(ask("CodeSystem/$validate-code", ("url", "http://x/st"), ("code", "old")))
    assert (values(old)["result"], "inactive" in values(old)["message"]) == (True, True)


SUBSUMED = [
    ("plant", "oak", "subsumes"),
    ("oak", "plant", "subsumed-by"),
    ("oak", "oak", "equivalent"),
    ("oak", "rose", "not-subsumed"),
]


async def test_subsumes(server: Server, fhir: Fhir) -> None:
    """The four outcomes, of a large system and of a small one, by codes and by codings."""
    await loaded(server, fhir)
    for one, other, outcome in SUBSUMED:
        asked = (("system", PLANTS), ("codeA", one), ("codeB", other))
        assert values(await fhir(ask("CodeSystem/$subsumes", *asked))) == {"outcome": outcome}
    codings = (
        ("codingA", f"{VERIFICATION}|unconfirmed"),
        ("codingB", f"{VERIFICATION}|provisional"),
    )
    assert values(await fhir(ask("CodeSystem/$subsumes", *codings)))["outcome"] == "subsumes"
    by_id = ask("CodeSystem/$subsumes", ("codeA", "oak"), ("codeB", "tree"), id="plants")
    assert values(await fhir(by_id))["outcome"] == "subsumed-by"
    unknown = ask("CodeSystem/$subsumes", ("system", PLANTS), ("codeA", "oak"), ("codeB", "$ne"))
    refused(await fhir(unknown), 404, "no code")


async def test_expand_what_r4_defines(asked: Fhir) -> None:
    """By url, by id, by context; the parameters are said again in the expansion."""
    found = await asked(ask("ValueSet/$expand", ("url", f"{SETS}administrative-gender")))
    assert codes(found) == ["male", "female", "other", "unknown"]
    assert body_of(found)["expansion"]["total"] == 4
    assert body_of(found)["expansion"]["contains"][0]["display"] == "Male"
    assert "compose" not in body_of(found)
    by_id = await asked(ask("ValueSet/$expand", id="administrative-gender"))
    by_context = await asked(ask("ValueSet/$expand", ("context", "Patient.gender")))
    assert codes(by_id) == codes(by_context) == codes(found)
    parameters = (("url", f"{SETS}administrative-gender"), ("offset", "1"), ("count", "2"))
    page = await asked(ask("ValueSet/$expand", *parameters, ("includeDefinition", "true")))
    assert codes(page) == ["female", "other"]
    assert body_of(page)["expansion"]["offset"] == 1
    assert {"name": "count", "valueInteger": 2} in body_of(page)["expansion"]["parameter"]
    assert "compose" in body_of(page)


EXPANDED: list[tuple[list[tuple[str, str]], list[str]]] = [
    ([], ["group", "new", "old", "other"]),
    ([("excludeNested", "true")], ["group", "new", "old", "other"]),
    ([("activeOnly", "true")], ["group", "new", "other"]),
    ([("excludeNotForUI", "true")], ["new", "old", "other"]),
    ([("filter", "NEW on")], ["new"]),
    ([("filter", "zzz")], []),
    ([("count", "0")], []),
    ([("offset", "3")], ["other"]),
    ([("offset", "900")], []),
    ([("count", "999999999")], ["group", "new", "old", "other"]),
    ([("exclude-system", "http://x/st")], []),
    ([("system-version", "http://x/st|2")], ["group", "new", "old", "other"]),
]


async def test_expand(fhir: Fhir) -> None:
    """What each parameter leaves of an expansion."""
    await fhir(Request("update", "CodeSystem", "st", body=STATES))
    value_set = kept("ValueSet", "all", compose={"include": [{"system": "http://x/st"}]})
    await fhir(Request("update", "ValueSet", "all", body=value_set))

    for parameters, expected in EXPANDED:
        found = await fhir(ask("ValueSet/$expand", ("url", "http://x/all"), *parameters))
        assert codes(found) == expected, parameters
    whole = await fhir(ask("ValueSet/$expand", ("url", "http://x/all")))
    [group, _] = body_of(whole)["expansion"]["contains"]
    assert group["abstract"] is True
    assert group["contains"][1] == {"system": "http://x/st", "inactive": True, "code": "old"}


async def test_an_expansion_without_a_definition(asked: Fhir) -> None:
    """Its codes keep the displays that came with them; what is not in it is said in words."""
    contains = [{"system": "http://q", "code": "1", "display": "One"}]
    group = {"system": "http://q", "display": "Group", "abstract": True, "contains": contains}
    expansion = {"timestamp": "2026-01-01", "contains": [group]}
    body = {"resourceType": "ValueSet", "status": "draft", "expansion": expansion}
    value_set = {"name": "valueSet", "resource": body}

    found = body_of(await asked(post("ValueSet/$expand", value_set)))["expansion"]
    assert found["contains"] == contains
    for code, expected, words in ("1", True, ""), ("2", False, "not in what came along"):
        coding = {"name": "coding", "valueCoding": {"system": "http://q", "code": code}}
        answer = values(await asked(post("ValueSet/$validate-code", value_set, coding)))
        assert answer["result"] is expected
        assert words in answer.get("message", "")


async def test_two_versions_in_one_value_set(fhir: Fhir) -> None:
    """Each code is looked for in all the versions that are taken, and shown with its own; a code of
    another version is not in the value set."""
    for version, code in ("1", "a"), ("2", "b"):
        body = kept("CodeSystem", f"v{version}", version=version, content="complete")
        body |= {"url": "http://x/ver", "concept": [{"code": code, "display": f"In {version}"}]}
        await fhir(Request("update", "CodeSystem", f"v{version}", body=body))
    parts = [{"system": "http://x/ver", "version": one} for one in ("1", "2")]
    both = kept("ValueSet", "both", compose={"include": parts})
    await fhir(Request("update", "ValueSet", "both", body=both))

    found = body_of(await fhir(ask("ValueSet/$expand", ("url", "http://x/both"))))["expansion"]
    shown = [(one["version"], one["code"], one["display"]) for one in found["contains"]]
    assert shown == [("1", "a", "In 1"), ("2", "b", "In 2")]
    assert [one["valueUri"][-1] for one in found["parameter"]] == ["1", "2"]
    for code, version, expected in (
        *(("a", "", True), ("b", "", True), ("c", "", False)),
        *(("b", "2", True), ("b", "1", False), ("b", "3", False)),
    ):
        asked = [("url", "http://x/both"), ("system", "http://x/ver"), ("code", code)]
        asked += [("systemVersion", version)] if version else []
        answer = values(await fhir(ask("ValueSet/$validate-code", *asked)))
        assert answer["result"] is expected, (code, version, answer)


async def test_versions_of_systems(fhir: Fhir) -> None:
    """A version may be set, forced and checked; one that is not here is no other."""
    for version, code in ("1", "a"), ("2", "b"):
        body = kept("CodeSystem", f"v{version}", version=version, content="complete")
        body |= {"url": "http://x/ver", "concept": [{"code": code}]}
        await fhir(Request("update", "CodeSystem", f"v{version}", body=body))
    for id, version in ("any", ""), ("two", "2"):
        part = {"system": "http://x/ver"} | ({"version": version} if version else {})
        body = kept("ValueSet", id, compose={"include": [part]})
        await fhir(Request("update", "ValueSet", id, body=body))

    async def asked(id: str, *more: tuple[str, str]) -> Response:
        return await fhir(ask("ValueSet/$expand", ("url", f"http://x/{id}"), *more))

    assert codes(await asked("any")) == ["b"]
    assert codes(await asked("any", ("system-version", "http://x/ver|1"))) == ["a"]
    assert codes(await asked("two", ("system-version", "http://x/ver|1"))) == ["b"]
    assert codes(await asked("two", ("force-system-version", "http://x/ver|1"))) == ["a"]
    refused(await asked("two", ("check-system-version", "http://x/ver|1")), 422, "version '2'")
    refused(await asked("any", ("force-system-version", "http://x/ver|7")), 422, "not here")


async def test_expand_a_large_system(server: Server, fhir: Fhir) -> None:
    """Pages of a hierarchy, filters by words, and more than one system after another."""
    await loaded(server, fhir)
    trees = {"system": PLANTS, "filter": [{"property": "concept", "op": "is-a", "value": "tree"}]}
    genders = {"system": GENDER, "concept": [{"code": "other", "display": "Anders"}]}
    body = kept("ValueSet", "trees", compose={"include": [trees, genders]})
    await fhir(Request("update", "ValueSet", "trees", body=body))

    async def asked(*more: tuple[str, str]) -> Response:
        return await fhir(ask("ValueSet/$expand", ("url", "http://x/trees"), *more))

    found = await asked()
    assert codes(found) == ["oak", "rose", "tree", "other"]
    assert body_of(found)["expansion"]["contains"][3]["display"] == "Anders"
    assert {"name": "version", "valueUri": f"{PLANTS}|1"} in body_of(found)["expansion"][
        "parameter"
    ]
    for at in range(0, 4, 2):
        page = await asked(("offset", str(at)), ("count", "2"))
        assert codes(page) == codes(found)[at : at + 2]
        assert body_of(page)["expansion"]["total"] == 4
    assert codes(await asked(("filter", "গোলা"))) == ["rose"]
    bangla = await asked(("displayLanguage", "bn"), ("filter", "ros"))
    assert body_of(bangla)["expansion"]["contains"][0]["display"] == "গোলাপ"
    shown = await asked(("includeDesignations", "true"), ("designation", "bn"), ("filter", "ros"))
    assert body_of(shown)["expansion"]["contains"][0]["designation"][0]["language"] == "bn"


async def test_expand_more_than_one_answer_may_have(server: Server, fhir: Fhir) -> None:
    """Refused with the number and the way out; in pages, or counted, it is answered."""
    many = [{"code": f"m{n:05}", "display": f"Number {n}"} for n in range(10_001)]
    head = kept("CodeSystem", "many", content="complete")
    await fhir(Request("update", "CodeSystem", "many", body=head))
    loading = await server.context.store.concepts.begin("http://x/many", "")
    await loading.add(many)
    await loading.finish()
    value_set = (("url", "http://x/many?fhir_vs"),)

    refused(await fhir(ask("ValueSet/$expand", *value_set)), 422, "10,001 codes")
    counted = await fhir(ask("ValueSet/$expand", *value_set, ("count", "0")))
    assert (codes(counted), body_of(counted)["expansion"]["total"]) == ([], 10_001)
    most = await fhir(ask("ValueSet/$expand", *value_set, ("count", "999999999")))
    assert len(codes(most)) == 10_000
    last = await fhir(ask("ValueSet/$expand", *value_set, ("offset", "9999"), ("count", "5")))
    assert codes(last) == ["m09999", "m10000"]
    assert codes(await fhir(ask("ValueSet/$expand", *value_set, ("filter", "10000")))) == ["m10000"]


async def test_hostile_value_sets(fhir: Fhir) -> None:
    """Circles, chains and patterns end in a refusal, never in a long wait."""
    for id, other in ("a", "b"), ("b", "a"):
        body = kept("ValueSet", id, compose={"include": [{"valueSet": [f"http://x/{other}"]}]})
        await fhir(Request("update", "ValueSet", id, body=body))
    refused(await fhir(ask("ValueSet/$expand", ("url", "http://x/a"))), 422, "by itself")

    pattern = {"property": "concept", "op": "regex", "value": "(a+)+$" * 80}
    evil = kept("ValueSet", "e", compose={"include": [{"system": GENDER, "filter": [pattern]}]})
    await fhir(Request("update", "ValueSet", "e", body=evil))
    assert codes(await fhir(ask("ValueSet/$expand", ("url", "http://x/e")))) == []

    chain = [
        {"code": f"c{n}", "property": [{"code": "parent", "valueCode": f"c{n + 1}"}]}
        for n in range(2000)
    ]
    deep = kept("CodeSystem", "deep", content="complete", concept=chain)
    await fhir(Request("update", "CodeSystem", "deep", body=deep))
    all_of_it = kept("ValueSet", "d", compose={"include": [{"system": "http://x/deep"}]})
    await fhir(Request("update", "ValueSet", "d", body=all_of_it))
    found = await fhir(ask("ValueSet/$expand", ("url", "http://x/d")))
    assert len(body_of(found)["expansion"]["contains"]) == 2000


async def test_a_costly_value_set_keeps_nobody_waiting(
    fhir: Fhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a definition makes of a large system is computed beside the other requests, and once."""
    monkeypatch.setattr(terms, "CODES_MAX", 20_000)
    concepts = [{"code": f"c{n}", "display": f"abababa {n}"} for n in range(2000)]
    patterns = [
        {"system": "http://x/m", "filter": [{"property": "display", "op": "regex", "value": text}]}
        for text in (f"(a|b|.*{n})*" for n in range(100))
    ]
    for body in (
        kept("CodeSystem", "m", content="complete", concept=concepts),
        kept("ValueSet", "costly", compose={"include": patterns}),
    ):
        put = Request("update", str(body["resourceType"]), str(body["id"]), body=body)
        assert (await fhir(put)).status == 201
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    refused(await fhir(ask("ValueSet/$expand", ("url", "http://x/costly"))), 422, "too many codes")
    ticking.cancel()

    assert ticks > 10


async def test_pages_of_an_instance(fhir: Fhir) -> None:
    """By its id as by its url; the pages together are the whole, in the same order."""
    concepts = [{"code": f"c{n % 7}{n}", "display": f"Code {n}"} for n in range(600)]
    system = kept("CodeSystem", "m", content="complete", caseSensitive=False, concept=concepts)
    await fhir(Request("update", "CodeSystem", "m", body=system))
    body = kept("ValueSet", "m", compose={"include": [{"system": "http://x/m"}]})
    await fhir(Request("update", "ValueSet", "m", body=body))
    whole = codes(await fhir(ask("ValueSet/$expand", ("url", "http://x/m"))))

    pages = [
        codes(await fhir(ask("ValueSet/$expand", ("offset", at), ("count", "250"), id="m")))
        for at in ("0", "250", "500")
    ]
    assert whole == [one["code"] for one in concepts] == [code for page in pages for code in page]
    in_set = ask("ValueSet/$validate-code", ("system", "http://x/m"), ("code", "C00"), id="m")
    assert values(await fhir(in_set))["result"] is True
    await fhir(Request("delete", "ValueSet", "m"))
    assert (await fhir(ask("ValueSet/$expand", id="m"))).status == 410


async def test_in_a_batch(asked: Fhir) -> None:
    """Each entry of a batch is answered, or refused, by itself."""
    urls = [
        f"CodeSystem/$lookup?system={GENDER}&code=male",
        f"ValueSet/$validate-code?url={SETS}administrative-gender&coding={GENDER}|x",
        "ValueSet/$expand?url=http://no",
    ]
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    body = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    found = body_of(await asked(Request("transaction", body=body, base_url="http://x/fhir")))

    assert [one["response"]["status"][:3] for one in found["entry"]] == ["200", "200", "404"]
