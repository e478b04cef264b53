"""The operations that every server has, one module each, named without the dollar sign.

https://hl7.org/fhir/R4/operations.html
"""

from fhir_server.operations import (
    closure,
    contents,
    expand,
    expunge,
    find_matches,
    lookup,
    meta,
    reindex,
    subsumes,
    translate,
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
    translate.TRANSLATE,
    find_matches.FIND_MATCHES,
    closure.CLOSURE,
)
TASKS: tuple[Task, ...] = (reindex.TASK, contents.TASK)
