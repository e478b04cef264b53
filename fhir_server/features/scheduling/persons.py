"""Who asks for an appointment: a patient for himself, or somebody who schedules others. Pure.

The rights of the roles are in ``security/roles.py``; here is what rules of scheduling make of them.
"""

from fhir_server.security.principal import Principal
from fhir_server.security.rights import is_own


def is_scheduler(principal: Principal) -> bool:
    """Whether ``principal`` schedules for others: staff, a backend, the server itself. Cutoffs are
    not for these, and they say who came and who did not."""
    return not is_own(principal)


def own_patient(principal: Principal) -> str:
    """Return which patient ``principal`` is, or acts for, as ``Patient/1``; ``""`` for a
    scheduler, who says for whom."""
    if is_scheduler(principal):
        return ""
    if principal.patient:
        return f"Patient/{principal.patient}"
    return principal.fhir_user if principal.fhir_user.startswith("Patient/") else ""
