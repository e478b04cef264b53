"""The operations that every server has, one module each, named without the dollar sign.

https://hl7.org/fhir/R4/operations.html
"""

from fhir_server.operations import (
    contents,
    expand,
    expunge,
    lookup,
    meta,
    reindex,
    subsumes,
    validate_code,
)
from fhir_server.registry import Operation, Task

OPERATIONS: tuple[Operation, ...] = (
    meta.META,
    meta.ADD,
    meta.DELETE,
    reindex.REINDEX,
    reindex.STATUS,
    expunge.EXPUNGE,
    lookup.LOOKUP,
    validate_code.OF_SYSTEM,
    validate_code.OF_VALUE_SET,
    subsumes.SUBSUMES,
    expand.EXPAND,
)
TASKS: tuple[Task, ...] = (reindex.TASK, contents.TASK)
