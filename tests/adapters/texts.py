"""Messages of our own for the tests of the HL7 v2 adapter, put together from segments."""


def header(kind: str, control: str = "M1", sent: str = "20240105120000+0000") -> str:
    """Return an MSH."""
    return f"MSH|^~\\&|LAB|HOSP|EHR|HOSP|{sent}||{kind}|{control}|P|2.5.1"


def pid(number: str = "1", rest: str = "|DOE^JANE||19800203|F", authority: str = "HOSP") -> str:
    """Return a PID with one number of type MR."""
    return f"PID|1||{number}^^^{authority}^MR|{rest}"


def message(
    kind: str, *segments: str, control: str = "M1", sent: str = "20240105120000+0000"
) -> str:
    """Return a whole message."""
    return "\r".join([header(kind, control, sent), *segments])


def oru(*results: str, obr: str = "", sent: str = "20240105120000+0000", number: str = "1") -> str:
    """Return an ORU with one OBR and these OBX, written from OBX-2 on."""
    report = (
        obr or "OBR|1|P1|F1|24323-8^CMP^LN|||20240105080000|||||||||||||||20240105100000||LAB|F"
    )
    lines = [f"OBX|{n}|{result}" for n, result in enumerate(results, 1)]
    return message("ORU^R01", pid(number), report, *lines, sent=sent)


def adt(event: str, *segments: str, said: str = "20240105120000+0000", pv1: str = "") -> str:
    """Return an ADT of one patient; ``pv1`` is written from PV1-2 on."""
    visit = [f"PV1|1|{pv1}"] if pv1 else []
    evn = f"EVN|{event}|{said}"
    return message(f"ADT^{event}", evn, pid(), *visit, *segments, sent=said)


def visit(kind: str = "I", place: str = "W1^R1^B1", number: str = "V1", **fields: str) -> str:
    """Return a PV1 from PV1-2 on; ``fields`` as in ``f44="20240101"``."""
    written = {2: kind, 3: place, 19: number}
    written |= {int(name[1:]): value for name, value in fields.items()}
    return "|".join(written.get(n, "") for n in range(2, max(written) + 1))
