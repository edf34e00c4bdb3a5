"""`python -m linreg` and the `linreg` command."""

import sys


def main() -> int:
    """Run the command line. Ctrl-C during its import prints no traceback."""
    try:
        from linreg.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
