"""Sender profiles: what one sender means by its messages. Checked on writing.

design/hl7v2.md, section 18; not to be confused with FHIR profiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.hl7v2.identity import IdentityRules
from adapters.hl7v2.message import Message


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one sender; the defaults are those of a sender without a profile.

    ``code_tables`` is what the ConceptMaps of ``code_maps`` say, looked up: field -> (system,
    code) -> Coding; system "" stands for any. ``server_zone`` and ``charset_fallback`` are settings
    of the server, kept here so that the pure functions get them.
    """

    name: str = ""
    match: tuple[Mapping[str, str], ...] = ()
    peers: Mapping[str, Any] = field(default_factory=dict)
    principal: Mapping[str, Any] = field(default_factory=dict)
    accept: Mapping[str, Any] = field(default_factory=dict)
    zone: str = ""
    charset: str = ""
    charset_strict: bool = False
    decimal_comma: bool = False
    authorities: Mapping[str, str] = field(default_factory=dict)
    default_authority: str = ""
    identity: IdentityRules = field(default_factory=IdentityRules)
    obx21_is_key: bool = False
    pid18_is_visit: bool = False
    filler_reuse: str = "hold"
    snapshots: tuple[str, ...] = ()
    hold_after_dead: bool = False
    control_id_days: int = 0
    directory: str = "refer"
    code_maps: Mapping[str, str] = field(default_factory=dict)
    unmapped_code: str = "keep"
    ack: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[Mapping[str, Any], ...] = ()
    events: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Mapping[str, str], ...] = ()
    text_report: str = "keep"
    next_of_kin: str = "contact"
    us_core: bool = False
    expected_every: str = ""
    code_tables: Mapping[str, Mapping[tuple[str, str], Mapping[str, Any]]] = field(
        default_factory=dict
    )
    server_zone: str = "UTC"
    charset_fallback: str = "windows-1252"


def prepared(message: Message, profile: Profile) -> Message:
    """Return ``message`` after the rules of ``before``, in their order."""
    return message
