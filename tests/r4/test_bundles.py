"""https://hl7.org/fhir/R4/bundle.html"""

import json

from fhir_server.r4.bundles import bundle, entry, framing


def test_a_bundle_is_put_together_from_bytes() -> None:
    """Head, links, total and entries stand where they belong."""
    one = entry("http://a/Patient/1", b'{"x":1.00}', search={"mode": "match"})
    text = bundle("searchset", [one, one], links=[("self", 'http://a?b="c"')], total=2)

    assert b'"x":1.00' in text
    assert json.loads(text) == {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": 2,
        "link": [{"relation": "self", "url": 'http://a?b="c"'}],
        "entry": [
            {"fullUrl": "http://a/Patient/1", "resource": {"x": 1.0}, "search": {"mode": "match"}}
        ]
        * 2,
    }


def test_what_is_empty_is_not_there() -> None:
    """FHIR has no empty arrays; an entry may have no resource."""
    assert json.loads(bundle("history", [])) == {"resourceType": "Bundle", "type": "history"}
    assert json.loads(entry("", b"", response={"status": "204"})) == {"response": {"status": "204"}}


def test_a_framed_entry_is_an_entry() -> None:
    """What is made for many is what is made for one, byte for byte."""
    base, json = 'http://a/"é/fhir', b'{"x":1.00}'
    for members in ({"search": {"mode": "include"}}, {"search": {"mode": "match", "score": 1}}):
        framed = framing(base, **members)("Patient", "a-1.b", json)
        assert framed == entry(f"{base}/Patient/a-1.b", json, **members)
