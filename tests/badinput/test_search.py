"""https://hl7.org/fhir/R4/search.html#errors

Hostile values and names against every parameter of a type that has all kinds of them, and against
every parameter that is not of an element: 200 or 4xx, at once, nothing found but what was asked.
"""

from collections.abc import AsyncIterator
from itertools import islice
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest

from fhir_server.app import Server
from fhir_server.http.site import Site
from fhir_server.store.changes import Change
from tests.badinput.conftest import Watch
from tests.badinput.hostile import (
    DATES,
    FILTERS,
    INCLUDES,
    NAMES,
    NUMBERS,
    OPERATORS,
    PATTERNS,
    PLACES,
    SORTS,
    TEXTS,
    VALUES,
    WORDS,
)
from tests.http.conftest import exchange, links_of

FORM = {"content-type": "application/x-www-form-urlencoded"}
ROWS = 3000
# A parameter of each type and kind, by the type that has it.
PARAMETERS = {
    "Patient": "family family:exact family:contains name identifier identifier:of-type "
    "identifier:text gender gender:not gender:in gender:below birthdate general-practitioner "
    "general-practitioner:identifier general-practitioner:Practitioner _id _tag _profile "
    "_profile:below _lastUpdated _source _source:above _list _text _content organization.name "
    "_has:Observation:patient:code:text",
    "Observation": "value-quantity code-value-quantity code:text code:above value-string "
    "combo-code-value-concept component-value-quantity subject date",
    "RiskAssessment": "probability",
    "Location": "near",
    "ValueSet": "url url:above url:below context-type-quantity version",
}
# What finds the canaries with almost any value.
FREE = ("gender:not", "birthdate", "_lastUpdated")
TYPES = [(type, name) for type, names in PARAMETERS.items() for name in names.split()]


def escaped(text: str) -> str:
    """Return ``text`` percent-encoded; lone surrogates as the bytes that some clients send."""
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.fixture(scope="module")
async def crowded(server: Server, site: Site) -> Site:
    """The application with some thousand patients and observations more, of names like the rest."""
    resources: list[dict[str, Any]] = []
    for number in range(ROWS):
        name = {
            "family": f"{'a' * (number % 40)}name{number}",
            "given": ["aaaaaaaaaaaaaaaaaaaaaaaa!"],
        }
        code = {"coding": [{"system": "http://s", "code": f"c{number % 50}", "display": "a" * 60}]}
        resources.append({"resourceType": "Patient", "id": f"many{number}", "name": [name]})
        resources.append(
            {
                "resourceType": "Observation",
                "id": f"many{number}",
                "status": "final",
                "code": code,
                "subject": {"reference": f"Patient/many{number}"},
                "valueString": "a" * (number % 200),
            }
        )
    for start in range(0, len(resources), 500):
        changes = [
            Change("update", one["resourceType"], one["id"], one)
            for one in resources[start : start + 500]
        ]
        await server.context.store.write(changes, server.context.now())
    return site


@pytest.fixture
async def eye(crowded: Site) -> AsyncIterator[Watch]:
    """A watch on the crowded server; it must still answer when the test is over."""
    made = Watch(crowded)
    yield made
    answer = await exchange(crowded, "GET", "Patient?family=Qxzvkanary&_total=accurate")
    assert (answer.status_code, answer.json()["total"]) == (200, 5)


def asked_of(name: str) -> tuple[str, ...]:
    """Return the values that are worst for a parameter, and every fourth of the others."""
    kinds = {
        "birthdate": DATES,
        "date": DATES,
        "_lastUpdated": DATES,
        "near": PLACES,
        "probability": NUMBERS,
        "value-quantity": NUMBERS,
        "component-value-quantity": NUMBERS,
        "family:contains": (*PATTERNS, *TEXTS),
        "family": TEXTS,
        "_text": WORDS,
        "_content": WORDS,
        "code-value-quantity": tuple(f"c1${number}" for number in NUMBERS),
    }
    return (*kinds.get(name, ()), *OPERATORS, *islice(VALUES, len(name) % 4, None, 4))


async def test_no_value_breaks_a_parameter(eye: Watch) -> None:
    """Every kind of parameter, by GET and by POST: 200 or 400, and none of the canaries."""
    for place, (type, name) in enumerate(TYPES):
        for number, value in enumerate(asked_of(name)):
            query = f"{escaped(name)}={escaped(value)}&_count=5"
            what = f"{type}?{name}={value[:60]!r}"
            if (place + number) % 5:
                answer = await eye(what, "GET", f"{type}?{query}")
            else:
                answer = await eye(what, "POST", f"{type}/_search", FORM, query.encode())
            eye.check(what, answer.status_code in (200, 400, 414), f"{answer.status_code}")
            if len([sign for sign in value if sign.isalnum()]) > 5 and name != "_content":
                eye.check(what, b"Qxzvkanary" not in answer.content or name in FREE, "a canary")

    assert eye.faults == {}


async def test_no_name_breaks_a_search(eye: Watch) -> None:
    """Names of parameters, modifiers, chains and reverse chains: 200 or 400."""
    for name in NAMES:
        for value in ("a", "$where", "2020", "true"):
            what = f"{name[:60]!r}={value}"
            answer = await eye(what, "GET", f"Patient?{escaped(name)}={value}")
            eye.check(what, answer.status_code in (200, 400, 414), f"{answer.status_code}")

    assert eye.faults == {}


async def test_no_result_parameter_breaks_a_search(eye: Watch) -> None:
    """Filters, orders, includes, elements, types and page links: 200 or 400."""
    many = {
        "_filter": FILTERS,
        "_sort": SORTS,
        "_include": INCLUDES,
        "_revinclude": INCLUDES,
        "_include:iterate": INCLUDES,
        "_elements": (*SORTS, *OPERATORS),
        "_type": (*INCLUDES, *OPERATORS, "Patient," * 500),
        "_cursor": (*OPERATORS, *TEXTS),
        "_rest": (*OPERATORS, *TEXTS),
        "_count": NUMBERS,
        "_summary": OPERATORS,
        "_total": OPERATORS,
        "_contained": OPERATORS,
        "_query": OPERATORS,
    }
    for name, values in many.items():
        for value in values:
            what = f"{name}={value[:60]!r}"
            target = "" if name == "_type" else "Patient"
            answer = await eye(what, "GET", f"{target}?{escaped(name)}={escaped(value)}")
            eye.check(what, answer.status_code in (200, 400, 414), f"{answer.status_code}")

    assert eye.faults == {}


async def test_a_page_link_that_was_changed_is_refused(eye: Watch, crowded: Site) -> None:
    """Each byte of a cursor turned, a cursor of another search, cut, longer: 400."""
    answer = await exchange(crowded, "GET", "Patient?_sort=family&_count=3")
    query = links_of(answer.json())["next"].partition("?")[2]
    before, _, rest = query.partition("_cursor=")
    cursor, _, after = rest.partition("&")
    same = await eye("as it was", "GET", f"Patient?{query}")
    eye.check("as it was", same.status_code == 200, f"{same.status_code}")
    forged = [
        cursor[:place] + ("A" if sign != "A" else "B") + cursor[place + 1 :]
        for place, sign in enumerate(cursor[:-1])
    ]
    forged += [cursor[:-4], cursor + "AAAA", cursor * 2, cursor[::-1], cursor.swapcase()]
    queries = [f"{before}_cursor={one}" + (f"&{after}" if after else "") for one in forged]
    queries.append(query.replace("_sort=family", "_sort=given"))
    queries.append(query.replace("_sort=family", "_sort=-family"))
    queries.append(f"{query}&family=a")
    for one in queries:
        refused = await eye(one[-60:], "GET", f"Patient?{one}")
        eye.check(one[-60:], refused.status_code == 400, f"{refused.status_code}")

    assert eye.faults == {}


async def test_very_many_parameters_and_values(eye: Watch) -> None:
    """Thousands of parameters, alternatives, ids, includes and joins: 400 or 414, at once."""
    targets = {
        "parameters": "Patient?" + "&".join(["family=a"] * 3000),
        "alternatives": "Patient?family=" + ",".join(f"a{number}" for number in range(3000)),
        "ids": "Patient?_id=" + ",".join(f"a{number}" for number in range(3000)),
        "references": "&".join(["Patient?general-practitioner=" + ",".join("abcdefgh" * 60)] * 60),
        "includes": "Patient?" + "&".join(["_include=*&_revinclude=*"] * 1500),
        "chains": "Patient?" + "&".join(["general-practitioner.name=a"] * 400),
        "reverse": "Patient?" + "&".join(["_has:Observation:patient:code=a"] * 400),
        "sorts": "Patient?_sort=" + ",".join(["family", "-given", "gender"] * 500),
        "elements": "Patient?_elements=" + ",".join(["name"] * 5000),
    }
    for name, target in targets.items():
        answer = await eye(name, "GET", target)
        eye.check(name, answer.status_code in (200, 400, 414), f"{answer.status_code}")
        form = target.partition("?")[2].encode()
        answer = await eye(name, "POST", "Patient/_search", FORM, form)
        eye.check(name, answer.status_code in (200, 400, 413), f"{answer.status_code} by POST")

    assert eye.faults == {}


async def test_what_many_resources_cost(eye: Watch) -> None:
    """The slowest searches that are allowed, over thousands of resources: less than a second."""
    contained = ",".join(["aaaaaaaaaaaaab"] + ["a" * size + "b" for size in range(1, 60)])
    ends = " or ".join([f'name ew "{"a" * size}b"' for size in range(1, 60)])
    targets = (
        f"Patient?family:contains={contained}",
        f"Patient?name:contains={'a' * 900}b",
        f"Patient?_filter={quote(ends)}",
        f"Observation?value-string:contains={'a' * 900}b",
        "Observation?code:text=" + ",".join("a" * size for size in range(1, 150)),
        "Patient?_has:Observation:patient:value-string:contains=aaab",
        "Patient?_has:Observation:patient:code=c1,c2,c3,c4&family:contains=zz",
        "Observation?subject:Patient.family:contains=zzz",
        "Observation?subject:Patient._has:Observation:patient:code=c1",
        "Observation?_sort=-code,value-string&_count=10",
        "Patient?_content=" + quote("a* OR name1* NOT b*"),
        "Patient?identifier:not=x&gender:not=male&family:missing=false&_total=accurate",
    )
    for target in targets:
        await eye(target[:90], "GET", target)

    assert eye.faults == {}
