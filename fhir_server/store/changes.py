"""What a write asks for, and what it comes to once the current version is known. Pure.

A change is judged against the version that was read; the write then names that version, so that a
change in between is noticed and the judgement is made again. https://hl7.org/fhir/R4/http.html#ops
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fhir_server.messages import ANY_VERSION, Content, Resource, Response
from fhir_server.outcome import FhirError, Issue, deleted, not_found, version_conflict
from fhir_server.r4.json import canonical, decode_stored, encode
from fhir_server.r4.subsets import SUBSETTED, is_subset, tagged, whole
from fhir_server.search.index import Indexed
from fhir_server.security.audit import Draft
from fhir_server.security.plan import AccessPlan
from fhir_server.security.predicates import allows
from fhir_server.settings import Types, covers
from fhir_server.store.documents import (
    Document,
    Stored,
    content_of,
    document,
    next_moment,
    stamped,
    stored,
    tombstone,
)
from fhir_server.store.provenance import NOWHERE, Belonging
from fhir_server.store.versions import of_current


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with a key. ``id`` stands for the key and ``fingerprint`` for what is asked; the
    answer to it is kept from ``now`` until ``until``, both UTC. ``by_version`` says that the body
    of the answer is the version that was written, and need not be kept a second time. ``rights``
    stands for what whoever asks may see."""

    id: str
    fingerprint: bytes
    now: datetime
    until: datetime
    by_version: bool = False
    rights: bytes = b""


@dataclass(frozen=True, slots=True)
class Once:
    """What makes a change that is asked for again the same change. ``answer`` returns the answer
    that is kept, once it is known what the change came to; it is pure."""

    asked: Asked
    answer: Callable[[Stored], Response]


@dataclass(frozen=True, slots=True)
class Change:
    """One change to one resource.

    ``interaction`` is ``create``, ``update``, ``patch`` or ``delete``; ``resource`` is absent for a
    deletion. ``if_match`` are the versions that may be replaced, ``if_none_match`` those that may
    not; ``*`` is any.

    Instead of a ``resource`` there may be ``revise``, which makes it of the current version, and
    ``check``, which refuses what came of that. Both are pure: they are called again when another
    write has come between. What is not there cannot be revised. ``content`` is what of a Binary is
    kept beside it; a revision keeps that of the current version. ``once`` keeps the answer in the
    transaction of the change. ``claims`` are written with it, if they are still as they were seen
    (``claims.py``). ``access`` is what whoever asks may see and change; the store sets it, ``None``
    is everything. ``record`` is what is known of the audit row of the change, which is written with
    it; the store sets it where the front door has not. ``override`` is why a rule is not to hold
    (``rules.py``). ``by_server`` says that it follows from another change, and that the server
    makes it whatever whoever asks may do; ``by_operation`` that an operation makes it, which has
    asked for more than rules do. A test lists who may say so.
    """

    interaction: str
    type: str
    id: str
    resource: Resource | None = None
    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None
    revise: Callable[[Resource], Resource] | None = None
    check: Callable[[Resource], None] | None = None
    content: Content | None = None
    once: Once | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    access: AccessPlan | None = None
    record: Draft | None = None
    override: str = ""
    by_server: bool = False
    by_operation: bool = False

    @property
    def relies_on_version(self) -> bool:
        """Whether the change is right only over the version that it was judged against."""
        return bool(self.if_match) or self.revise is not None


@dataclass(frozen=True, slots=True)
class Judged:
    """A change with its consequences: what to write over ``before``, and what to answer.

    ``after`` is ``None`` when there is nothing to write.
    """

    change: Change
    before: Document | None
    after: Document | None
    stored: Stored


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges changes. ``index`` returns what is written beside a resource.

    Of the types ``versioned_updates`` a version is replaced only by who names it.
    """

    index: Callable[[Resource], Indexed]
    resource_bytes_max: int
    versioned_updates: Types = ()

    def judged(
        self,
        change: Change,
        before: Document | None,
        now: datetime,
        belonging: Belonging = NOWHERE,
    ) -> Judged:
        """Return what ``change`` comes to, where ``before`` is the current document, if any; with
        its keys where the access of the change asks for those. ``belonging`` says where targets of
        a Provenance belong; raises :class:`Unlooked` where it does not.

        Raises ``conflict`` (412) when ``if_match`` or ``if_none_match`` forbid it, ``required``
        (400) where ``if_match`` has to name the version and does not; ``not-found`` or
        ``deleted`` when there is nothing to revise, and what ``revise`` and ``check`` raise.
        What may not be seen is not there: it raises ``not-found``, and so does an id that a
        principal with a plan chooses itself; what may be seen and not changed raises
        ``forbidden``.
        """
        if change.access is None:
            return _final(self._judged(change, before, now, belonging))
        seen = before is not None and allows(of_current(change.access.seen(change.type)), before)
        before = before if seen else None
        if before is None and change.interaction == "update":
            raise not_found(change.type, change.id)
        judged = self._judged(change, before, now, belonging)
        _check_access(change.access, judged)
        return _final(judged)

    def _judged(
        self, change: Change, before: Document | None, now: datetime, belonging: Belonging
    ) -> Judged:
        if change.revise is not None:
            change = self._revision(change, change.revise, before)
            assert change.resource is not None
            return self._replacement(change, change.resource, before, now, belonging)
        self._check_versions(change, before)
        if change.resource is None:
            return _deletion(change, before, now)
        _check_whole(change, change.resource, before)
        return self._replacement(change, change.resource, before, now, belonging)

    def _revision(
        self,
        change: Change,
        revise: Callable[[Resource], Resource],
        before: Document | None,
    ) -> Change:
        """Return ``change`` with the resource that ``revise`` makes of ``before``."""
        # What fails without the preconditions fails with them (RFC 9110, 13.2.1).
        if before is None:
            raise not_found(change.type, change.id)
        if before.get("deleted"):
            raise deleted(change.type, change.id, before["version"])
        self._check_versions(change, before)
        resource = revise(decode_stored(before["json"]))
        if change.check is not None:
            change.check(resource)
        if content := content_of(before):
            if "data" in resource:
                resource = whole(resource)
            else:
                # Whatever the patch makes of the tag: the data is not in it.
                resource, change = tagged(resource), replace(change, content=content)
        return replace(change, resource=resource)

    def _check_versions(self, change: Change, before: Document | None) -> None:
        """https://hl7.org/fhir/R4/http.html#concurrency"""
        there = before is not None and not before.get("deleted", False)
        named = change.if_match is not None and ANY_VERSION not in change.if_match
        if there and not named and covers(self.versioned_updates, change.type):
            text = (
                f"A {change.type} is changed and deleted here only by who knows what is replaced: "
                'read it, and send its version as If-Match, such as W/"1".'
            )
            raise FhirError(Issue("required", text))
        _check_versions(change, before)

    def _replacement(
        self,
        change: Change,
        resource: Resource,
        before: Document | None,
        now: datetime,
        belonging: Belonging,
    ) -> Judged:
        same = before is None or _same_content(change.content, content_of(before))
        if before is not None and same and _unchanged(resource, before):
            return Judged(change, before, None, stored(change.type, before, changed=False))
        version = before["version"] + 1 if before else 1
        moment = next_moment(now, before["last_updated"] if before else None)
        complete = stamped(resource, change.id, version, moment)
        after = document(
            complete,
            belonging.of(complete, self.index(complete)),
            interaction=change.interaction,
            bytes_max=self.resource_bytes_max,
            revived=before is not None and before.get("deleted", False),
            content=change.content,
        )
        return Judged(change, before, after, stored(change.type, after))


FINAL = ("AuditEvent",)
"""Types of which nobody changes or deletes what is there. Section 4 of design/security.md."""


def unchanging(type: str) -> FhirError:
    """Return the refusal of a change to what stays as it is, whoever asks."""
    text = f"What is recorded as {type} stays as it is: nobody changes or deletes it."
    return FhirError(Issue("not-supported", text), status=405, headers=(("Allow", "GET, HEAD"),))


def _final(judged: Judged) -> Judged:
    """Return ``judged``, unless it would write over what stays as it is."""
    if judged.change.type in FINAL and judged.before is not None and judged.after is not None:
        raise unchanging(judged.change.type)
    return judged


def _check_access(plan: AccessPlan, judged: Judged) -> None:
    """Refuse what ``plan`` does not let be changed, or be changed into."""
    change, before, after = judged.change, judged.before, judged.after
    there = before is not None and not before.get("deleted")
    letter = "d" if change.interaction == "delete" else "u" if there else "c"
    may = plan.changed(change.type, letter)
    # A deletion has no keys, and is wherever that is which was deleted.
    documents = [one for one in (before, after) if one is not None and one is not _gone(after)]
    if not all(allows(may, one) for one in documents):
        text = f"What you were granted does not let you do this with this {change.type}."
        raise FhirError(Issue("forbidden", text))
    if there and after is not None and not after.get("deleted"):
        _check_labels(change.type, before or {}, after)


_CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality|"
_LEVELS = tuple(f"{_CONFIDENTIALITY}{code}" for code in ("U", "L", "M", "N", "R", "V"))


def _check_labels(type: str, before: Document, after: Document) -> None:
    """Refuse that a security label falls off: who may not see it would see what it was put on.

    A confidentiality may be raised.
    """
    now = frozenset(after["labels"])
    highest = max((_LEVELS.index(one) for one in now if one in _LEVELS), default=-1)
    for one in before.get("labels", ()):
        raised = one in _LEVELS and _LEVELS.index(one) <= highest
        if one not in now and not raised:
            text = f"This would take a security label off the {type}; keep those in meta.security."
            raise FhirError(Issue("forbidden", text, f"{type}.meta.security"))


def _gone(document: Document | None) -> Document | None:
    return document if document is not None and document.get("deleted") else None


def _deletion(change: Change, before: Document | None, now: datetime) -> Judged:
    """Deleting what is not there, or not any more, succeeds and writes nothing."""
    if before is None:
        nothing = Stored(change.type, change.id, 0, now, b"", "delete", deleted=True, changed=False)
        return Judged(change, None, None, nothing)
    if before.get("deleted"):
        return Judged(change, before, None, stored(change.type, before, changed=False))
    after = tombstone(before, now)
    return Judged(change, before, after, stored(change.type, after))


def _check_versions(change: Change, before: Mapping[str, Any] | None) -> None:
    """https://hl7.org/fhir/R4/http.html#concurrency and RFC 9110, 13.1.1 and 13.1.2."""
    there = before is not None and not before.get("deleted", False)
    version = before["version"] if before is not None else 0
    allowed, forbidden = change.if_match, change.if_none_match
    # A deletion has a version, and whoever names it knows that it is one; ``*`` wants something.
    known = before is not None and str(version) in (allowed or ())
    if allowed is not None and not known and not (there and ANY_VERSION in allowed):
        wanted = next(iter(sorted(allowed)), "")
        raise version_conflict(
            change.type,
            change.id,
            wanted=wanted,
            current=version,
        )
    if forbidden is not None and there and ({ANY_VERSION, str(version)} & forbidden):
        raise FhirError(
            Issue(
                "conflict",
                f"{change.type}/{change.id} exists in version {version}, which If-None-Match "
                "does not allow.",
            ),
            status=412,
        )


def _check_whole(change: Change, resource: Resource, before: Mapping[str, Any] | None) -> None:
    """Refuse a Binary that was got without its large content and is sent back so: it would lose it.

    https://hl7.org/fhir/R4/search.html#summary
    """
    if change.content or "data" in resource or before is None or "content" not in before:
        return
    if is_subset(resource):
        text = (
            f"{change.type}/{change.id} comes back as it was got, tagged {SUBSETTED['code']} and "
            "without its data. Send it with its data, or change the rest of it with a patch."
        )
        raise FhirError(Issue("business-rule", text, "Binary.data"))


def _same_content(one: Content | None, other: Content | None) -> bool:
    """Whether the bytes are the same, wherever they are kept."""
    if one is None or other is None:
        return one is other
    return (one.size, one.sha256) == (other.size, other.sha256)


def _unchanged(resource: Resource, before: Document) -> bool:
    """Whether ``resource`` says what is stored already, its version and time aside."""
    if before.get("deleted"):
        return False
    again = stamped(resource, before["_id"], before["version"], before["last_updated"])
    text = before["json"]
    # Bytes are compared first: nearly every repeated write has its members in the same order.
    encoded = encode(again)
    if encoded == text:
        return True
    return len(encoded) == len(text) and canonical(again) == canonical(decode_stored(text))
