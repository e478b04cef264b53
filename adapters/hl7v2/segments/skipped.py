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
}  # fmt: skip


def is_skipped(segment: str, field: int) -> bool:
    """Return whether a field is left out for a reason."""
    return segment in STRUCTURE or (segment, field) in FIELDS
