"""Peak memory of `rlaif label` as the data grows: it must stay flat.

    python -m benchmarks.memory [--pairs 10000 30000 100000]

Each run is a process of its own against the stub (template direct, three objectives, both orders).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.common import keep, print_table, run_measured, stub_server, write_pairs


def main() -> None:
    """Measure each size once; memory hardly varies from run to run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    rows, figures, first = [], {}, 0.0
    with tempfile.TemporaryDirectory() as folder, stub_server() as url:
        for count in parser.parse_args().pairs:
            data = write_pairs(Path(folder) / f"{count}.jsonl", count)
            run = Path(folder) / f"run{count}"
            command = [sys.executable, "-m", "rlaif", "label", str(data), "--base-url", url, "--template", "direct"]
            seconds, _, asked = run_measured([*command, "--out", str(run)])
            again_s, _, again = run_measured([*command, "--out", str(run)])
            first = first or asked
            ledger = (run / "judgments.db").stat().st_size / (6 * count)
            rate, of_first = 6 * count / seconds, asked / first
            row = [f"{count:,}", f"{asked:.0f}", f"{of_first:.2f}", f"{rate:,.0f}"]
            rows.append([*row, f"{again:.0f}", f"{again_s:.1f}", f"{ledger:.0f}"])
            figures[str(count)] = {
                "peak_mib": round(asked),
                "continued_peak_mib": round(again),
                "ledger_bytes": round(ledger),
            }
    head = (
        "pairs",
        "peak MiB",
        "of the first",
        "judgments/s",
        "MiB, run again",
        "s, run again",
        "ledger bytes/judgment",
    )
    print_table(head, rows)
    keep("memory", figures)


if __name__ == "__main__":
    main()
