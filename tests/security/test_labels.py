"""https://hl7.org/fhir/R4/security-labels.html"""

import pytest

from fhir_server.security.labels import CONTROLLED, RESTRICTED, SENSITIVE, without_hidden
from fhir_server.security.predicates import allows
from fhir_server.security.roles import ROLES

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"

# Labels of a resource -> the roles that see it; of those below.
SEEN = {
    (): "physician nurse front-desk lab patient backend",
    (f"{CONFIDENTIALITY}|N",): "physician nurse front-desk lab patient backend",
    (f"{ACT}|NOAUTH",): "physician nurse front-desk lab patient backend",
    ("http://a.b/local|HIV",): "physician nurse front-desk lab patient backend",
    (f"{CONFIDENTIALITY}|R",): "physician nurse lab patient",
    (f"{CONFIDENTIALITY}|V",): "patient",
    ("|V",): "patient",
    ("http://hl7.org/fhir/v3/Confidentiality|V",): "patient",
    (f"{ACT}|HIV",): "physician nurse lab patient",
    (f"{ACT}|PSY",): "physician nurse patient",
    (f"{ACT}|PSYTHPN",): "physician",
    (f"{ACT}|PSY", f"{CONFIDENTIALITY}|V"): "patient",
    (f"{CONFIDENTIALITY}|N", f"{CONFIDENTIALITY}|R"): "physician nurse lab patient",
}


@pytest.mark.parametrize(("labels", "roles"), SEEN.items(), ids=str)
def test_which_roles_see_a_label(labels: tuple[str, ...], roles: str) -> None:
    """What is restricted or sensitive is seen by the roles that list it, each label by itself."""
    document = {"_id": "1", "labels": list(labels)}
    found = {
        name
        for name in ("physician", "nurse", "front-desk", "lab", "patient", "backend")
        if allows(without_hidden(ROLES[name].labels), document)
    }
    assert found == set(roles.split())


def test_who_lists_every_code_sees_everything() -> None:
    """With nothing left to hide there is no condition."""
    assert without_hidden(CONTROLLED) == {}
    assert CONTROLLED == RESTRICTED | SENSITIVE
    assert not RESTRICTED & SENSITIVE
    assert all(role.labels <= CONTROLLED for role in ROLES.values())
