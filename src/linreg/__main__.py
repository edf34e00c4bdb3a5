"""`python -m linreg` and the `linreg` command."""

import sys

from linreg.system.startup import skip_last_collection


def main() -> int:
    """Run the command line; an interruption while it is still being imported is no traceback."""
    try:
        from linreg.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130
    finally:
        skip_last_collection()


if __name__ == "__main__":
    sys.exit(main())
