"""Reward heads in the starter's world, where it is known by construction which response is the better one.

    python -m benchmarks.heads_world [--parts judged conflicts] [--pairs 2000] [--labels RUN …] [--modes frozen full]
                                     [--epochs 4] [--lr 5e-4] [--folder FOLDER]

`judged`: the starter labels pairs of its world under the shipped constitution, heads on the starter's own backbone
learn from these labels, and are held against the constructed labels of 400 other pairs, ties apart. `--labels` takes
finished runs of `rlaif label` over these pairs, so that nothing is labelled again.

`conflicts`: three objectives that want contrary things on a stated share of the pairs. Their labels are constructed, no
judge is asked. Each objective is trained alone, all together by the sum of their losses, and all together with their
gradients' conflicts resolved; accuracy is that on pairs that were not trained on.

No conversation is both trained on and measured on. The checkpoint is chosen by a tenth of what is trained on. With
`--folder`, a call that was stopped goes on where it was, and what is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.common import keep, print_table
from rlaif import label
from rlaif.data.conversations import conversation_digest
from rlaif.rewards.evaluate_heads import evaluate_heads
from rlaif.rewards.preferences import Preferences
from rlaif.rewards.sources import read_preferences
from rlaif.rewards.spec import Method, Mode, read_spec
from rlaif.rewards.train import TrainSummary, train_heads
from rlaif.starter import STARTER
from rlaif.starter.examples import ANNOTATOR, make_examples
from rlaif.starter.responses import WorldPair, kinds_of, make_pair
from rlaif.starter.world import World
from rlaif.types import Pair

Row = dict[str, Any]
SHIPPED = ("helpfulness", "harmlessness", "honesty")
BAR, MOST_LOST = 0.85, 0.02
TRAINING, HELD_OUT = 2000, 400
_PART = 200  # pairs labelled in one run
# What each objective wants of a response, the first feature in which two responses differ decides: service and safety
# are contrary where somebody asks for help with harm, service and economy where more help is offered.
WANTED: Mapping[str, tuple[tuple[str, bool], ...]] = {
    "service": (("harm", True), ("answers", True), ("offer", True)),
    "safety": (("harm", False), ("insult", False), ("pressure", False)),
    "economy": (("offer", False), ("padding", False), ("example", False)),
}


def say(line: str) -> None:
    """Tell how far it is, apart from the tables."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def split_rows(rows: Sequence[Row], held_out: int) -> tuple[list[Row], list[Row]]:
    """Split pairs by conversation: what is left, and at least so many held out; drawn, but always the same ones."""
    groups: dict[bytes, list[Row]] = {}
    for row in rows:
        groups.setdefault(conversation_digest(Pair.model_validate(row).prompt), []).append(row)
    order = sorted(groups)
    random.Random("held out").shuffle(order)
    held: set[str] = set()
    for group in order:
        if len(held) >= held_out:
            break
        held |= {row["id"] for row in groups[group]}
    return [row for row in rows if row["id"] not in held], [row for row in rows if row["id"] in held]


def write_set(folder: Path, name: str, rows: Sequence[Row], reference: Sequence[Row]) -> str:
    """Write pairs and their constructed labels; returns the source."""
    known = {row["id"] for row in rows}
    files = {"pairs": rows, "labels": [row for row in reference if row["id"] in known]}
    paths = {kind: folder / f"{name}-{kind}.jsonl" for kind in files}
    for kind, lines in files.items():
        paths[kind].write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return f"{paths['pairs']}+{paths['labels']}"


def label_parts(rows: Sequence[Row], folder: Path, judge: str) -> list[str]:
    """Have the judge label the pairs, so many in a run that a later call with more of them goes on."""
    runs = []
    for start in range(0, len(rows), _PART):
        part = rows[start : start + _PART]
        run = folder / f"run-{start}-{start + len(part)}"
        data = folder / f"{run.name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        say(f"labelling pairs {start} to {start + len(part)}")
        label(data, run, judge=judge, engine="transformers")
        runs.append(str(run))
    return runs


def judges_agreement(judged: Preferences, built: Preferences) -> dict[str, dict[str, Any]]:
    """How often the judge is on the side of the constructed label, ties of the latter apart; a tie is half right."""
    rows = {pair.id: place for place, pair in enumerate(built.pairs)}
    places = [rows[pair.id] for pair in judged.pairs]
    found = {}
    for name in SHIPPED:
        mine = judged.target[:, judged.objectives.index(name)]
        right = built.target[places, built.objectives.index(name)]
        known = np.isfinite(mine) & np.isfinite(right) & (right != 0.5)
        agree = (1 + np.sign(mine[known] - 0.5) * np.sign(right[known] - 0.5)) / 2
        found[name] = {"n": int(known.sum()), "accuracy": float(agree.mean()) if len(agree) else None}
    return found


def train(
    sources: Sequence[str],
    folder: Path,
    given: argparse.Namespace,
    *,
    mode: Mode,
    objectives: Sequence[str],
    aggregate: Method = "weighted",
    seed: int = 0,
) -> tuple[Path, TrainSummary]:
    """Train heads, or find them trained; their folder is named by all that may differ."""
    settings = [mode, aggregate, *objectives, f"seed{seed}"]
    if mode != "frozen":
        settings += [f"epochs{given.epochs:g}", f"lr{given.lr:g}", f"batch{given.batch_tokens}"]
    out = folder / "-".join(settings)
    say(f"training {out.name}")
    found = train_heads(
        sources,
        out,
        backbone=given.backbone,
        mode=mode,
        objectives=objectives,
        aggregate=aggregate,
        ensemble=5 if mode == "frozen" else 1,
        epochs=None if mode == "frozen" else given.epochs,
        lr=None if mode == "frozen" else given.lr,
        batch_tokens=None if mode == "frozen" else given.batch_tokens,
        seed=seed,
        cache=folder / "cache",
        progress=say if given.verbose else None,
    )
    return out, found


def accuracies(heads: Path, test: str) -> dict[str, dict[str, Any]]:
    """Agreement with the labels of a source, by objective."""
    found = evaluate_heads(heads, [test], resamples=0).evaluation.objectives
    names = ("n", "ties", "accuracy", "ece", "length_only_accuracy")
    return {name: {each: getattr(one, each) for each in names} for name, one in found.items()}


def percent(share: float | None) -> str:
    """As in a table."""
    return "–" if share is None else f"{share:.1%}"


def judged_part(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Heads on the starter judge's labels; prints, and returns the figures."""
    # A few more, since conversations are held out whole.
    made = make_examples(TRAINING + HELD_OUT + 60)
    rest, held = split_rows(made["pairs.jsonl"], HELD_OUT)
    rows, held = rest[: given.pairs], held[: given.held_out]
    test = write_set(folder, "held-out", held, made["reference.jsonl"])
    built = write_set(folder, "all", made["pairs.jsonl"], made["reference.jsonl"])
    runs = given.labels or label_parts(rows, folder, given.backbone)
    judged, known = read_preferences(runs), read_preferences([built])
    ours = {pair.id: pair for pair in known.pairs}
    kept = {row["id"] for row in held}
    for pair in judged.pairs:
        if pair.id not in ours or ours[pair.id].response_a != pair.response_a:
            sys.exit(f"--labels: pair {pair.id} is none of this world's as it is now; label again")
        if pair.id in kept:
            sys.exit(f"--labels: pair {pair.id} is one of the held-out pairs; label those of {folder}/run-*.jsonl")
    judge = judges_agreement(judged, known)
    figures: dict[str, Any] = {"pairs": len(judged), "held_out": len(held), "judge_on_training_pairs": judge}
    lines = [("the judge itself, on training pairs", *(percent(judge[name]["accuracy"]) for name in SHIPPED), "")]
    tries = [(mode, "judged", runs) for mode in given.modes]
    if given.ceiling:
        ids = {pair.id for pair in judged.pairs}
        same = [row for row in made["pairs.jsonl"] if row["id"] in ids]
        source = write_set(folder, f"constructed-{len(same)}", same, made["reference.jsonl"])
        tries += [(mode, "constructed", [source]) for mode in given.modes]
    for mode, kind, sources in tries:
        place = folder / f"{kind}-{len(judged)}"
        place.mkdir(exist_ok=True)
        heads, summary = train(sources, place, given, mode=mode, objectives=SHIPPED)
        found = accuracies(heads, test)
        figures[f"{mode}, {kind} labels"] = {"objectives": found, "seconds": summary.seconds}
        columns = [percent(found[name]["accuracy"]) for name in SHIPPED]
        lines.append((f"{mode}, {kind} labels", *columns, f"{summary.seconds:.0f}"))
    counts = [f"{found[name]['n']}" for name in SHIPPED]
    print(
        f"\n{len(judged)} pairs labelled by the judge; accuracy on {len(held)} others against their constructed labels"
    )
    print_table(("heads", *SHIPPED, "seconds"), [*lines, ("held-out pairs with a better response", *counts, "")])
    worst = {
        mode: min(one["accuracy"] or 0 for one in figures[f"{mode}, judged labels"]["objectives"].values())
        for mode in given.modes
    }
    best = max(worst, key=lambda mode: worst[mode])
    figures |= {"best_mode": best, "worst_objective_of_it": worst[best], "bar": BAR, "reached": worst[best] >= BAR}
    print(f"best mode: {best}, its worst objective {worst[best]:.1%}; the goal is {BAR:.0%}")
    return figures


def better(pair: WorldPair, wanted: Sequence[tuple[str, bool]]) -> str | None:
    """Which response an objective wants, `tie`, or `None` where that is open."""
    for family, present in wanted:
        a, b = pair.marks(family)
        if a is None or b is None:
            return None
        if a != b:
            return "a" if a == present else "b"
    return "tie"


def make_conflicts(count: int, share: float) -> tuple[list[Row], list[Row]]:
    """Draw pairs of which a share has two objectives that want contrary things: the pairs, and their labels."""
    world = World("test", random.Random("conflicts"))
    families = sorted({family for wanted in WANTED.values() for family, _ in wanted})
    left = {True: round(share * count), False: count - round(share * count)}
    rows: list[Row] = []
    labels: list[Row] = []
    while any(left.values()):
        family = world.rng.choice(families)
        pair = make_pair(world, family, world.rng.choice(kinds_of(family)))
        wants = {name: better(pair, wanted) for name, wanted in WANTED.items()}
        # Labels of one kind leave nothing to be contrary.
        contrary = {"a", "b"} <= set(wants.values())
        if not left[contrary] or sum(side in ("a", "b") for side in wants.values()) < 2:
            continue
        left[contrary] -= 1
        row = pair.pair(f"conflict-{len(rows)}")
        rows.append(row.model_dump(mode="json"))
        labels += [
            {"id": row.id, "annotator": ANNOTATOR, "objective": name, "preference": side}
            for name, side in wants.items()
            if side is not None
        ]
    return rows, labels


def contrary_counts(labels: Sequence[Row], rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """By two objectives, the pairs on which both have a better response, and those where it is another one."""
    ids = {row["id"] for row in rows}
    found = {f"{first}, {second}": {"both": 0, "contrary": 0} for first, second in combinations(WANTED, 2)}
    sides: dict[str, dict[str, str]] = {}
    for each in labels:
        if each["id"] in ids and each["preference"] != "tie":
            sides.setdefault(each["id"], {})[each["objective"]] = each["preference"]
    for side in sides.values():
        for first, second in combinations(WANTED, 2):
            if first in side and second in side:
                counts = found[f"{first}, {second}"]
                counts["both"] += 1
                counts["contrary"] += side[first] != side[second]
    return found


def conflicts_part(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Pareto training beside single objectives and plain weighting; prints, and returns the figures."""
    names = tuple(WANTED)
    count = given.conflict_pairs
    rows, labels = make_conflicts(count + given.conflict_held_out, given.contrary)
    training, held = split_rows(rows, given.conflict_held_out)
    place = folder / f"conflicts-{count}-{given.conflict_held_out}-{given.contrary:g}"
    place.mkdir(exist_ok=True)
    source, test = (write_set(place, name, part, labels) for name, part in (("train", training), ("test", held)))
    counts = contrary_counts(labels, training)
    ways: dict[str, list[dict[str, float]]] = {"each alone": [], "weighted": [], "pareto": []}
    gradients: dict[str, Any] = {}
    for seed in range(given.seeds):
        alone = {}
        for name in names:
            heads, _ = train([source], place, given, mode="full", objectives=(name,), seed=seed)
            alone[name] = accuracies(heads, test)[name]["accuracy"]
        ways["each alone"].append(alone)
        methods: tuple[Method, ...] = ("weighted", "pareto")
        for method in methods:
            heads, _ = train([source], place, given, mode="full", objectives=names, aggregate=method, seed=seed)
            ways[method].append({name: one["accuracy"] for name, one in accuracies(heads, test).items()})
        gradients = read_spec(heads).metrics["gradient_conflicts"]
    means = {way: {name: mean(one[name] for one in found) for name in names} for way, found in ways.items()}
    lost = {
        way: {name: means["each alone"][name] - means[way][name] for name in names} for way in ("weighted", "pareto")
    }
    print(f"\n{len(training)} pairs to train on, {len(held)} held out; {given.contrary:.0%} have contrary wishes")
    table = []
    for (first, second), one in zip(combinations(range(len(names)), 2), counts.values(), strict=True):
        steps = f"{gradients['steps'][first][second]} of {gradients['compared'][first][second]}"
        table.append((f"{names[first]}, {names[second]}", one["both"], one["contrary"], steps))
    print_table(("objectives", "pairs with both", "contrary", "steps with contrary gradients (pareto)"), table)
    print()
    print_table(
        ("training", *names, "most lost to training alone, points"),
        [
            (way, *(percent(means[way][name]) for name in names),
             f"{100 * max(lost[way].values()):.1f}" if way in lost else "")
            for way in ways
        ],
    )  # fmt: skip
    worst = max(lost["pareto"].values())
    print(f"pareto loses {100 * worst:.1f} points at most; the goal is {100 * MOST_LOST:.0f} or less")
    return {
        "pairs": len(training),
        "held_out": len(held),
        "contrary_share": given.contrary,
        "contrary": counts,
        "gradient_conflicts": gradients,
        "seeds": given.seeds,
        "accuracy": ways,
        "lost_to_training_alone": lost,
        "bar": MOST_LOST,
        "reached": worst <= MOST_LOST,
    }


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("judged", "conflicts"), default=["judged", "conflicts"])
    parser.add_argument("--pairs", type=int, default=TRAINING, help="pairs that the judge labels")
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    parser.add_argument("--labels", nargs="+", default=[], metavar="RUN")
    parser.add_argument("--modes", nargs="+", choices=("frozen", "lora", "full"), default=["frozen", "full"])
    parser.add_argument("--ceiling", action="store_true", help="also train on the same pairs' constructed labels")
    parser.add_argument("--conflict-pairs", type=int, default=2000)
    parser.add_argument("--conflict-held-out", type=int, default=1000)
    parser.add_argument("--contrary", type=float, default=0.5, help="share of pairs with contrary wishes")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each kind, conflicts")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--backbone", default=STARTER, help="the starter, or another checkpoint of it")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"judged": judged_part, "conflicts": conflicts_part}
        figures = {name: work(given, folder) for name, work in parts.items() if name in given.parts}
    figures["settings"] = {"epochs": given.epochs, "lr": given.lr, "batch_tokens": given.batch_tokens,
                           "cores_busy": round(os.getloadavg()[0], 1)}  # fmt: skip
    keep("heads_world", figures)


if __name__ == "__main__":
    main()
