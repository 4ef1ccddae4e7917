"""Time what a user waits for before anything happens: ``python benchmarks/startup.py``.

Prints the median wall time of each command beside a bare interpreter's.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "import synthmed": ("-c", "import synthmed"),
    "import privacy": ("-c", "import privacy"),
    "synthmed --help": ("-c", "import sys; from synthmed.cli import main; sys.argv = ['synthmed', '--help']; main()"),
}
BASELINE = "python -c pass"


def time_command(arguments: Sequence[str]) -> float:
    """Return the wall time of one run, seconds; raise `CalledProcessError` if it fails."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def measure(runs: int) -> dict[str, list[float]]:
    """Time every command `runs` times, in turn, after one run that fills the file cache."""
    for arguments in COMMANDS.values():
        time_command(arguments)
    rounds = [{name: time_command(arguments) for name, arguments in COMMANDS.items()} for _ in range(runs)]
    return {name: [seconds[name] for seconds in rounds] for name in COMMANDS}


def format_table(times: dict[str, list[float]]) -> str:
    """Return median, fastest and slowest in milliseconds, and the ratio of medians to the bare interpreter."""
    baseline = statistics.median(times[BASELINE])
    lines = [f"{'command':18}  {'median ms':>9}  {'min':>6}  {'max':>6}  {'ratio':>5}"]
    for name, seconds in times.items():
        median, low, high = (1000 * f(seconds) for f in (statistics.median, min, max))
        lines.append(f"{name:18}  {median:9.0f}  {low:6.0f}  {high:6.0f}  {median / 1000 / baseline:5.1f}")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="timed runs of each command")
    print(format_table(measure(parser.parse_args().runs)))


if __name__ == "__main__":
    main()
