"""`python -m labutils` is the command `labutils`."""

import sys

from .tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
