"""Registry + definitions -> CapabilityStatement. What is not registered is not claimed.

https://hl7.org/fhir/R4/capabilitystatement.html
"""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any

from fhir_server import __version__
from fhir_server.patch.formats import FORMATS
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.json import encode
from fhir_server.r4.published import Published
from fhir_server.registry import Registry
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.special import DOCUMENTATION
from fhir_server.settings import Settings, Types, covers
from fhir_server.store.guides import Guides
from fhir_server.store.keys import SearchKeys

_NO_GUIDES = Guides()

# Registered name -> code of http://hl7.org/fhir/ValueSet/type-restful-interaction, in its order.
_TYPE_INTERACTIONS = (
    *("read", "vread", "update", "patch", "delete", "history-instance", "history-type", "create"),
    "search-type",
)
# Parameters of every type that are no strings.
_COMMON_TYPES = {"_filter": "special", "_list": "string"}
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_SMART = {
    "system": "http://terminology.hl7.org/CodeSystem/restful-security-service",
    "code": "SMART-on-FHIR",
}
BULK_DATA = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"
_ALWAYS_NAMED = ("Provenance:target",)  # clients of US Core look for it at each type
_SYSTEM_INTERACTIONS = ("transaction", "batch", "search-system", "history-system")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the settings of a site say about what is served.

    ``conditional_delete`` is ``single`` or ``multiple``. ``versioned_updates`` are the types of
    which a version is replaced only by who names it, ``enforced`` those whose references always
    lead to something. ``switched_on`` are the settings that switch operations on. ``endpoints`` are
    those of the authorization server, by what SMART calls them, as paths beside the FHIR base;
    ``cors`` says that pages of other origins may call.
    """

    conditional_delete: str = "single"
    versioned_updates: Types = ()
    enforced: Types = ()
    switched_on: Container[str] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)
    cors: bool = False


@dataclass(frozen=True, slots=True)
class Guided:
    """Which profiles and implementation guides are here: urls, those of profiles by type."""

    profiles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    guides: Sequence[str] = ()


def capability_statement(
    registry: Registry,
    definitions: Definitions,
    parameters: ParameterTable,
    *,
    base_url: str,
    started: datetime,
    chosen: Chosen = Chosen(),
    guided: Guided = Guided(),
) -> bytes:
    """Return the CapabilityStatement as JSON. ``started`` (UTC) is when this state came about."""
    system = [
        {"code": code}
        for code in _SYSTEM_INTERACTIONS
        if code in registry.interactions
        or (code == "batch" and "transaction" in registry.interactions)
    ]
    rest: dict[str, Any] = {
        "mode": "server",
        "documentation": "A transaction is atomic. Versions are never rewritten. Unknown search "
        "parameters are refused unless the client sends Prefer: handling=lenient.",
        "security": _security(base_url, chosen),
        "resource": [
            _resource(type, registry, definitions, parameters, chosen)
            | _profiles(guided.profiles.get(type, ()))
            for type in definitions.resource_types
        ],
        "interaction": system,
    }
    if "search-compartment" in registry.interactions:
        rest["compartment"] = [
            f"http://hl7.org/fhir/CompartmentDefinition/{name.lower()}"
            for name in definitions.compartments
        ]
    if "search-type" in registry.interactions:
        rest["searchParam"] = _common_parameters(definitions)
    if operations := _operations(registry, "", chosen):
        rest["operation"] = operations
    return encode(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": f"{started:%Y-%m-%dT%H:%M:%SZ}",
            "kind": "instance",
            **({"instantiates": [BULK_DATA]} if "$export" in registry.operation_names() else {}),
            "software": {"name": "FHIR Server", "version": __version__},
            "implementation": {"description": "FHIR R4 on MongoDB", "url": base_url},
            "fhirVersion": "4.0.1",
            "format": ["application/fhir+json", "json", "application/fhir+xml", "xml"],
            **({"implementationGuide": list(guided.guides)} if guided.guides else {}),
            **({"patchFormat": list(FORMATS)} if "patch" in registry.interactions else {}),
            "rest": [rest],
        }
    )


def _resource(
    type: str,
    registry: Registry,
    definitions: Definitions,
    parameters: ParameterTable,
    chosen: Chosen,
) -> dict[str, Any]:
    known = registry.interactions_of(type)
    described: dict[str, Any] = {
        "type": type,
        "profile": definitions.types[type].url,
        "interaction": [{"code": code} for code in _TYPE_INTERACTIONS if code in known],
        "versioning": "versioned-update" if covers(chosen.versioned_updates, type) else "versioned",
        "readHistory": "vread" in known,
        "updateCreate": "update" in known,
        "conditionalCreate": "conditional-update" in registry.interactions,
        "conditionalRead": "full-support" if "read" in known else "not-supported",
        "conditionalUpdate": "conditional-update" in known,
        "conditionalDelete": (
            chosen.conditional_delete if "conditional-delete" in known else "not-supported"
        ),
        "referencePolicy": [
            *("literal", "logical"),
            *(("enforced",) if covers(chosen.enforced, type) else ()),
        ],
    }
    own = registry.searched.get(type)
    searched = _search_parameters(type, parameters, own)
    if own is not None:  # and by nothing that is linked
        described["searchParam"] = searched
    elif searched:
        described["searchInclude"] = _includes(type, parameters)
        described["searchRevInclude"] = ["*", *_revincludes(parameters).get(type, ())]
        described["searchParam"] = searched
    if operations := _operations(registry, type, chosen):
        described["operation"] = operations
    return described


def _security(base_url: str, chosen: Chosen) -> dict[str, Any]:
    """https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html: the well-known document is
    where clients look; the extension is for those who came before it."""
    root = base_url.removesuffix("/fhir")
    uris = [{"url": name, "valueUri": f"{root}{path}"} for name, path in chosen.endpoints.items()]
    return {
        **({"extension": [{"url": _OAUTH_URIS, "extension": uris}]} if uris else {}),
        "cors": chosen.cors,
        "service": [{"coding": [_SMART], "text": "SMART on FHIR: OAuth 2.0 and OpenID Connect"}],
        "description": "Who asks is said by an access token; scopes, role, labels and consent say "
        "what of the server there is for them. Without a token, this document is there.",
    }


def _profiles(urls: Sequence[str]) -> dict[str, Any]:
    return {"supportedProfile": list(urls)} if urls else {}


def _search_parameters(
    type: str, parameters: ParameterTable, own: Collection[str] | None
) -> list[dict[str, str]]:
    return [
        {"name": one.code, "definition": one.url, "type": one.type}
        for one in parameters.of(type).values()
        if one.key not in parameters.pending(type) and (own is None or one.code in own)
    ]


def _includes(type: str, parameters: ParameterTable) -> list[str]:
    """Return the values of ``_include``: a reference parameter each, and all of them."""
    named = [f"{type}:{one.code}" for one in parameters.of(type).values() if one.targets]
    return ["*", *named]


@lru_cache(maxsize=4)
def _revincludes(parameters: ParameterTable) -> dict[str, list[str]]:
    """Return, for each type, the values of ``_revinclude`` that can bring something along.

    What can refer to every type is not repeated for every type: ``*`` stands for it. R4 lists all
    types but one or two there, which took a third of the statement.
    """
    found: dict[str, list[str]] = {}
    many = len(parameters.types) * 9 // 10
    for type in parameters.types:
        for one in parameters.of(type).values():
            is_named = len(one.targets) < many or f"{type}:{one.code}" in _ALWAYS_NAMED
            for target in one.targets if is_named else ():
                found.setdefault(target, []).append(f"{type}:{one.code}")
    return found


def _common_parameters(definitions: Definitions) -> list[dict[str, str]]:
    """Return the parameters that every type has and no element answers."""
    defined = {one.code: one.url for one in definitions.search_parameters if not one.expression}
    return [
        {
            "name": code,
            **({"definition": defined[code]} if code in defined else {}),
            "type": _COMMON_TYPES.get(code, "string"),
            "documentation": documentation,
        }
        for code, documentation in DOCUMENTATION.items()
    ]


def _operations(registry: Registry, type: str, chosen: Chosen) -> list[dict[str, str]]:
    return [
        {"name": operation.name.removeprefix("$"), "definition": operation.definition}
        for operation in registry.operations_on(type)
        if not operation.setting or operation.setting in chosen.switched_on
    ]


class Capabilities:
    """The CapabilityStatement, made once for each base URL that clients use, and again when the
    search parameters, the profiles or the guides have changed."""

    def __init__(
        self,
        registry: Registry,
        definitions: Definitions,
        published: Published,
        keys: SearchKeys,
        started: datetime,
        settings: Settings,
    ) -> None:
        self._made: dict[str, tuple[bytes, str]] = {}
        self._keys = keys
        self._published = published
        self._of: tuple[ParameterTable, Guides] | None = None
        self._make = partial(
            capability_statement,
            registry,
            definitions,
            started=started,
            chosen=_chosen(settings),
        )

    def __call__(self, base_url: str, guides: Guides = _NO_GUIDES) -> tuple[bytes, str]:
        """Return it for ``base_url`` and the stored ``guides``, and its tag. Bases that clients
        invent are not all kept."""
        if self._of is None or self._of[0] is not self._keys.table or self._of[1] != guides:
            self._made.clear()
            self._of = self._keys.table, guides
        if base_url not in self._made:
            if len(self._made) >= 16:
                self._made.clear()
            made = self._make(self._of[0], base_url=base_url, guided=self._guided(guides))
            self._made[base_url] = made, sha256(made).hexdigest()[:16]
        return self._made[base_url]

    def _guided(self, stored: Guides) -> Guided:
        """Return what is stored, and what lies on disk."""
        profiles: dict[str, set[str]] = {}
        for type, url in (*stored.profiles, *self._published.profiles()):
            profiles.setdefault(type, set()).add(url)
        guides = {*stored.guides, *self._published.guides()}
        return Guided({type: sorted(urls) for type, urls in profiles.items()}, sorted(guides))


# What the CapabilityStatement calls the endpoints of the authorization server.
_OAUTH = {name: f"/auth/{name}" for name in ("authorize", "token", "introspect", "revoke")}


def _chosen(settings: Settings) -> Chosen:
    checked = settings.reference_targets_checked
    return Chosen(
        conditional_delete="multiple" if settings.conditional_delete_max > 1 else "single",
        versioned_updates=settings.versioned_updates,
        enforced=("*",) if "*" in checked and "*" in settings.referential_integrity else (),
        switched_on=frozenset({"expunge"} if settings.expunge else ()),
        endpoints={} if settings.auth_issuer else _OAUTH,  # another issuer speaks for itself
        cors=bool(settings.cors_origins),
    )
