"""Fields that nobody maps, each with the reason. The rest of what is valued counts as unmapped.

design/hl7v2.md, sections 13 and 17.
"""

# Segment -> fields of which nothing is lost, because they say nothing about a resource.
STRUCTURE: dict[str, str] = {
    "MSH": "the envelope: kept with the message, told by its Provenance",
    "EVN": "the event: kept with the message, told by its Provenance",
    "SFT": "software of the sender: kept with the message",
    "UAC": "credentials: never read",
    "DSC": "continuation: such a message is refused",
    "BHS": "envelope of a batch", "BTS": "envelope of a batch",
    "FHS": "envelope of a file", "FTS": "envelope of a file",
    "QPD": "the query", "RCP": "the query",
    "MSA": "acknowledgement inside a response",
    "PRT": "participations: belong into the directory; the roles of PV1, ORC, OBR are mapped",
    "ROL": "roles: belong into the directory; the roles of PV1, ORC, OBR are mapped",
    "IN3": "certification: no resource of it in the guide but the care team",
}  # fmt: skip

# (Segment, field) -> why it is left out.
FIELDS: dict[tuple[str, int], str] = {
    **{
        (name, 1): "set id: the order of segments says it"
        for name in (
            "PID", "PV1", "PV2", "NK1", "OBR", "OBX", "NTE", "AL1", "IAM", "DG1", "PR1", "IN1",
            "SPM", "TXA", "AIS", "AIG", "AIL", "AIP", "FT1", "GT1", "TQ1", "RXA", "SAC",
        )
    },
    ("NTE", 2): "source of the comment: not kept in Annotation",
    ("PID", 10): "race: mapped only with us_core, where it is defined",
    ("PID", 22): "ethnicity: mapped only with us_core, where it is defined",
    ("OBX", 2): "type of the value: read with it",
    **dict.fromkeys(
        (("AIG", 9), ("AIL", 7), ("AIP", 7), ("AIS", 5), ("TQ1", 5)),
        "an offset from a start that R4 does not keep; the start itself is mapped",
    ),
    ("AIS", 10): "status of one service: the appointment's is SCH-25",
    ("AIS", 11): "supplement of the service code: Appointment has no place for it",
    ("AIS", 12): "supplement of the service code: Appointment has no place for it",
    ("DG1", 22): "parent diagnosis: names a Condition of another message",
    ("IAM", 14): "reporter by name only: AllergyIntolerance.recorder wants a resource",
    ("IAM", 15): "relationship of a reporter who is not kept",
    ("IAM", 27): "the clinician's own code beside IAM-3",
    ("IN1", 5): "address of the insurer: belongs into the directory",
    ("IN1", 10): "number of the employer's group: belongs into the directory",
    **{("NK1", n): "Patient.contact has no place for it" for n in (12, 16, 20, 33, 37)},
    **{("NK1", n): "contact at the relative's organization: no place" for n in (30, 31, 32)},
    ("NTE", 4): "kind of comment: Annotation has no place for it",
    ("NTE", 9): "coded comment: Annotation has no place for it",
    ("OBR", 35): "transcriptionist: not a performer of the report",
    ("OBX", 24): "address of the laboratory: belongs into the directory",
    ("OBX", 29): "kind of observation: instructs receivers, says nothing of the result",
    ("OBX", 30): "kind of observation: instructs receivers, says nothing of the result",
    ("OBX", 33): "number of the specimen: the specimen is linked by its segment",
    **{("ORC", n): "who entered or verified: told by the Provenance" for n in (10, 11, 17, 18, 19)},
    **{("ORC", n): "address of a facility: belongs into the directory" for n in (22, 23, 24)},
    ("ORC", 38): "group number of the filler: requisition is the placer's",
    ("PD1", 7): "living will: an Observation of its own in the guide; no statement of a result",
    ("PID", 21): "number of the mother: links are made by merges and link events only",
    ("PID", 33): "time of the last update: told by the Provenance",
    ("PID", 34): "facility of the last update: told by the Provenance",
    ("PR1", 6): "kind of procedure: local use",
    ("PR1", 16): "modifier: R4 has no place for it",
    ("PR1", 23): "treating unit: belongs into the directory",
    ("PR1", 25): "parent procedure: names a Procedure of another message",
    ("PV1", 20): "financial class: Encounter has no place for it",
    ("PV1", 40): "status of the bed: of the Location, not of the visit",
    ("PV1", 43): "prior temporary location: history of the visit is kept by versions",
    ("PV1", 53): "text of an episode that is named by PV1-54",
    ("PV2", 12): "text of the visit: narrative is not made from messages",
    ("RXA", 28): "address of the place: belongs into the directory",
    ("RXE", 19): "total daily dose: follows from dose and timing",
    ("RXR", 5): "routing instruction: no map in the guide",
    ("TQ1", 4): "explicit times: kept in the text of the pattern where that has one",
    ("TQ1", 13): "duration of one occurrence: rarely sent, no effect on the order",
    ("TXA", 3): "presentation: what is attached says its own media type",
}  # fmt: skip


def is_skipped(segment: str, field: int) -> bool:
    """Return whether a field is left out for a reason."""
    return segment in STRUCTURE or (segment, field) in FIELDS
