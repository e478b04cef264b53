"""Every setting and limit: name, default, unit, and why that number.

Each is read from the environment (``FHIR_`` and the name in capitals) or from a file ``.env`` in
the working directory. The README lists the same table; a test compares the two.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _listed(value: Any) -> Any:
    """Return the names of ``Patient,Encounter``, of ``*`` and of a JSON list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _base_of(url: str) -> str:
    """Return the base ``url`` without a slash at its end.

    Raises ``ValueError`` for what is no https URL: codes that go out plain could be read and
    changed by anybody on the way. Plain http is for this machine alone.
    """
    parts = urlsplit(url)
    plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (parts.scheme == "https" or plain) or not parts.hostname:
        raise ValueError(f"{url!r} is no https URL")
    if parts.query or parts.fragment or parts.username:
        raise ValueError(f"{url!r} has more than host and path")
    return url.rstrip("/")


def _bases(value: Any) -> Any:
    """Return name -> base URL of ``name=url,name=url`` and of a JSON object; the URLs checked."""
    if isinstance(value, str):
        if value.lstrip().startswith("{"):
            value = json.loads(value)
        else:
            pairs = (one.strip().rpartition("=") for one in value.split(",") if one.strip())
            value = {name: url for name, _, url in pairs}
    return {name: _base_of(url) for name, url in value.items()}


Bases = Annotated[dict[str, str], NoDecode, BeforeValidator(_bases)]
"""Base URL of another server, by what it is for."""

Types = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
"""Resource types by name; ``*`` among them is all of them."""


def covers(types: Types, type: str) -> bool:
    """Whether ``type`` is one of ``types``."""
    return type in types or "*" in types


Mode = Literal["refuse", "warn", "off"]


def _by_type(value: Any) -> Any:
    """Return ``{"Patient": "refuse"}`` for ``Patient=refuse``, with commas, and for JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return json.loads(value)
    found: dict[str, str] = {}
    for one in filter(None, map(str.strip, value.split(","))):
        type, equals, said = map(str.strip, one.partition("="))
        if not (type and equals and said):
            raise ValueError(f"{one[:40]!r} is not Type=value")
        if type in found:
            raise ValueError(f"{type[:40]} is named twice")
        found[type] = said
    return found


def _urls_by_type(value: Any) -> Any:
    """Return ``{"Patient": ("http://a",)}``; several urls of one type have spaces between."""
    found = _by_type(value)
    if not isinstance(found, dict):
        return found
    return {
        type: tuple(said.split()) if isinstance(said, str) else said for type, said in found.items()
    }


Modes = Annotated[dict[str, Mode], NoDecode, BeforeValidator(_by_type)]
"""What becomes of what is not valid, by resource type; ``*`` is every type that is not named."""

Demands = Annotated[dict[str, tuple[str, ...]], NoDecode, BeforeValidator(_urls_by_type)]
"""Canonicals of profiles by resource type."""


class Settings(BaseSettings):
    """The settings of one server process. Wrong values stop the start and are named."""

    model_config = SettingsConfigDict(
        env_prefix="FHIR_", env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    mode: Literal["development", "production"] = Field(
        default="development", description="`production` refuses what is only fit for trying out."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=1, le=65535, description="Port to listen on.")
    base_url: str = Field(
        default="",
        description="The public base, such as `https://fhir.clinic.example/fhir`, where a "
        "proxy stands in front; else taken from each request's Host.",
    )
    workers: int = Field(
        default=1, ge=1, le=64, description="Server processes; one per core at most."
    )

    mongodb_uri: str = Field(
        default="", description="A replica set of your own. Empty: an embedded mongod under `data`."
    )
    mongodb_database: str = Field(
        default="fhir", pattern=r"^[A-Za-z0-9_-]{1,38}$", description="Name of the database."
    )
    mongodb_connections_max: int = Field(
        default=64,
        ge=1,
        description="Connections to MongoDB per process; more only queue up there.",
    )
    data: Path = Field(
        default=Path(".fhir-server"), description="Folder of the embedded MongoDB's files and log."
    )
    embedded_cache_mb: int = Field(
        default=512, ge=256, description="Memory the embedded MongoDB may use for its cache, in MB."
    )
    artifacts: Path | None = Field(
        default=None, description="A folder with `profiles/` and `terminology/` in place of ours."
    )
    features: tuple[str, ...] = Field(
        default=(), description="Further modules to load, by dotted name, as a JSON list."
    )

    request_timeout_s: float = Field(
        default=30.0, gt=0, description="Seconds that one request may take in the database, in all."
    )
    write_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that one write may take, retries after conflicts included.",
    )
    search_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds that one search may take in the database."
    )

    body_bytes_max: int = Field(
        default=67_108_864,
        ge=1024,
        description="Bytes of a request body; fits a bundle of 10,000 entries.",
    )
    resource_bytes_max: int = Field(
        default=6_291_456,
        ge=1024,
        le=7_340_032,
        description="Bytes of one resource. MongoDB keeps it twice in a document of "
        "16 MiB: natively and as the text served.",
    )
    binary_bytes_max: int = Field(
        default=104_857_600,
        ge=1024,
        le=4_294_967_296,  # an upload at the slowest pace allowed then ends well within a day
        description="Bytes of a Binary sent by its own content type; they are streamed, never "
        "held in memory whole.",
    )
    depth_max: int = Field(
        default=100, ge=10, le=140, description="Levels of nesting in a body; MongoDB ends at 180."
    )
    bundle_entries_max: int = Field(
        default=10_000,
        ge=1,
        description="Entries of a batch or transaction; one transaction must fit MongoDB's minute.",
    )
    conditional_delete_max: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Resources that one conditional delete may delete; more matches are refused.",
    )
    idempotency_hours: float = Field(
        default=24.0,
        gt=0,
        le=8760,
        description="Hours for which a request with an `Idempotency-Key` is answered as it was the "
        "first time.",
    )
    versioned_updates: Types = Field(
        default=(),
        description="Types of which a resource is changed or deleted only with If-Match, as "
        "`Patient,Encounter`, a JSON list, or `*`. Without it: 400.",
    )
    referential_integrity: Types = Field(
        default=(),
        description="Types of which nothing is deleted that others refer to (409), in the same "
        "form. What refers is found by the search parameters of type reference.",
    )
    reference_targets_checked: Types = Field(
        default=(),
        description="Types to which a reference is written only if there is such a resource (422), "
        "in the same form.",
    )
    expunge: bool = Field(
        default=False,
        description="Whether `$expunge` is possible, which removes versions and deleted resources "
        "for good.",
    )
    validation: Modes = Field(
        default={},
        description="What becomes of a write that breaks a profile of its `meta.profile`, one of "
        "`FHIR_PROFILES`, or a binding: `Patient=refuse,Observation=warn,*=off`. `refuse`: 422 "
        "with all issues; `warn`: written, and said; `off`, the default.",
    )
    invariants: bool = Field(
        default=False,
        description="Whether a write that breaks an invariant of R4 itself (`pat-1`, `obs-6`) is "
        "refused (422), profiles aside: some 25 µs a resource.",
    )
    profiles: Demands = Field(
        default={},
        description="Profiles that every resource of a type is held to where its validation is on, "
        "as `Patient=http://a http://b,Observation=http://c`, or JSON.",
    )
    patch_operations_max: int = Field(
        default=1000, ge=1, description="Operations of one patch; more is an update."
    )
    url_bytes_max: int = Field(
        default=16_384,
        ge=1024,
        le=65_536,  # with the headers, half of what a connection reads: http/protocol.py
        description="Bytes of a path with its query; longer searches go by POST.",
    )
    headers_bytes_max: int = Field(
        default=32_768,
        ge=1024,
        le=65_536,
        description="Bytes of the headers of a request, names and values; most have under 2,000.",
    )
    issues_max: int = Field(
        default=100, ge=1, description="Issues that one refusal lists; the rest is the same again."
    )

    page_entries: int = Field(
        default=50, ge=1, description="Entries of a page where no `_count` is given."
    )
    page_entries_max: int = Field(
        default=1000,
        ge=1,
        description="Entries of a page at most; a larger `_count` is lowered to it.",
    )
    page_bytes_max: int = Field(
        default=10_485_760,
        ge=65_536,
        description="Bytes of a page; a page over it ends early, with `next`.",
    )
    includes_max: int = Field(
        default=1000,
        ge=1,
        description="Resources that come along with a page by `_include` and `_revinclude`; the "
        "rest comes with `next`.",
    )
    search_parameters_max: int = Field(
        default=64, ge=1, description="Parameters of one search; each is a condition to be met."
    )
    search_values_max: int = Field(
        default=500, ge=1, description="Alternatives (commas) of one parameter."
    )
    search_value_characters_max: int = Field(
        default=2000, ge=16, description="Characters of one search value."
    )
    text_search: bool = Field(
        default=True,
        description="Whether the words of resources are written for `_text` and `_content`: a "
        "fifth of the cost of a write. Switched on again, everything stored is indexed first.",
    )
    search_explain: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether `_explain=true` tells how the database goes about a search. It shows "
        "what is stored beside resources; `auto`: in development mode only.",
    )
    expansion_codes_max: int = Field(
        default=10_000,
        ge=1,
        description="Codes of one answer to `$expand`; a larger value set is asked for in pages.",
    )
    terminology_servers: Bases = Field(
        default_factory=dict,
        description="FHIR servers that are asked about code systems which are not here, as "
        "`http://snomed.info/sct=https://tx.example/fhir,…` or a JSON object. Only codes go out.",
    )
    terminology_timeout_s: float = Field(
        default=5.0, gt=0, description="Seconds that such a server may take for one answer."
    )
    compress_bytes_min: int = Field(
        default=8192,
        ge=0,
        description="Answers from this size on are compressed for those who accept gzip.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What goes to the log; bodies and search values never do."
    )

    def mode_of(self, type: str) -> Mode:
        """Return what becomes of a ``type`` that is not valid. A Binary is what its bytes are."""
        if not self.validation or type == "Binary":
            return "off"
        return self.validation.get(type) or self.validation.get("*", "off")

    @property
    def is_explaining(self) -> bool:
        """Whether searches may ask to be explained."""
        if self.search_explain == "auto":
            return self.mode == "development"
        return self.search_explain == "on"
