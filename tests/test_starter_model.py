"""The starter's training rows, its training script, and the checkpoint that ships."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlaif.engines.base import EngineArgs, identify
from rlaif.engines.transformers import TransformersEngine
from rlaif.prompts import load_template
from rlaif.shipped import shipped_folder
from rlaif.starter import checkpoint
from rlaif.starter.corpus import Mix, _questions, batches
from rlaif.starter.encode import IGNORE, Encoder
from rlaif.starter.evaluate import (
    BLANK,
    Answer,
    Item,
    calibration_error,
    held_out_items,
    judge,
    opposite_texts,
    states_what_decides,
)
from rlaif.starter.judging import Principle, ask
from rlaif.starter.model import attention_bias, collate, make_model
from rlaif.starter.responses import kinds_of, make_pair
from rlaif.starter.tokens import CHAT_TEMPLATE, make_tokenizer
from rlaif.starter.train import _TEMPLATES, CHECK, Trainer, check
from rlaif.starter.world import World
from tests.conftest import Cli

TEMPLATE = load_template("pairwise-cot")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(make_tokenizer(300), {kind: load_template(name) for kind, name in _TEMPLATES.items()})


@pytest.mark.parametrize("reason", [True, False])
def test_a_training_row_is_what_an_engine_sends(encoder: Encoder, reason: bool) -> None:
    """Each branch with its prefix, against the whole conversation through the chat template in one piece."""
    world = World("train", random.Random(5))
    pair = make_pair(world, "offer", "advice")
    questions = list(_questions(world, pair, "offer", 3))
    row = encoder.judged(pair, questions, ["A", "B", "A"], reason=reason)
    template = TEMPLATE if reason else load_template("direct")
    for branch, (question, verdict) in enumerate(zip(questions, "ABA", strict=True), 1):
        asked = template.objective("", question.question, question.texts)
        messages = template.messages(template.system(), template.pair(pair.pair("0")), asked)
        prompt = encoder._tokenizer.apply_chat_template(
            [turn.model_dump() for turn in messages], tokenize=False, add_generation_prompt=True
        )
        answer = f"{question.rationale}\n\nVerdict: {verdict}" if reason else f"Verdict: {verdict}"
        whole = encoder._tokenizer(f"{prompt}{answer}<|end|>", add_special_tokens=False)["input_ids"]
        places = [n for n, segment in enumerate(row.segments) if segment in (0, branch)]
        assert [row.ids[n] for n in places] == whole
        assert [row.positions[n] for n in places] == list(range(len(whole)))
        learned = [row.targets[n] for n in places if row.targets[n] != IGNORE]
        written = answer if reason else f" {verdict}"
        assert encoder._tokenizer.decode(learned) == f"{written}<|end|>"


def test_a_policy_row_is_what_an_engine_sends(encoder: Encoder) -> None:
    world = World("train", random.Random(6))
    pairs = [make_pair(world, "mistake", "mistake"), make_pair(world, "insult", "fact")]
    row = encoder.answered([(pair.scene.prompt, pair.a.text) for pair in pairs])
    for branch, pair in enumerate(pairs, 1):
        turns = [turn.model_dump() for turn in pair.scene.prompt]
        prompt = encoder._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = encoder._tokenizer(f"{prompt}{pair.a.text}<|end|>", add_special_tokens=False)["input_ids"]
        assert [i for i, segment in zip(row.ids, row.segments, strict=True) if segment == branch] == whole


def test_guides_stand_where_they_should(encoder: Encoder) -> None:
    """At the ends of responses, of their sentences and of principles, in the order of the text."""
    world = World("train", random.Random(7))
    pair = make_pair(world, "source", "future")
    question = ask(world, pair, [Principle("source", True), Principle("insult", False)])
    row = encoder.judged(pair, [question], ["A"], reason=True)

    def before(place: int, count: int) -> str:
        return str(encoder._tokenizer.decode(row.ids[max(0, place - count) : place + 1]))

    assert [before(place, 5)[-2:] for place, _ in row.marks] == ["A]", "B]"]
    parts = [*pair.a.parts, *pair.b.parts]
    assert len(row.parts) == len(parts)
    for (place, _), (sentence, _) in zip(row.parts, parts, strict=True):
        assert before(place, 60).endswith(sentence)
    for (place, _), text in zip(row.wants, question.texts, strict=True):
        assert before(place, 60).endswith(f"- {text}")


def test_looks_point_to_where_the_next_word_is_found(encoder: Encoder) -> None:
    """To the principle's end, to sentences with the feature or else the response's end, and back to the findings."""
    world = World("train", random.Random(7))
    pair = make_pair(world, "source", "future")
    question = ask(world, pair, [Principle("source", True)])
    row = encoder.judged(pair, [question], [question.better or "A"], reason=True)

    def after(place: int) -> str:
        return str(encoder._tokenizer.decode([row.targets[place]]))

    def before(place: int) -> str:
        return str(encoder._tokenizer.decode(row.ids[: place + 1]))

    decisive = [look for look in row.looks if look[1] in ("principle", "a", "b", "better")]
    assert [where for _, where, _ in decisive] == ["principle", "principle", "a", "b", "better"]
    (family, want, a, b, better) = decisive
    assert before(family[0]).endswith("First: does it")
    assert (before(want[0])[-10:], after(want[0])) == (" It should", ".")
    for _, _, found in (family, want):
        assert [before(place).endswith(f"- {question.texts[0]}") for place in found] == [True]
    for (place, _, found), letter, response in ((a, "A", pair.a), (b, "B", pair.b)):
        assert before(place).endswith(f" Response {letter} does")
        has = response.marks["source"]
        assert after(place) == ("." if has else " not")
        sentences = [sentence for sentence, families in response.parts if "source" in families]
        ends = sentences if has else [f"[end of response {letter}]"]
        assert [before(end).endswith(text) for end, text in zip(found, ends, strict=True)] == [True] * len(ends)
    assert before(better[0]).endswith(" So")
    assert [after(place - 1) for place in better[2]] == [after(place) for place in (a[0], b[0])]
    # A verdict without a rationale needs the same, at the principle's end.
    at_once = {where: (place, found) for place, where, found in row.looks if where.endswith(" at once")}
    assert at_once == {"a at once": (want[2][0], a[2]), "b at once": (want[2][0], b[2])}
    assert row.sides == [(want[2][0], "AB".index(question.better or ""))]


def test_looks_for_what_was_said_before(encoder: Encoder) -> None:
    """Every token of a response, by a search through all the tokens before it."""
    pair = make_pair(World("train", random.Random(3)), "repetition", "fact")
    row = encoder.judged(pair, [], [], reason=True)
    ids = row.ids
    looks = {(place, where): found for place, where, found in row.looks}
    places = sorted({place for place, _ in looks})
    assert str(encoder._tokenizer.decode([ids[n] for n in places])).strip().startswith(pair.a.text)
    first_of_b = min(n for n in places if n > row.marks[0][0])
    again = 0
    for place in places:
        same = tuple(n for n in range(places[0]) if ids[n] == ids[place])
        assert looks[place, "same"] == (same or (0,))
        begin = places[0] if place < first_of_b else first_of_b
        earlier = tuple(
            n
            for n in range(begin + 2, place)
            if ids[n - 2 : n + 1] == ids[place - 2 : place + 1] and place - 2 >= begin
        )
        if place - begin >= 2:
            assert looks[place, "again"] == (earlier or (0,))
            again += bool(earlier)
    assert again > 2, "a repetition is said twice"


def test_branches_do_not_see_each_other(encoder: Encoder) -> None:
    """Logits of a packed row equal those of each branch alone with the prefix, and of padded rows."""
    world = World("train", random.Random(8))
    pair = make_pair(world, "polite", "fact")
    questions = list(_questions(world, pair, "polite", 3))
    row = encoder.judged(pair, questions, ["A", "B", "A"], reason=True)
    other = encoder.answered([(pair.scene.prompt, pair.a.text)])
    torch.manual_seed(0)
    model = make_model(encoder._tokenizer.vocab_size, width=128, layers=2, inner=128)
    batch = collate([row, other])
    with torch.inference_mode():
        packed = model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=attention_bias(batch)).logits
        for branch in (1, 2, 3):
            places = [n for n, segment in enumerate(row.segments) if segment in (0, branch)]
            alone = model(input_ids=torch.tensor([[row.ids[n] for n in places]])).logits[0]
            assert torch.allclose(packed[0, places], alone, atol=1e-4)


@pytest.mark.parametrize(
    "mix",
    [
        Mix(policy=1.0),
        Mix(policy=0.0, single=1.0),
        Mix(policy=0.0, single=0.0, drill=1.0),
        Mix(policy=0.0, single=0.0, drill=0.0, direct=1.0),
    ],
)
def test_a_batch_may_have_rows_of_one_kind(tmp_path: Path, mix: Mix) -> None:
    trainer = Trainer(tmp_path, CHECK, torch.device("cpu"))
    _, rows = next(batches(trainer.encoder, "s", mix, 1500))
    assert trainer.learn(collate(rows))["text"] > 0


def test_batches_continue_at_any_place(encoder: Encoder) -> None:
    def some(start: tuple[int, int], count: int) -> list[tuple[tuple[int, int], list[list[int]]]]:
        found = itertools.islice(batches(encoder, "s", Mix(), 8192, start), count)
        return [(place, [row.ids for row in rows]) for place, rows in found]

    whole = some((0, 0), 24)
    assert len({place[0] for place, _ in whole}) >= 2, "more than one block"
    for cut in (1, 7, 13):
        assert some(whole[cut - 1][0], 24 - cut) == whole[cut:]


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_stopped_training_continues_to_the_same_weights(tmp_path: Path, cut: int) -> None:
    """Stopped among the drills, at their end, and after them."""
    plan = replace(CHECK, steps=5, warm_up=2, drills=2, decay=0.0)
    whole = Trainer(tmp_path / "whole", plan, torch.device("cpu"))
    list(whole.run())
    parts = tmp_path / "parts"
    parts.mkdir()
    shutil.copytree(tmp_path / "whole" / "tokenizer", parts / "tokenizer")
    list(Trainer(parts, replace(plan, steps=cut), torch.device("cpu")).run())
    second = Trainer(parts, plan, torch.device("cpu"))
    assert second.step == cut
    list(second.run())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_the_check_learns(tmp_path: Path) -> None:
    """Loss and accuracy on rows that were not trained on, before and after a minute of training."""
    before, after = check(tmp_path)
    assert after["loss"] < before["loss"] / 4
    assert before["tokens"] < 0.2
    assert after["tokens"] > 0.85


def test_calibration_error_by_hand() -> None:
    """Ten answers at 0.9 of which 8 are right, ten at 0.6 of which 6 are: (0.1 + 0) / 2 = 0.05."""
    pair = make_pair(World("test", random.Random(1)), "insult", "fact")
    question = ask(World("test", random.Random(1)), pair, [Principle("insult", True)])
    item = Item("0", pair, question, "insult", False)
    side = 1.0 if question.better == "A" else 0.0

    def answer(confidence: float, right: bool) -> Answer:
        p = confidence if right == (side == 1.0) else 1 - confidence
        return Answer(item, {"ab": p, "ba": p}, {})

    answers = [answer(0.9, n < 8) for n in range(10)] + [answer(0.6, n < 6) for n in range(10)]
    assert calibration_error(answers, bins=2) == pytest.approx(0.05)


def test_the_chat_template_tells_the_skills_apart() -> None:
    tokenizer = make_tokenizer(100)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    pair = make_pair(World("test", random.Random(1)), "insult", "fact").pair("0")
    openings = {
        "pairwise-cot": "<|judge|>", "few-shot": "<|judge|>", "direct": "<|choose|>",
        "rating": "<|rate|>", "critique": "<|critique|>", "revision": "<|revise|>",
    }  # fmt: skip
    assert set(openings) == {file.stem for file in shipped_folder("prompts").glob("*.j2")}
    for name, opening in openings.items():
        template = load_template(name)
        quoted = template.pair(pair) if template.head.kind == "comparison" else template.response(pair.prompt, "Yes.")
        messages = template.messages(template.system(), quoted, "Question: ?")
        turns = [turn.model_dump() for turn in messages]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        assert text.startswith(f"{opening}<|user|>[")
        assert text.endswith("<|end|><|assistant|>")
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    assert text == "<|system|>Be kind.<|end|><|user|>Hello.<|end|><|assistant|>"


# What ships, on a part of the test; `python -m rlaif.starter.measure` has all of it, where verdicts and orders reach
# 0.9 and the calibration error 0.05 in ten bins. Here stands what it must not fall below: of 192 answers ten bins of
# 19 would show an error of 0.05 where there is none, so they are put in four.


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(identify(str(checkpoint())), EngineArgs({}))


@pytest.fixture(scope="module")
def answers(engine: TransformersEngine) -> list[Answer]:
    return list(judge(engine, TEMPLATE, held_out_items("test", 8)))


def share(values: list[bool]) -> float:
    return sum(values) / len(values)


def test_the_shipped_judge_is_right_in_its_world(answers: list[Answer]) -> None:
    assert share([one.right for one in answers]) >= 0.88
    assert share([one.consistent for one in answers]) >= 0.9
    assert share([states_what_decides(one, order) for one in answers for order in one.p_a]) >= 0.85
    assert calibration_error(answers, bins=4) <= 0.05


def test_the_shipped_judge_reads_the_principles(engine: TransformersEngine, answers: list[Answer]) -> None:
    items = [one.item for one in answers]
    blanked = list(judge(engine, TEMPLATE, items, texts=lambda item: [BLANK]))
    assert 0.35 < share([one.right for one in blanked]) < 0.65
    flipped = list(judge(engine, TEMPLATE, items, texts=opposite_texts("test")))
    pairs = [(one, other) for one, other in zip(answers, flipped, strict=True) if one.right]
    assert share([(one.mean > 0.5) != (other.mean > 0.5) for one, other in pairs]) >= 0.85


def test_the_checkpoint_is_small_and_ordinary() -> None:
    files = {file.name: file.stat().st_size for file in checkpoint().iterdir() if file.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= set(files)
    assert sum(files.values()) < 25 * 2**20
    config = json.loads((checkpoint() / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "llama"
    assert config["head_dim"] == 64


def test_editing_a_principle_flips_its_verdicts(rlaif: Cli, tmp_path: Path) -> None:
    """Through the command line, as a user does it: label, edit the YAML, `--update`, `constitution diff`."""
    from rlaif.shipped import find_shipped

    world = World("test", random.Random("flips"))
    kinds = kinds_of("insult")
    pairs = [make_pair(world, "insult", kinds[n % len(kinds)]).pair(str(n)) for n in range(40)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(one.model_dump(mode="json")) + "\n" for one in pairs), encoding="utf-8")
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    text = find_shipped("constitutions", "hhh", ".yaml").read_text(encoding="utf-8")
    before = "Prefer the response that insults, mocks or demeans nobody."
    assert before in text
    old.write_text(text, encoding="utf-8")
    new.write_text(text.replace(before, "Prefer the response that insults, mocks or demeans the person."), "utf-8")
    run = tmp_path / "run"
    ask_for = ("label", data, "--out", run, "--objective", "harmlessness", "--engine", "transformers")
    assert rlaif(*ask_for, "--constitution", old).returncode == 0
    shutil.copy(run / "labels.jsonl", tmp_path / "before.jsonl")
    assert rlaif(*ask_for, "--constitution", new, "--update").returncode == 0
    done = rlaif("constitution", "diff", old, new, tmp_path / "before.jsonl", run, "--json")
    assert done.returncode == 0, done.stderr
    flips = json.loads(done.stdout)["flips"]["objectives"]["harmlessness"]
    assert flips["flipped"] / flips["compared"] >= 0.85, flips
