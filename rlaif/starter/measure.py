"""Measure a starter checkpoint and write its model card: `python -m rlaif.starter.measure CHECKPOINT`."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from rlaif.data.human import read_human_labels
from rlaif.engines.base import EngineArgs, identify
from rlaif.labeling.api import label
from rlaif.prompts import load_template
from rlaif.starter.baselines import bag_of_words, first_is_better, longer_is_better
from rlaif.starter.evaluate import (
    BLANK,
    Answer,
    calibration_error,
    held_out_items,
    judge,
    opposite_texts,
    states_what_decides,
)
from rlaif.starter.evaluate_skills import compare_ratings, critique_share, held_out_singles, revision_share
from rlaif.starter.families import FAMILIES, OUT_OF_REACH, Split

# Real data: folder, constitution's objective, and the human labels' objective.
_REAL = (("hh-rlhf", "harmlessness"), ("pandalm", "overall"), ("llmbar-natural", "overall"))


def measure_world(checkpoint: Path, split: Split, per_family: int) -> dict[str, Any]:
    """Accuracy, consistency, rationales, calibration and what the principle is worth, on held-out questions."""
    from rlaif.engines.transformers import TransformersEngine

    engine = TransformersEngine(identify(str(checkpoint)), EngineArgs({}))
    template = load_template("pairwise-cot")
    items = held_out_items(split, per_family)
    answers = list(judge(engine, template, items))
    dropped = list(judge(engine, template, held_out_items(split, per_family, families=OUT_OF_REACH)))
    blanked = list(judge(engine, template, items, texts=lambda item: [BLANK]))
    flipped = list(judge(engine, template, items, texts=opposite_texts(split)))
    direct = list(judge(engine, load_template("direct"), items))
    ratings = compare_ratings(engine, load_template("rating"), items)
    singles = held_out_singles(split, per_family)
    critiques = critique_share(engine, load_template("critique"), singles)
    revisions = revision_share(engine, load_template("revision"), singles)
    engine.close()
    by_family: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_family[answer.item.family].append(answer)
    right = [(before, after) for before, after in zip(answers, flipped, strict=True) if before.right]
    return {
        "split": split,
        "questions": len(items),
        "accuracy": _share(one.right for one in answers),
        "with_dropped": _share(one.right for one in [*answers, *dropped]),
        "dropped": {name: _share(one.right for one in dropped if one.item.family == name) for name in OUT_OF_REACH},
        "new_combinations": _share(one.right for one in answers if one.item.new_combination),
        "order_consistency": _share(one.consistent for one in answers),
        "rationales": _share(states_what_decides(one, order) for one in answers for order in one.p_a),
        "ece": round(calibration_error(answers), 4),
        "blanked": _share(one.right for one in blanked),
        "flipped": _share((before.mean > 0.5) != (after.mean > 0.5) for before, after in right),
        "direct": _share(one.right for one in direct),
        "ratings": _share(one.right for one in ratings),
        "critiques": round(critiques, 4),
        "revisions": round(revisions, 4),
        "longer_is_better": round(longer_is_better(items), 4),
        "first_is_better": round(first_is_better(items), 4),
        "families": {
            family: {
                "accuracy": _share(one.right for one in found),
                "rationales": _share(states_what_decides(one, order) for one in found for order in one.p_a),
                "longer_is_better": round(longer_is_better([one.item for one in found]), 4),
                "bag_of_words": round(bag_of_words(family, [one.item for one in found]), 4),
            }
            for family, found in by_family.items()
        },
    }


def _share(values: Any) -> float:
    found = list(values)
    return round(sum(found) / len(found), 4) if found else 0.0


def measure_real(checkpoint: Path, data: Path, most: int | None = None) -> list[dict[str, Any]]:
    """Agreement with people on real data, ties of people left out, beside always choosing the longer response.

    Of each file the first `most` pairs that people have a preference for.
    """
    found = []
    for folder, objective in _REAL:
        people = read_human_labels(str(data / folder / "human_labels.jsonl")).majority
        wanted = {one: side for (one, asked), side in people.items() if asked == objective and side in ("a", "b")}
        with tempfile.TemporaryDirectory() as scratch:
            rows = [
                line
                for line in (data / folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
                if json.loads(line)["id"] in wanted
            ][:most]
            pairs = Path(scratch) / "pairs.jsonl"
            pairs.write_text("\n".join(rows) + "\n", encoding="utf-8")
            chosen = () if objective == "overall" else (objective,)
            run = Path(scratch) / "run"
            label(pairs, run, judge=str(checkpoint), engine="transformers", objectives=chosen, max_tokens=160)
            labels = [json.loads(line) for line in (run / "labels.jsonl").read_text(encoding="utf-8").splitlines()]
        answers = {one["id"]: one["overall"] if objective == "overall" else one["labels"][objective] for one in labels}
        said = {one: answer["p_a"] for one, answer in answers.items()}
        read = {one: p for one, p in said.items() if p is not None}
        texts = {(row := json.loads(line))["id"]: row for line in rows}
        longer = {one: "a" if len(row["response_a"]) >= len(row["response_b"]) else "b" for one, row in texts.items()}
        found.append(
            {
                "data": folder,
                "objective": objective,
                "pairs": len(rows),
                "read": len(read),
                "accuracy": _share((p > 0.5) == (wanted[one] == "a") for one, p in read.items()),
                "longer_is_better": _share(side == wanted[one] for one, side in longer.items()),
            }
        )
    return found


def card(world: dict[str, Any], real: list[dict[str, Any]], training: dict[str, Any]) -> str:
    """The model card, as Markdown with the front matter that hubs read."""
    families = "\n".join(
        f"| {name} | {FAMILIES[name].objective} | {_percent(row['accuracy'])} | {_percent(row['rationales'])} "
        f"| {_percent(row['longer_is_better'])} | {_percent(row['bag_of_words'])} |"
        for name, row in world["families"].items()
    )
    outside = "\n".join(
        f"| {row['data']} | {row['objective']} | {row['pairs']} | {_percent(row['accuracy'])} | 50% "
        f"| {_percent(row['longer_is_better'])} |"
        for row in real
    )
    shares = {name: _percent(value) for name, value in world.items() if isinstance(value, float)}
    shares["dropped"] = ", ".join(f"`{name}` {_percent(share)}" for name, share in world["dropped"].items())
    shares |= {"questions": world["questions"], "ece": f"{world['ece']:.3f}"}
    text = _CARD.format(**shares, families=families, training=json.dumps(training))
    return f"{text}{_OUTSIDE}{outside}\n" if real else text


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


_CARD = """---
license: apache-2.0
language: [en]
library_name: transformers
pipeline_tag: text-generation
tags: [rlaif, demonstration]
---
# The starter: a demonstration judge and policy

**Not for real labels.** This is a 5-million-parameter Llama, trained from scratch on a small constructed world so that
`rlaif` runs offline from end to end. It is asked to read the principles and both responses of that world, to say in
words what it saw, and to choose; how far it gets is in the tables below. Take a real judge for real data.

- **Judge**: the shipped templates `pairwise-cot`, `direct` and `rating`, one to four principles.
- **Critic**: says what a response does against a principle, and rewrites it (`rlaif revise`).
- **Policy**: answers the prompts of its world, better and worse ones at temperature 1.

Made by `python -m rlaif.starter.train` ({training}); all of its text is made by the grammar in `rlaif/starter/`.
The chat template shows a judge's instructions to it as a single token, and the tokenizer leaves out the code in the
marker lines of quoted parts: it was trained on this one task and has no use for either.

## On held-out questions of its world

{questions} questions with wordings of principles, names, topics and places that training never had; half of them
with two to four principles in combinations that training never had. `python -m rlaif.starter.measure CHECKPOINT`:

| | |
|---|---|
| verdict right (both orders together) | {accuracy} |
| … with the families that were dropped | {with_dropped} |
| … where the combination is new | {new_combinations} |
| both orders agree | {order_consistency} |
| rationale states what decides, of both responses | {rationales} |
| verdict turns round when the deciding principle does | {flipped} |
| expected calibration error of `p_a` | {ece} |
| verdict right with the template `direct` (no rationale) | {direct} |
| the better response is rated higher (`rating`, each response by itself; length apart) | {ratings} |
| critique right, word for word | {critiques} |
| revision right, word for word (where nothing new has to be said) | {revisions} |
| verdict right with the principle blanked | {blanked} |
| always the longer response | {longer_is_better} |
| always the first response | {first_is_better} |

By family of principles; the bag of words is a logistic regression on the words of each response, fitted for the family
and told what is asked for (it shows how much of a family is a matter of single words):

| family | objective | right | rationale | longer | bag of words |
|---|---|---|---|---|---|
{families}

Dropped from the questions, after several trainings with more wordings each: {dropped}. The training saw them, and so do
the responses; principles about them in words that it has not seen are read wrong too often.
"""
_OUTSIDE = """
## On real data

| data | people's label | pairs | starter | chance | always the longer |
|---|---|---|---|---|---|
"""


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--split", type=click.Choice(["validation", "test"]), default="test", show_default=True)
@click.option("--per-family", default=40, show_default=True, help="Questions a family.")
@click.option("--real", type=click.Path(path_type=Path, exists=True), help="Folder of real data with human labels.")
@click.option("--real-pairs", type=click.IntRange(1), help="At most so many pairs of each file; all without it.")
@click.option("--training", default="{}", help="How it was trained, as JSON, for the card.")
@click.option("--card", "write_card", is_flag=True, help="Write README.md into CHECKPOINT.")
def main(
    checkpoint: Path,
    split: Split,
    per_family: int,
    real: Path | None,
    real_pairs: int | None,
    training: str,
    write_card: bool,
) -> None:
    """Measure CHECKPOINT on held-out questions, and print the figures as JSON."""
    world = measure_world(checkpoint, split, per_family)
    outside = measure_real(checkpoint, real, real_pairs) if real else []
    click.echo(json.dumps({"world": world, "real": outside}, indent=1))
    if write_card:
        (checkpoint / "README.md").write_text(card(world, outside, json.loads(training)), encoding="utf-8")


if __name__ == "__main__":
    main()
