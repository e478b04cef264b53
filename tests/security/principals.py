"""Who asks, in the tests of what may be done: one principal of each kind that the table knows."""

from dataclasses import dataclass

from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of


def user(name: str, scopes: str = "", **members: object) -> Principal:
    """Return somebody who acts through an app where there are scopes, else without one."""
    app = "app" if scopes else ""
    return Principal("user", name, app, scopes_of(scopes), **members)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Case:
    """A principal, the roles that need a relationship with the patient, and whom it cares for."""

    principal: Principal
    related_only: tuple[str, ...] = ()
    related: tuple[str, ...] = ()


def physician(scopes: str = "") -> Principal:
    """Return a physician, by default without an app."""
    return user("dr", scopes, roles=("physician",), fhir_user="Practitioner/dr")


ROLES = ("physician", "nurse", "front-desk", "billing", "lab", "analyst", "administrator")

CASES: dict[str, Case] = {
    "none": Case(Principal("nobody", "nobody")),
    "no role": Case(user("x", fhir_user="Practitioner/x")),
    "no role, all scopes": Case(user("x", "user/*.cruds", fhir_user="Practitioner/x")),
    "A": Case(user("a", "patient/*.cruds", patient="a", fhir_user="Patient/a")),
    "A as patient": Case(
        user("a", "patient/*.cruds", patient="a", roles=("patient",), fhir_user="Patient/a")
    ),
    "A without app": Case(user("a", roles=("patient",), fhir_user="Patient/a")),
    "A, no patient": Case(user("a", "patient/*.cruds", fhir_user="Patient/a")),
    "B": Case(user("b", "patient/*.cruds", patient="b", fhir_user="Patient/b")),
    **{role: Case(user(role, roles=(role,), fhir_user=f"Practitioner/{role}")) for role in ROLES},
    "clinician": Case(physician("user/*.cruds")),
    "clinician for A": Case(
        user(
            *("dr", "patient/*.rs"),
            roles=("physician",),
            fhir_user="Practitioner/dr",
            patient="a",
        )
    ),
    "clinician with relationship": Case(
        physician("user/*.cruds"), ("physician",), ("Patient/a", "Patient/c")
    ),
    "clinician without relationship": Case(physician("user/*.cruds"), ("physician",)),
    "backend": Case(Principal("client", "etl", scopes=scopes_of("system/*.cruds"))),
    "backend of observations": Case(
        Principal("client", "lab", scopes=scopes_of("system/Observation.rs"))
    ),
    "backend with user scopes": Case(
        Principal("client", "odd", scopes=scopes_of("user/*.cruds patient/*.cruds"), patient="a")
    ),
    "decision support": Case(
        Principal("client", "cds", scopes=scopes_of("system/*.rs"), roles=("cds",))
    ),
}
