"""The command ``fhir-server consents``: is what Consents deny kept as they say it?

Section 3.3 of design/security.md. Every write of a Consent keeps its row beside it, so there is
nothing to find; after a restore of parts of a database there may be.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.console import Console

from fhir_server.context import Context
from fhir_server.settings import Settings

_SHOWN = 20


class Opened(Protocol):
    """The open server, as far as this command knows it."""

    @property
    def context(self) -> Context:
        """What handlers are given."""


Open = Callable[..., AbstractAsyncContextManager[Opened]]


def consents_command(
    settings: Callable[..., Settings], open: Open, console: Console
) -> Callable[..., None]:
    """Return the command. ``settings`` and ``open`` are those of the command line."""

    def consents(
        repair: Annotated[bool, typer.Option("--repair", help="Put right what differs.")] = False,
        data: Annotated[
            Path | None, typer.Option("--data", help="Folder of the embedded MongoDB (FHIR_DATA).")
        ] = None,
    ) -> None:
        """Check that all that Consents deny is denied; exit code 1 where it is not."""
        wrong = asyncio.run(_differing(settings(data=data), open, repair=repair))
        if not wrong:
            console.print("What is denied is what the Consents say.")
            return
        for id in wrong[:_SHOWN]:
            console.print(f"Consent/{id}", markup=False)
        text = "put right" if repair else "differ; --repair puts them right"
        console.print(f"{len(wrong)} {text}.", markup=False)
        if not repair:
            raise typer.Exit(1)

    return consents


async def _differing(settings: Settings, open: Open, *, repair: bool) -> list[str]:
    async with open(settings, observing=not repair) as server:
        denials = server.context.store.denials
        wrong = await denials.differing()
        if repair and wrong:
            await denials.rebuild()
        return wrong
