"""Print the table of roles that docs/security.md has, as Markdown.

A test compares the two: ``python scripts/roles_table.py`` prints what belongs between
``<!-- roles -->`` and ``<!-- /roles -->``.
"""

from fhir_server.security.labels import CONTROLLED
from fhir_server.security.roles import GROUPS, ROLES, Role

_SHOWN_MAX = 4  # types that stand for a group
_REACH = {
    "all": "everything of the types",
    "staff": "all patients; messages of one's own",
    "own": "one's own",
}


def table() -> str:
    """Return the roles by group of types, whose data they reach, and the labels they see."""
    head = ["group", *ROLES]
    rows = [
        [_group(name), *(f"{role.letters.get(name, '')}" for role in ROLES.values())]
        for name in GROUPS
    ]
    reach = ["reach", *(_REACH[role.reach] for role in ROLES.values())]
    labels = ["labels", *map(_labels, ROLES.values())]
    lines = [head, ["---"] * len(head), *rows, reach, labels]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _group(name: str) -> str:
    types = GROUPS[name]
    shown = ", ".join(types[:_SHOWN_MAX])
    return f"{name}: {shown}" + (
        f" and {len(types) - _SHOWN_MAX} more" if len(types) > _SHOWN_MAX else ""
    )


def _labels(role: Role) -> str:
    if len(role.labels) > len(CONTROLLED) / 2:
        return f"all but {', '.join(sorted(CONTROLLED - role.labels))}"
    return ", ".join(sorted(role.labels)) or "none"


if __name__ == "__main__":
    print(table(), end="")
