"""A strict second opinion on a message: hl7apy, which knows the structures of v2.2 to v2.8.

design/hl7v2.md, section 20. An optional extra (``pip install fhir-server[hl7]``), and never on the
way of a message: it takes up to 100 ms each and, in its tolerant mode, drops segments in silence.
It runs in a process of its own, with a time limit.
"""

import asyncio
import sys
from contextlib import suppress

_SECONDS_MAX = 10.0
_NOT_THERE = "hl7apy is not installed; pip install 'fhir-server[hl7]' has it."
# What the process runs: the message on standard input, one finding a line on standard output.
_PROGRAM = """
import sys
try:
    from hl7apy.parser import parse_message
    from hl7apy.consts import VALIDATION_LEVEL
except ImportError:
    sys.exit(3)
text = sys.stdin.buffer.read().decode("utf-8", "replace")
text = "\\r".join(line for line in text.replace("\\n", "\\r").split("\\r") if line.strip()) + "\\r"
try:
    message = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT)
    message.validate()
except Exception as error:
    print(type(error).__name__ + ": " + " ".join(str(error).split())[:300])
"""


async def verdict(data: bytes) -> list[str]:
    """Return what hl7apy finds wrong with ``data``, nothing where it accepts the message."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_SECONDS_MAX):
            said, _ = await process.communicate(data)
    except TimeoutError:
        return [f"hl7apy took more than {_SECONDS_MAX:g} s."]
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == 3:
        return [_NOT_THERE]
    return [line for line in said.decode("utf-8", "replace").splitlines() if line]
