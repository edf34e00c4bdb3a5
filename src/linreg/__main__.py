"""`python -m linreg` and the `linreg` command."""

import sys

from linreg.cli import main

if __name__ == "__main__":
    sys.exit(main())
