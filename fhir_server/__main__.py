"""The command line: what ``fhir-server`` is called with, handed to the module that does it."""

import sys
from importlib import import_module

from fhir_server import serve
from fhir_server.starting import cli


def main() -> None:
    """Run the command that the command line names.

    The parent of the workers stays as long as the server: it is spared what the others load.
    """
    if sys.argv[1:2] != [serve.NAME]:
        import_module("fhir_server.commands").mount(*sys.argv[1:2])
    cli()


if __name__ == "__main__":
    main()
