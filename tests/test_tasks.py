"""What runs beside the requests: a task that fails is begun again, and the log says so."""

import asyncio
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from fhir_server import app
from fhir_server.outcome import FhirError, Issue
from fhir_server.registry import Registry, Task
from fhir_server.settings import Settings

SECRET = "Amina Rahman"  # what an error says may be of a patient


def _feature(run: Callable[[Any], Any]) -> ModuleType:
    made = ModuleType("failing")

    def register(registry: Registry) -> None:
        registry.task(Task("failing", run))

    made.register = register  # type: ignore[attr-defined]
    return made


async def test_a_task_that_fails_is_begun_again(
    mongodb_uri: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As often as it fails; what it has failed at is said, and nothing that it was about."""
    begun: list[int] = []
    lasting = asyncio.Event()

    async def run(_: Any) -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            raise FhirError(Issue("transient", SECRET))
        lasting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(app, "_PAUSE_S", 0.01)
    monkeypatch.setitem(sys.modules, "failing", _feature(run))
    named = settings.model_copy(update={"features": ("failing",), "mongodb_uri": mongodb_uri})
    async with app.running(named):
        async with asyncio.timeout(30):
            await lasting.wait()

    said = [json.loads(one.message) for one in caplog.records if one.name.endswith("failures")]
    assert begun == [0, 1, 2]
    assert [(one["request"], one["error"]) for one in said] == [("none: failing", "FhirError")] * 2
    assert SECRET not in caplog.text
