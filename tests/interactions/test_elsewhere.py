"""A terminology server behind this one: a real server on loopback that knows one code system."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest

from fhir_server.app import Server, opened
from fhir_server.interactions.coding import answered
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from fhir_server.r4.questions import CodeInSystem, CodeInValueSet
from fhir_server.remote import client
from fhir_server.settings import Settings

SYSTEM = "http://remote.example/plants"
ROSE = CodeInSystem(SYSTEM, "rose")

Resource = dict[str, Any]


def validated(result: object, **more: str) -> Resource:
    """Return the Parameters that a ``$validate-code`` answers with."""
    said: list[Resource] = [{"name": "result", "valueBoolean": result}]
    said += [{"name": name, "valueString": text} for name, text in more.items()]
    return {"resourceType": "Parameters", "parameter": said}


class Other:
    """The other server: what it was asked, and how it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answer: Callable[[], bytes] = lambda: self.reply(200, validated(True, display="Rose"))
        self.port = 0

    @staticmethod
    def reply(status: int, body: Any, *headers: str) -> bytes:
        """Return an HTTP answer."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(text)}", *headers, "", ""]
        return "\r\n".join(head).encode() + text

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests, one after the other."""
        try:
            while line := await reader.readline():
                method, target, _ = line.decode().split()
                length = 0
                while (header := await reader.readline()) != b"\r\n":
                    name, _, value = header.decode().partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                body = await reader.readexactly(length)
                self.asked.append((method, target, json.loads(body) if body else None))
                writer.write(self.answer())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    """The other server, running."""
    one = Other()
    listening = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = listening.sockets[0].getsockname()[1]
    yield one
    listening.close()


@pytest.fixture
async def asking(other: Other, mongodb_uri: str, settings: Settings) -> AsyncIterator[Server]:
    """Our server, with the other one behind it for one system."""
    bases = {SYSTEM: f"http://127.0.0.1:{other.port}/fhir"}
    behind = settings.model_copy(
        update={"terminology_servers": bases, "terminology_timeout_s": 0.5}
    )
    async with opened(behind, mongodb_uri) as server:
        yield server


async def lookup(server: Server, system: str = SYSTEM, code: str = "rose") -> Resource:
    """Look ``code`` up with GET."""
    given = (("system", system), ("code", code))
    answer = await server.perform(Request("$lookup", "CodeSystem", parameters=given, reading=True))
    found: Resource = json.loads(answer.body)
    return found


async def test_a_code_is_asked_once_an_hour(asking: Server, other: Other) -> None:
    """The answer is the other's; it is kept."""
    first = (await answered([ROSE], asking.context))[ROSE]
    again = (await answered([ROSE], asking.context))[ROSE]
    [(method, target, body)] = other.asked

    assert (first.result, first.display) == (True, "Rose")
    assert again == first
    assert (method, target) == ("POST", "/fhir/CodeSystem/$validate-code")
    assert body["parameter"][-1]["valueCoding"] == {"system": SYSTEM, "code": "rose"}


async def test_our_value_set_over_its_system(asking: Server, other: Other) -> None:
    """The definition goes along; without a system in the code it is the one that the set names."""
    value_set: Resource = {"resourceType": "ValueSet", "id": "v", "url": "http://x/v"}
    value_set |= {"status": "active", "compose": {"include": [{"system": SYSTEM}]}}
    await asking.perform(Request("update", "ValueSet", "v", body=value_set))
    question = CodeInValueSet("http://x/v", "", "rose")
    found = await answered([question], asking.context)
    [(_, target, body)] = other.asked
    sent = {one["name"]: one for one in body["parameter"]}

    assert found[question].result is True
    assert target == "/fhir/ValueSet/$validate-code"
    assert sent["valueSet"]["resource"]["compose"] == value_set["compose"]
    assert sent["coding"]["valueCoding"] == {"system": SYSTEM, "code": "rose"}


async def test_what_is_here_is_not_asked_elsewhere(asking: Server, other: Other) -> None:
    """Neither are systems for which no server is named."""
    here = CodeInSystem("http://hl7.org/fhir/administrative-gender", "male")
    nowhere = CodeInSystem("http://nowhere.example", "a")
    found = await answered([here, nowhere], asking.context)

    assert (found[here].result, found[nowhere].result) == (True, None)
    assert other.asked == []


async def test_a_lookup_is_passed_on(asking: Server, other: Other) -> None:
    """As it was asked; to where the setting says, whatever the request names."""
    other.answer = lambda: other.reply(200, {"resourceType": "Parameters", "parameter": []})
    found = await lookup(asking)
    with pytest.raises(FhirError, match="not here"):
        await lookup(asking, "http://evil.example/fhir")
    [(method, target, _)] = other.asked
    path, _, query = target.partition("?")

    assert found == {"resourceType": "Parameters", "parameter": []}
    assert (method, path) == ("GET", "/fhir/CodeSystem/$lookup")
    assert parse_qsl(query) == [("system", SYSTEM), ("code", "rose")]


async def test_a_refusal_is_told(asking: Server, other: Other) -> None:
    """With the status of the other server, and whose refusal it is."""
    outcome = {"resourceType": "OperationOutcome", "issue": [{"diagnostics": "No such code."}]}
    other.answer = lambda: other.reply(404, outcome)
    with pytest.raises(FhirError, match=r"refuses this: No such code\.") as refused:
        await lookup(asking)

    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: Other.reply(500, {"resourceType": "OperationOutcome"}), "answered with 500"),
        (lambda: Other.reply(200, b"<html>"), "no FHIR"),
        (lambda: Other.reply(200, {"no": "resource"}), "answered with 200"),
        (lambda: Other.reply(302, b"{}", "Location: http://127.0.0.1:1/x"), "answered with 302"),
        (lambda: Other.reply(200, b'"' + b"x" * 9_000_000 + b'"'), "over 8 MB"),
        (lambda: Other.reply(200, b"[" * 1000 + b"]" * 1000), "no FHIR"),
        (lambda: b"", "in time"),
        (lambda: b"no HTTP\r\n\r\n", "in time"),
    ],
    ids=["500", "html", "other JSON", "redirect", "large", "deep", "silent", "no HTTP"],
)
async def test_no_answer_is_no_verdict(
    asking: Server, other: Other, answer: Callable[[], bytes], words: str
) -> None:
    """The code cannot be told, a lookup is 503, and nothing is kept of it."""
    other.answer = answer
    found = (await answered([ROSE], asking.context))[ROSE]
    with pytest.raises(FhirError, match=words) as refused:
        await lookup(asking)
    other.answer = lambda: other.reply(200, validated(True))

    assert found.result is None
    assert words in found.message
    assert refused.value.status == 503
    assert (await answered([ROSE], asking.context))[ROSE].result is True


async def test_a_server_that_fails_is_left_alone(
    asking: Server, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three failures nobody waits for it; after a while it is tried again."""
    monkeypatch.setattr(client, "REST_S", 0.3)
    other.answer = lambda: other.reply(500, b"")
    for code in "abcde":
        await answered([CodeInSystem(SYSTEM, code)], asking.context)
    asked = len(other.asked)
    other.answer = lambda: other.reply(200, validated(True))
    resting = (await answered([ROSE], asking.context))[ROSE]
    await asyncio.sleep(0.4)

    assert asked == client.FAILURES_MAX
    assert (resting.result, "lately" in resting.message) == (None, True)
    assert (await answered([ROSE], asking.context))[ROSE].result is True


@pytest.mark.parametrize("body", [{}, {"parameter": [{"name": "result"}]}, validated("yes")])
async def test_an_answer_without_a_result_leaves_it_open(
    asking: Server, other: Other, body: Resource
) -> None:
    """What is no verdict is not taken for one."""
    other.answer = lambda: other.reply(200, {"resourceType": "Parameters", **body})

    assert (await answered([ROSE], asking.context))[ROSE].result is None


@pytest.mark.parametrize(
    "text",
    [
        *(f"{SYSTEM}=http://tx.example/fhir", f"{SYSTEM}=ftp://tx.example", f"{SYSTEM}=tx"),
        *(f"{SYSTEM}=https://user@tx.example", f"{SYSTEM}=https://tx.example/?a=b"),
    ],
)
def test_a_base_that_is_not_safe_stops_the_start(text: str) -> None:
    """Plain http is for this machine alone."""
    with pytest.raises(ValueError, match="terminology_servers"):
        Settings.model_validate({"terminology_servers": text})


def test_the_setting_has_two_forms() -> None:
    """Pairs, and a JSON object."""
    wanted = {SYSTEM: "https://tx.example/r4", "urn:a": "http://localhost:1/fhir"}
    pairs = ", ".join(f"{system}={base}/" for system, base in wanted.items())

    for text in (pairs, json.dumps(wanted)):
        assert Settings.model_validate({"terminology_servers": text}).terminology_servers == wanted
