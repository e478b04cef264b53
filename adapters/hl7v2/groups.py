"""Segments to groups: which segment belongs to which.

design/hl7v2.md, section 12. A message is walked once; a segment belongs to the nearest one it can
belong to, whatever stands between. Nothing is lost: what fits nowhere is in ``Groups.loose``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from adapters.hl7v2.message import Message, Segment


@dataclass(slots=True)
class ObxGroup:
    """An OBX and its notes."""

    obx: Segment
    notes: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class SpecimenGroup:
    """An SPM with its containers (SAC), its own OBX and notes."""

    spm: Segment
    sacs: list[Segment] = field(default_factory=list)
    obxs: list[ObxGroup] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class GiveGroup:
    """An RXD, RXA or RXG with its routes, and the OBX that follow it."""

    segment: Segment
    routes: list[Segment] = field(default_factory=list)
    obxs: list[ObxGroup] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class OrderGroup:
    """What belongs to one order: ORC, its detail, timing, results, specimens."""

    orc: Segment | None = None
    obr: Segment | None = None
    rxo: Segment | None = None
    rxe: Segment | None = None
    timings: list[Segment] = field(default_factory=list)
    routes: list[Segment] = field(default_factory=list)
    parts: list[Segment] = field(default_factory=list)  # RXC
    gives: list[GiveGroup] = field(default_factory=list)
    obxs: list[ObxGroup] = field(default_factory=list)
    specimens: list[SpecimenGroup] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)
    diagnoses: list[Segment] = field(default_factory=list)

    @property
    def has_detail(self) -> bool:
        """Whether it has said what is ordered."""
        return bool(self.obr or self.rxo or self.rxe or self.gives)


@dataclass(slots=True)
class VisitGroup:
    """A PV1 and its PV2."""

    pv1: Segment
    pv2: Segment | None = None


@dataclass(slots=True)
class ResourceGroup:
    """An AIS, AIG, AIL or AIP with its notes."""

    segment: Segment
    notes: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class PatientGroup:
    """A PID and everything up to the next one; ``pid`` is None before the first."""

    pid: Segment | None = None
    pd1: Segment | None = None
    merge: Segment | None = None
    visit: VisitGroup | None = None
    relatives: list[Segment] = field(default_factory=list)
    orders: list[OrderGroup] = field(default_factory=list)
    specimens: list[SpecimenGroup] = field(default_factory=list)
    obxs: list[ObxGroup] = field(default_factory=list)
    notes: list[Segment] = field(default_factory=list)
    # AL1, IAM, DG1, PR1, IN1, IN2, FT1, PRB, TXA … in order
    lists: dict[str, list[Segment]] = field(default_factory=dict)
    problem_notes: list[Segment] = field(default_factory=list)
    resources: list[ResourceGroup] = field(default_factory=list)


@dataclass(slots=True)
class Groups:
    """A message in groups. ``schedule`` is SCH, with its notes."""

    patients: list[PatientGroup] = field(default_factory=list)
    schedule: Segment | None = None
    schedule_notes: list[Segment] = field(default_factory=list)
    schedule_timings: list[Segment] = field(default_factory=list)
    loose: list[Segment] = field(default_factory=list)


class _Walk:
    """The current segments of each kind while a message is walked."""

    def __init__(self, message: Message) -> None:
        self.groups = Groups()
        self.patient = PatientGroup()
        self.order: OrderGroup | None = None
        self.specimen: SpecimenGroup | None = None
        self.led = _is_led_by_specimen(message)
        self.orc_follows = message.type == "OUL"
        self.give: GiveGroup | None = None
        self.notes: list[Segment] = []  # where an NTE goes
        self.obxs: list[ObxGroup] = self.patient.obxs

    def take(self, segment: Segment) -> None:
        handler = _HANDLERS.get(segment.name)
        if handler:
            handler(self, segment)
        elif segment.name in _LISTED:
            self.patient.lists.setdefault(segment.name, []).append(segment)
            self.notes = self.patient.problem_notes
        else:
            self.groups.loose.append(segment)

    def pid(self, segment: Segment) -> None:
        if self.patient.pid is None and not self.groups.patients:
            self.patient.pid = segment  # SCH, ORC … may stand before
            self.groups.patients.append(self.patient)
        else:
            self.patient = PatientGroup(pid=segment)
            self.groups.patients.append(self.patient)
            self.order = self.specimen = self.give = None
        self.notes = self.patient.notes
        if self.order is None:
            self.obxs = self.patient.obxs

    def pd1(self, segment: Segment) -> None:
        self.patient.pd1 = segment

    def mrg(self, segment: Segment) -> None:
        self.patient.merge = segment

    def nk1(self, segment: Segment) -> None:
        self.patient.relatives.append(segment)
        self.notes = []

    def pv1(self, segment: Segment) -> None:
        if self.patient.visit is None:
            self.patient.visit = VisitGroup(segment)
        else:
            self.groups.loose.append(segment)
        self.notes = []

    def pv2(self, segment: Segment) -> None:
        if self.patient.visit and self.patient.visit.pv2 is None:
            self.patient.visit.pv2 = segment
        else:
            self.groups.loose.append(segment)

    def orc(self, segment: Segment) -> None:
        order = self.order
        said = order and (order.obxs or (order.specimens and not self.led))
        if self.orc_follows and order and order.obr and not order.orc and not said:
            order.orc = segment  # OUL: the ORC stands behind its OBR
        else:
            self._new_order().orc = segment

    def _new_order(self) -> OrderGroup:
        self.order = OrderGroup()
        self.patient.orders.append(self.order)
        if self.specimen and self.led:
            self.order.specimens.append(self.specimen)
        elif not self.led:
            self.specimen = None
        self.give = None
        self.notes = self.order.notes
        self.obxs = self.order.obxs
        return self.order

    def obr(self, segment: Segment) -> None:
        order = self.order
        if order is None or order.has_detail or order.obxs:
            order = self._new_order()
        order.obr = segment
        self.notes, self.obxs = order.notes, order.obxs

    def rxo(self, segment: Segment) -> None:
        order = self.order
        if order is None or order.has_detail:
            order = self._new_order()
        order.rxo = segment
        self.notes = order.notes

    def rxe(self, segment: Segment) -> None:
        order = self.order
        if order is None or order.rxe or order.obr or order.gives:
            order = self._new_order()
        order.rxe = segment
        self.notes = order.notes

    def rxr(self, segment: Segment) -> None:
        if self.give:
            self.give.routes.append(segment)
        elif self.order:
            self.order.routes.append(segment)
        else:
            self.groups.loose.append(segment)

    def rxc(self, segment: Segment) -> None:
        (self.order.parts if self.order else self.groups.loose).append(segment)

    def give_(self, segment: Segment) -> None:
        order = self.order
        if order is None or order.obr:
            order = self._new_order()
        self.give = GiveGroup(segment)
        order.gives.append(self.give)
        self.notes, self.obxs = self.give.notes, self.give.obxs

    def tq1(self, segment: Segment) -> None:
        if self.order:
            self.order.timings.append(segment)
        elif self.groups.schedule:
            self.groups.schedule_timings.append(segment)
        else:
            self.groups.loose.append(segment)

    def spm(self, segment: Segment) -> None:
        self.specimen = SpecimenGroup(segment)
        if self.order and not self.led:
            self.order.specimens.append(self.specimen)
            # An OBX behind the SPM still belongs to the OBR before it.
        else:
            self.patient.specimens.append(self.specimen)
            self.order = None
            self.obxs = self.specimen.obxs
        self.notes = self.specimen.notes

    def sac(self, segment: Segment) -> None:
        (self.specimen.sacs if self.specimen else self.groups.loose).append(segment)

    def obx(self, segment: Segment) -> None:
        group = ObxGroup(segment)
        self.obxs.append(group)
        self.notes = group.notes

    def nte(self, segment: Segment) -> None:
        self.notes.append(segment)

    def dg1(self, segment: Segment) -> None:
        if self.order:
            self.order.diagnoses.append(segment)
        self.patient.lists.setdefault("DG1", []).append(segment)
        self.notes = self.patient.problem_notes

    def sch(self, segment: Segment) -> None:
        self.groups.schedule = segment
        self.notes = self.groups.schedule_notes

    def resource(self, segment: Segment) -> None:
        group = ResourceGroup(segment)
        self.patient.resources.append(group)
        self.notes = group.notes


_Handler = Callable[[_Walk, Segment], None]
_HANDLERS: dict[str, _Handler] = {
    "PID": _Walk.pid, "PD1": _Walk.pd1, "MRG": _Walk.mrg, "NK1": _Walk.nk1,
    "PV1": _Walk.pv1, "PV2": _Walk.pv2,
    "ORC": _Walk.orc, "OBR": _Walk.obr, "TQ1": _Walk.tq1,
    "RXO": _Walk.rxo, "RXE": _Walk.rxe, "RXR": _Walk.rxr, "RXC": _Walk.rxc,
    "RXD": _Walk.give_, "RXA": _Walk.give_, "RXG": _Walk.give_,
    "SPM": _Walk.spm, "SAC": _Walk.sac, "OBX": _Walk.obx, "NTE": _Walk.nte, "DG1": _Walk.dg1,
    "SCH": _Walk.sch,
    "AIS": _Walk.resource, "AIG": _Walk.resource, "AIL": _Walk.resource, "AIP": _Walk.resource,
}  # fmt: skip
_LISTED = frozenset(
    ("AL1", "IAM", "PR1", "IN1", "IN2", "IN3", "FT1", "PRB", "TXA", "GT1", "ROL", "PRT", "ACC")
)


def _is_led_by_specimen(message: Message) -> bool:
    """Return whether the specimens come before the orders on them (OUL R22, OML O33 …)."""
    for segment in message.segments:
        if segment.name == "SPM":
            return True
        if segment.name in ("ORC", "OBR"):
            return False
    return False


def groups_of(message: Message) -> Groups:
    """Return the segments of ``message`` in groups, in message order."""
    walk = _Walk(message)
    for segment in message.segments:
        walk.take(segment)
    if not walk.groups.patients and walk.patient != PatientGroup():
        walk.groups.patients.append(walk.patient)
    return walk.groups
