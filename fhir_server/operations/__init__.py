"""The operations that every server has, one module each, named without the dollar sign.

https://hl7.org/fhir/R4/operations.html
"""

from fhir_server.operations import (
    access_log,
    break_glass,
    clients,
    closure,
    contents,
    everything,
    expand,
    export,
    export_files,
    export_work,
    expunge,
    find_matches,
    launch,
    lookup,
    meta,
    reindex,
    subsumes,
    translate,
    users,
    validate,
    validate_code,
)
from fhir_server.operations.elsewhere import passed_on
from fhir_server.registry import Operation, Task

OPERATIONS: tuple[Operation, ...] = (
    meta.META,
    meta.ADD,
    meta.DELETE,
    reindex.REINDEX,
    reindex.STATUS,
    expunge.EXPUNGE,
    validate.VALIDATE,
    passed_on(lookup.LOOKUP),
    passed_on(validate_code.OF_SYSTEM),
    passed_on(validate_code.OF_VALUE_SET),
    passed_on(subsumes.SUBSUMES),
    passed_on(expand.EXPAND),
    passed_on(translate.TRANSLATE),
    find_matches.FIND_MATCHES,
    closure.CLOSURE,
    break_glass.BREAK_GLASS,
    access_log.ACCESS_LOG,
    users.USERS,
    users.ADD,
    users.CHANGE,
    users.PASSWORD,
    users.SECOND_FACTOR,
    launch.LAUNCH,
    clients.ADD,
    clients.LIST,
    clients.REMOVE,
    clients.ROTATE_SECRET,
    everything.OF_PATIENT,
    everything.OF_ENCOUNTER,
    export.SYSTEM,
    export.PATIENTS,
    export.MEMBERS,
    export_files.STATUS,
    export_files.CANCELLING,
    export_files.FILE,
)
TASKS: tuple[Task, ...] = (reindex.TASK, contents.TASK, export_work.TASK)
