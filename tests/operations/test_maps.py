# https://hl7.org/fhir/R4/terminology-service.html#translation
"""``$translate``, ``$find-matches`` and ``$closure``, through the front door."""

from typing import Any

from fhir_server.app import Server
from fhir_server.messages import Request, Response
from tests.conftest import Fhir
from tests.operations.test_terminology import ask, body_of, post, refused, values
from tests.terminology.systems import PLANTS, kept, loaded

LOCAL, OTHER = "http://x/local", "http://x/other"


def target(code: str, equivalence: str = "equivalent", **more: Any) -> dict[str, Any]:
    return {"code": code, "equivalence": equivalence, **more}


def a_map(id: str, *elements: dict[str, Any], **more: Any) -> dict[str, Any]:
    group = {"source": LOCAL, "target": OTHER, "element": list(elements), **more}
    return kept("ConceptMap", id, group=[group])


def element(code: str, *targets: dict[str, Any]) -> dict[str, Any]:
    return {"code": code, "target": list(targets)}


HOME = {"property": "http://x/place", "system": "http://x/places", "value": "home"}
COLOURS = a_map(
    "colours",
    element("rot", target("red"), target("crimson", "narrower", comment="Only the dark one.")),
    element("leer", {"equivalence": "unmatched"}),
    element("gelb", target("amber", dependsOn=[HOME], product=[HOME | {"display": "At home"}])),
    unmapped={"mode": "provided"},
)


def matches(response: Response) -> list[tuple[str, str]]:
    """Return equivalence and code of each match."""
    assert response.status == 200, response.body
    found = []
    for one in body_of(response)["parameter"]:
        if one["name"] == "match":
            parts = {part["name"]: part for part in one["part"]}
            code = parts.get("concept", {}).get("valueCoding", {}).get("code", "")
            found.append((parts["equivalence"]["valueCode"], code))
    return found


async def test_translate(fhir: Fhir) -> None:
    """All matches, both ways, by url, by id, brought along, or found by their source."""
    await fhir(Request("update", "ConceptMap", "colours", body=COLOURS))
    red = (("system", LOCAL), ("code", "rot"))

    async def asked(*parameters: tuple[str, str], id: str = "") -> Response:
        return await fhir(ask("ConceptMap/$translate", *parameters, id=id))

    forwards = [("equivalent", "red"), ("narrower", "crimson")]
    found = await asked(("url", "http://x/colours"), *red)
    assert matches(found) == forwards
    assert values(found) == {"result": True, "message": "Only the dark one."}
    assert matches(await asked(*red, id="colours")) == forwards
    assert matches(await asked(*red, ("targetsystem", OTHER))) == forwards
    assert (
        matches(await asked(("url", "http://x/colours"), *red, ("targetsystem", "http://n"))) == []
    )
    back = (("url", "http://x/colours"), ("system", OTHER), ("code", "crimson"))
    assert matches(await asked(*back, ("reverse", "true"))) == [("wider", "rot")]
    none = await asked(("url", "http://x/colours"), ("coding", f"{LOCAL}|leer"))
    assert (values(none)["result"], matches(none)) == (False, [("unmatched", "")])
    own = await asked(("url", "http://x/colours"), ("coding", f"{LOCAL}|lila"))
    assert matches(own) == [("inexact", "lila")]
    inline = {"name": "conceptMap", "resource": a_map("i", element("a", target("b")))}
    coding = {"name": "coding", "valueCoding": {"system": LOCAL, "code": "a"}}
    assert matches(await fhir(post("ConceptMap/$translate", inline, coding))) == [
        ("equivalent", "b")
    ]

    refused(await asked(("url", "http://no"), *red), 404, "not here")
    refused(await asked(*red), 400, "needs")
    refused(await asked(*red, ("target", "http://no")), 404, "No ConceptMap")
    refused(await asked(("url", "http://x/colours"), ("code", "rot")), 400, "system")


async def test_the_maps_of_r4_are_here(asked: Fhir) -> None:
    """By url, by id, and found by the value sets that they are between; in both directions."""
    gender = "http://hl7.org/fhir/administrative-gender"
    v3 = "http://terminology.hl7.org/CodeSystem/v3-AdministrativeGender"
    name = "cm-administrative-gender-v3"
    male = (("system", gender), ("code", "male"))

    for how, id in (
        (("url", f"http://hl7.org/fhir/ConceptMap/{name}"), ""),
        (("target", "http://terminology.hl7.org/ValueSet/v3-AdministrativeGender"), ""),
        (("targetsystem", v3), ""),
        (("targetsystem", v3), name),
    ):
        found = await asked(ask("ConceptMap/$translate", how, *male, id=id))
        assert matches(found) == [("equal", "M")]
    back = (("system", v3), ("code", "F"), ("targetsystem", gender), ("reverse", "true"))
    assert matches(await asked(ask("ConceptMap/$translate", *back))) == [("equal", "female")]
    status = (("system", "http://hl7.org/fhir/resource-status"), ("code", "draft"))
    one = ("targetsystem", "http://hl7.org/fhir/publication-status")
    found = await asked(ask("ConceptMap/$translate", *status, one, ("reverse", "true")))
    assert [code for _, code in matches(found)] == ["draft"]


async def test_dependencies_and_products(fhir: Fhir) -> None:
    """A target that depends on something is a match only where that is so."""
    await fhir(Request("update", "ConceptMap", "colours", body=COLOURS))
    yellow: list[dict[str, Any]] = [
        {"name": "url", "valueUri": "http://x/colours"},
        {"name": "coding", "valueCoding": {"system": LOCAL, "code": "gelb"}},
    ]
    concept = {"coding": [{"system": "http://x/places", "code": "home"}]}
    parts = [
        {"name": "element", "valueUri": "http://x/place"},
        {"name": "concept", "valueCodeableConcept": concept},
    ]

    assert matches(await fhir(post("ConceptMap/$translate", *yellow))) == []
    dependency = {"name": "dependency", "part": parts}
    found = await fhir(post("ConceptMap/$translate", *yellow, dependency))
    assert matches(found) == [("equivalent", "amber")]
    [match] = [one for one in body_of(found)["parameter"] if one["name"] == "match"]
    [product] = [one for one in match["part"] if one["name"] == "product"]
    assert product["part"][1]["valueCoding"]["display"] == "At home"


async def test_other_maps_are_followed_within_bounds(fhir: Fhir) -> None:
    """One map leads to another, and a circle ends; a long chain is refused."""

    async def put(id: str, other: str, *elements: dict[str, Any]) -> None:
        body = a_map(id, *elements, unmapped={"mode": "other-map", "url": f"http://x/{other}"})
        await fhir(Request("update", "ConceptMap", id, body=body))

    await put("m1", "m2", element("b", target("c")))
    await put("m2", "m1", element("a", target("z")))
    request = ask("ConceptMap/$translate", ("url", "http://x/m1"), ("coding", f"{LOCAL}|a"))
    assert matches(await fhir(request)) == [("equivalent", "z")]
    nothing = ask("ConceptMap/$translate", ("url", "http://x/m1"), ("coding", f"{LOCAL}|q"))
    assert values(await fhir(nothing))["result"] is False
    for n in range(25):
        await put(f"n{n}", f"n{n + 1}", element("b", target("c")))
    chain = ask("ConceptMap/$translate", ("url", "http://x/n0"), ("coding", f"{LOCAL}|a"))
    refused(await fhir(chain), 422, "more than 20")


def a_property(code: str, value: str) -> dict[str, Any]:
    parts = [{"name": "code", "valueCode": code}, {"name": "value", "valueString": value}]
    return {"name": "property", "part": parts}


async def test_find_matches(server: Server, fhir: Fhir) -> None:
    """All properties, or the best that there is, in small and large systems."""
    await loaded(server, fhir)
    small = kept(
        "CodeSystem",
        "small",
        content="complete",
        concept=[
            {"code": "rose", "property": [{"code": "colour", "valueString": "red"}]},
            {"code": "oak"},
        ],
    )
    await fhir(Request("update", "CodeSystem", "small", body=small))
    for url in PLANTS, "http://x/small":
        system = {"name": "system", "valueUri": url}
        exact = {"name": "exact", "valueBoolean": True}
        loose = {"name": "exact", "valueBoolean": False}
        red, named = a_property("colour", "red"), a_property("code", "oak")

        async def found(*parameters: dict[str, Any]) -> list[tuple[str, list[str]]]:
            body = body_of(await fhir(post("CodeSystem/$find-matches", *parameters)))
            return [
                (
                    one["part"][0]["valueCoding"]["code"],
                    [part["part"][0]["valueCode"] for part in one["part"][1:]],
                )
                for one in body.get("parameter", ())
            ]

        assert await found(system, exact, red) == [("rose", [])]
        assert await found(system, exact, red, named) == []
        assert await found(system, loose, red, named) == [("oak", ["colour"]), ("rose", ["code"])]
        more = {"name": "compositional", "valueBoolean": True}
        refused(
            await fhir(post("CodeSystem/$find-matches", system, exact, red, more)), 400, "post-"
        )
        refused(await fhir(post("CodeSystem/$find-matches", system, red)), 400, "exact")


def entries(response: Response) -> set[tuple[str, str]]:
    assert response.status == 200, response.body
    return {
        (one["code"], each["code"])
        for group in body_of(response).get("group", ())
        for one in group["element"]
        for each in one["target"]
    }


async def test_closure(server: Server, fhir: Fhir) -> None:
    """A table is begun, grows with each call, and can be had again from any version."""
    await loaded(server, fhir)
    name = {"name": "name", "valueString": "$plants.{}"}

    def concept(code: str) -> dict[str, Any]:
        return {"name": "concept", "valueCoding": {"system": PLANTS, "code": code}}

    async def asked(*parameters: dict[str, Any]) -> Response:
        return await fhir(post("/$closure", name, *parameters))

    refused(await asked(concept("oak")), 404, "begin it")
    assert entries(await asked()) == set()
    assert entries(await asked(concept("oak"), concept("rose"))) == set()
    grown = await asked(concept("tree"))
    assert entries(grown) == {("oak", "tree"), ("rose", "tree")}
    assert body_of(grown)["version"] == "2"
    assert entries(await asked(concept("tree"), concept("plant"))) == {
        ("oak", "plant"),
        ("rose", "plant"),
        ("tree", "plant"),
    }
    since = {"name": "version", "valueString": "2"}
    assert ("oak", "plant") in entries(await asked(since))
    assert ("oak", "tree") not in entries(await asked(since))
    assert len(entries(await asked({"name": "version", "valueString": "0"}))) == 5
    refused(await asked({"name": "version", "valueString": "9"}), 400, "version of the table")
    refused(await asked(concept("elm")), 404, "no code")
    assert entries(await asked()) == set()
    assert entries(await asked({"name": "version", "valueString": "0"})) == set()
