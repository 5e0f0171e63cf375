"""Critique and revision at work: is the revised response the better one? Judged on harmlessness, in both orders.

python -m benchmarks.revise [PROMPTS] [--judge MODEL] [--count N] [--rounds 1 2 3 4]

Each round draws a principle, criticises and revises; Bai et al. (2022) made four. The same model writes the first
responses, their critiques and revisions, and then judges. Without PROMPTS they are prompts of the starter's world
that ask for help with harm, of its held-out part: where nothing is wrong with a first response there is nothing to
revise.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import rlaif
from benchmarks.common import keep, print_table
from rlaif.starter.responses import kinds_of, make_pair
from rlaif.starter.world import World
from rlaif.stats import wilson

OBJECTIVE = "harmlessness"


def write_harmful_prompts(path: Path, count: int) -> None:
    """Write prompts that ask for help with harm; each is another one."""
    world = World("test", random.Random("revise"))
    found: dict[str, None] = {}
    while len(found) < count:
        prompt = make_pair(world, "harm", world.rng.choice(kinds_of("harm"))).scene.prompt
        found[json.dumps({"prompt": [turn.model_dump() for turn in prompt]})] = None
    path.write_text("\n".join(found) + "\n", encoding="utf-8")


def outcomes(labels: Path) -> Counter[str]:
    """Count how the labels turn out for the revision: `wins`, `loses`, `ties` or `unread`."""
    found: Counter[str] = Counter()
    for text in labels.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        preference = line["labels"][OBJECTIVE]["preference"]
        if preference in ("a", "b"):
            found["wins" if preference == line["tags"]["revised"] else "loses"] += 1
        else:
            found["ties" if preference == "tie" else "unread"] += 1
    return found


def share(part: int, whole: int) -> str:
    """A share with its Wilson interval."""
    low, high = wilson(part, whole)
    return f"{part} of {whole} ({part / whole if whole else 0:.0%}, 95% interval {low:.0%} to {high:.0%})"


def measure(prompts: Path, judge: str, count: int, rounds: int) -> dict[str, Any]:
    """Revise in so many rounds, and have the last revisions judged against the first responses."""
    with tempfile.TemporaryDirectory() as folder:
        out, run = Path(folder) / "revised.jsonl", Path(folder) / "run"
        revised = rlaif.revise(
            prompts, out, judge=judge, objectives=[OBJECTIVE], limit=count, max_tokens=256, rounds=rounds
        )
        found: Counter[str] = Counter()
        if revised.pairs:
            rlaif.label(revised.pairs_file, run, judge=judge, objectives=[OBJECTIVE])
            found = outcomes(run / "labels.jsonl")
            found["unread"] += revised.pairs - found.total()
    counts = revised.model_dump(include={"chains", "failed", "unchanged", "truncated", "pairs"})
    named = {name: found[name] for name in ("wins", "loses", "ties", "unread")}
    interval = [round(bound, 3) for bound in wilson(found["wins"], revised.pairs)]
    return {"rounds": rounds, **counts, **named, "wins_ci": interval}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="?", type=Path)
    parser.add_argument("--judge", default="starter")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1, 2, 3, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prompts = options.prompts or Path(folder) / "harmful.jsonl"
        if options.prompts is None:
            write_harmful_prompts(prompts, options.count)
        kept = [measure(prompts, options.judge, options.count, rounds) for rounds in options.rounds]
        name = prompts.name
    columns = ("rounds", "chains", "unchanged", "cut", "pairs", "the revision wins", "of all chains")
    rows = [
        (
            str(one["rounds"]),
            str(one["chains"]),
            str(one["unchanged"]),
            str(one["truncated"]),
            str(one["pairs"]),
            share(one["wins"], one["pairs"]),
            f"{one['wins'] / one['chains'] if one['chains'] else 0:.0%}",
        )
        for one in kept
    ]
    print_table(columns, rows)
    keep("revise", {"prompts": name, "judge": options.judge, "by_rounds": kept})


if __name__ == "__main__":
    main()
