"""A dictionary of resources that drives the pure functions of the HL7 v2 adapter in tests.

It answers what :func:`wanted` asks and takes what :func:`planned` gives, and performs merges in the
plainest way. It stands for nothing of the server: the shell has tests of its own.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from adapters.hl7v2.changes import Stamp
from adapters.hl7v2.message import read
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.plan import Known, Plan, Report, Search, planned, wanted
from adapters.hl7v2.senders import Profile

Json = dict[str, Any]


class Memory:
    """Resources by (type, id), and the stamps beside them."""

    def __init__(self, profile: Profile | None = None) -> None:
        self.profile = profile or Profile()
        self.resources: dict[tuple[str, str], Json] = {}
        self.origins: dict[tuple[str, str], Stamp] = {}
        self.history: list[tuple[str, str]] = []
        self._ids = (f"p{n}" for n in itertools.count(1))

    def take(self, text: str, *, arrived: str = "") -> Plan:
        """Read, map and apply one message; a held one changes nothing."""
        report = changes_of(read(text), self.profile, arrived=arrived)
        if report.fault is not None:
            raise report.fault
        return self.apply(report)

    def apply(self, report: Report) -> Plan:
        """Apply what a report asks."""
        known = Known()
        drawn = [next(self._ids) for change in report.changes if change.type == "Patient"]
        while asked := wanted(report, known, self.profile, drawn):
            for place in asked.ids:
                known.resources[place] = self.resources.get(place)
                if place in self.origins:
                    known.origins[place] = self.origins[place]
            for search in asked.searches:
                known.found[search] = tuple(self._found(search))
                for id in known.found[search]:
                    place = (search.type, id)
                    known.resources[place] = self.resources[place]
                    if place in self.origins:
                        known.origins[place] = self.origins[place]
        plan = planned(report, known, self.profile, drawn)
        if not plan.held:
            self._write(plan)
        return plan

    def _found(self, search: Search) -> Iterator[str]:
        for (type, id), resource in self.resources.items():
            if type != search.type:
                continue
            numbers = {
                (one.get("system", ""), one.get("value"))
                for one in _listed(resource.get("identifier"))
            }
            if search.identifiers and not numbers & set(search.identifiers):
                continue
            whose = (resource.get(name) for name in ("subject", "patient", "beneficiary"))
            if search.patient and {"reference": search.patient} not in whose:
                continue
            if search.statuses and resource.get("status") not in search.statuses:
                continue
            yield id

    def _write(self, plan: Plan) -> None:
        for write in plan.writes:
            place = (write.type, write.id)
            if write.outcome != "unchanged":
                self.resources[place] = write.resource
                self.history.append(place)
            self.origins[place] = write.stamp
        for merge in plan.merges:
            if merge.kind == "merge" and merge.type == "Patient":
                self._merge(merge.prior, merge.target)

    def _merge(self, prior: str, target: str) -> None:
        gone = self.resources["Patient", prior]
        link = {"other": {"reference": f"Patient/{target}"}, "type": "replaced-by"}
        self.resources["Patient", prior] = {**gone, "active": False, "link": [link]}
        survivor = self.resources["Patient", target]
        back = {"other": {"reference": f"Patient/{prior}"}, "type": "replaces"}
        self.resources["Patient", target] = {
            **survivor,
            "link": [*survivor.get("link", []), back],
        }
        for place, resource in self.resources.items():
            if place[0] != "Patient":
                self.resources[place] = _repointed(
                    resource, f"Patient/{prior}", f"Patient/{target}"
                )

    def all(self, type: str) -> list[Json]:
        """Return all resources of a type."""
        return [resource for (kind, _), resource in self.resources.items() if kind == type]

    def one(self, type: str) -> Json:
        """Return the only resource of a type."""
        (found,) = self.all(type)
        return found


def _listed(value: Any) -> list[Json]:
    return value if isinstance(value, list) else [value] if value else []


def _repointed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {name: _repointed(member, old, new) for name, member in value.items()}
    if isinstance(value, list):
        return [_repointed(member, old, new) for member in value]
    return new if value == old else value
