# https://hl7.org/fhir/R4/snomedct.html#implicit
"""Value sets that nobody stored: they follow from their urls."""

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.operations.test_terminology import ask, codes, refused
from tests.terminology.systems import a_concept, kept

SNOMED, LOINC = "http://snomed.info/sct", "http://loinc.org"
EDITION = f"{SNOMED}/900000000000207008/version/20250101"

CASES = [
    (f"{SNOMED}?fhir_vs", "100000 200000 300000"),
    (f"{EDITION}?fhir_vs", "100000 200000 300000"),
    (f"{SNOMED}?fhir_vs=isa/200000", "200000 300000"),
    (f"{SNOMED}?fhir_vs=refset/900000", "300000"),
    (f"{SNOMED}?fhir_vs=ecl/%3C%20200000", "300000"),
    (f"{SNOMED}?fhir_vs=ecl/<<200000 MINUS ^900000", "200000"),
    (f"{LOINC}/vs", "LA6-8 LP1-1 LP2-2"),
    (f"{LOINC}/vs/LL1-9", "LA6-8"),
    (f"{LOINC}/vs/LP1-1", "LP2-2"),
    ("http://x/small?fhir_vs", "a"),
    ("http://x/all-of-small", "a"),
    ("http://hl7.org/fhir/administrative-gender?fhir_vs", "male female other unknown"),
]
REFUSED = [
    (f"{SNOMED}?fhir_vs=ecl/<<200000:1=2", 422, "goes on with ':'"),
    (f"{SNOMED}?fhir_vs=concepts", 404, "not here"),
    (f"{SNOMED}/7/version/1?fhir_vs", 422, "not here"),
    ("http://x/none?fhir_vs", 422, "not here"),
]


@pytest.fixture
async def stored(server: Server, fhir: Fhir) -> Fhir:
    """A little SNOMED CT and LOINC of our own making, and a small system."""
    large = {
        SNOMED: [
            a_concept("100000"),
            a_concept("200000", "100000"),
            a_concept("300000", "200000", refset="900000"),
        ],
        LOINC: [
            a_concept("LP1-1"),
            a_concept("LP2-2", "LP1-1"),
            a_concept("LA6-8", LIST="LL1-9"),
        ],
    }
    for id, (url, concepts) in enumerate(large.items()):
        version = EDITION if url == SNOMED else "2.80"
        head = kept("CodeSystem", f"large{id}", version=version, content="complete")
        await fhir(Request("update", "CodeSystem", f"large{id}", body={**head, "url": url}))
        loading = await server.context.store.concepts.begin(url, version)
        await loading.add(concepts)
        await loading.finish()
    small = kept("CodeSystem", "small", content="complete", valueSet="http://x/all-of-small")
    await fhir(Request("update", "CodeSystem", "small", body=small | {"concept": [{"code": "a"}]}))
    return fhir


async def test_implicit_value_sets(stored: Fhir) -> None:
    """Each form of url has the codes that its specification says, or is refused by name."""
    for url, expected in CASES:
        found = await stored(ask("ValueSet/$expand", ("url", url)))
        assert codes(found) == expected.split(), url
    for url, status, words in REFUSED:
        refused(await stored(ask("ValueSet/$expand", ("url", url))), status, words)
