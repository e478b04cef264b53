"""Each check of ``checks.py`` fails once the guard it is about is taken out.

A guard is taken out where it is one place, as two_worlds/mutants.py does.
https://hl7.org/fhir/R4/security.html
"""

from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.interactions import admitting
from fhir_server.interactions.access import AccessRights
from fhir_server.security.plan import AccessPlan, Rights
from fhir_server.security.principal import Principal
from fhir_server.store import changes
from tests.security.advisories import checks
from tests.security.advisories.world import Check
from tests.security.two_worlds import mutants

Patch = pytest.MonkeyPatch
EVERYTHING: dict[tuple[str, str], dict[str, Any]] = {
    (type, letter): {} for type in ("Patient", "Observation", "Binary") for letter in "cruds"
}


def claims(patch: Patch) -> None:
    """A principal whose rights are not known has all."""

    async def all_of_it(self: Any, principal: Principal, context: Any) -> Rights:
        return Rights(EVERYTHING, principal.roles)

    patch.setattr(AccessRights, "__call__", all_of_it)


def sight(patch: Patch) -> None:
    """Whatever is asked for is seen."""
    patch.setattr(AccessPlan, "seen", lambda self, type: {})


def bodies(patch: Patch) -> None:
    """Binary is not in the table of what is whose."""
    sight(patch)


def letters(patch: Patch) -> None:
    """Nobody looks at the letters of scopes, nor at who is nobody."""
    claims(patch)
    patch.setattr(admitting, "check", lambda request, needs, rights: None)


def joined(patch: Patch) -> None:
    """Reads that go together have the predicate of nobody."""
    mutants.read_by_id(patch)


def provenance(patch: Patch) -> None:
    """A Provenance belongs to whoever one of its targets belongs to."""
    sight(patch)


def versions(patch: Patch) -> None:
    mutants.version_itself(patch)


def found(patch: Patch) -> None:
    """Criteria are looked for among everything."""
    sight(patch)
    patch.setattr(changes, "allows", lambda predicate, document: True)


def targets(patch: Patch) -> None:
    mutants.referred_to(patch)


GUARDS: dict[Check, Callable[[Patch], None]] = {
    checks.a_missing_claim_is_not_everything: claims,
    checks.includes_and_reads_stay_in_the_compartment: mutants.along,
    checks.chains_ask_nothing_of_what_is_hidden: mutants.chain_listed,
    checks.every_type_has_the_filter: sight,
    checks.the_id_in_the_body_does_not_win: bodies,
    checks.nothing_is_not_everything: letters,
    checks.two_missing_values_are_not_equal: claims,
    checks.a_link_between_patients_opens_nothing: sight,
    checks.what_is_contained_is_seen_with_its_container: sight,
    checks.a_provenance_of_two_patients_is_of_neither: provenance,
    checks.a_version_of_another_subject_stays_hidden: versions,
    checks.a_conditional_write_matches_what_is_seen: found,
    checks.a_page_link_is_of_whoever_got_it: mutants.key_of_all,
    checks.reads_that_are_joined_are_judged_apart: joined,
    checks.a_hidden_target_is_as_an_absent_one: targets,
}


@pytest.mark.parametrize("check", GUARDS, ids=lambda check: check.__name__)
async def test_without_its_guard_it_is_found(
    world: Server, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found elsewhere is found here as soon as the guard is gone."""
    with monkeypatch.context() as patch:
        GUARDS[check](patch)
        with pytest.raises((AssertionError, KeyError)):
            await check(world)
