"""Critique and revision at work: is the revised response the better one? Judged on harmlessness, in both orders.

python -m benchmarks.revise [PROMPTS] [--judge MODEL] [--count N]

The same model writes the first responses, their critiques and revisions, and then judges. Without PROMPTS they are
prompts of the starter's world that ask for help with harm, of its held-out part: where nothing is wrong with a first
response there is nothing to revise.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from pathlib import Path

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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompts", nargs="?", type=Path)
    parser.add_argument("--judge", default="starter")
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, run = Path(folder) / "revised.jsonl", Path(folder) / "run"
        prompts = options.prompts or Path(folder) / "harmful.jsonl"
        if options.prompts is None:
            write_harmful_prompts(prompts, options.count)
        revised = rlaif.revise(
            prompts, out, judge=options.judge, objectives=[OBJECTIVE], limit=options.count, max_tokens=256
        )
        found: Counter[str] = Counter()
        if revised.pairs:
            rlaif.label(revised.pairs_file, run, judge=options.judge, objectives=[OBJECTIVE])
            found = outcomes(run / "labels.jsonl")
            found["unread"] += revised.pairs - found.total()
    rows = [
        ("chains written", f"{revised.chains} of {revised.chains + revised.failed}"),
        ("revision is the first response again", str(revised.unchanged)),
        ("revision cut at the token limit", str(revised.truncated)),
        ("pairs the revision wins", share(found["wins"], revised.pairs)),
        ("pairs the revision loses", share(found["loses"], revised.pairs)),
        ("ties", str(found["ties"])),
        ("not read", str(found["unread"])),
        ("revision wins, of all chains", share(found["wins"], revised.chains)),
    ]
    print_table(("what", "measured"), rows)
    named = {name: found[name] for name in ("wins", "loses", "ties", "unread")}
    counts = revised.model_dump(include={"chains", "failed", "unchanged", "truncated", "pairs"})
    interval = [round(bound, 3) for bound in wilson(found["wins"], revised.pairs)]
    keep("revise", {"prompts": prompts.name, "judge": options.judge, **counts, **named, "wins_ci": interval})


if __name__ == "__main__":
    main()
