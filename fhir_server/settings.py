"""Every setting and limit: name, default, unit, and why that number.

Each is read from the environment (``FHIR_`` and the name in capitals) or from a file ``.env`` in
the working directory. The README lists the same table; a test compares the two.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from fhir_server.scheduling_settings import SchedulingSettings
from fhir_server.security_settings import Names, SecuritySettings

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _base_of(url: str) -> str:
    """Return the base ``url`` without a slash at its end.

    Raises ``ValueError`` for what is no https URL: codes that go out plain could be read and
    changed by anybody on the way. Plain http is for this machine alone.
    """
    parts = urlsplit(url)
    plain = parts.scheme == "http" and parts.hostname in LOOPBACK
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

Types = Names
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


class Settings(SchedulingSettings, SecuritySettings):
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
    shutdown_s: int = Field(
        default=25,
        ge=1,
        le=3600,
        description="Seconds that requests under way are given when the server stops or reloads.",
    )

    mongodb_uri: str = Field(
        default="",
        repr=False,  # it has a password
        description="A replica set of your own. Empty: an embedded mongod under `data`.",
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
        default=512,
        ge=256,
        description="Memory the embedded MongoDB may use for its cache, in MB. In 256, one "
        "transaction of thousands of resources has no room.",
    )
    artifacts: Path | None = Field(
        default=None, description="A folder with `profiles/` and `terminology/` in place of ours."
    )
    features: tuple[str, ...] = Field(
        default=(
            *("fhir_server.features.cds", "fhir_server.features.scheduling"),
            "adapters.notify",
        ),
        description="What is loaded beyond FHIR REST, modules by dotted name, as a JSON list.",
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
    mllp_port: int = Field(
        default=2575,
        ge=0,
        le=65535,
        description="Port for HL7 v2 over MLLP, where the feature `adapters.hl7v2` is listed; 0 is "
        "none.",
    )
    mllp_address: str = Field(
        default="127.0.0.1",
        description="Address of the MLLP listeners. There is no access control on the plain one.",
    )
    mllp_plain: Literal["loopback", "allowed"] = Field(
        default="loopback",
        description="`allowed` has the plain listener on an address other than loopback; without "
        "`mllp_peers` that is refused in production.",
    )
    mllp_peers: Types = Field(
        default=(),
        description="Networks whose peers may connect by MLLP, as `10.2.0.0/16,127.0.0.1/32`; "
        "empty: all that reach the listener.",
    )
    mllp_tls_port: int = Field(
        default=0, ge=0, le=65535, description="Port for HL7 v2 over MLLP with TLS; 0 is none."
    )
    mllp_tls_cert: Path | None = Field(
        default=None, description="Certificate chain of the MLLP listener, PEM."
    )
    mllp_tls_key: Path | None = Field(default=None, description="Its private key, PEM.")
    mllp_tls_client_ca: Path | None = Field(
        default=None,
        description="Authorities of client certificates, PEM; then one is required of every peer.",
    )
    hl7_charset_fallback: str = Field(
        default="windows-1252",
        description="Charset of messages that declare none and are no UTF-8; `none` refuses them.",
    )
    hl7_time_zone: str = Field(
        default="UTC", description="Zone of times without an offset, where nothing else tells it."
    )
    hl7_senders: Literal["auto", "any", "listed"] = Field(
        default="auto",
        description="Whose messages are taken: `any`, or those with a profile (`listed`); `auto` "
        "is `listed` in production.",
    )
    hl7_folder: Path | None = Field(
        default=None, description="Folder whose HL7 v2 files are taken, then moved to `done/`."
    )
    hl7_message_bytes_max: int = Field(
        default=16_777_216,
        ge=1024,
        le=67_108_864,
        description="Bytes of an HL7 v2 message; reports carry PDFs of several megabytes.",
    )
    hl7_batch_bytes_max: int = Field(
        default=268_435_456, ge=1024, description="Bytes of a batch of HL7 v2 messages."
    )
    hl7_batch_messages_max: int = Field(
        default=100_000, ge=1, description="Messages of a batch; each has its own transaction."
    )
    hl7_segments_max: int = Field(
        default=20_000, ge=1, description="Segments of a message; 10,000 results are taken."
    )
    hl7_field_repetitions_max: int = Field(
        default=1000, ge=1, description="Repetitions of one field."
    )
    hl7_connections_max: int = Field(
        default=1000, ge=1, description="MLLP connections at a time; idle ones are cheap."
    )
    hl7_connections_per_address_max: int = Field(
        default=50, ge=1, description="MLLP connections at a time from one address."
    )
    hl7_pipeline_frames_max: int = Field(
        default=64, ge=1, description="Messages read ahead on one connection."
    )
    hl7_bytes_in_flight_max: int = Field(
        default=134_217_728,
        ge=1_048_576,
        description="Bytes of messages under way on all connections; beyond, nothing is read.",
    )
    hl7_idle_s_max: float = Field(
        default=86_400.0,
        gt=0,
        description="Seconds without a byte after which a connection is closed; many senders keep "
        "one for weeks.",
    )
    hl7_frame_s_max: float = Field(
        default=60.0,
        gt=0,
        description="Seconds without a byte inside a message, after which it may also not be "
        "slower than 1 KiB/s.",
    )
    hl7_commit_s_max: float = Field(
        default=10.0,
        gt=0,
        description="Seconds for the database to take a message; then there is no answer, and the "
        "sender repeats it.",
    )
    hl7_apply_s_max: float = Field(
        default=10.0, gt=0, description="Seconds a message may wait to be applied before its AE."
    )
    hl7_retry_s_max: float = Field(
        default=900.0, gt=0, description="Seconds for which a message is tried again; then `dead`."
    )
    hl7_workers: int = Field(
        default=8, ge=1, le=64, description="HL7 v2 messages applied at the same time."
    )
    hl7_done_days: float = Field(
        default=90.0, gt=0, description="Days for which the rows of applied messages stay."
    )
    hl7_rejects_per_minute_max: int = Field(
        default=60, ge=1, description="Refused messages that are kept, of one peer in a minute."
    )
    cors_origins: Types = Field(
        default=(),
        description="Origins whose pages may call this server from a browser, as "
        "`https://app.example.org`; `*` is all. Needed by browser clients of CDS Hooks.",
    )
    cds_services: Types = Field(
        default=(
            *("drug-safety-select", "drug-safety-sign", "drug-safety-refill"),
            "allergy-recorded",
        ),
        description="CDS services that are on, by id; `*` is all.",
    )
    cds_enforce: Literal["off", "warn", "block"] = Field(
        default="off",
        description="What becomes of a MedicationRequest that is made active against the drug "
        "safety rules: nothing, a DetectedIssue beside it (`warn`), or a refusal of what is "
        "contraindicated (`block`). Orders that come by HL7 v2 are not checked.",
    )
    cds_lookup: Path | None = Field(
        default=None,
        description="Folder with RxNorm's products, salts and brand names as compact tables; "
        "without it drugs are known by ingredient code and by name.",
    )
    cds_clients: Path | None = Field(
        default=None,
        description=(
            "JSON file with the CDS clients that are trusted: keys or the URL of their keys, "
            "services, FHIR servers ([docs/cds.md](docs/cds.md))."
        ),
    )
    cds_providers: Path | None = Field(
        default=None, description="JSON file with other knowledge bases to ask beside ours."
    )
    cds_policy: Path | None = Field(
        default=None,
        description="JSON file with rules that the site lowers, raises or turns off, and its "
        "pages about rules.",
    )
    cds_hooks_version: Literal["2.0", "3.0"] = Field(
        default="2.0", description="With `3.0` discovery says versions as well."
    )
    cds_discovery_public: bool = Field(
        default=True, description="Whether `GET /cds-services` needs no token."
    )
    cds_minimum_severity: Literal["", "minor", "moderate", "serious", "contraindicated"] = Field(
        default="", description="What is shown at least; empty: what each hook's service has."
    )
    cds_deadline_ms: int = Field(
        default=450, ge=50, description="Time of a whole answer; clients give up after 500."
    )
    cds_provider_timeout_ms: int = Field(
        default=300, ge=10, description="Time that another knowledge base gets."
    )
    cds_body_bytes_max: int = Field(
        default=1_048_576, ge=1024, description="Bytes of a CDS Hooks request."
    )
    cds_pages_max: int = Field(default=5, ge=1, description="Pages of a list that are followed.")
    cds_cards_max: int = Field(default=20, ge=3, description="Cards of one answer.")
    cds_drafts_max: int = Field(default=100, ge=1, description="Drafts that are checked at once.")
    cds_drugs_max: int = Field(
        default=200, ge=1, description="Active drugs, and allergies, that are checked against."
    )
    cds_creatinine_days: int = Field(
        default=365, ge=1, description="Days for which a creatinine or potassium counts."
    )
    cds_supply_grace_days: int = Field(
        default=30, ge=0, description="Days after its supply for which a drug still counts."
    )
    cds_keep_days: int = Field(
        default=400, ge=1, description="Days for which calls and feedback are kept."
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
    export_hours: float = Field(
        default=24.0,
        gt=0,
        le=720,
        description="Hours for which an export (`$export`) without progress is waited for, and "
        "then its files are kept.",
    )
    export_jobs_max: int = Field(
        default=4, ge=1, description="Exports of one requester under way at a time; then 429."
    )
    export_kept_max: int = Field(
        default=20,
        ge=1,
        description="Exports of one requester that are kept; then 429 until some are deleted.",
    )
    export_file_bytes_max: int = Field(
        default=104_857_600,
        ge=1024,
        description="Bytes of NDJSON after which a file of an export ends and another begins.",
    )
    export_page_entries: int = Field(
        default=5000,
        ge=1,
        le=20_000,
        description="Resources of an export that are found at once; after a crash it goes on "
        "behind the last so many.",
    )
    compress_bytes_min: int = Field(
        default=8192,
        ge=0,
        description="Answers from this size on are compressed for those who accept gzip.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What goes to the log; bodies and search values never do."
    )

    @model_validator(mode="after")
    def _listens_safely(self) -> "Settings":
        """Refuse an MLLP listener that must not be, and name the way out."""
        if self.mllp_tls_port and not (self.mllp_tls_cert and self.mllp_tls_key):
            raise ValueError("FHIR_MLLP_TLS_PORT needs FHIR_MLLP_TLS_CERT and FHIR_MLLP_TLS_KEY.")
        if not self.mllp_port or self.mllp_address in LOOPBACK:
            return self
        if self.mllp_plain != "allowed":
            raise ValueError(
                f"FHIR_MLLP_ADDRESS={self.mllp_address} would have HL7 v2 taken without TLS from "
                "other machines. Use FHIR_MLLP_TLS_PORT and FHIR_MLLP_PORT=0, or say "
                "FHIR_MLLP_PLAIN=allowed."
            )
        if self.mode == "production" and not self.mllp_peers:
            raise ValueError(
                "A plain MLLP listener off loopback needs FHIR_MLLP_PEERS in production: the "
                "networks whose peers may connect."
            )
        return self

    @property
    def is_taking_any_sender(self) -> bool:
        """Whether HL7 v2 messages are taken of senders without a profile."""
        if self.hl7_senders == "auto":
            return self.mode == "development"
        return self.hl7_senders == "any"

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
