"""Removes large contents that no version of a Binary refers to, beside the requests."""

from fhir_server.context import Context
from fhir_server.registry import Task


async def _run(context: Context) -> None:
    await context.contents.run()


TASK = Task("contents", _run)
