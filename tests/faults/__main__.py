"""Everything that can go wrong around a run, much of it: `make torture`, or

python -m tests.faults --kills 2000 --mutations 20000 --seed 1
"""

import argparse
import subprocess
import sys


def main() -> int:
    """Run one program after the other; 1 if any finds something wrong."""
    parser = argparse.ArgumentParser(description="Kill, contend, fail and damage; each prints a line of JSON.")
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--mutations", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    programs = {
        "kills": [given.kills, given.seed],
        "disk": [],
        "together": [20],
        "damage": [given.mutations, given.seed],
    }
    failed = []
    for name, arguments in programs.items():
        print(f"{name} {' '.join(map(str, arguments))}", file=sys.stderr)
        if subprocess.run([sys.executable, "-m", f"tests.faults.{name}", *map(str, arguments)]).returncode:
            failed.append(name)
    print(f"wrong: {', '.join(failed)}" if failed else "all exact", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
