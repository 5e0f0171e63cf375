"""Write the example data: `python -m rlaif.starter.examples FOLDER`.

Pairs and prompts of the small world with names, places and topics that the starter was not trained on. The reference
labels follow from how the pairs were made (for the shipped constitution): they are constructed, no person gave them.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import click

from rlaif.constitution import Constitution, load_constitution
from rlaif.starter.judging import SHIPPED, Principle, decide
from rlaif.starter.responses import WorldPair, kinds_of, make_pair
from rlaif.starter.scenes import KINDS, make_scene
from rlaif.starter.world import World

ANNOTATOR = "constructed"


def reference(pair: WorldPair, constitution: Constitution) -> dict[str, str]:
    """The preference by objective under the shipped constitution; objectives that the pair leaves open are left out."""
    found = {}
    for name, objective in constitution.objectives.items():
        principles = [Principle(*SHIPPED[one.id]) for one in objective.principles]
        if any(None in pair.marks(one.family) for one in principles):
            continue
        _, _, better = decide(pair, principles)
        found[name] = better.lower() if better else "tie"
    return found


def make_examples(pairs: int = 300, prompts: int = 60) -> dict[str, list[dict[str, Any]]]:
    """Rows by file name."""
    world = World("test", random.Random("examples"))
    constitution = load_constitution("hhh")
    families = [family for family, _ in SHIPPED.values()]
    made: dict[str, list[dict[str, Any]]] = {"pairs.jsonl": [], "reference.jsonl": [], "prompts.jsonl": []}
    for number in range(pairs):
        family = families[number % len(families)]
        pair = make_pair(world, family, world.rng.choice(kinds_of(family)))
        row = pair.pair(f"world-{number:03}")
        made["pairs.jsonl"].append(
            {
                "id": row.id,
                "prompt": [turn.model_dump() for turn in row.prompt],
                "response_a": row.response_a,
                "response_b": row.response_b,
                "tags": {"scene": pair.scene.kind},
            }
        )
        made["reference.jsonl"] += [
            {"id": row.id, "annotator": ANNOTATOR, "objective": objective, "preference": preference}
            for objective, preference in reference(pair, constitution).items()
        ]
    for number in range(prompts):
        scene = make_scene(world, KINDS[number % len(KINDS)])
        turns = [turn.model_dump() for turn in scene.prompt]
        made["prompts.jsonl"].append({"id": f"prompt-{number:02}", "prompt": turns, "tags": {"scene": scene.kind}})
    return made


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(folder: Path) -> None:
    """Write pairs.jsonl, reference.jsonl and prompts.jsonl into FOLDER."""
    for name, rows in make_examples().items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / name).write_text("".join(lines), encoding="utf-8")
        click.echo(f"{folder / name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
