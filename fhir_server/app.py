"""The composition root: settings -> definitions, store, registry -> front door, and HTTP before it.

The only module where the clock and random values come from.
"""

import asyncio
import gc
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from fhir_server.artifacts import artifacts_root
from fhir_server.capabilities import Capabilities
from fhir_server.context import Context
from fhir_server.dispatch import perform, prepare
from fhir_server.ending import end_of
from fhir_server.http.authorize.application import PATHS as AUTHORIZATION_PATHS
from fhir_server.http.authorize.bearer import Bearer
from fhir_server.http.authorize.endpoints import authorization_server
from fhir_server.http.authorize.identity import identity
from fhir_server.http.authorize.pages import PAGES
from fhir_server.http.facade import Facade, log_failure
from fhir_server.http.intake import Bodies
from fhir_server.http.site import FHIR_PATH, Site, site
from fhir_server.interactions import CHANGES, INTERACTIONS, audit_events, auditing
from fhir_server.interactions.access import AccessRights
from fhir_server.interactions.bodies import issues_of
from fhir_server.interactions.people import ensure_people
from fhir_server.interactions.recording import before_the_door
from fhir_server.messages import Request, Resource, Response
from fhir_server.offline import Judge, packages_of
from fhir_server.operations import OPERATIONS, TASKS
from fhir_server.outcome import FhirError, nearest, shown
from fhir_server.packages import Installer
from fhir_server.r4.definitions import Definitions, load_definitions
from fhir_server.r4.links import Links
from fhir_server.r4.published import Published
from fhir_server.r4.structures import Structures
from fhir_server.r4.xml import Xml
from fhir_server.registry import Registry, UnknownFeatureError
from fhir_server.remote.terminology import TerminologyServers, terminology_servers
from fhir_server.search.index import Indexed, index
from fhir_server.search.parameters import ParameterTable, parameter_table
from fhir_server.security.chain import Key
from fhir_server.security.principal import SERVER, Principal
from fhir_server.security.rates import Buckets, Rate, Rates
from fhir_server.security.sealing import KEY_BYTES, NONCE_BYTES, Unopened, key_of, seal
from fhir_server.security.sealing import opened as unsealed
from fhir_server.settings import Settings
from fhir_server.store import deferral
from fhir_server.store.abandoned import end_abandoned
from fhir_server.store.accounts import Accounts
from fhir_server.store.answers import ensure_answers
from fhir_server.store.audit import Audit
from fhir_server.store.changes import Judge as WriteJudge
from fhir_server.store.claims import ensure_claims
from fhir_server.store.client import (
    Database,
    UnfitDatabaseError,
    check_replica_set,
    close,
    connect,
    database_of,
    deadline,
    is_ready,
)
from fhir_server.store.commit import Commit
from fhir_server.store.concepts import Concepts
from fhir_server.store.conformance import Conformance
from fhir_server.store.contents import Contents
from fhir_server.store.denials import Denials
from fhir_server.store.exports import Exports
from fhir_server.store.fetch import Fetch
from fhir_server.store.fitness import reasons_against
from fhir_server.store.indexes import Indexes
from fhir_server.store.integrity import Integrity
from fhir_server.store.keys import SearchKeys
from fhir_server.store.outbox import ensure_outbox
from fhir_server.store.packages import Packages
from fhir_server.store.queues import ensure_queues
from fhir_server.store.reindex import Reindex
from fhir_server.store.resources import ResourceStore, Timeouts
from fhir_server.store.rules import Rules
from fhir_server.store.shared import shared_key
from fhir_server.store.signing_keys import SigningKeys
from fhir_server.store.writer import Writer
from fhir_server.validation.profiles import ProfileValidator
from fhir_server.validation.structure import StructureValidator

_PAGE_KEY_BYTES = 32
_AUDIT_KEY = "audit_key"
# Between a task that has failed and its next beginning, longer each time.
_PAUSE_S, _PAUSE_S_MAX = 1.0, 60.0
# Objects that live as long as the process are not looked at again and again: collections of the
# youngest took a quarter of a transaction's time with Python's own threshold of 700.
_CHANCE_BYTES, _CHANCES = 10, 256
_GARBAGE_THRESHOLDS = (50_000, 20, 50)


@dataclass(frozen=True, slots=True, repr=False)  # keys are in it
class Server:
    """The open server without HTTP: what the front door needs, and the database behind it."""

    registry: Registry
    context: Context
    database: Database
    xml: Xml
    audit_keys: dict[str, Key] = field(default_factory=dict)

    @property
    def packages(self) -> Packages:
        """The records of the packages that were added."""
        return Packages(self.database)

    @property
    def installer(self) -> Installer:
        """What adds and removes packages."""
        return Installer(
            self.perform,
            self.packages,
            self.context.store.conformance,
            partial(issues_of, context=self.context),
            self.context.published.packages(),
        )

    async def perform(self, request: Request, principal: Principal = SERVER) -> Response:
        """Pass ``request`` through the front door, as ``principal`` asks it."""
        return await self.context.perform(request, self.context.asked_by(principal))


def build_registry(features: Iterable[str] = ()) -> Registry:
    """Return the table of everything this server does: R4 interactions, then each feature.

    ``features`` are dotted module names, each with a ``register(registry)`` function. A
    feature that is not named is not loaded; nothing is discovered. Raises UnknownFeatureError.
    """
    registry = Registry()
    for name, handler in INTERACTIONS.items():
        registry.interaction(name, handler, CHANGES.get(name))
    for operation in OPERATIONS:
        registry.operation(operation)
    audit_events.register(registry)
    registry.task(auditing.TASK)
    for task in TASKS:
        registry.task(task)
    signing_in = authorization_server(PAGES)
    for path in AUTHORIZATION_PATHS:
        registry.route(path, signing_in)
    for module in features:
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the feature is there, what it needs is not
            raise UnknownFeatureError(
                f"FHIR_FEATURES lists {module}, which is not there: no module {error.name}."
            ) from None
        found.register(registry)
    return registry


@dataclass(frozen=True, slots=True)
class Specification:
    """What was made from the definitions. It never changes, so a process has it once."""

    definitions: Definitions
    links: Links
    parameters: ParameterTable
    validator: StructureValidator
    xml: Xml
    published: Published
    profiles: ProfileValidator


@lru_cache(maxsize=16)
def specification(
    root: Path, base_urls: tuple[str, ...], text_search: bool = True, set_base: str = ""
) -> Specification:
    """Return what the packages below ``root`` define.

    ``base_urls`` are what this server is called: an absolute reference to one of them is the same
    as a relative one; ``set_base`` is the one that a setting names. ``text_search`` has words
    written for ``_text``. Raises ``ValueError`` that names the search parameter whose expression
    cannot be used.
    """
    definitions, links, structural, xml, published, profiles = _of_any_name(root)
    parameters = parameter_table(
        definitions,
        base_urls,
        text_search=text_search,
        reference_bases=(set_base,) if set_base else (),
    )
    return Specification(definitions, links, parameters, structural, xml, published, profiles)


@lru_cache(maxsize=4)
def _of_any_name(
    root: Path,
) -> tuple[Definitions, Links, StructureValidator, Xml, Published, ProfileValidator]:
    """Return what is the same whatever the server is called: all but the search parameters."""
    definitions = load_definitions(root)
    structural = StructureValidator(definitions)
    profiles = ProfileValidator(definitions, Structures(root), structural=structural)
    return definitions, Links(definitions), structural, Xml(definitions), Published(root), profiles


def offline_judge(
    packages: tuple[Path, ...], profiles: tuple[str, ...], artifacts: Path | None = None
) -> tuple[Judge, Xml]:
    """Return what judges files by what is on disk and in ``packages``, and what reads XML."""
    known = specification(artifacts_root(artifacts), ())
    judge = Judge(
        *(known.definitions, known.published, known.profiles, packages_of(packages), profiles)
    )
    return judge, known.xml


def base_urls(settings: Settings) -> tuple[str, ...]:
    """Return what this server is called: its public base, or its address and the local names."""
    if settings.base_url:
        return (settings.base_url.rstrip("/"),)
    hosts = dict.fromkeys((settings.host, "127.0.0.1", "localhost"))
    return tuple(f"http://{host}:{settings.port}{FHIR_PATH}" for host in hosts)


@asynccontextmanager
async def opened(
    settings: Settings, uri: str, *, observing: bool = False, deferring: bool = False
) -> AsyncIterator[Server]:
    """Open the server on the MongoDB at ``uri``, and close it at the end.

    One that is ``observing`` writes nothing, and leaves what others have indexed as it is. One that
    is ``deferring`` is of a load that makes the indexes at its end (``store/deferral.py``).

    Raises ``UnfitDatabaseError`` for a database that is no replica set, ``ValueError`` for
    definitions that cannot be used; both name the remedy.
    """
    known = specification(
        artifacts_root(settings.artifacts),
        base_urls(settings),
        settings.text_search,
        settings.base_url or "",
    )
    _check_types(settings, known.definitions)
    client = connect(uri, connections_max=settings.mongodb_connections_max, name=new_id())
    try:
        await check_replica_set(client)
        if not observing:
            await end_abandoned(client)
        database = database_of(client, settings.mongodb_database)
        async with (
            _search_keys(settings, database, known.parameters, observing) as keys,
            terminology_servers(
                settings.terminology_servers, settings.terminology_timeout_s
            ) as terminology,
        ):
            indexes = Indexes(database, known.parameters, keys.began, deferring)
            server = await _server(settings, indexes, keys, known, terminology)
            try:
                yield server
            finally:
                if server.context.store.audit is not None:
                    await server.context.store.audit.close()
    finally:
        await close(client)


@asynccontextmanager
async def _search_keys(
    settings: Settings, database: Database, parameters: ParameterTable, observing: bool
) -> AsyncIterator[SearchKeys]:
    """The search keys of this process, announced to the others as long as it runs."""
    longest = max(settings.request_timeout_s, settings.write_timeout_s)
    keys = SearchKeys(database, parameters, new_id(), longest, observing)
    if observing:
        await keys.refresh()
        yield keys
        return
    await keys.begin()
    beating = asyncio.create_task(keys.run(), name="search keys")
    try:
        yield keys
    finally:
        await end_of([beating])
        await keys.leave()


async def _server(
    settings: Settings,
    indexes: Indexes,
    keys: SearchKeys,
    known: Specification,
    terminology: TerminologyServers,
) -> Server:
    database = indexes.database
    contents = Contents(database, settings.request_timeout_s, new_id)
    master_key = await _master_key(settings, database, observing=keys.observing)
    signed = settings.audit and not keys.observing
    audit_key = await _audit_key(database, master_key, is_writing=signed)
    audit = None if keys.observing else await _audit(settings, database, audit_key)
    registry = build_registry(settings.features)
    rules = Rules(settings, tuple(registry.rules.values()))
    store = _store(settings, database, indexes, keys, audit, rules)
    page_key = b""
    if not keys.observing:
        types = await deferral.settled(keys, indexes)
        await ensure_claims(database)
        await ensure_answers(database)
        await ensure_queues(database)
        await ensure_outbox(database)
        await contents.ensure()
        await store.concepts.ensure()
        await store.offers.ensure()
        await store.calendar_links.ensure()
        await store.granules.ensure(settings.scheduling_granule_minutes, now())
        await store.proposals.ensure()
        await store.denials.prepare(types)
        page_key = await shared_key(database, "page_key", secrets.token_bytes(_PAGE_KEY_BYTES))
    signing = SigningKeys(database, now, master_key, settings.request_timeout_s)
    accounts = Accounts(database, now, new_secret, new_id, settings.request_timeout_s, signing)
    if not keys.observing:
        await accounts.ensure()
        await ensure_people(database)
    _calm_garbage_collector()
    started = now()
    return Server(
        registry,
        Context(
            settings=settings,
            definitions=known.definitions,
            xml=known.xml,
            links=known.links,
            published=known.published,
            store=store,
            contents=contents,
            reindex=Reindex(database, keys, partial(_indexed, keys)),
            exports=Exports(database, keys.id, settings.request_timeout_s),
            validate=partial(known.validator.issues, issues_max=settings.issues_max),
            terminology=terminology,
            now=now,
            new_id=new_id,
            page_key=page_key,
            perform=partial(perform, registry),
            prepare=partial(prepare, registry),
            profiles=known.profiles,
            capabilities=Capabilities(
                *(registry, known.definitions, known.published, keys, started, settings)
            ),
            access=AccessRights(),
            accounts=accounts,
            master_key=master_key,
            rates=Rates(Buckets(Rate(settings.rate_per_s, settings.rate_burst))),
        ),
        database,
        known.xml,
        {audit_key.name: audit_key},
    )


async def _master_key(settings: Settings, database: Database, *, observing: bool) -> bytes:
    """Return the key that is set; in development, where none is, one that the database keeps.

    Without one nothing is sealed in production, where ``serve`` does not begin without.
    """
    key = key_of(settings.master_key_text())
    if not key and settings.mode == "development":
        fresh = b"" if observing else secrets.token_bytes(KEY_BYTES)
        return await shared_key(database, "master_key", fresh)
    return key


def _calm_garbage_collector() -> None:
    """Leave alone what lives as long as the process, and look less often at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


def _indexed(keys: SearchKeys, resource: Resource) -> Indexed:
    """Return what is written beside ``resource``, by the search parameters as they are now."""
    return index(resource, keys.table)


async def _audit_key(database: Database, master_key: bytes, *, is_writing: bool) -> Key:
    """Return what signs the audit record, which the database keeps sealed under ``master_key``.

    Raises ``UnfitDatabaseError`` for another master key than that, or none.
    """
    try:
        fresh = b""
        if is_writing:
            new, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
            fresh = seal(master_key, new, nonce, _AUDIT_KEY)
        kept = await shared_key(database, _AUDIT_KEY, fresh)
        return Key(unsealed(master_key, kept, _AUDIT_KEY) if kept else b"")
    except (ValueError, Unopened) as error:
        raise UnfitDatabaseError(
            f"The audit record of this database cannot be signed: {error}. Set the master key "
            "that it was begun with (FHIR_MASTER_KEY_FILE)."
        ) from error


async def _audit(settings: Settings, database: Database, key: Key) -> Audit | None:
    """Return what records requests, if they are to be."""
    if not settings.audit:
        return None
    strict = settings.audit_reads == "strict"
    audit = Audit(database, key, new_id, settings.audit_rows_waiting_max, strict)
    await audit.ensure()
    return audit


def _store(
    settings: Settings,
    database: Database,
    indexes: Indexes,
    keys: SearchKeys,
    audit: Audit | None,
    rules: Rules,
) -> ResourceStore:
    judge = WriteJudge(
        partial(_indexed, keys), settings.resource_bytes_max, settings.versioned_updates
    )
    integrity = Integrity(
        *(database, indexes, keys),
        settings.referential_integrity,
        settings.reference_targets_checked,
    )
    conformance = Conformance(database)
    bound = partial(deadline, settings.request_timeout_s, "Try again.")
    denials = Denials(database, Fetch(database, bound, {"number": 1}), base_urls(settings))
    return ResourceStore(
        database,
        indexes,
        Timeouts(settings.request_timeout_s, settings.write_timeout_s, settings.search_timeout_s),
        settings.page_bytes_max,
        settings.includes_max,
        Fetch(database, bound),
        Fetch(database, bound, {"version": 1, "at": 1, "times": 1}),
        Commit(Writer(database, judge, keys, integrity, denials, audit=audit, rules=rules)),
        keys,
        Concepts(database, settings.request_timeout_s, conformance),
        conformance,
        denials,
        audit=audit,
    )


def _check_types(settings: Settings, definitions: Definitions) -> None:
    """Refuse a setting that lists what is no resource type: it would promise what nothing keeps."""
    for name in (
        *("versioned_updates", "referential_integrity", "reference_targets_checked"),
        *("validation", "profiles"),
    ):
        for type in getattr(settings, name):
            if type != "*" and type not in definitions.resource_types:
                near = nearest(type, definitions.resource_types)
                raise ValueError(
                    f"FHIR_{name.upper()} lists {shown(type)}, no resource type.{near}"
                )


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """Return a new logical id: a UUID that begins with the time, so that ids of one time are near
    each other in the database's index (RFC 9562, version 7)."""
    when, chance = f"{time.time_ns() // 1_000_000:012x}", _chance().hex()
    variant = "89ab"[int(chance[0], 16) & 3]
    return f"{when[:8]}-{when[8:]}-7{chance[1:4]}-{variant}{chance[5:8]}-{chance[8:]}"


_drawn: list[bytes] = []
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_drawn.clear)  # or two processes would give the same ids


def _chance() -> bytes:
    """Return ten random bytes. They are drawn from the system many at a time: each request has an
    id, and to ask the system for each took 7 of its 200 µs."""
    try:
        return _drawn.pop()
    except IndexError:  # another thread may have taken the last
        some = os.urandom(_CHANCE_BYTES * _CHANCES)
    _drawn.extend(
        some[at : at + _CHANCE_BYTES] for at in range(_CHANCE_BYTES, len(some), _CHANCE_BYTES)
    )
    return some[:_CHANCE_BYTES]


def bearer(settings: Settings, accounts: Callable[[], Accounts]) -> Bearer:
    """Return what says who asks: by tokens of ``accounts``, or of the issuer that is set."""
    return identity(settings, accounts, base_urls(settings), lambda: now().timestamp())


def new_secret() -> str:
    """Return 256 random bits in base64url: a code, a token, the secret of a client."""
    return secrets.token_urlsafe(32)


@asynccontextmanager
async def running(settings: Settings, *, is_checked: bool = False) -> AsyncIterator[Site]:
    """Give the ASGI application, the work beside its requests under way.

    Each worker process has its own; they share nothing but MongoDB. One that ``is_checked`` does
    not begin where a feature says that it could not do its work: ``FhirError``. Else it begins,
    and the feature says so when it is asked.
    """
    if settings.mode == "production" and (reasons := await reasons_against(settings)):
        raise UnfitDatabaseError(" ".join(reasons))
    async with opened(settings, settings.mongodb_uri) as server:
        every = server.registry.tasks
        if is_checked:
            for task in every.values():
                await task.check(server.context)
        tasks = [
            asyncio.create_task(_kept(name, task.run, server.context), name=name)
            for name, task in every.items()
        ]
        try:
            yield _site(settings, server)
        finally:
            await end_of(tasks)


async def _kept(
    name: str, run: Callable[[Context], Coroutine[Any, Any, None]], context: Context
) -> None:
    """Run, and run again where it fails: reminders are sent when the database is there again."""
    pause = _PAUSE_S
    while True:
        try:
            return await run(context)
        except Exception as error:  # noqa: BLE001 - outermost shell: requests are answered all the same
            log_failure(f"none: {name}", error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _PAUSE_S_MAX)


def _site(settings: Settings, server: Server) -> Site:
    """Return ``server`` behind HTTP."""
    context = server.context

    async def refused(
        principal: Principal, called: tuple[str, str, bytes], error: FhirError
    ) -> None:
        await before_the_door(context, principal, called, error)

    async def ready() -> bool:
        return await is_ready(server.database, now)

    facade = Facade(
        *(FHIR_PATH, server.perform, settings, new_id, INTERACTIONS),
        *(lambda: server.xml, bearer(settings, lambda: context.accounts)),
        server.registry.is_native,
        refused,
        context.rates.admit,
        Bodies(settings.bodies_bytes_max),
    )
    return site(facade, ready, None, settings, lambda: (server.registry.routes, context))
