"""Report and Known to Plan: what to look up for a message, and what is then to be written.

design/hl7v2.md, sections 8 to 10. Ask first, then compute: :func:`wanted` names what must be
looked up; the shell answers into a :class:`Known` and asks again, until nothing is wanted; then
:func:`planned` gives the resources to write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adapters.hl7v2.changes import (
    HANDLE,
    Change,
    Instruction,
    Json,
    Stamp,
    id_of,
    is_older,
    known_in,
    linked_places,
    merged,
)
from adapters.hl7v2.identity import Identifier, identified, replaced_by, survivors
from adapters.hl7v2.issues import Issue, MessageFault
from adapters.hl7v2.senders import Profile
from adapters.hl7v2.snapshots import ENDED, is_current

OPEN_STATUSES = ("planned", "arrived", "triaged", "in-progress", "onleave", "unknown")


@dataclass(frozen=True, slots=True)
class Report:
    """What a message asks, in message order, and what is to be said about it.

    ``partitions`` are the keys of section 7; ``unmapped`` counts ``PID-26``, ``codes`` counts
    ``(OBX-3, system, code)`` that have no target; ``fault`` is why the message as a whole cannot
    be applied, None if it can.
    """

    changes: tuple[Change, ...]
    instructions: tuple[Instruction, ...] = ()
    issues: tuple[Issue, ...] = ()
    unmapped: Mapping[str, int] = field(default_factory=dict)
    codes: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    partitions: tuple[str, ...] = ()
    fault: MessageFault | None = None
    source: str = ""  # meta.source of what the message writes
    # (type, system, value) of who is named -> what else is said of them
    directory: Mapping[tuple[str, str, str], Json] = field(default_factory=dict)
    held: str = ""  # why a person must decide, whatever is stored


@dataclass(frozen=True, slots=True)
class Search:
    """The resources of ``type`` with any of ``identifiers``; or of ``patient`` (``Patient/a``)
    with one of ``statuses``."""

    type: str
    identifiers: tuple[Identifier, ...] = ()
    patient: str = ""
    statuses: tuple[str, ...] = ()

    def parameters(self) -> tuple[tuple[str, str], ...]:
        """Return the search as FHIR search parameters, escapes in place."""
        found = []
        if self.identifiers:
            tokens = (f"{_token(system)}|{_token(value)}" for system, value in self.identifiers)
            found.append(("identifier", ",".join(tokens)))
        if self.patient:
            found.append(("patient", self.patient))
        if self.statuses:
            found.append(("status", ",".join(self.statuses)))
        return tuple(found)


def _token(text: str) -> str:
    for mark in "\\,|$":
        text = text.replace(mark, "\\" + mark)
    return text


@dataclass(slots=True)
class Known:
    """What the shell has looked up.

    ``resources``: (type, id) -> the resource, None if there is none. ``origins``: (type, id) ->
    the stamp of the last statement. ``found``: the ids that a search found; each of them must be
    in ``resources`` as well.
    """

    resources: dict[tuple[str, str], Json | None] = field(default_factory=dict)
    origins: dict[tuple[str, str], Stamp] = field(default_factory=dict)
    found: dict[Search, tuple[str, ...]] = field(default_factory=dict)
    # What follows from it so far, kept by wanted() and planned() for themselves.
    resolved: dict[str, str] = field(default_factory=dict)
    patients: dict[tuple[str, str], str] = field(default_factory=dict)
    noted: dict[str, tuple[tuple[Issue, ...], str]] = field(default_factory=dict)
    foreign: dict[str, frozenset[Identifier]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What must be looked up: resources by (type, id), with their origins; and searches."""

    ids: frozenset[tuple[str, str]] = frozenset()
    searches: frozenset[Search] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.ids or self.searches)


@dataclass(frozen=True, slots=True)
class Write:
    """A resource after the message. ``stored`` is None for a new one; the stamp becomes its
    origin. ``outcome`` is ``created``, ``updated`` or ``unchanged``."""

    type: str
    id: str
    resource: Json
    stored: Json | None
    stamp: Stamp
    source: str
    outcome: str = field(init=False)

    def __post_init__(self) -> None:
        """Note how the resource stands to the stored one; it is asked for several times."""
        object.__setattr__(self, "outcome", _outcome(self.stored, self.resource))


@dataclass(frozen=True, slots=True)
class Merge:
    """``prior`` (an id) is merged into ``target``, or linked and unlinked, by the record's own
    operation or by references moved: ``kind`` is that of the :class:`Instruction`."""

    kind: str
    type: str
    target: str
    prior: str
    source: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, in order; what to merge after that; what to say; why a person must decide."""

    writes: tuple[Write, ...]
    merges: tuple[Merge, ...] = ()
    issues: tuple[Issue, ...] = ()
    held: str = ""
    condition: str = "204"  # of table 0357, where it is held


def wanted(report: Report, known: Known, profile: Profile, drawn: Sequence[str]) -> Wanted:
    """Return what must still be looked up before :func:`planned` can be called.

    ``drawn`` are ids for Patients that are new, one for each Patient change, in order; the same
    in every call for a message.
    """
    return _Resolving(report, known, profile, drawn).wanted()


def planned(report: Report, known: Known, profile: Profile, drawn: Sequence[str]) -> Plan:
    """Return what ``report`` means for what is stored.

    Equal arguments give equal plans. Resources still lack ``meta.versionId`` and ``lastUpdated``.
    """
    return _Resolving(report, known, profile, drawn).plan()


class _Resolving:
    """The changes of one report, each with the resource it means.

    Changes come in message order; one refers to handles of earlier ones, or of itself, in its key.
    """

    def __init__(
        self, report: Report, known: Known, profile: Profile, drawn: Sequence[str]
    ) -> None:
        self.report = report
        self.known = known
        self.profile = profile
        self.drawn = iter(drawn)
        self.ids = known.resolved
        self.anew = known.patients  # number -> id of a patient made by this message
        self.missing_ids: set[tuple[str, str]] = set()
        self.missing_searches: set[Search] = set()
        self.misses = 0
        self.patients: dict[str, Json] | None = None  # those that are known, by id
        self.directory: dict[tuple[str, str, str], str] = {}
        self.entries: dict[tuple[str, str], Json] = {}  # those that the directory lacks
        self.issues: list[Issue] = []
        self.held = report.held
        self.condition = "204"

    # ------------------------------------------------------------------------------ looking up

    def wanted(self) -> Wanted:
        for change in self.report.changes:
            self._resolve(change)
        for instruction in self.report.instructions:
            if instruction.kind == "snapshot":
                self._entries_of(instruction)
            else:
                self._prior(instruction)
        self._directory()
        return Wanted(frozenset(self.missing_ids), frozenset(self.missing_searches))

    def _directory(self) -> dict[tuple[str, str, str], str]:
        """Return (type, system, value) -> ``Type/id`` of those that the directory knows once."""
        found: dict[tuple[str, str, str], str] = {}
        for type in dict.fromkeys(named[0] for named in self.report.directory):
            numbers = tuple(named[1:] for named in self.report.directory if named[0] == type)
            before = self.misses
            resources = self._search(Search(type, identifiers=numbers))
            if self.misses > before:
                continue
            for number in numbers:
                fitting = [one["id"] for one in resources if _carries(one, number)]
                if not fitting and self.profile.directory == "create":
                    fitting = self._made(type, number)
                if len(fitting) == 1:
                    found[type, *number] = f"{type}/{fitting[0]}"
        return found

    def _made(self, type: str, number: Identifier) -> list[str]:
        """Return the id of a new entry of the directory; none where something else has it."""
        id = id_of(type, number[0], (number[1],))
        if self._resource(type, id) is not None:
            return []
        self.entries[type, id] = self.report.directory[type, *number]
        return [id]

    def _resource(self, type: str, id: str) -> Json | None:
        if (type, id) not in self.known.resources:
            self.missing_ids.add((type, id))
            self.misses += 1
            return None
        return self.known.resources[type, id]

    def _search(self, search: Search) -> list[Json]:
        if search not in self.known.found:
            self.missing_searches.add(search)
            self.misses += 1
            return []
        found = (self._resource(search.type, id) for id in self.known.found[search])
        return [resource for resource in found if resource is not None]

    def _resolve(self, change: Change) -> bool:
        """Set the id of ``change``; return false while something is missing for that."""
        drawn = next(self.drawn) if change.type == "Patient" else ""
        if change.handle in self.ids:
            return True
        before = self.misses
        id, is_new = self._patient(change, drawn) if drawn else self._other(change)
        if not id or self.misses > before:
            return False
        if not is_new and (change.type, id) not in self.known.resources:
            self.missing_ids.add((change.type, id))
        self.ids[change.handle] = id
        return True

    # --------------------------------------------------------------------------------- patients

    def _patients(self, identifiers: Sequence[Identifier]) -> dict[Identifier, list[Json]]:
        """Return the Patients that carry each of ``identifiers``, links followed."""
        if not identifiers:
            return {}
        carriers = self._search(Search("Patient", identifiers=tuple(identifiers)))
        found: dict[Identifier, list[Json]] = {}
        for identifier in identifiers:
            found[identifier] = self._led([p for p in carriers if _carries(p, identifier)])
        return found

    def _led(self, patients: list[Json]) -> list[Json]:
        if not patients:
            return []
        if self.patients is None:
            self.patients = {
                id: resource
                for (type, id), resource in self.known.resources.items()
                if type == "Patient" and resource is not None
            }
        led, missing = survivors(patients, self.patients)
        for id in missing:
            self._resource("Patient", id)
        return led

    def _patient(self, change: Change, drawn: str) -> tuple[str, bool]:
        """Return the id of a Patient, and whether nothing can be stored under it."""
        key = change.key
        if not key.identifiers:
            return id_of("Patient", key.scope, key.parts), False
        before = self.misses
        # What is merged into the Patient does not contradict it.
        merged = {
            number
            for one in self.report.instructions
            if one.kind == "merge" and one.target == change.handle
            for number in one.prior
        }
        identifiers = [one for one in key.identifiers if one not in merged] or key.identifiers
        found = self._patients(identifiers)
        if self.misses > before:
            return "", False
        rules = self.profile.identity
        decision = identified(identifiers, found, change.set, rules, change.source)
        self.known.foreign[change.handle] = decision.foreign
        if decision.issues or decision.held:
            self.known.noted[change.handle] = (decision.issues, decision.held)
        if decision.patient is not None:
            return str(decision.patient["id"]), False
        for identifier in identifiers:
            if identifier in self.anew:
                self.known.noted.pop(change.handle, None)
                return self.anew[identifier], True
        self.anew |= dict.fromkeys(identifiers, drawn)
        return drawn, True

    # ------------------------------------------------------------------------- everything else

    def _other(self, change: Change) -> tuple[str, bool]:
        key = change.key
        parts = tuple(self.ids.get(part, part) for part in key.parts)
        if any(part.startswith(HANDLE) for part in parts):
            return "", True
        own = id_of(change.type, key.scope, parts)
        by_number, reuse = change.type in BY_NUMBER, self.profile.filler_reuse
        if reuse == "new" or not by_number:
            own = self._of_this_patient(change, own, parts)
        if key.identifiers:
            search = Search(change.type, identifiers=key.identifiers)
            if search not in self.known.found:
                self._resource(
                    change.type, own
                )  # looked up together: it is that one if none is found
            stored = self._search(search)
            # Numbers of conditions, visits and the like come again: a chart is never written into
            # because another one has the same number. Those of orders hold the message instead.
            fitting = [
                str(one["id"])
                for one in stored
                if (not key.codes or _has_code(one, key.codes))
                and ((by_number and reuse != "new") or self._is_of_this_patient(change, one))
            ]
            if fitting:
                return (own if own in fitting else fitting[0]), False
        if key.open_of and (patient := self.ids.get(key.open_of)):
            search = Search(change.type, patient=f"Patient/{patient}", statuses=OPEN_STATUSES)
            stored = self._search(search)
            if len(stored) == 1:
                return str(stored[0]["id"]), False
        return own, False

    def _of_this_patient(self, change: Change, own: str, parts: tuple[str, ...]) -> str:
        """Return ``own``, or another id if what has it belongs to another patient."""
        stored = self._resource(change.type, own) if change.subject else None
        if stored is None or self._is_of_this_patient(change, stored):
            return own
        return id_of(change.type, change.key.scope, (*parts, self.ids.get(change.subject, "")))

    def _is_of_this_patient(self, change: Change, stored: Json) -> bool:
        """Return whether ``stored`` may be what ``change`` means: not another patient's."""
        owner, mine = _patient_of(stored), self.ids.get(change.subject, "")
        return not (change.subject and owner) or owner == mine or self._leads(owner, mine)

    # --------------------------------------------------------------------------------- planning

    def plan(self) -> Plan:
        writes: dict[tuple[str, str], Write] = {}
        resolved = [change for change in self.report.changes if self._resolve(change)]
        assert len(resolved) == len(self.report.changes), "wanted() was not asked until empty"
        for issues, held in self.known.noted.values():
            self.issues += issues
            self.held = self.held or held
        self._check_owners(resolved)
        references = {
            change.handle: f"{change.type}/{self.ids[change.handle]}" for change in resolved
        }
        self.directory = self._directory()
        for change in resolved:
            place = (change.type, self.ids[change.handle])
            write = self._written(change, place, writes.get(place), references)
            if write:
                writes[place] = write
        for place, said in self.entries.items():
            entry = {"resourceType": place[0], "id": place[1], **said}
            writes[place] = Write(*place, self._sourced(entry), None, Stamp(), "")
        merges: list[Merge] = []
        for instruction in self.report.instructions:
            if instruction.kind == "snapshot":
                self._end(instruction, writes)
            else:
                merges += self._merges(instruction)
        return Plan(
            tuple(writes.values()), tuple(merges), tuple(self.issues), self.held, self.condition
        )

    def _written(
        self,
        change: Change,
        place: tuple[str, str],
        before: Write | None,
        references: Mapping[str, str],
    ) -> Write | None:
        stored = self.known.resources.get(place)
        current = before.resource if before else stored
        if current is None and change.only_stored:
            return None
        places = linked_places(change.set, references)
        if foreign := self.known.foreign.get(change.handle):
            numbers = places.get("identifier[+]", ())
            own = [one for one in numbers if not _carries({"identifier": [one]}, *foreign)]
            places["identifier[+]"] = own
        if self.directory:
            places = known_in(places, self.directory)
        origin = self.known.origins.get(place) if stored else None
        resource = merged(current, change, origin, places)
        if origin is not None and is_older(change.stamp, origin) and not change.timeless:
            text = "A newer statement is stored; this one only fills gaps, or does nothing."
            self.issues.append(Issue("warning", "late", change.source, text))
            stamp = origin
        else:
            stamp = change.stamp
        if resource is None:
            return None
        if stored and change.type in BY_NUMBER and not self._is_of_this_patient(change, stored):
            # ``move``: also what the message mentions only in passing goes along.
            resource["subject"] = {"reference": f"Patient/{self.ids[change.subject]}"}
        resource = _ordered(resource, place[1])
        if _outcome(stored, resource) != "unchanged":
            resource = self._sourced(resource)
        return Write(*place, resource, stored, stamp, change.source)

    def _sourced(self, resource: Json) -> Json:
        """Return ``resource`` with the message as its source."""
        if not self.report.source:
            return resource
        return {**resource, "meta": {**resource.get("meta", {}), "source": self.report.source}}

    # ------------------------------------------------------------------------------- snapshots

    def _entries_of(self, instruction: Instruction) -> list[Json]:
        """Return what is stored of the list that a snapshot is of, whoever wrote it."""
        patient = self.ids.get(instruction.target)
        if not patient:
            return []
        return self._search(Search(instruction.type, patient=f"Patient/{patient}"))

    def _end(self, instruction: Instruction, writes: dict[tuple[str, str], Write]) -> None:
        """End the entries of a list that its sender made and does not send any more."""
        type = instruction.type
        mentioned = {self.ids[one.handle] for one in self.report.changes if one.type == type}
        stamp = next(one.stamp for one in self.report.changes if one.handle == instruction.target)
        sender = self.report.source.rpartition(":")[0] + ":"
        visit = f"Encounter/{self.ids[instruction.other]}" if instruction.other else ""
        for entry in self._entries_of(instruction):
            place = (type, str(entry["id"]))
            if (
                place[1] in mentioned
                or not str(entry.get("meta", {}).get("source", "")).startswith(sender)
                or not is_current(entry, visit)
                or is_older(stamp, self.known.origins.get(place))
            ):
                continue
            ended = self._sourced(_ordered({**entry, **ENDED[type]}, place[1]))
            writes[place] = Write(*place, ended, entry, stamp, instruction.source)

    def _check_owners(self, changes: list[Change]) -> None:
        """Hold the message if what it changes belongs to another patient (section 9)."""
        for change in changes:
            stored = self.known.resources.get((change.type, self.ids[change.handle]))
            owner = _patient_of(stored) if stored and change.subject else ""
            mine = self.ids.get(change.subject, "")
            if not owner or owner == mine or self._leads(owner, mine):
                continue
            text = "The number belongs to another patient."
            self.issues.append(Issue("warning", "number-of-another-patient", change.source, text))
            if change.type in BY_NUMBER and self.profile.filler_reuse == "hold":
                self.held, self.condition = text, "205"

    def _leads(self, owner: str, mine: str) -> bool:
        patient = self.known.resources.get(("Patient", owner))
        return bool(patient) and replaced_by(patient or {}) == mine

    # --------------------------------------------------------------------------------- merging

    def _prior(self, instruction: Instruction) -> list[Json]:
        """Return what carries the prior numbers, links followed."""
        if not instruction.prior:
            return []
        if instruction.type == "Patient":
            found = self._patients(instruction.prior)
            unique = {str(p["id"]): p for patients in found.values() for p in patients}
            return list(unique.values())
        return self._search(Search(instruction.type, identifiers=instruction.prior))

    def _merges(self, instruction: Instruction) -> list[Merge]:
        if instruction.kind == "hold":
            self.held = self.held or instruction.text
            return []
        target = self.ids.get(instruction.target, "")
        merges = []
        if instruction.other:
            other = self.ids[instruction.other]
            return [Merge(instruction.kind, instruction.type, target, other, instruction.source)]
        for prior in self._prior(instruction):
            if prior["id"] == target:
                continue
            if instruction.kind in ("renumber", "rename"):
                self.held = self.held or "The new number names somebody or something else."
                continue
            id = str(prior["id"])
            merges.append(Merge(instruction.kind, instruction.type, target, id, instruction.source))
        return merges


BY_NUMBER = ("DiagnosticReport", "Observation", "Specimen", "ServiceRequest")


def _carries(resource: Json, *identifiers: Identifier) -> bool:
    return any(
        (member.get("system", ""), member.get("value")) in identifiers
        for member in resource.get("identifier", [])
    )


def _has_code(resource: Json, codes: tuple[str, ...]) -> bool:
    concept = resource.get("code") or resource.get("medicationCodeableConcept") or {}
    for contained in resource.get("contained", ()) if not concept else ():
        concept = contained.get("code", {})
    found = {f"{c.get('system', '')}|{c.get('code', '')}" for c in concept.get("coding", [])}
    found.add(str(concept.get("text", "")))
    return not found.isdisjoint(codes)


def _patient_of(resource: Json) -> str:
    for name in ("subject", "patient", "beneficiary"):
        named = resource.get(name)
        reference = str(named.get("reference", "")) if isinstance(named, dict) else ""
        if reference.startswith("Patient/"):
            return reference.removeprefix("Patient/")
    for one in resource.get("participant") or ():
        reference = str((one.get("actor") or {}).get("reference", ""))
        if reference.startswith("Patient/"):
            return reference.removeprefix("Patient/")
    return ""


def _ordered(resource: Json, id: str) -> Json:
    """Return the resource with its type and ``id`` first."""
    return {"resourceType": resource["resourceType"], "id": id} | resource | {"id": id}


def _outcome(stored: Json | None, resource: Json) -> str:
    if stored is None:
        return "created"
    return "unchanged" if _same(stored, resource) else "updated"


def _same(stored: Json, resource: Json) -> bool:
    """Return whether nothing but ``meta`` differs. Labels are more than housekeeping."""
    for name, value in resource.items():
        if name != "meta" and stored.get(name) != value:
            return False
    if any(name not in resource for name in stored if name != "meta"):
        return False
    labels, stored_labels = (one.get("meta", {}).get("security") for one in (resource, stored))
    return bool(labels == stored_labels)
