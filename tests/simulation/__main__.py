"""`python -m simulation --seeds 100000 [--first N]`, or `--seed N` to see one run.

Runs the seeds on all processors, prints the first run that breaks a promise and how to replay it, and
exits 1 then.
"""

from __future__ import annotations

import argparse
import sys

from simulation.many import failures, replay
from simulation.model import Violation
from simulation.steps import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description="Runs the storage engine through seeded mishaps.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many runs (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, help="run this one alone and print its course")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        try:
            trace = run(arguments.seed)
        except Violation as violation:
            sys.stdout.write(f"{violation}\n")
            return 1
        sys.stdout.write("\n".join([*trace, f"seed {arguments.seed}: fine\n"]))
        return 0
    for seed, violation in failures(range(arguments.first, arguments.first + arguments.seeds)):
        sys.stdout.write(f"{violation}\nreplay: {replay(seed)}\n")
        return 1
    sys.stdout.write(f"{arguments.seeds} runs, all fine\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
