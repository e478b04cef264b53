"""What the authorization server keeps: clients, what users granted them, launches, tokens.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html; design/security.md, section 2.1.
No secret is in here: codes, tokens and the secrets of clients are known by their SHA-256 alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

ClientKind = Literal["public", "confidential-symmetric", "confidential-asymmetric"]

ACCESS_S = 3600
"""So long an access token is good, and an ``id_token``."""
ACCESS_SYSTEM_S = 300
"""So long one of a backend is."""
CODE_S = 60
LAUNCH_S = 300
OFFLINE_S = 92 * 86_400
"""So long after the last refresh ``offline_access`` ends: no less than three months, as ONC (g)(10)
asks, whichever months they are."""


@dataclass(frozen=True, slots=True)
class Client:
    """A registered app or backend.

    ``scopes`` are the texts of what it may be granted at most. ``secret_hash`` is :func:`hashed` of
    its secret, where it is confidential-symmetric; else it signs by ``algorithm`` (``RS384`` or
    ``ES384``) with a key of ``jwks`` or of ``jwks_uri``. ``roles`` are those of a backend here,
    ``origins`` those of its pages in a browser (``https://app.example``). ``is_backend`` may use
    ``client_credentials``. ``requests_a_second`` of 0 is no limit of its own. One that
    ``registered_itself`` is not known to the operator.
    """

    id: str
    name: str
    kind: ClientKind = "public"
    redirect_uris: tuple[str, ...] = ()
    launch_uri: str = ""
    scopes: tuple[str, ...] = ()
    secret_hash: str = field(default="", repr=False)
    jwks: Mapping[str, Any] = field(default_factory=dict, repr=False)
    jwks_uri: str = ""
    algorithm: str = ""
    origins: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    is_backend: bool = False
    requests_a_second: int = 0
    registered_itself: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """What a user granted a client, or a backend was given: the root of all its tokens.

    ``user`` is the id of the user (``""`` for a backend), ``session`` that of the login, whose end
    (``session_until``) ends a grant without ``offline_access``. ``scopes`` are the texts that were
    granted, ``openid`` and ``launch`` among them. ``fhir_user`` is ``Practitioner/1``, ``patient``
    and ``encounter`` are ids. ``context`` is the rest of the launch context, by the names of the
    token response: ``fhirContext``, ``need_patient_banner``, ``intent``, ``smart_style_url``,
    ``tenant``. ``audience`` is the FHIR base that the tokens are for.
    """

    client: str
    audience: str
    scopes: tuple[str, ...]
    user: str = ""
    session: str = ""
    session_until: datetime | None = None
    fhir_user: str = ""
    roles: tuple[str, ...] = ()
    patient: str = ""
    encounter: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    auth_time: datetime | None = None

    @property
    def is_offline(self) -> bool:
        """Whether it outlives the login."""
        return "offline_access" in self.scopes

    @property
    def refreshes(self) -> bool:
        """Whether there are refresh tokens."""
        return self.is_offline or "online_access" in self.scopes


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch from here: for which client and user, and with what in context."""

    client: str
    user: str
    patient: str = ""
    encounter: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the token endpoint hands out: ``access`` (good for ``seconds``) and, where the grant has
    it, ``refresh``; ``nonce`` is that of the authorization request."""

    grant: Grant
    access: str = field(repr=False)
    seconds: int
    refresh: str = field(default="", repr=False)
    nonce: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a good access token. ``id`` names it without being it, ``grant_id`` what it
    comes from."""

    id: str
    grant_id: str
    grant: Grant
    client: Client
    issued: datetime
    until: datetime


def hashed(secret: str) -> str:
    """Return the SHA-256 of ``secret``, in hexadecimal: all that is stored of codes and tokens.

    They are 256 random bits, so nobody finds them by trying, and no salt is needed.
    """
    return sha256(secret.encode()).hexdigest()
