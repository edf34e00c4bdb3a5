"""Everything that can go wrong around a run and a sweep, many times: `make torture` does all of it. With numbers, only
what they name:

python -m tests.faults --kills 2000 --mutations 20000 --seed 1
python -m tests.faults --sweeps 200
"""

import argparse
import subprocess
import sys

DEFAULTS = {"kills": 2000, "sweeps": 200, "stops": 30, "groups": 500, "rounds": 20, "mutations": 20000}
HELP = {
    "kills": "SIGKILLs of training runs",
    "sweeps": "SIGKILLs of sweeps",
    "stops": "SIGTERMs of sweeps",
    "groups": "signals to processes of groups",
    "rounds": "rounds of eight processes that start one run",
    "mutations": "damaged checkpoints",
}


def main() -> int:
    """Run one program after the other. Return 1 if any finds something wrong."""
    parser = argparse.ArgumentParser(description="Kill, contend, fail and damage; each prints a line of JSON.")
    for name, text in HELP.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{text}; {DEFAULTS[name]} without any option")
    parser.add_argument("--seed", type=int, default=1)
    given = vars(parser.parse_args())
    seed, is_all = given.pop("seed"), all(number is None for number in given.values())
    number = DEFAULTS if is_all else {name: value or 0 for name, value in given.items()}
    programs = {
        "kills": [number["kills"], seed] if number["kills"] else None,
        "sweeps": ["--kills", number["sweeps"], "--stops", number["stops"], "--seed", seed],
        "groups": [number["groups"], seed] if number["groups"] else None,
        "disk": [] if is_all else None,
        "together": [number["rounds"]] if number["rounds"] else None,
        "damage": [number["mutations"], seed] if number["mutations"] else None,
    }
    if not number["sweeps"] + number["stops"]:
        programs["sweeps"] = None
    failed = []
    for name, arguments in programs.items():
        if arguments is None:
            continue
        print(f"{name} {' '.join(map(str, arguments))}", file=sys.stderr)
        if subprocess.run([sys.executable, "-m", f"tests.faults.{name}", *map(str, arguments)]).returncode:
            failed.append(name)
    print(f"wrong: {', '.join(failed)}" if failed else "all exact", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
