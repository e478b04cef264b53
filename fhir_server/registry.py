"""What this server can do, as a table that routing, CapabilityStatement and documentation read."""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from fhir_server.context import Context
from fhir_server.messages import Request, Response
from fhir_server.store.changes import Change
from fhir_server.store.rules import Rule

Handler = Callable[[Request, Context], Awaitable[Response]]
Preparer = Callable[[Request, Context], Change]


class UnknownFeatureError(ValueError):
    """A module that ``FHIR_FEATURES`` lists is not there; the text names it."""


class Guard(Protocol):
    """Stands before the handlers of writes: it is given the handler, and calls it."""

    def concerns(self, request: Request, context: Context) -> bool:
        """Whether it has a say in ``request``; else it costs nothing."""

    async def __call__(self, request: Request, context: Context, handler: Handler) -> Response:
        """Have ``handler`` answer, or refuse."""


EVERY_TYPE = "*"
"""Where an operation is called that every resource type has."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation: ``name`` with its dollar sign, its definition's url, where it can be called.

    ``on`` lists resource types; ``""`` is the whole system and :data:`EVERY_TYPE` each type. On a
    type it is called on the type as a whole (``whole``), on one resource (``instance``), and on one
    version of it (``version``). ``affects_state`` says that it is called with POST only.
    ``setting`` is the name of the setting that switches it on; none is always on. ``native`` says
    that a Binary which it takes or gives comes and goes by its own content type. ``needs`` is what
    its caller must have: letters of a scope for its type, or one of the words of
    ``interactions/admitting.py``, which says how they are read. ``keyed`` are the types that it may
    write, where an Idempotency-Key makes a repeated call the same call.
    """

    name: str
    definition: str
    handler: Handler
    on: tuple[str, ...] = ("",)
    instance: bool = False
    affects_state: bool = False
    whole: bool = True
    version: bool = False
    setting: str = ""
    native: bool = False
    needs: str = "administrator"
    keyed: tuple[str, ...] = ()

    def takes(self, request: Request) -> bool:
        """Whether it can be called where ``request`` calls it: on a type, a resource, a version."""
        if request.version:
            return self.version
        return self.instance if request.id else self.whole or not request.type


async def _nothing_to_check(_: Context) -> None:
    """Find nothing wrong."""


@dataclass(frozen=True, slots=True)
class Task:
    """Work that runs beside requests from start to stop, such as a listener.

    ``check`` raises ``FhirError`` where it could not be done, such as for a file with a mistake: a
    server that runs is then not replaced by one that cannot do its work.
    """

    name: str
    run: Callable[[Context], Coroutine[Any, Any, None]]
    check: Callable[[Context], Awaitable[None]] = _nothing_to_check


@dataclass(frozen=True, slots=True)
class Service:
    """A CDS service: what discovery says of it, and what answers its hook.

    ``prefetch`` is key -> template. ``handler`` is given the parsed hook request, the resources by
    key of the prefetch, and the context; it returns cards as JSON.
    https://cds-hooks.hl7.org/2.0/#discovery
    """

    id: str
    hook: str
    title: str
    description: str
    prefetch: Mapping[str, str]
    handler: Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to one person. ``key`` is the same whenever it is sent again, and goes with it, so
    that a gateway sends it once. ``to`` is an address of the channel. ``about`` is for receivers
    that are programs: references and times, no names."""

    key: str
    to: str
    text: str
    subject: str = ""
    language: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


class Unsent(Exception):
    """A message was not taken; the text says why, without address and text of the message.
    ``is_final``: it would not be taken later either."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


Send = Callable[[Outgoing], Awaitable[None]]
"""Hands a message over; returns when it was taken. Raises :class:`Unsent`."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A way out for messages, such as ``sms``: ``opened`` opens it for as long as the server runs,
    and raises ``ValueError`` where the settings do not say how."""

    name: str
    opened: Callable[[Context], AbstractAsyncContextManager[Send]]


@dataclass(slots=True)
class Registry:
    """Handlers by name. A name can be taken once: a second registration is an error at start.

    ``refused`` are interactions that a type does not have, ``searched`` the codes that a type is
    searched by where these are not all it has.
    """

    interactions: dict[str, Handler] = field(default_factory=dict)
    changes: dict[str, Preparer] = field(default_factory=dict)
    operations: dict[tuple[str, str], Operation] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    routes: dict[str, Any] = field(default_factory=dict)
    hooks: dict[str, Service] = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    typed: dict[tuple[str, str], Handler] = field(default_factory=dict)
    typed_changes: dict[tuple[str, str], Preparer] = field(default_factory=dict)
    refused: dict[str, frozenset[str]] = field(default_factory=dict)
    searched: dict[str, frozenset[str]] = field(default_factory=dict)

    def interaction(self, name: str, handler: Handler, change: Preparer | None = None) -> None:
        """Add the interaction that the specification calls ``name``.

        ``change`` is what a writing one comes to without the writing, for transactions.
        """
        _take(self.interactions, name, handler)
        if change is not None:
            _take(self.changes, name, change)

    def of_type(
        self, type: str, name: str, handler: Handler, change: Preparer | None = None
    ) -> None:
        """Have ``handler`` answer the interaction or operation ``name`` of ``type`` alone."""
        _take(self.typed, (type, name), handler)
        if change is not None:
            _take(self.typed_changes, (type, name), change)

    def change_of(self, request: Request) -> Preparer | None:
        """Return what ``request`` comes to without the writing, or ``None``."""
        found = self.typed_changes.get((request.type, request.interaction))
        return found or self.changes.get(request.interaction)

    def interactions_of(self, type: str) -> Collection[str]:
        """Return the names of the interactions that ``type`` has."""
        refused = self.refused.get(type)
        return self.interactions.keys() - refused if refused else self.interactions

    def operation(self, operation: Operation) -> None:
        """Add ``operation`` for each type that it is called on."""
        for type in operation.on:
            _take(self.operations, (type, operation.name), operation)

    def task(self, task: Task) -> None:
        """Add work that runs beside requests."""
        _take(self.tasks, task.name, task)

    def hook(self, service: Service) -> None:
        """Add a CDS service, by its id."""
        _take(self.hooks, service.id, service)

    def guard(self, name: str, guard: Guard) -> None:
        """Add what stands before the handlers of writes, by its name."""
        _take(self.guards, name, guard)

    def rule(self, name: str, rule: Rule) -> None:
        """Add what holds inside the transaction of every write of its types, by its name."""
        _take(self.rules, name, rule)

    def channel(self, channel: Channel) -> None:
        """Add a way out for messages, by its name."""
        _take(self.channels, channel.name, channel)

    def guarded(self, handler: Handler, request: Request, context: Context) -> Handler:
        """Return ``handler`` behind the guards that ``request`` concerns."""
        for guard in self.guards.values():
            if guard.concerns(request, context):
                handler = partial(_through, guard, handler)
        return handler

    def route(self, path: str, app: Any) -> None:
        """Add an ASGI application outside the FHIR base, at ``path``.

        A path of one part that ends with a slash, such as ``/cds-services/``, is everything below.
        """
        _take(self.routes, path, app)

    def handler(self, request: Request) -> Handler | None:
        """Return what answers ``request``, or ``None``."""
        typed = self.typed.get((request.type, request.interaction))
        if typed is not None:
            return typed
        if request.interaction.startswith("$"):
            operation = self.operation_of(request)
            return operation.handler if operation else None
        return self.interactions.get(request.interaction)

    def operation_of(self, request: Request) -> Operation | None:
        """Return the operation that ``request`` calls, if there is one where it is called."""
        found = self.operations.get((request.type, request.interaction))
        if found is None and request.type:
            found = self.operations.get((EVERY_TYPE, request.interaction))
        return found if found and found.takes(request) else None

    def operations_on(self, type: str) -> Iterator[Operation]:
        """Yield the operations of ``type``, ``""`` for the system, in the order of registration."""
        for (on, _), operation in self.operations.items():
            is_there = on == type or (on == EVERY_TYPE and type)
            if is_there and operation.name not in self.refused.get(type, ()):
                yield operation

    def is_native(self, name: str) -> bool:
        """Whether a Binary of the operation ``name`` comes and goes by its own content type."""
        return any(one.native for one in self.operations.values() if one.name == name)

    def operation_names(self) -> Iterator[str]:
        """Yield each operation's name once, in the order of registration."""
        yield from dict.fromkeys(operation.name for operation in self.operations.values())


async def _through(guard: Guard, handler: Handler, request: Request, context: Context) -> Response:
    return await guard(request, context, handler)


def _take(table: dict[Any, Any], name: Any, value: Any) -> None:
    assert name not in table, f"{name} is registered twice"
    table[name] = value
