"""https://hl7.org/fhir/R4/xml.html and ../shared/data/badinput/xml: attacks on readers of XML."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_server.outcome import FhirError
from fhir_server.r4.definitions import load_definitions
from fhir_server.r4.xml import Xml
from tests.badinput.conftest import Cases, Watch
from tests.conftest import ROOT

FILES = ("xml/documents.jsonl", "xml/xxe.b64", "xml/attacks.b64")
XML_BODY = {"content-type": "application/fhir+xml", "accept": "application/fhir+xml"}
JSON_BODY = {"content-type": "application/fhir+json"}
SECONDS_MAX = 0.1
CANARY = "qxzv-canary-text"
FHIR = 'xmlns="http://hl7.org/fhir"'
LAUGHS = "".join(
    f'<!ENTITY a{at} "{f"&a{at - 1};" * 10}">' if at else '<!ENTITY a0 "dos">' for at in range(10)
)
HOSTILE = {
    "an external entity": '<!DOCTYPE Patient [<!ENTITY a SYSTEM "{file}">]>{begin}&a;{end}',
    "in an attribute": '<!DOCTYPE Patient [<!ENTITY a SYSTEM "{file}">]>{begin}<x y="&a;"/>{end}',
    "by the network": '<!DOCTYPE Patient [<!ENTITY a SYSTEM "{http}">]>{begin}&a;{end}',
    "an external subset": '<!DOCTYPE Patient SYSTEM "{http}">{begin}{end}',
    "a public subset": '<!DOCTYPE Patient PUBLIC "-//x" "{http}">{begin}{end}',
    "a parameter entity": '<!DOCTYPE Patient [<!ENTITY % a SYSTEM "{http}"> %a;]>{begin}{end}',
    "behind a comment": '<?a?><!-- -->\n<!DOCTYPE a [<!ENTITY a SYSTEM "{file}">]>{begin}&a;{end}',
    "behind a byte order mark": '\ufeff<!DOCTYPE a [<!ENTITY a SYSTEM "{file}">]>{begin}&a;{end}',
    "in narrative": '{begin}<text><status value="generated"/><!DOCTYPE a SYSTEM "{http}">{end}',
    "XInclude": (
        '{begin}<x:include xmlns:x="http://www.w3.org/2001/XInclude" href="{file}"/>{end}'
    ),
    "a style sheet": '<?xml-stylesheet type="text/xsl" href="{http}"?>{begin}<x/>{end}',
    "the place of a schema": (
        f'<Patient {FHIR} xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://hl7.org/fhir {http}"><x/></Patient>'
    ),
    "a billion laughs": f"<!DOCTYPE a [{LAUGHS}]>{{begin}}&a9;{{end}}",
    "quadratic": '<!DOCTYPE a [<!ENTITY a "'
    + "a" * 50_000
    + '">]>{begin}'
    + "&a;" * 50_000
    + "{end}",
    "an entity of itself": '<!DOCTYPE a [<!ENTITY a "&a;">]>{begin}&a;{end}',
    "in UTF-7": '<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE a "{http}"+AD4-{begin}',
}
ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that nobody is to connect to."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


@pytest.fixture
def hostile(tmp_path: Path, listener: socket.socket) -> dict[str, bytes]:
    """Documents that name a file with the canary in it, and an address that is listened at."""
    file = tmp_path / "canary"
    file.write_text(CANARY)
    values = {
        "file": file.as_uri(),
        "http": f"http://127.0.0.1:{listener.getsockname()[1]}/a.dtd",
        "begin": f"<Patient {FHIR}>",
        "end": "</Patient>",
    }
    documents = {}
    for name, text in HOSTILE.items():
        for key, value in values.items():
            text = text.replace(f"{{{key}}}", value)
        for encoding in ENCODINGS:
            documents[f"{name} in {encoding}"] = text.encode(encoding)
    return documents


def nobody_came(listener: socket.socket) -> bool:
    """Return whether no connection waits."""
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


def test_the_reader_refuses_them_at_once(
    hostile: dict[str, bytes], cases: Cases, listener: socket.socket
) -> None:
    """Each is refused within 100 ms, without a look at a file or the network."""
    xml = Xml(load_definitions(ROOT))
    for name, text in [*hostile.items(), *cases(*FILES)]:
        began = time.perf_counter()
        with pytest.raises(FhirError) as refused:
            xml.decode(text)
        assert time.perf_counter() - began < SECONDS_MAX, name
        assert refused.value.status == 400, name
        assert CANARY not in str(refused.value), name
    assert nobody_came(listener)


async def test_as_a_body(
    watch: Watch, hostile: dict[str, bytes], cases: Cases, listener: socket.socket
) -> None:
    """As a create, an update and a bundle: 400 with an outcome in XML, nothing of the canaries."""
    documents = [*hostile.items(), *cases(*FILES)]
    for name, text in documents:
        for method, target in (("POST", "Patient"), ("PUT", "Patient/x"), ("POST", "")):
            # _format decides over Accept, so that the watch finds its outcome in JSON.
            answer = await watch(name, method, f"{target}?_format=json", XML_BODY, text)
            watch.check(name, answer.status_code == 400, f"status {answer.status_code}")
            watch.check(name, CANARY not in answer.text, "the canary")
            watch.check(name, b"Qxzvkanary" not in answer.content, "a patient")
    assert len(documents) > 90
    assert watch.faults == {}
    assert nobody_came(listener)


async def test_as_narrative(
    watch: Watch, hostile: dict[str, bytes], cases: Cases, listener: socket.socket
) -> None:
    """Inside of Narrative.div, in XML: refused, or plain text that comes back as it was."""
    head = f'<Patient {FHIR}><id value="n"/><text><status value="generated"/>'.encode()
    open, close = b'<div xmlns="http://www.w3.org/1999/xhtml">', b"</div></text></Patient>"
    for name, text in [*hostile.items(), *cases(*FILES)]:
        body = head + open + text + close
        answer = await watch(name, "PUT", "Patient/n?_format=json", XML_BODY, body)
        watch.check(name, CANARY not in answer.text, "the canary")
        if answer.status_code < 300:
            div = (open + text + b"</div>").decode()
            watch.check(name, answer.json()["text"]["div"] == div, "another narrative")
    assert watch.faults == {}
    assert nobody_came(listener)


async def test_as_a_patch(
    watch: Watch, hostile: dict[str, bytes], cases: Cases, listener: socket.socket
) -> None:
    """A11: as an XML Patch, as it is and inside of one; the resource stays as it was."""
    headers = {**XML_BODY, "content-type": "application/xml-patch+xml"}
    for name, text in [*hostile.items(), *cases(*FILES)]:
        inside = b'<diff><replace sel="Patient/gender/@value">' + text + b"</replace></diff>"
        for body in (text, inside):
            target = "Patient/canary-0?_format=json"
            answer = await watch(name, "PATCH", target, headers, body)
            watch.check(name, 400 <= answer.status_code < 500, f"status {answer.status_code}")
            watch.check(name, CANARY not in answer.text, "the canary")
    assert watch.faults == {}
    assert nobody_came(listener)
