"""Where nobody can listen: one sentence that names the address."""

import pytest

from fhir_server.listening import UnlistenedError, bound, listen
from fhir_server.told import Told
from tests.store.mongods import free_port


def test_two_servers_that_start_at_the_same_time() -> None:
    """Both are bound, one of them listens; a third is not even bound."""
    port = free_port()
    [first], [second] = bound("127.0.0.1", port), bound("127.0.0.1", port)
    said = rf"^Nobody can listen on 127\.0\.0\.1:{port}: .*in use\.$"
    with first, second:
        listen(first, 1)
        with pytest.raises(UnlistenedError, match=said):
            listen(second, 1)
        with pytest.raises(UnlistenedError, match=said):
            bound("127.0.0.1", port)


def test_a_name_that_is_no_address() -> None:
    """The address is named where it is not known as well."""
    with pytest.raises(UnlistenedError, match=r"^Nobody can listen on ::1%nowhere:1: "):
        bound("::1%nowhere", 1)


def test_every_address() -> None:
    """An empty host is each address that this machine has: one at least."""
    sockets = bound("", free_port())
    for one in sockets:
        one.close()
    assert sockets


def test_a_parent_of_another_version() -> None:
    """A worker refuses what it does not know, with a sentence."""
    told = Told({"http": [3]}, {"FHIR_PORT": "8080"}, "mongodb://127.0.0.1")
    assert Told.of(told.line()) == told
    with pytest.raises(ValueError, match="another version"):
        Told.of(b'{"sockets": {}, "colour": "red"}\n')
