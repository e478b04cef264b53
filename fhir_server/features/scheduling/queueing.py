"""Registers the queue: its operations, its board, and what keeps boards up to date.

design/scheduling.md, section 7.
"""

from fhir_server.features.scheduling import queue_calling, queue_entering, queue_showing
from fhir_server.features.scheduling.queue_board import CSS_PATH, SCRIPT_PATH
from fhir_server.features.scheduling.queue_page import PATH, BoardPage
from fhir_server.features.scheduling.queue_watching import Boards
from fhir_server.registry import Registry, Task

TASK = "queue-boards"


def register(registry: Registry) -> None:
    """Add the operations of the queue, and ``/board/``."""
    for operation in (
        *queue_entering.OPERATIONS,
        *queue_calling.OPERATIONS,
        *queue_showing.OPERATIONS,
    ):
        registry.operation(operation)
    boards = Boards()
    page = BoardPage(boards)
    for path in (PATH, CSS_PATH, SCRIPT_PATH):
        registry.route(path, page)
    registry.task(Task(TASK, boards.run))
