"""https://hl7.org/fhir/R4/xml.html"""

import gzip
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.r4.definitions import Definitions, load_definitions
from fhir_server.r4.json import canonical, decode, decode_stored, encode
from fhir_server.r4.xml import Xml
from fhir_server.r4.xml_tables import Tables

SECONDS_MAX = 0.1
XML = Xml(load_definitions(Path(__file__).resolve().parents[2]))
FHIR = 'xmlns="http://hl7.org/fhir"'
XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'
P = f"<Patient {FHIR}>"
T = f'<text><status value="generated"/><div {XHTML}>'
TEXT = {"status": "generated"}
CLOSE = "</div></text>"


def patient(**members: Any) -> dict[str, Any]:
    """Return a Patient."""
    return {"resourceType": "Patient", **members}


def read(text: str | bytes, **limits: int) -> dict[str, Any]:
    """Return the resource that ``text`` is."""
    return XML.decode(text.encode() if isinstance(text, str) else text, **limits)


def inside(resource: dict[str, Any]) -> str:
    """Return what is written of a Patient between its tags."""
    text = XML.encode(resource).decode()
    head = f'<?xml version="1.0" encoding="UTF-8"?>{P}'
    assert text.startswith(head)
    return text.removeprefix(head).removesuffix("</Patient>")


# ---------------------------------------------------------------------------------- both ways

SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "a primitive": ('<active value="true"/>', {"active": True}),
    "a list": (
        '<name><given value="A"/><given value="B"/></name>',
        {"name": [{"given": ["A", "B"]}]},
    ),
    "a choice": ('<multipleBirthInteger value="2"/>', {"multipleBirthInteger": 2}),
    "id and extension of a primitive": (
        (
            '<birthDate id="b" value="1970"><extension url="u"><valueCode value="c"/></extension>'
            "</birthDate>"
        ),
        {
            "birthDate": "1970",
            "_birthDate": {"id": "b", "extension": [{"url": "u", "valueCode": "c"}]},
        },
    ),
    "a primitive without value": (
        '<birthDate><extension url="u"><valueCode value="c"/></extension></birthDate>',
        {"_birthDate": {"extension": [{"url": "u", "valueCode": "c"}]}},
    ),
    "places in lists": (
        '<name><given value="A"/><given id="x"/><given id="y" value="C"/><given value="D"/></name>',
        {
            "name": [
                {"given": ["A", None, "C", "D"], "_given": [None, {"id": "x"}, {"id": "y"}, None]}
            ]
        },
    ),
    "a list without values": (
        '<name><given id="x"/><given id="y"/></name>',
        {"name": [{"_given": [{"id": "x"}, {"id": "y"}]}]},
    ),
    "id and url are attributes": (
        '<extension id="e" url="u"><valueBoolean value="false"/></extension>',
        {"extension": [{"id": "e", "url": "u", "valueBoolean": False}]},
    ),
    "only an id": ('<maritalStatus id="m"/>', {"maritalStatus": {"id": "m"}}),
    "a contained resource": (
        (
            '<contained><Organization><id value="o"/><name value="N"/></Organization></contained>'
            "<contained><Patient/></contained>"
        ),
        {
            "contained": [
                {"resourceType": "Organization", "id": "o", "name": "N"},
                {"resourceType": "Patient"},
            ]
        },
    ),
    "line breaks, tabs, quotes and marks": (
        '<name><text value="a&#13;&#10;&#9;&quot;\'&amp;&lt;&gt; b"/></name>',
        {"name": [{"text": "a\r\n\t\"'&<> b"}]},
    ),
    "characters beyond the first plane": ('<id value="𝄞é"/>', {"id": "𝄞é"}),
    "narrative": (
        f"{T}<p >a&#160;&lt;b <br  /><!-- <p> --><![CDATA[<]]>\r\n</p>{CLOSE}",
        {
            "text": {
                **TEXT,
                "div": f"<div {XHTML}><p >a&#160;&lt;b <br  /><!-- <p> -->"
                "<![CDATA[<]]>\r\n</p></div>",
            }
        },
    ),
    "an empty narrative": (
        f'<text><status value="generated"/><div {XHTML} title="a>b"/></text>',
        {"text": {**TEXT, "div": f'<div {XHTML} title="a>b"/>'}},
    ),
}


@pytest.mark.parametrize(("text", "members"), SAME.values(), ids=SAME)
def test_xml_and_json_say_the_same(text: str, members: dict[str, Any]) -> None:
    """What is written of the JSON is the XML, and what is read of the XML is the JSON."""
    assert inside(patient(**members)) == text
    assert encode(read(f"{P}{text}</Patient>")) == encode(patient(**members))


@pytest.mark.parametrize(
    "number", ["1.00", "1", "-1", "0", "0.0", "1e2", "1.0E-22", "-0", "-0.0", "100000000000.5"]
)
def test_decimals_are_kept_digit_for_digit(number: str) -> None:
    """1.00 stays 1.00, as in JSON."""
    json = b'{"resourceType":"Observation","valueQuantity":{"value":%s}}' % number.encode()
    xml = XML.encode(decode_stored(json))

    assert f'<value value="{number}"/>'.encode() in xml
    assert encode(XML.decode(xml)) == json
    assert encode(decode(json)) == json


def test_a_bundle_holds_resources() -> None:
    """Bundle.entry.resource, Bundle.entry.response.outcome and Parameters.parameter.resource."""
    outcome = {"resourceType": "OperationOutcome", "id": "o"}
    parameters = {
        "resourceType": "Parameters",
        "parameter": [{"name": "p", "part": [{"name": "q", "resource": patient(id="p")}]}],
    }
    bundle = {
        "resourceType": "Bundle",
        "type": "batch-response",
        "entry": [{"resource": parameters, "response": {"status": "200", "outcome": outcome}}],
    }
    assert read(XML.encode(bundle)) == bundle
    assert read(XML.encode(bundle, pretty=True)) == bundle
    assert b"\n          <part>\n" in XML.encode(bundle, pretty=True)


def test_elements_stand_in_their_order_whatever_that_of_the_members() -> None:
    """In XML the order matters, in JSON it does not."""
    members = {
        "_birthDate": {"id": "b"},
        "birthDate": "1970",
        "name": [],
        "active": True,
        "id": "p",
    }

    assert inside(patient(**members)) == (
        '<id value="p"/><active value="true"/><birthDate id="b" value="1970"/>'
    )


@pytest.mark.parametrize("character", ["\x00", "\x01", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_what_xml_cannot_hold_becomes_the_replacement_character(character: str) -> None:
    """The rest of the answer is not lost over it. https://www.w3.org/TR/xml/#charsets"""
    text = XML.encode(patient(id=f"a{character}b"))

    assert read(text) == patient(id="a\ufffdb")


def test_what_is_no_element_is_not_written() -> None:
    """What comes here is valid; a fault in the server is not sent to clients."""
    for wrong in (
        patient(nam="x"),
        {"resourceType": "Patent"},
        patient(name=[{"resourceType": 1}]),
    ):
        with pytest.raises(ValueError, match=r"no element|no resource type"):
            XML.encode(wrong)
    for div in ("<div>", "<div></div><x/>", "<!DOCTYPE div><div/>", "x"):
        with pytest.raises((ValueError, FhirError)):
            XML.encode(patient(text={"div": div}))


def test_what_stands_around_a_narrative_is_not_written() -> None:
    """An XML declaration is allowed in a div, and cannot stand inside of a document."""
    div = f"<div {XHTML}>x</div>"

    assert f"<text>{div}</text>" in inside(
        patient(text={"div": f'<?xml version="1.0"?>\n<!-- <div> -->{div}\n<!-- > -->'})
    )


# -------------------------------------------------------------------------------------- reading

TOLERATED: dict[str, tuple[str, dict[str, Any]]] = {
    "blanks, comments and instructions": (
        (
            f'\ufeff<?xml version="1.0" encoding="utf-8" standalone="yes"?><!-- a -->\n<?b c?>'
            f"{P}\r\n\t"
            f'<!-- <x/> --><?d e?><id value="p" /><![CDATA[ ]]>\n</Patient><!-- f -->\n'
        ),
        {"id": "p"},
    ),
    "single quotes": (f"<Patient {FHIR}><id value='p'></id></Patient>", {"id": "p"}),
    "prefixes": (
        (
            '<f:Patient xmlns:f="http://hl7.org/fhir"><f:id value="p"/><f:name><f:given value="A"/>'
            "</f:name></f:Patient>"
        ),
        {"id": "p", "name": [{"given": ["A"]}]},
    ),
    "the place of a schema": (
        (
            f'<Patient {FHIR} xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            'xsi:schemaLocation="http://hl7.org/fhir patient.xsd"><id value="p"/></Patient>'
        ),
        {"id": "p"},
    ),
    "a narrative of the namespace around it": (
        (
            f'<f:Patient xmlns:f="http://hl7.org/fhir" {XHTML}><f:text><div id="a">x</div></f:text>'
            "</f:Patient>"
        ),
        {"text": {"div": f'<div {XHTML} id="a">x</div>'}},
    ),
    "a narrative with prefixes": (
        (
            f'<Patient {FHIR} xmlns:h="http://www.w3.org/1999/xhtml"><text><h:div xml:lang="bn" '
            'title="&quot;&#9;">a &amp; <h:b>b</h:b><h:br/></h:div></text></Patient>'
        ),
        {
            "text": {
                "div": f'<div {XHTML} xml:lang="bn" title="&quot;&#9;">'
                "a &amp; <b>b</b><br></br></div>"
            }
        },
    ),
    "nothing in it": (f"<Patient {FHIR}/>", {}),
    "a document type in a comment": (f"{P}<!-- --> <!-- <!DOCTYPE x> --></Patient>", {}),
    "both of a choice, which is left to validation": (
        f'{P}<deceasedBoolean value="true"/><deceasedDateTime value="1970"/></Patient>',
        {"deceasedBoolean": True, "deceasedDateTime": "1970"},
    ),
}


@pytest.mark.parametrize(("text", "members"), TOLERATED.values(), ids=TOLERATED)
def test_other_ways_to_write_the_same(text: str, members: dict[str, Any]) -> None:
    """What XML allows and FHIR does not forbid is read."""
    assert read(text) == patient(**members)


REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    # The document, a word of the sentence, and the FHIRPath of the place.
    "nothing": ("", "no element", ""),
    "JSON": ('{"resourceType":"Patient"}', "not XML", ""),
    "not closed": (P, "no element found", ""),
    "closed wrongly": (f"{P}<name></Patient>", "mismatched tag at line 1", ""),
    "two roots": (f"{P}</Patient>{P}</Patient>", "junk", ""),
    "text behind": (f"{P}</Patient>x", "junk|text outside|not well-formed", ""),
    "an attribute twice": (f'{P}<id value="a" value="b"/></Patient>', "duplicate", ""),
    "a control character": (f'{P}<id value="&#1;"/></Patient>', "invalid character", ""),
    "NUL": (f"{P}\0</Patient>", "U\\+0000", ""),
    "not UTF-8": (f"{P}é</Patient>".encode("latin-1"), "UTF-8", ""),
    "UTF-16": (f"{P}</Patient>".encode("utf-16"), "UTF-8", ""),
    "UTF-16 without mark": (f"{P}</Patient>".encode("utf-16-be"), "U\\+0000", ""),
    "another encoding": (f'<?xml version="1.0" encoding="latin1"?>{P}</Patient>', "'latin1'", ""),
    "UTF-7": ('<?xml version="1.0" encoding="UTF-7"?>+ADw-Patient', "'UTF-7'", ""),
    "XML 1.1": (f'<?xml version="1.1"?>{P}</Patient>', "version '1.1'", ""),
    "a document type": (f"<!DOCTYPE Patient>{P}</Patient>", "DOCTYPE", ""),
    "a document type behind": (f"<?a?><!--b-->\n<!DOCTYPE a []>{P}</Patient>", "DOCTYPE", ""),
    "an entity": (f'{P}<id value="&a;"/></Patient>', "entity", ""),
    "an entity in narrative": (f"{P}{T}&nbsp;{CLOSE}</Patient>", "&#160;", ""),
    "no namespace": ("<Patient/>", 'xmlns="http://hl7.org/fhir"', ""),
    "another namespace": ('<Patient xmlns="urn:hl7-org:v3"/>', 'xmlns="http://hl7.org/fhir"', ""),
    "no resource": (f"<Patent {FHIR}/>", "'Patent'.* not a resource type", ""),
    "a data type": (f"<HumanName {FHIR}/>", "not a resource type", ""),
    "an abstract type": (f"<DomainResource {FHIR}/>", "not a resource type", ""),
    "an unknown element": (f'{P}<nam value="x"/></Patient>', "'nam'.* mean name", "Patient"),
    "deep down": (
        f'{P}<name/><name><given value="A"/><given value="B"><x/></given></name></Patient>'.replace(
            "<name/>", '<name><text value="a"/></name>'
        ),
        "no element 'x'",
        "Patient.name[1].given[1]",
    ),
    "an element of another namespace": (
        f'{P}<name><family xmlns="urn:x" value="a"/></name></Patient>',
        "'family' in the namespace 'urn:x'.*hl7.org/fhir",
        "Patient.name[0]",
    ),
    "XInclude": (
        f'{P}<x:include xmlns:x="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/></Patient>',
        "XInclude",
        "Patient",
    ),
    "a div that is not XHTML": (
        f"{P}<text><div>x</div></text></Patient>", "1999/xhtml", "Patient.text",
    ),
    "an attribute": (f'{P}<name foo="x"/></Patient>', "'foo'; it may have id", "Patient.name[0]"),
    "a value of an object": (f'{P}<name value="x"/></Patient>', "'value'", "Patient.name[0]"),
    "url of another element": (f'{P}<name url="x"/></Patient>', "'url'", "Patient.name[0]"),
    "id of a resource as attribute": (f'<Patient {FHIR} id="p"/>', "'id'", "Patient"),
    "an attribute with a namespace": (
        f'{P}<active xml:lang="en" value="true"/></Patient>', "'lang'", "Patient.active",
    ),
    "text": (f"{P}<active>true</active></Patient>", "text 'true'", "Patient.active"),
    "text of no-break spaces": (f"{P}\u00a0</Patient>", "has the text", "Patient"),
    "an empty element": (f"{P}<name> </name></Patient>", "empty", "Patient.name[0]"),
    "an empty primitive": (f"{P}<active/></Patient>", "empty", "Patient.active"),
    "an empty value": (f'{P}<name><given value=""/></name></Patient>', "empty", "name[0].given[0]"),
    "an empty attribute": (f'{P}<active id="" value="true"/></Patient>', "empty", "Patient.active"),
    "an empty contained": (f"{P}<contained/></Patient>", "empty", "Patient.contained[0]"),
    "two resources in one": (
        f"{P}<contained><Patient/><Patient/></contained></Patient>", "two", "Patient.contained[0]",
    ),
    "no resource inside": (
        f'{P}<contained><name value="x"/></contained></Patient>', "'name'", "Patient.contained[0]",
    ),
    "inside a contained resource": (
        f"{P}<contained><Patient><x/></Patient></contained></Patient>",
        "'x'",
        "Patient.contained[0]",
    ),
    "another order": (
        f'{P}<birthDate value="1970"/><active value="true"/></Patient>',
        "'active' behind 'birthDate'",
        "Patient",
    ),
    "a list in two parts": (
        f'{P}<name id="a"/><telecom id="b"/><name id="c"/></Patient>', "stands together", "Patient",
    ),
    "twice": (
        f'{P}<active value="true"/><active value="true"/></Patient>', "'active' twice", "Patient",
    ),
    "no boolean": (f'{P}<active value="yes"/></Patient>', "'yes'; expected true", "Patient.active"),
    "no number": (
        f'{P}<multipleBirthInteger value="1,5"/></Patient>', "'1,5'", "multipleBirthInteger",
    ),
    "a number with zeros before": (
        f'{P}<multipleBirthInteger value="007"/></Patient>', "'007'", "multipleBirthInteger",
    ),
    "digits of another script": (
        f'{P}<multipleBirthInteger value="১"/></Patient>', "'১'", "multipleBirthInteger",
    ),
    "a number too large": (
        f'{P}<multipleBirthInteger value="{"9" * 5000}"/></Patient>',
        "64 bits",
        "multipleBirthInteger",
    ),
    "an exponent too large": (
        f'<Observation {FHIR}><valueQuantity><value value="1e9999"/></valueQuantity></Observation>',
        "34 digits",
        "Observation.valueQuantity.value",
    ),
    "too deep": (P + '<extension url="a">' * 60, "100 levels", ""),
    "far too deep": (P + '<extension url="a">' * 100_000, "100 levels", ""),
    "far too deep in narrative": (f"{P}{T}" + "<b>" * 100_000, "1000 levels", "Patient.text"),
    "prefixes of another namespace in narrative": (
        (f'{P}<text><h:div xmlns:h="http://www.w3.org/1999/xhtml"><x:y xmlns:x="urn:x"/></h:div>'
        "</text></Patient>"),
        "not XHTML",
        "Patient.text",
    ),
    "twenty thousand attributes": (
        P + "<name " + " ".join(f'a{at}="x"' for at in range(20_000)) + "/></Patient>",
        "'a0'",
        "Patient.name[0]",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "word", "place"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_resource_is_refused(text: str | bytes, word: str, place: str) -> None:
    """Soon, and with a sentence that says what is wrong, and the FHIRPath of the place."""
    began = time.perf_counter()
    with pytest.raises(FhirError, match=word) as refused:
        read(text)
    assert time.perf_counter() - began < SECONDS_MAX
    [issue] = refused.value.issues
    assert refused.value.status == 400
    assert issue.expression.endswith(place)
    assert bool(issue.expression) is bool(place)
    assert len(issue.diagnostics) < 400


@pytest.mark.parametrize("levels", range(1, 8))
def test_the_limit_of_nesting_is_that_of_json(levels: int) -> None:
    """Objects and arrays are counted as they are in the JSON of the same resource."""
    innermost: dict[str, Any] = {"url": "a", "_valueCode": {"id": "x"}}
    for _ in range(levels):
        innermost = {"url": "a", "extension": [innermost]}
    for resource in (
        patient(extension=[innermost]),
        patient(contained=[patient(name=[{"given": ["A"], "_given": [{"id": "x"}]}])]),
        patient(name=[{"given": ["A"]}]),
    ):
        json, xml = encode(resource), XML.encode(resource)
        for limit in range(1, 25):
            assert _takes(decode, json, limit) is _takes(XML.decode, xml, limit), (resource, limit)


def _takes(reader: Any, text: bytes, limit: int) -> bool:
    try:
        reader(text, depth_max=limit)
    except FhirError:
        return False
    return True


# ----------------------------------------------------------------------------------- properties

TEXTS = st.text(
    st.one_of(
        st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff"),
        st.sampled_from("\n\r\t \"'&<>]é𝄞\u0085\u2028\u00a0"),
    ),
    min_size=1,
)
IDS = st.fixed_dictionaries({"id": TEXTS})
EXTENSIONS = st.lists(
    st.fixed_dictionaries({"url": TEXTS}, optional={"id": TEXTS, "valueString": TEXTS}),
    min_size=1,
    max_size=3,
)
BESIDE = st.fixed_dictionaries({"extension": EXTENSIONS}, optional={"id": TEXTS}) | IDS


@st.composite
def names(draw: st.DrawFn) -> dict[str, Any]:
    """A HumanName whose given names have values, or what stands beside them, or both."""
    parts = draw(
        st.lists(
            st.tuples(TEXTS, st.none()) | st.tuples(st.none() | TEXTS, BESIDE),
            min_size=1,
            max_size=4,
        )
    )
    values, beside = [one for one, _ in parts], [one for _, one in parts]
    name: dict[str, Any] = draw(st.fixed_dictionaries({}, optional={"id": TEXTS, "family": TEXTS}))
    if any(one is not None for one in values):
        name["given"] = values
    if any(one is not None for one in beside):
        name["_given"] = beside
    return name


RESOURCES = st.recursive(
    st.fixed_dictionaries(
        {"resourceType": st.just("Patient")},
        optional={
            "id": TEXTS,
            "birthDate": TEXTS,
            "_birthDate": BESIDE,
            "active": st.booleans(),
            "_active": BESIDE,
            "name": st.lists(names(), min_size=1, max_size=3),
            "multipleBirthInteger": st.integers(-(2**63), 2**63 - 1),
            "extension": EXTENSIONS,
        },
    )
    | st.fixed_dictionaries(
        {"resourceType": st.just("Observation")},
        optional={
            "valueQuantity": st.fixed_dictionaries(
                {"value": st.decimals(allow_nan=False, allow_infinity=False, places=3)}
            ),
            "note": st.lists(st.fixed_dictionaries({"text": TEXTS}), min_size=1),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {
            "resourceType": st.just("Bundle"),
            "entry": st.lists(st.fixed_dictionaries({"resource": inner}), min_size=1, max_size=3),
        }
    ),
    max_leaves=4,
)


@given(RESOURCES, st.booleans())
def test_what_is_written_is_read(resource: dict[str, Any], pretty: bool) -> None:
    """Every resource comes back the same, whatever characters are in it, laid out or not."""
    assert canonical(XML.decode(XML.encode(resource, pretty=pretty))) == canonical(resource)


@given(st.binary() | TEXTS.map(str.encode) | TEXTS.map(lambda text: f"{P}{text}".encode()))
def test_what_is_no_xml_is_refused_and_no_more(text: bytes) -> None:
    """Nothing but a refusal comes of bytes that are no document."""
    with pytest.raises(FhirError):
        XML.decode(text)


# -------------------------------------------------------------------------------------- examples


def test_every_example_is_the_same_after_xml(shared: Path) -> None:
    """All official examples, JSON to XML to JSON: exact, decimals as text, laid out or not."""
    texts = gzip.decompress((shared / "examples/examples-702.ndjson.gz").read_bytes()).splitlines()
    changed = []
    for text in texts:
        resource = decode(text)
        plain, pretty = XML.encode(resource), XML.encode(resource, pretty=True)
        if not canonical(XML.decode(plain)) == canonical(XML.decode(pretty)) == canonical(resource):
            changed.append((resource["resourceType"], resource.get("id")))
    assert len(texts) == 702
    assert changed == []


def test_examples_that_are_written_in_xml_are_read(shared: Path) -> None:
    """The XML examples of the test cases of FHIRPath; those with a JSON twin are equal to it."""
    files = sorted((shared / "fhirpath/examples").glob("*.xml"))
    # Their twins are of another edition.
    others = {"observation-example", "observation-decimal"}
    twins = 0
    for file in files:
        resource = XML.decode(file.read_bytes())
        twin = file.with_suffix(".json")
        if twin.exists() and file.stem not in others:
            assert canonical(resource) == canonical(decode(twin.read_bytes())), file.name
            twins += 1
        assert XML.decode(XML.encode(resource)) == resource, file.name
    assert (len(files), twins) == (10, 3)


def test_every_type_can_be_written(definitions: Definitions) -> None:
    """Each resource and data type has its table, down to the last element."""
    waiting = [(name, name) for name in definitions.resource_types]
    tables = Tables(definitions)
    seen = set()
    while waiting:
        name, key = waiting.pop()
        if key not in seen:
            seen.add(key)
            table = tables.table(key)
            waiting += [(one.name, one.key) for one in table.tags.values() if one.key]
        assert tables.table(key).tags or key == "Element", name
    assert len(seen) > 600


def test_a_number_is_that_of_json() -> None:
    """A decimal without a fraction is an integer in JSON, and so it is here."""
    quantity = read(
        f'<Observation {FHIR}><valueQuantity><value value="185"/></valueQuantity></Observation>'
    )["valueQuantity"]
    assert type(quantity["value"]) is int
    again = read(
        f'<Observation {FHIR}><valueQuantity><value value="1.50"/></valueQuantity></Observation>'
    )["valueQuantity"]
    assert (type(again["value"]), str(again["value"])) == (Decimal, "1.50")
