"""JSON Merge Patch: an object that says what its members shall be, and ``null`` what shall go.

https://www.rfc-editor.org/rfc/rfc7396
"""

from typing import Any

from fhir_server.patch.bounds import copied


def merged(resource: Any, patch: Any) -> Any:
    """Return what ``patch`` makes of ``resource``, which stays as it is. Arrays are replaced whole.

    >>> merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None}, "d": [2, 3]})
    {'a': {'c': 2}, 'd': [2, 3]}
    """
    if not isinstance(patch, dict):
        return copied(patch)
    result = dict(resource) if isinstance(resource, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
