"""`python -m linreg` and the `linreg` command."""

import gc
import sys


def main() -> int:
    """Run the command line; an interruption while it is still being imported is no traceback."""
    try:
        from linreg.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130
    finally:
        gc.freeze()  # the process ends: what it holds goes anyway, and need not be searched for garbage


if __name__ == "__main__":
    sys.exit(main())
