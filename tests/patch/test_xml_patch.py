"""https://www.rfc-editor.org/rfc/rfc5261"""

import time
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.artifacts import artifacts_root
from fhir_server.outcome import FhirError
from fhir_server.patch.bounds import Bounds
from fhir_server.patch.xml_form import patched_resource, relinked, xml_patch
from fhir_server.patch.xml_patch import document, operations, patched
from fhir_server.patch.xml_tree import Comment, Element, Text, tree, written
from fhir_server.r4.definitions import Definitions, load_definitions
from fhir_server.r4.json import canonical, decode, encode
from fhir_server.r4.xml import Xml
from tests.conftest import SHARED
from tests.patch.conftest import BOUNDS

NODES = 100_000
FHIR = 'xmlns="http://hl7.org/fhir"'
XHTML = 'xmlns="http://www.w3.org/1999/xhtml"'


def shape(node: Any) -> Any:
    """Return what ``node`` says: no parents, no blank text, attributes in any order."""
    match node:
        case Element():
            inside = [shape(one) for one in node.children]
            declared = {
                prefix: uri
                for prefix, uri in node.namespaces.items()
                if prefix and "://" not in uri  # those of FHIR and XHTML, by whatever prefix
            }
            named = (node.namespace, node.name, node.attributes, declared)
            return (*named, [one for one in inside if one != ""])
        case Text(text):
            return text.strip()
        case Comment(text):
            return ("comment", text)
    return ("instruction", node.target, node.text)


def applied(target: str, patch: str, bounds: Bounds = BOUNDS) -> Element:
    """Return what the XML Patch ``patch`` makes of ``target``, written and read again."""
    wanted = operations(document(patch.encode(), bounds), bounds)
    root = patched(tree(target.encode(), nodes_max=NODES), wanted)
    return tree(written(root), nodes_max=NODES)


def shared_cases() -> list[Any]:
    """Return the cases of FHIR's own test suite."""
    file = SHARED / "fhir-patch" / "xml-patch-tests.xml"
    if not file.is_file():
        return []
    builder = ElementTree.TreeBuilder(insert_comments=True)
    root = ElementTree.parse(file, ElementTree.XMLParser(target=builder)).getroot()
    return [pytest.param(case, id=case.get("name")) for case in root.iter("case")]


def text_of(element: ElementTree.Element) -> str:
    """Return the XML of ``element``; ElementTree leaves out what nothing in it uses."""
    return ElementTree.tostring(element, encoding="unicode")


@pytest.mark.parametrize("case", shared_cases())
def test_shared_case(case: ElementTree.Element) -> None:
    """Every case of FHIR/fhir-test-cases."""
    target, patch, after = case.find("target"), case.find("{*}patch"), case.find("patched")
    assert target is not None
    assert patch is not None
    resource = target[0] if len(target) else None
    if after is None:
        assert case.find("error") is not None
        with pytest.raises(FhirError) as refused:
            applied(text_of(resource) if resource is not None else "", text_of(patch))
        assert refused.value.status in (400, 422)
        return
    assert resource is not None
    result = shape(applied(text_of(resource), text_of(patch)))
    expected = shape(tree(text_of(after[0]).encode(), nodes_max=NODES))
    # ElementTree does not tell what nothing uses: what A.3 declares is in our own table below.
    assert result[:3] + result[4:] == expected[:3] + expected[4:]


# Target, patch, what is there afterwards.
APPLIED = {
    "a namespace": (
        "<a/>",
        '<add sel="a" type="namespace::p">urn:x</add>',
        '<a xmlns:p="urn:x"/>',
    ),
    "a namespace is replaced": (
        '<a xmlns:p="urn:x"/>',
        '<replace sel="a/namespace::p">urn:y</replace>',
        '<a xmlns:p="urn:y"/>',
    ),
    "a namespace is removed": (
        '<a xmlns:p="urn:x"/>',
        '<remove sel="a/namespace::p"/>',
        "<a/>",
    ),
    "an instruction is replaced": (
        '<a><?test foo="bar"?></a>',
        '<replace sel=\'a/processing-instruction("test")\'><?test bar="x"?></replace>',
        '<a><?test bar="x"?></a>',
    ),
    "an instruction is removed": (
        "<a><?other?><?test?></a>",
        "<remove sel='a/processing-instruction(\"test\")'/>",
        "<a><?other?></a>",
    ),
    "prepended": (
        "<a><b/></a>",
        '<add sel="a" pos="prepend"><c/><d/></add>',
        "<a><c/><d/><b/></a>",
    ),
    "before": ("<a><b/><c/></a>", '<add sel="a/c" pos="before"><d/></add>', "<a><b/><d/><c/></a>"),
    "after": ("<a><b/><c/></a>", '<add sel="a/b" pos="after">x<d/></add>', "<a><b/>x<d/><c/></a>"),
    "texts join": (
        "<a>x<b/>y</a>",
        '<remove sel="a/b"/><replace sel="a/text()[1]">z</replace>',
        "<a>z</a>",
    ),
    "an added text joins": (
        "<a>x</a>",
        '<add sel="a">y</add><replace sel="a/text()[last()]">z</replace>',
        "<a>z</a>",
    ),
    "the root": ("<a/>", '<replace sel="/a"> <b c="1"/> </replace>', '<b c="1"/>'),
    "one after the other": (
        "<a><b/></a>",
        '<add sel="a"><c/></add><add sel="a/c" type="@x">1</add><remove sel="a/b"/>',
        '<a><c x="1"/></a>',
    ),
    "anywhere": (
        '<a><b><c x="1"/></b></a>',
        '<replace sel="//c/@x">2</replace>',
        '<a><b><c x="2"/></b></a>',
    ),
    "by what is inside": (
        '<a><b><c v="1"/><d/></b><b><c v="2"/></b></a>',
        "<add sel=\"a/b[c/@v='2']\"><d/></add>",
        '<a><b><c v="1"/><d/></b><b><c v="2"/><d/></b></a>',
    ),
    "by what is not": (
        "<a><b>1</b><b>2</b></a>",
        "<remove sel=\"a/b[.!='1']\"/>",
        "<a><b>1</b></a>",
    ),
    "by two conditions": (
        '<a><b x="1" y="1"/><b x="1" y="2"/></a>',
        "<remove sel=\"a/b[@x='1' and @y='2']\"/><add sel=\"a/b[@x][@y='1']\" type=\"@z\">3</add>",
        '<a><b x="1" y="1" z="3"/></a>',
    ),
    "by place in each parent": (
        "<a><b><c/><c/></b><b><c/></b></a>",
        '<remove sel="a/b/c[2]"/>',
        "<a><b><c/></b><b><c/></b></a>",
    ),
    "by position()": ("<a><b/><c/></a>", '<remove sel="a/*[position()=2]"/>', "<a><b/></a>"),
    "any node": ("<a>x<b/></a>", '<remove sel="a/node()[1]"/>', "<a><b/></a>"),
    "an attribute of another namespace": (
        "<a/>",
        '<add sel="a" type="@xml:lang">bn</add>',
        '<a xml:lang="bn"/>',
    ),
    "what has to be escaped": (
        '<a v="1"/>',
        '<replace sel="a/@v">&lt;&amp;"\'&#10;</replace><add sel="a">&lt;&amp;]]&gt;</add>',
        '<a v="&lt;&amp;&quot;\'&#10;">&lt;&amp;]]&gt;</a>',
    ),
}


@pytest.mark.parametrize(("target", "patch", "expected"), APPLIED.values(), ids=APPLIED)
def test_what_is_applied(target: str, patch: str, expected: str) -> None:
    """All of RFC 5261, appendix A, that the shared cases leave out, and more selectors."""
    target, expected = (text.replace("<a", f"<a {FHIR}", 1) for text in (target, expected))
    if expected.startswith("<b"):
        expected = expected.replace("<b", f"<b {FHIR}")

    result = applied(target, f"<diff>{patch}</diff>")

    assert shape(result) == shape(tree(expected.encode(), nodes_max=NODES))


BLANKS = [
    ("before", "<a>x<b/> y</a>", None),
    ("before", "<a> <b/>y</a>", "<a>y</a>"),
    ("after", "<a>x<b/>\n</a>", "<a>x</a>"),
    ("both", "<a> <b/> </a>", "<a></a>"),
    ("both", "<a> <b/></a>", None),
]


@pytest.mark.parametrize(("ws", "target", "expected"), BLANKS)
def test_blanks_go_with_what_is_removed(ws: str, target: str, expected: str | None) -> None:
    """``ws`` names blank text that must be there (RFC 5261, 4.5)."""
    wanted = operations(
        document(f'<diff><remove sel="a/b" ws="{ws}"/></diff>'.encode(), BOUNDS), BOUNDS
    )
    root = tree(target.replace("<a", f"<a {FHIR}").encode(), nodes_max=NODES)
    if expected is None:
        with pytest.raises(FhirError, match="invalid-whitespace-directive"):
            patched(root, wanted)
        return
    assert written(patched(root, wanted)).decode().replace(f" {FHIR}", "") in (
        expected,
        expected.replace("<a></a>", "<a/>"),
    )


MALFORMED = {
    "another element": ("<patches/>", "invalid-diff-format"),
    "another namespace": ('<patch xmlns="urn:x"><remove sel="a"/></patch>', "invalid-diff-format"),
    "nothing": ("<patch/>", "no operation"),
    "text": ('<patch>x<remove sel="a"/></patch>', "invalid-diff-format"),
    "another operation": ('<patch><move sel="a"/></patch>', r"Operation \[0\].*'move'"),
    "an operation of another namespace": (
        f'<patch><remove {FHIR} sel="a"/></patch>',
        "in the namespace of the patch",
    ),
    "no sel": ("<patch><remove/></patch>", "needs a sel"),
    "another attribute": ('<patch><remove sel="a" pos="after"/></patch>', "'pos'"),
    "another pos": ('<patch><add sel="a" pos="first">x</add></patch>', "invalid-attribute-value"),
    "another ws": ('<patch><remove sel="a" ws="x"/></patch>', "invalid-attribute-value"),
    "another type": ('<patch><add sel="a" type="x">y</add></patch>', "invalid-attribute-value"),
    "a type of no prefix": (
        '<patch><add sel="a" type="@p:x">y</add></patch>',
        "invalid-namespace-prefix",
    ),
    "xmlns as a prefix": (
        '<patch><add sel="a" type="namespace::xmlns">u</add></patch>',
        "invalid-attribute-value",
    ),
    "an attribute of elements": ('<patch><add sel="a" type="@x"><b/></add></patch>', "text only"),
    "an empty namespace": (
        '<patch><add sel="a" type="namespace::p"/></patch>',
        "invalid-namespace-uri",
    ),
    "nothing to add": ('<patch><add sel="a"/></patch>', "nothing to add"),
    "a removal with content": ('<patch><remove sel="a"><b/></remove></patch>', "has a content"),
    "an unknown prefix": ('<patch><remove sel="p:a"/></patch>', "invalid-namespace-prefix"),
    "two documents": ('<patch><remove sel="a"/></patch><patch/>', "not XML"),
    "no XML": ("[{}]", "not XML"),
    "nothing at all": ("", "not XML"),
    "an entity": ('<patch><remove sel="&x;"/></patch>', "entity"),
    "a document type": ('<!DOCTYPE a><patch><remove sel="a"/></patch>', "DOCTYPE"),
    "a document type behind a comment": (
        '<!-- --><!DOCTYPE a SYSTEM "file:///etc/passwd"><patch/>',
        "DOCTYPE",
    ),
    "deep": ("<patch>" + "<a>" * 300 + "</a>" * 300 + "</patch>", "levels"),
}


@pytest.mark.parametrize(("patch", "words"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_xml_patch(patch: str, words: str) -> None:
    """400, with the operation, what is wrong, and RFC 5261's name for it."""
    with pytest.raises(FhirError, match=words) as refused:
        xml_patch(patch.encode(), BOUNDS)
    assert refused.value.status == 400


SELECTORS = (
    *("", "/", "//", "a/", "a//", "/a/..", "..", "a[", "a[]", "a[0]", "a[-1]", "a[1", "a]", "a[@]"),
    *("a[@x=]", "a[@x=1]", "a[@x='1]", "a[b='1'", "a[count(b)=1]", "a[1=1]", "a[. and]", "a[b[1]]"),
    *("id('x')", "document('http://x')", "a | b", "a+b", "a[b or c]", "a[position()=0]", "$x"),
    *("ancestor::a", "following-sibling::a", "@x/a", "a/@x/b", "namespace::x/a", "a:b:c", "::a"),
    *("self::a", "a/.", "a[not(b)]", "a[.='x' or .='y']", "#", "a\u00e9", "a/b/@", "x" * 1001),
    *("processing-instruction(a)", "text('x')", "a(", "a()", "a[text(]", "a[last()", "a[last(1)]"),
)


@pytest.mark.parametrize("sel", SELECTORS)
def test_a_selector_that_is_not_understood(sel: str) -> None:
    """400, and the refusal shows it: axes that lead up or aside, functions, numbers, variables."""
    root = Element("", "patch", children=[Element("", "remove", {"sel": sel})])
    with pytest.raises(FhirError, match=r"Operation \[0\] of the patch \(remove") as refused:
        operations(root, BOUNDS)
    assert refused.value.status == 400


INAPPLICABLE = {
    "nothing": ('<remove sel="a/x"/>', "locates nothing.*unlocated-node"),
    "several": ('<remove sel="a/b"/>', "locates 2 nodes.*unlocated-node"),
    "an attribute that is not there": ('<replace sel="a/b[1]/@x">1</replace>', "locates nothing"),
    "text of an element": ('<remove sel="a/b[1]/text()/c"/>', "locates nothing"),
    "another namespace": ('<remove sel="h:a"/>', "locates nothing"),
    "the root": ('<remove sel="/a"/>', "invalid-root-element-operation"),
    "beside the root": ('<add sel="a" pos="after"><c/></add>', "invalid-root-element-operation"),
    "into an attribute": ('<add sel="a/b[2]/@v"><c/></add>', "invalid-node-types"),
    "beside an attribute": ('<add sel="a/b[2]/@v" pos="after"><c/></add>', "invalid-node-types"),
    "an attribute that is there": ('<add sel="a/b[2]" type="@v">2</add>', "is there already"),
    "an element by text": ('<replace sel="a/b[1]">x</replace>', "one element.*invalid-node-types"),
    "an element by two": ('<replace sel="a/b[1]"><c/><d/></replace>', "one element"),
    "an attribute by an element": ('<replace sel="a/b[2]/@v"><c/></replace>', "text only"),
    "an attribute with blanks": (
        '<remove sel="a/b[2]/@v" ws="both"/>',
        "invalid-whitespace-directive",
    ),
}


@pytest.mark.parametrize(("patch", "words"), INAPPLICABLE.values(), ids=INAPPLICABLE)
def test_what_does_not_fit(patch: str, words: str) -> None:
    """422, and the operation by its number: the first one has been applied to a tree of its own."""
    target = f'<a {FHIR}><b/><b v="1"/></a>'
    with pytest.raises(FhirError, match=rf"Operation \[1\].*{words}") as refused:
        applied(target, f'<patch><add sel="a" pos="prepend"><c/></add>{patch}</patch>')
    assert refused.value.status == 422


PREFIXES = (
    '<diff {f}><replace sel="Patient/active/@value">true</replace></diff>',
    '<diff><replace sel="/Patient/active/@value">true</replace></diff>',
    '<diff><replace sel="f:Patient/fhir:active/@value">true</replace></diff>',
    '<diff xmlns:x="http://hl7.org/fhir"><replace sel="x:Patient/x:*/@value">true</replace></diff>',
    (
        '<p:patch {f} xmlns:p="urn:ietf:rfc:7351"><p:replace sel="Patient/active/@value">true'
        "</p:replace></p:patch>"
    ),
    (
        '<patch xmlns="urn:ietf:rfc:7351"><replace sel="Patient/active">'
        '<active value="true"/></replace></patch>'
    ),
    (
        '<diff><replace sel="Patient/active" xmlns:f="http://hl7.org/fhir"><f:active value="true"/>'
        "</replace></diff>"
    ),
)


@pytest.fixture(scope="module")
def xml(definitions: Definitions) -> Xml:
    """The XML of all types."""
    return Xml(definitions)


def changed(
    xml: Xml, resource: dict[str, Any], patch: str, bounds: Bounds = BOUNDS
) -> dict[str, Any]:
    """Return what ``patch`` makes of ``resource``."""
    return patched_resource(resource, xml_patch(patch.encode(), bounds), xml, bounds)


@pytest.mark.parametrize("patch", PREFIXES)
def test_prefixes(xml: Xml, patch: str) -> None:
    """FHIR is the namespace without a prefix, by ``f`` and ``fhir``, and by any declared one."""
    patient = {"resourceType": "Patient", "active": False}

    assert changed(xml, patient, patch.format(f=FHIR))["active"] is True
    assert patient["active"] is False


DIV = f"<div {XHTML}><p title='a'>A&#160;&lt;b></p><br></br><!-- c --><![CDATA[<x>]]></div>"
PERSON: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "text": {"status": "additional", "div": DIV},
    "name": [{"given": ["A", "B"], "_given": [None, {"id": "g"}]}, {"family": "C"}],
    "birthDate": "2000",
}


def test_a_narrative_is_kept_as_it_is_written(xml: Xml) -> None:
    """Byte for byte, unless the patch is about it."""
    patch = '<diff><add sel="Patient/birthDate" pos="before"><gender value="male"/></add></diff>'

    assert changed(xml, PERSON, patch) == {**PERSON, "gender": "male"}


def test_a_narrative_can_be_changed(xml: Xml) -> None:
    """By the prefix of XHTML; what is around it stays the same in meaning."""
    patch = "<diff><replace sel='Patient/text/h:div/h:p/text()'>Z&lt;</replace></diff>"
    div = changed(xml, PERSON, patch)["text"]["div"]

    assert div == (f'<div {XHTML}><p title="a">Z&lt;</p><br/><!-- c -->&lt;x&gt;</div>')


def test_a_narrative_can_be_replaced(xml: Xml) -> None:
    """The new one is taken as it is written."""
    new = f"<div {XHTML}>N&#160;<br></br></div>"
    patch = f'<diff><replace sel="Patient/text/h:div">{new}</replace></diff>'

    assert changed(xml, PERSON, patch)["text"]["div"] == new


def test_what_is_emptied_goes(xml: Xml) -> None:
    """As in JSON: an element with nothing left in it, and the one that held only that."""
    first, second = "Patient/name[1]/given[1]", "Patient/name[2]/family"
    patch = f'<diff><remove sel="{second}"/><remove sel="{first}"/></diff>'

    assert changed(xml, PERSON, patch)["name"] == [{"given": ["B"], "_given": [{"id": "g"}]}]


NO_RESOURCE = {
    "out of order": ('<add sel="Patient"><gender value="male"/></add>', "order"),
    "an unknown element": ('<add sel="Patient"><genre value="male"/></add>', "genre"),
    "text": ('<add sel="Patient">x</add>', "text"),
    "an attribute": ('<add sel="Patient" type="@x">y</add>', "attribute"),
    "no boolean": (
        '<add sel="Patient/name[1]" pos="before"><active value="yes"/></add>',
        "true or false",
    ),
    "another resource": ('<replace sel="Patient"><Nothing/></replace>', "resource type"),
    "an empty value": ('<replace sel="Patient/birthDate/@value"></replace>', "empty value"),
    "another namespace": ('<add sel="Patient"><x xmlns="urn:x"/></add>', "namespace"),
}


@pytest.mark.parametrize(("patch", "words"), NO_RESOURCE.values(), ids=NO_RESOURCE)
def test_what_is_no_resource_afterwards(xml: Xml, patch: str, words: str) -> None:
    """422: the patched XML is read as every XML is, its order checked."""
    with pytest.raises(FhirError, match=words) as refused:
        changed(xml, PERSON, f"<diff>{patch}</diff>")
    assert refused.value.status == 422


def test_digits_are_kept(xml: Xml) -> None:
    """Of what the patch touches and of what it does not."""
    quantity = b'"valueQuantity":{"value":6.30}'
    text = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},' + quantity + b"}"
    observation = decode(text)
    patch = (
        '<diff><add sel="Observation"><component><code><text value="a"/></code>'
        '<valueQuantity><value value="1e2"/></valueQuantity></component></add></diff>'
    )
    result = encode(changed(xml, observation, patch))

    assert quantity in result
    assert b'"value":1e2' in result


def test_what_xml_cannot_hold_is_not_lost(xml: Xml) -> None:
    """A resource with such a character is not rewritten without it."""
    patch = '<diff><remove sel="Patient/birthDate"/></diff>'
    with pytest.raises(FhirError, match="XML cannot hold") as refused:
        changed(xml, {**PERSON, "language": "a\u0001"}, patch)
    assert refused.value.status == 422
    assert changed(xml, {**PERSON, "language": "a\ufffd"}, patch)["language"] == "a\ufffd"


COSTLY = {
    "operations": "<diff>" + '<remove sel="a"/>' * 1001 + "</diff>",
    "bytes": "<diff>" + " " * 7_000_000 + "</diff>",
    "nodes": "<diff>" + "<a/>" * 100_001 + "</diff>",
}


@pytest.mark.parametrize("patch", COSTLY.values(), ids=COSTLY)
def test_what_is_too_much(patch: str) -> None:
    """413 with the limit, in less than a second."""
    began = time.perf_counter()
    with pytest.raises(FhirError, match=r"limit") as refused:
        xml_patch(patch.encode(), BOUNDS)
    assert refused.value.status == 413
    assert time.perf_counter() - began < 1


def test_a_resource_of_too_much(xml: Xml) -> None:
    """One of too many nodes is refused, whatever the patch is; one of much data is not."""
    patch = '<diff><remove sel="//birthDate"/></diff>'
    many = {**PERSON, "name": [{"given": ["x"] * 100}] * 600}
    with pytest.raises(FhirError, match="50,000 nodes") as refused:
        changed(xml, many, patch)
    assert refused.value.status == 413
    much = {**PERSON, "photo": [{"data": "QUJD" * 1_000_000}]}
    assert "birthDate" not in changed(xml, much, patch)


def test_selectors_that_look_everywhere_end(xml: Xml) -> None:
    """The looks of all operations count together."""
    resource = {"resourceType": "Patient", "name": [{"given": ["x"] * 100}] * 100}
    patch = "<diff>" + '<add sel="//name[1]//given[.=\'y\']" type="@id">x</add>' * 1000 + "</diff>"
    many = "<diff>" + '<add sel="//*//*//*[1]//name[1]" type="@id">x</add>' * 100 + "</diff>"
    began = time.perf_counter()
    for one in (patch, many):
        with pytest.raises(FhirError) as refused:
            changed(xml, resource, one)
        assert refused.value.status == 422
    assert time.perf_counter() - began < 10


def test_nesting_ends(xml: Xml) -> None:
    """What a patch makes is bounded like every body."""
    one = "<extension url='u'>" * 150 + "<valueString value='x'/>" + "</extension>" * 150
    patch = f'<diff><add sel="Patient/birthDate" pos="before">{one}</add></diff>'
    with pytest.raises(FhirError) as refused:
        changed(xml, PERSON, patch)
    assert refused.value.status == 422


def test_references_are_rewritten() -> None:
    """Those in what is added, those that are written as a value; nothing else."""
    patch = (
        f'<p:patch {FHIR} xmlns:p="urn:ietf:rfc:7351">'
        '<p:add sel="Observation/code" pos="after"><subject><reference value="old"/>'
        "</subject></p:add>"
        '<p:replace sel="Observation/subject/reference/@value">old</p:replace>'
        '<p:add sel="f:Observation/f:subject/f:reference" type="@value">old</p:add>'
        '<p:replace sel="Observation/subject/display/@value">old</p:replace></p:patch>'
    )
    text = relinked(patch.encode(), BOUNDS, lambda value: value.replace("old", "new"))

    assert text.count(b"new") == 3
    assert text.count(b"old") == 1
    before, after = (xml_patch(one, BOUNDS) for one in (patch.encode(), text))
    assert [one.sel for one in before] == [one.sel for one in after]


DEFINITIONS = load_definitions(artifacts_root())
NAMES = st.lists(st.text("abc<&\"'\n \u00e9", min_size=1, max_size=4).filter(str.strip), max_size=3)


@given(NAMES, NAMES)
def test_a_difference_makes_the_one_of_the_other(one: list[str], other: list[str]) -> None:
    """Names taken out one by one and put in one by one, in whatever characters."""
    xml = Xml(DEFINITIONS)
    before, after = (
        {
            "resourceType": "Patient",
            **({"name": [{"text": text} for text in texts]} if texts else {}),
        }
        for texts in (one, other)
    )
    root = Element("", "diff")
    for _ in one:
        root.insert(len(root.children), [Element("", "remove", {"sel": "Patient/name[last()]"})])
    for text in reversed(other):
        add = Element("", "add", {"sel": "Patient", "pos": "prepend"})
        add.insert(0, [Element("", "name", children=[Element("", "text", {"value": text})])])
        root.insert(len(root.children), [add])
    if not root.children:
        return
    result = patched_resource(before, xml_patch(written(root), BOUNDS), xml, BOUNDS)

    assert canonical(result) == canonical(after)


def test_decimals_of_python_do_not_come_in(xml: Xml) -> None:
    """A decimal without a text of its own is written as it is."""
    quantity = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    patch = '<diff><replace sel="Observation/status/@value">amended</replace></diff>'
    result = changed(xml, {**quantity, "valueQuantity": {"value": Decimal("1.50")}}, patch)

    assert b'"value":1.50' in encode(result)
