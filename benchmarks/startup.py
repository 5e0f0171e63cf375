"""How long `rlaif --help` takes, beside Python doing nothing.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.common import ROOT, keep, print_table


def seconds(command: list[str]) -> float:
    """Median of nine runs, after one that warms the disk cache."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print the table."""
    nothing = seconds([sys.executable, "-c", "pass"])
    rows, figures = [("python -c pass", f"{nothing:.3f}", "1.0")], {"python": round(nothing, 4)}
    for arguments in (["--help"], ["--version"], ["label", "--help"]):
        took = seconds([sys.executable, "-m", "rlaif", *arguments])
        name = " ".join(["rlaif", *arguments])
        rows.append((name, f"{took:.3f}", f"{took / nothing:.1f}"))
        figures[name] = round(took, 4)
    print_table(("command", "seconds", "of bare Python"), rows)
    keep("startup", figures)


if __name__ == "__main__":
    main()
