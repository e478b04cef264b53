"""Break-glass: who may open one patient's record in an emergency, how often, for how long. Pure.

design/security.md, section 3.3. It lifts Consents and the need of a relationship, for one patient;
scopes and types stay what they are.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from fhir_server.security.principal import Principal

LASTS = timedelta(minutes=15)
A_DAY = timedelta(days=1)
A_DAY_MAX = 5
REASON_MAX = 1000
"""Characters of a reason."""

PURPOSE = "BTG"
"""The purpose of every request that is made under it. http://terminology.hl7.org/CodeSystem/v3-ActReason"""

_STAFF = ("Practitioner/", "PractitionerRole/")


def is_staff(principal: Principal) -> bool:
    """Whether ``principal`` works here; the demo of development does."""
    person = principal.kind == "user" and principal.fhir_user.startswith(_STAFF)
    return person or principal.kind == "demo"


def account(principal: Principal) -> str:
    """Return whose uses are counted: those of a person, whatever app they are made through."""
    return f"{principal.kind}/{principal.name}"


def may_again_at(earlier: Sequence[datetime], now: datetime) -> datetime | None:
    """Return when somebody may break the glass again who did so at ``earlier``; ``None`` for now.

    >>> from datetime import UTC
    >>> noon = datetime(2024, 2, 29, 12, tzinfo=UTC)
    >>> may_again_at([noon] * 5, noon + timedelta(hours=23)).isoformat()
    '2024-03-01T12:00:00+00:00'
    >>> may_again_at([noon] * 5, noon + timedelta(hours=24)) is None
    True
    """
    recent = sorted(one for one in earlier if one > now - A_DAY)
    if len(recent) < A_DAY_MAX:
        return None
    return recent[-A_DAY_MAX] + A_DAY
