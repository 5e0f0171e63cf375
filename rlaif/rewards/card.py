"""The model card of trained heads: `README.md` beside the weights, as a model hub shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.characters import hidden_characters
from rlaif.files import replacing
from rlaif.rewards.evaluation import Change, Evaluation
from rlaif.rewards.report_words import FEW, standing
from rlaif.rewards.spec import HeadsSpec

CARD_FILE = "README.md"

# A hub's name of a model: OWNER/NAME. A path of this machine is nobody else's.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~])")
_MOST_TEXT = 200
_MODES = {
    "frozen": "The backbone is as it was; the heads were solved on its features, all at once, to the optimum.",
    "lora": "The backbone was tuned with low-rank adapters, which are merged into its weights.",
    "full": "The whole backbone was tuned.",
}
_ORIGINS = {
    "constitution": "from the constitution",
    "equal": "equal, since none were given",
    "given": "as given",
    "learned": "learned from people's preferences of which response is better on the whole",
    "gated": "by the prompt, from a gate learned from people's overall preferences; shown is their mean",
}


def write_card(
    folder: Path, spec: HeadsSpec, evaluation: Evaluation | None = None, changes: Sequence[Change] = ()
) -> None:
    """Write the card into a checkpoint's folder, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    text = card_text(folder.resolve().name, spec, evaluation, changes)
    with replacing(folder / CARD_FILE) as file:
        file.write(text)


def card_text(name: str, spec: HeadsSpec, evaluation: Evaluation | None = None, changes: Sequence[Change] = ()) -> str:
    """Lay out the card; the same values give the same text.

    Args:
        name: of the model, the folder's.
        spec: all of `rlaif.json`.
        evaluation: on held-out pairs; `None` where there were none.
        changes: against the heads that a tuning began with.
    """
    parts = [
        _front_matter(name, spec, evaluation),
        f"# {_plain(name)}",
        _what(spec),
        "## Objectives\n\n" + "\n".join(_objectives(spec)),
        "## How good they are\n\n" + "\n\n".join(_measured(spec, evaluation)),
    ]
    if changes:
        parts.append("## What the tuning changed\n\n" + "\n".join(_changed(changes)))
    parts += [
        "## How they were made\n\n" + "\n".join(_made(spec)),
        "## How to use them\n\n" + _usage(spec),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(spec, evaluation)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(name: str, spec: HeadsSpec, evaluation: Evaluation | None) -> str:
    """YAML, of which JSON's strings are a part."""
    lines = ["---", "library_name: transformers", "pipeline_tag: text-classification"]
    backbone = str(spec.provenance.get("backbone") or "")
    if _HUB_NAME.fullmatch(backbone) and not Path(backbone).exists():
        lines.append(f"base_model: {_quoted(backbone)}")
    lines.append("tags: [reward-model, preference-model, rlaif]")
    results = list(_results(evaluation)) if evaluation is not None else []
    if results:
        lines += ["model-index:", f"- name: {_quoted(name)}", "  results:", *results]
    return "\n".join([*lines, "---"])


def _results(evaluation: Evaluation) -> Iterator[str]:
    for objective, found in evaluation.objectives.items():
        if found.accuracy is None:
            continue
        yield "  - task: {type: text-classification, name: preference}"
        yield f"    dataset: {{type: preference-pairs, name: {_quoted(f'held-out pairs, {objective}')}}}"
        yield "    metrics:"
        yield f"    - {{type: accuracy, name: {_quoted(f'accuracy, {objective}')}, value: {found.accuracy:.4f}}}"
        if found.ece is not None:
            yield f"    - {{type: ece, name: {_quoted(f'calibration error, {objective}')}, value: {found.ece:.4f}}}"


def _what(spec: HeadsSpec) -> str:
    count = len(spec.objectives)
    names = ", ".join(_plain(name) for name in spec.objectives)
    backbone = spec.provenance.get("backbone")
    base = f" on `{_code(backbone)}`" if backbone else ""
    heads = "one reward head" if count == 1 else f"{count} reward heads"
    members = f" Each head is the mean of {spec.members} members." if spec.members > 1 else ""
    return (
        f"{heads[0].upper()}{heads[1:]}{base}, trained by rlaif from preference labels: {names}. The checkpoint is an "
        "ordinary sequence classifier with one label an objective, so transformers and vLLM load it as it is. "
        f"`rlaif.json` beside the weights says what the scores mean.{members}"
    )


def _objectives(spec: HeadsSpec) -> Iterator[str]:
    rule = spec.aggregation
    floors = bool(rule.floors)
    yield "| objective | weight | temperature | mean | deviation |" + (" floor |" if floors else "")
    yield "|---|---:|---:|---:|---:|" + ("---:|" if floors else "")
    for name in spec.objectives:
        known, norm = spec.calibration.get(name), spec.normalization.get(name)
        interval = rule.intervals.get(name)
        between = f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else ""
        floor = f" {rule.floors[name]:g} |" if name in rule.floors else " none |"
        temperature, mean, std = known.temperature if known else 1, norm.mean if norm else 0, norm.std if norm else 1
        yield (
            f"| {_plain(name)} | {rule.weights.get(name, 0.0):.3g}{between} | {temperature:.4g} | {mean:.4g} | "
            f"{std:.4g} |{floor if floors else ''}"
        )
    yield ""
    yield (
        "A reward is (score - mean) / deviation; a response is better than another with probability "
        "sigmoid(score difference / temperature). "
        + (
            "The aggregate is the weighted sum of the rewards; "
            if rule.method == "weighted"
            else "The aggregate is how near a response comes to an ideal where it falls shortest (Pareto); "
        )
        + f"the weights are {_ORIGINS[rule.origin]}."
        + (" Responses under a floor rank below all that keep it." if floors else "")
    )
    for tag, weights in rule.by_tag.items():
        named = ", ".join(f"{_plain(name)} {weight:.3g}" for name, weight in weights.items())
        yield f"Prompts tagged {_plain(tag)} have weights of their own: {named}."


def _measured(spec: HeadsSpec, evaluation: Evaluation | None) -> Iterator[str]:
    if evaluation is None:
        yield "Nothing was held out in training, so this is not known; `rlaif evaluate` measures it on other labels."
        return
    lines = [
        f"On {evaluation.pairs:,} pairs of {evaluation.conversations:,} conversations that were held out:",
        "",
        "| objective | pairs | accuracy | length alone | calibration error | length slope over the labels' |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in evaluation.objectives.items():
        if found.accuracy is None or found.accuracy_ci is None:
            lines.append(f"| {_plain(name)} | {found.n:,} | none | none | none | none |")
            continue
        low, high = found.accuracy_ci
        validated = spec.calibration[name].ece if name in spec.calibration else None
        error = validated if validated is not None else found.ece
        gap, ci = found.length_slope_gap, found.length_slope_gap_ci
        slope = "none" if gap is None else f"{gap:+.2f}" + (f" ({ci[0]:+.2f} to {ci[1]:+.2f})" if ci else "")
        lines.append(
            f"| {_plain(name)} | {found.n:,} | {found.accuracy:.1%} ({low:.1%} to {high:.1%}) | "
            f"{_share(found.length_only_accuracy)} | {'none' if error is None else f'{error:.3f}'} | {slope} |"
        )
    yield "\n".join(lines)
    yield (
        "Accuracy is agreement with the held-out labels, ties left out, with its 95% interval. Length alone is a rule "
        "that takes the longer response, or the shorter, whichever agrees more. The calibration error (ECE) is "
        "cross-validated. The length slope is how much more than the labels the head goes by length; at 0 it does not. "
        "`report.html` has the rest."
    )


def _changed(changes: Sequence[Change]) -> Iterator[str]:
    yield "| objective | pairs of | pairs | before | after | difference |"
    yield "|---|---|---:|---:|---:|---:|"
    for change in changes:
        ci = change.difference_ci
        between = f" ({100 * ci[0]:+.1f} to {100 * ci[1]:+.1f})" if ci else ""
        yield (
            f"| {_plain(change.objective)} | {_plain(change.data)} | {change.n:,} | {change.before:.1%} | "
            f"{change.after:.1%} | {100 * change.difference:+.1f}{between} |"
        )


def _made(spec: HeadsSpec) -> Iterator[str]:
    yield _MODES[spec.mode]
    how = "by the tokenizer's chat template" if spec.chat else "as plain text, since the tokenizer has no chat template"
    yield (
        f"Conversations are written {how}, the response last, and cut at their beginning to {spec.max_length:,} tokens."
    )
    sources = spec.provenance.get("sources")
    if isinstance(sources, Sequence) and not isinstance(sources, str) and sources:
        yield ""
        yield "Labels:"
        yield ""
        for source in sources:
            yield f"- {_source(source)}"
    told = (("constitution", "Constitution"), ("init_from", "Began with the heads"), ("rlaif", "rlaif"))
    facts = [f"{label}: `{_code(spec.provenance[key])}`" for key, label in told if spec.provenance.get(key)]
    if facts:
        yield ""
        yield ". ".join(facts) + "."


def _source(source: Any) -> str:
    if not isinstance(source, Mapping):
        return f"`{_code(source)}`"
    counts = [f"{source[key]:,} {key}" for key in ("pairs", "labels") if isinstance(source.get(key), int)]
    judge = [f"judge `{_code(source['judge'])}`"] if source.get("judge") else []
    weight = source.get("weight", 1)
    counted = [f"weight {weight:g}"] if isinstance(weight, int | float) and weight != 1 else []
    kind = [_plain(str(source["kind"]))] if source.get("kind") else []
    return ", ".join([f"`{_code(source.get('name', ''))}`", *kind, *counts, *judge, *counted])


def _usage(spec: HeadsSpec) -> str:
    text = (
        "tokenizer.apply_chat_template(conversation, tokenize=False)"
        if spec.chat
        else '"Human: How are you?\\n\\nAssistant: Well, thank you."'
    )
    conversation = (
        'conversation = [{"role": "user", "content": "How are you?"}, '
        '{"role": "assistant", "content": "Well, thank you."}]\n'
        if spec.chat
        else ""
    )
    special = ", add_special_tokens=False" if spec.chat else ""
    return f"""With rlaif, as rewards:

```python
import rlaif

heads = rlaif.RewardHeads.load("PATH")
[reward] = heads.score(["How are you?"], ["Well, thank you."])
print(reward.rewards, reward.reward)
```

With transformers alone, as raw scores; `config.id2label` names them:

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
{conversation}inputs = tokenizer({text}, return_tensors="pt"{special})
scores = model(**inputs).logits
```

With vLLM, `LLM("PATH", runner="pooling").classify(...)` with activations off gives the same scores. For a trainer that
wants one score, `rlaif export PATH --format reward-model --out DIR` folds the weighted aggregate into a checkpoint with
one label."""


def _limits(spec: HeadsSpec, evaluation: Evaluation | None) -> Iterator[str]:
    yield (
        "The heads tell what their labels would prefer, mistakes and biases included; they do not tell what is true, "
        "and were not tested as a safety filter."
    )
    yield (
        "A score compares responses to the same prompt. A policy that is optimised against it will find what it gets "
        "wrong; check with other judges, and stop early."
    )
    yield f"What is longer than {spec.max_length:,} tokens loses its beginning."
    if evaluation is None:
        yield "Their accuracy is not known: nothing was held out."
        return
    for name, found in evaluation.objectives.items():
        kind = standing(found)
        if kind == "none":
            yield f"{_plain(name)}: no held-out pair has a label, so its accuracy is not known."
        elif kind == "few":
            yield f"{_plain(name)}: measured on {found.n} pairs only, fewer than {FEW}."
        elif kind == "coin":
            yield f"{_plain(name)}: on the held-out pairs it cannot be told from a coin."
        elif kind == "length":
            yield f"{_plain(name)}: on the held-out pairs it cannot be told from a rule by length alone."
        if found.leans_to is not None:
            yield f"{_plain(name)}: it leans to {found.leans_to} responses more than its labels do."


def _share(given: float | None) -> str:
    return "none" if given is None else f"{given:.1%}"


def _quoted(text: str) -> str:
    return json.dumps(_line(text))


def _plain(text: str) -> str:
    """A text of the user's as Markdown shows it letter by letter, in one line."""
    return _SPECIAL.sub(r"\\\1", _line(text))


def _code(given: Any) -> str:
    """A text of the user's between backticks."""
    return _line(str(given)).replace("`", "'")


def _line(text: str) -> str:
    """One line without characters that cannot be seen, shortened where it is a whole text."""
    hidden = {each.char for each in hidden_characters(text)}
    line = " ".join("".join(char for char in text if char not in hidden).split())
    return line if len(line) <= _MOST_TEXT else f"{line[: _MOST_TEXT - 1]}…"
