"""Labels as preference data: which response is chosen, what is left out, and what stands in the files."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset, load_from_disk

from rlaif.errors import InputError, RunError
from rlaif.optimize.preference_files import export_preferences
from rlaif.optimize.preference_formats import PREFERENCE_FORMATS, PreferenceFormat
from rlaif.rewards.sources import read_preferences
from tests.conftest import Cli, read_lines, write_lines
from tests.preference_examples import DUNNO, MOON, QUESTION, TALK, exported, label_row, make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six pairs: a is better, b is, a tie, no overall label, equal responses, a is a little better."""
    rows = [
        label_row("sure", 0.9, 0.2),
        label_row("other", 0.25, 0.75),
        label_row("tie", 0.5, 0.6),
        label_row("none", None, 0.7),
        label_row("equal", 0.8, 0.8, a="Rain", b=" Rain\n"),
        label_row("close", 0.55, 0.55),
    ]
    return make_run(tmp_path / "run", rows)


def test_the_preferred_response_is_chosen_with_its_probability(run: Path, tmp_path: Path) -> None:
    summary, rows = exported(run, tmp_path)
    assert [(row["id"], row["chosen"], row["rejected"]) for row in rows] == [
        ("sure", MOON, DUNNO),
        ("other", DUNNO, MOON),
        ("close", MOON, DUNNO),
    ]
    assert [row["p_chosen"] for row in rows] == pytest.approx([0.9, 0.75, 0.55])
    assert [row["prompt"] for row in rows] == [f"How do tides work? ({name})" for name in ("sure", "other", "close")]
    assert summary.objective == "overall"
    assert summary.rows == 3
    # Every pair of the run is a row or counted.
    assert summary.left_out == {"equal responses": 1, "pairs without a label": 1, "ties": 1}
    assert summary.mean_doubt == pytest.approx((0.1 + 0.25 + 0.45) / 3)


def test_an_objective_chooses_otherwise(run: Path, tmp_path: Path) -> None:
    summary, rows = exported(run, tmp_path, objective="helpfulness")
    assert [(row["id"], row["chosen"]) for row in rows] == [
        ("sure", DUNNO),
        ("other", MOON),
        ("tie", MOON),
        ("none", MOON),
        ("close", MOON),
    ]
    assert [row["p_chosen"] for row in rows] == pytest.approx([0.8, 0.75, 0.6, 0.7, 0.55])
    assert summary.left_out == {"equal responses": 1}
    # The only objective of a file needs no name; of several one is asked for.
    assert exported(f"{run}:helpfulness", tmp_path)[1] == rows
    pairs = write_lines(tmp_path / "pairs.jsonl", [{**row, "labels": None} for row in read_lines(run / "labels.jsonl")])
    votes = [
        {"id": "sure", "annotator": "x", "objective": name, "preference": "a"} for name in ("helpfulness", "honesty")
    ]
    people = write_lines(tmp_path / "people.jsonl", votes)
    with pytest.raises(InputError, match=r"no overall labels; the objectives are helpfulness, honesty\. Choose one"):
        exported(f"{pairs}+{people}", tmp_path)
    assert exported(f"{pairs}+{people}", tmp_path, objective="honesty")[1][0]["chosen"] == MOON


def test_swapped_pairs_give_the_same_rows(run: Path, tmp_path: Path) -> None:
    rows = read_lines(run / "labels.jsonl")
    for row in rows:
        row["response_a"], row["response_b"] = row["response_b"], row["response_a"]
        if row["overall"]["p_a"] is not None:
            row["overall"]["p_a"] = 1 - row["overall"]["p_a"]
    turned = make_run(tmp_path / "turned", rows)
    first, second = exported(run, tmp_path)[1], exported(turned, tmp_path)[1]
    assert [{**row, "p_chosen": round(row["p_chosen"], 12)} for row in first] == [
        {**row, "p_chosen": round(row["p_chosen"], 12)} for row in second
    ]


def test_ties_are_left_out_or_written_in_both_orders(run: Path, tmp_path: Path) -> None:
    summary, rows = exported(run, tmp_path, ties="both", margin=True)
    ties = [row for row in rows if row["id"].startswith("tie")]
    assert [(row["id"], row["chosen"], row["rejected"]) for row in ties] == [
        ("tie", MOON, DUNNO),
        ("tie~turned", DUNNO, MOON),
    ]
    assert [(row["p_chosen"], row["margin"]) for row in ties] == [(0.5, 0.0), (0.5, 0.0)]
    assert (summary.rows, summary.turned, summary.left_out.get("ties")) == (5, 1, None)
    # Margins are log-odds: log(0.9 / 0.1), log(0.75 / 0.25), log(0.55 / 0.45).
    assert [row["margin"] for row in rows if row not in ties] == pytest.approx(
        [math.log(9), math.log(3), math.log(11 / 9)]
    )


def test_a_sure_label_has_the_largest_margin_and_no_infinite_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [label_row("one", 1.0), label_row("zero", 0.0), label_row("near", 0.999)])
    assert [row["margin"] for row in exported(run, tmp_path, margin=True)[1]] == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(("least", "kept"), [(0.0, 3), (0.1, 3), (0.11, 2), (0.5, 2), (0.51, 1), (0.8, 1), (0.81, 0)])
def test_pairs_under_the_least_margin_are_left_out(run: Path, tmp_path: Path, least: float, kept: int) -> None:
    # P(chosen) - P(rejected) is 0.8, 0.5 and 0.1.
    if not kept:
        with pytest.raises(InputError, match=r"no pair is left to write: .*under the least margin 3"):
            exported(run, tmp_path, min_margin=least)
        return
    summary, rows = exported(run, tmp_path, min_margin=least)
    assert len(rows) == kept
    assert summary.left_out.get("under the least margin", 0) == 3 - kept


def test_several_sources_become_one_row_a_pair(run: Path, tmp_path: Path) -> None:
    again = make_run(tmp_path / "again", [label_row("sure", 0.2), label_row("new", 0.7)])
    out = tmp_path / "both.jsonl"
    summary = export_preferences([str(run), f"{again}@3"], out, "trl")
    rows = {row["id"]: row for row in read_lines(out)}
    assert list(rows) == ["sure", "other", "close", "new"]
    # (0.9 + 3 * 0.2) / 4 = 0.375: the other response now.
    assert (rows["sure"]["chosen"], rows["sure"]["p_chosen"]) == (DUNNO, pytest.approx(0.625))
    assert [row["weight"] for row in rows.values()] == [4.0, 1.0, 1.0, 3.0]
    assert summary.merged == 1


def test_a_conversation_is_no_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [label_row("first", 0.9), label_row("talk", 0.1, prompt=TALK)])
    out = tmp_path / "out.jsonl"
    out.write_text("what was there\n")
    with pytest.raises(InputError, match=r"the prompt of 'talk' is more than one turn .* --format trl-conversational"):
        export_preferences(str(run), out, "trl")
    assert out.read_text() == "what was there\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "run"]


def test_messages_hold_the_whole_conversation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [label_row("talk", 0.1, prompt=TALK)])
    before = [*TALK[:-1], {"role": "user", "content": "Another one? (talk)"}]
    better, worse = ({"role": "assistant", "content": text} for text in (DUNNO, MOON))
    numbers = {"p_chosen": 0.9, "weight": 1.0}
    explicit = {"id": "talk", "prompt": before, "chosen": [better], "rejected": [worse], **numbers}
    assert exported(run, tmp_path, "trl-conversational")[1] == [explicit]
    assert exported(run, tmp_path, "dpo")[1] == [explicit]
    assert exported(run, tmp_path, "openrlhf")[1] == [
        {
            "id": "talk",
            "context_messages": before,
            "chosen": [*before, better],
            "rejected": [*before, worse],
            **numbers,
        }
    ]


MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "role": {"enum": ["system", "user", "assistant"]},
            "content": {"type": "string"},
        },
        "required": ["role", "content"],
        "additionalProperties": False,
    },
}
# What OpenRLHF reads of preference data with --apply_chat_template: chosen and rejected are conversations that end with
# the response, unless --prompt_key names what stands before both; `margin` is read where it is there (--margin_loss).
OPENRLHF = {
    "type": "object",
    "properties": {
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "context_messages": MESSAGES,
        "margin": {"type": "number", "minimum": 0},
    },
    "required": ["chosen", "rejected"],
    # A prompt under the name that --prompt_key usually has would be read twice.
    "not": {"required": ["prompt"]},
}


def test_openrlhf_reads_conversations_that_part_in_the_last_turn(tiny_judge: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    jsonschema = pytest.importorskip("jsonschema")
    run = make_run(tmp_path / "run", [label_row("one", 0.9), label_row("talk", 0.1, prompt=TALK)])
    rows = exported(run, tmp_path, "openrlhf", margin=True)[1]
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_judge)
    for row, (better, worse) in zip(rows, [(MOON, DUNNO), (DUNNO, MOON)], strict=True):
        jsonschema.validate(row, OPENRLHF)
        # Its DPO cuts the prompt, rendered for generation, off the front of both.
        assert row["chosen"][:-1] == row["rejected"][:-1] == row["context_messages"]
        head = tokenizer.apply_chat_template(row["chosen"][:-1], tokenize=False, add_generation_prompt=True)
        for side, text in (("chosen", better), ("rejected", worse)):
            whole = tokenizer.apply_chat_template(row[side], tokenize=False)
            assert whole.startswith(head)
            assert whole[len(head) :] == f"{text}<|im_end|>\n"


@pytest.mark.parametrize("layout", PREFERENCE_FORMATS)
def test_lines_parquet_and_a_saved_dataset_hold_the_same(run: Path, tmp_path: Path, layout: PreferenceFormat) -> None:
    rows = exported(run, tmp_path, layout, ties="both", margin=True)[1]
    outs = [tmp_path / "out.parquet", tmp_path / "saved"]
    kept: dict[str, bytes] = {}
    # Twice over each other: the same bytes.
    for _ in range(2):
        for out in outs:
            export_preferences(str(run), out, layout, ties="both", margin=True)
        files = [outs[0], *sorted(outs[1].iterdir())]
        found = {file.name: file.read_bytes() for file in files}
        assert kept in ({}, found)
        kept = found
    read = load_dataset("parquet", data_files=str(outs[0]), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.to_list() == rows
    assert load_from_disk(str(outs[1])).to_list() == rows
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_many_rows_are_written_in_parts_in_their_order(tmp_path: Path) -> None:
    labels = [label_row(f"p{number}", 0.5 + (number % 7 - 3) / 10) for number in range(2500)]
    run = make_run(tmp_path / "run", labels)
    summary, rows = exported(run, tmp_path)
    assert summary.rows == len(rows) == 2500 - summary.left_out["ties"]
    assert [row["id"] for row in rows] == [row["id"] for row in labels if row["overall"]["p_a"] != 0.5]
    export_preferences(str(run), tmp_path / "out.parquet", "trl")
    export_preferences(str(run), tmp_path / "saved", "trl")
    assert load_from_disk(str(tmp_path / "saved")).to_list() == rows
    read = load_dataset("parquet", data_files=str(tmp_path / "out.parquet"), split="train", cache_dir=str(tmp_path))
    assert read.to_list() == rows


@pytest.mark.parametrize("layout", PREFERENCE_FORMATS)
def test_what_is_exported_trains_heads_again(run: Path, tmp_path: Path, layout: PreferenceFormat) -> None:
    """All but the probability comes back: ties in both orders as ties, the rest as who is better."""
    exported(run, tmp_path, layout, ties="both")
    before = read_preferences([str(run)], objectives=["overall"])
    after = read_preferences([str(tmp_path / "out.jsonl")])
    texts = [(pair.prompt, {pair.response_a, pair.response_b}) for pair in before.pairs]
    assert [(pair.prompt, {pair.response_a, pair.response_b}) for pair in after.pairs] == texts
    for first, second, p, hard in zip(before.pairs, after.pairs, before.target[:, 0], after.target[:, 0], strict=True):
        p = p if first.response_a == second.response_a else 1 - p
        assert hard == (0.5 if p == 0.5 else float(p > 0.5))


def test_an_export_writes_over_nothing_else(run: Path, tmp_path: Path) -> None:
    def refused(out: str, why: str) -> None:
        with pytest.raises(InputError, match=why):
            export_preferences(str(run), out, "trl")

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    refused(str(mine), "holds other files")
    refused(str(run), "also read by this command")
    refused(str(run / "labels.jsonl"), "also read by this command")
    refused(str(tmp_path / "out.csv"), r"ends in \.jsonl or \.parquet, or a folder")
    (tmp_path / "plain").write_text("text")
    refused(str(tmp_path / "plain"), "a file without an ending")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "plain", "run"]
    assert (mine / "thesis.txt").read_text() == "years of work"
    # An earlier export is replaced, also where it was used and holds caches.
    export_preferences(str(run), tmp_path / "saved", "trl")
    (tmp_path / "saved" / "cache-0123.arrow").write_bytes(b"")
    export_preferences(str(run), tmp_path / "saved", "dpo", objective="helpfulness")
    assert len(load_from_disk(str(tmp_path / "saved"))) == 5
    with pytest.raises(InputError, match="also read by this command"):
        export_preferences(str(tmp_path / "saved"), tmp_path / "saved", "dpo")


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out"])
def test_a_full_disk_leaves_what_was_there(run: Path, tmp_path: Path, name: str) -> None:
    import resource

    out = tmp_path / name
    export_preferences(str(run), out, "trl")
    long = [[f"{number} " + "word " * 400, DUNNO] for number in range(300)]
    scores = [{"reward": 1.0}, {"reward": 0.0}]
    rows = [{"id": str(place), "prompt": QUESTION, "responses": both} for place, both in enumerate(long)]
    many = write_lines(tmp_path / "many.jsonl", [{**row, "scores": scores} for row in rows])
    size = sum(file.stat().st_size for file in ([out] if out.is_file() else out.iterdir()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As large as a file may become: the system refuses to write on, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))
    try:
        with pytest.raises(RunError, match="cannot be written"):
            export_preferences(str(many), out, "trl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sum(file.stat().st_size for file in ([out] if out.is_file() else out.iterdir())) == size
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["many.jsonl", name, "run"])


def test_a_disk_too_full_for_the_texts_of_labels_is_told(run: Path, tmp_path: Path) -> None:
    import resource

    out = tmp_path / "out.jsonl"
    export_preferences(str(run), out, "trl")
    before = out.read_bytes()
    many = make_run(tmp_path / "many", [label_row(f"p{number}", 0.9, a="word " * 400) for number in range(300)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(RunError, match=r"cannot be written \(File too large\); free some space") as error:
            export_preferences(str(many), out, "trl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "out.jsonl", "run"]


def test_the_texts_of_labels_are_not_kept_in_memory(tmp_path: Path) -> None:
    """Exported from a run, from pairs with labels apart, and from both with every pair twice."""
    import tracemalloc

    rows = [label_row(f"p{number}", 0.9, a=f"{number} " * 5000) for number in range(400)]
    run = make_run(tmp_path / "run", rows)
    pairs = write_lines(tmp_path / "pairs.jsonl", [{**row, "id": f"q{row['id']}", "labels": None} for row in rows])
    votes = [{"id": f"q{row['id']}", "annotator": "x", "objective": "overall", "preference": "a"} for row in rows]
    people = write_lines(tmp_path / "people.jsonl", votes)
    size = pairs.stat().st_size
    for sources in ([str(run)], [f"{pairs}+{people}"], [str(run), f"{pairs}+{people}"]):
        tracemalloc.start()
        try:
            summary = export_preferences(sources, tmp_path / "out.jsonl", "trl")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (summary.rows, summary.merged) == (400, 400 * (len(sources) - 1))
        # The libraries that are loaded on the first call take most of it.
        assert peak < size / 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "pairs.jsonl", "people.jsonl", "run"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"min_margin": 1.5}, "expected 0 to 1"),
        ({"min_margin": -0.1}, "expected 0 or more"),
        ({"min_margin": math.nan}, "expected 0 or more"),
        ({"ties": "keep"}, "expected drop or both"),
        ({"ties": "both", "min_margin": 0.1}, "Give one of both"),
        ({"objective": "helpfulnes"}, "Did you mean 'helpfulness'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(run: Path, tmp_path: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        exported(run, tmp_path, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_command_tells_what_it_left_out(run: Path, tmp_path: Path, rlaif: Cli) -> None:
    out = tmp_path / "out.jsonl"
    done = rlaif("export", run, "--format", "dpo", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"3 rows by overall -> {out}",
        "left out: equal responses 1, pairs without a label 1, ties 1",
        "the labels give the rejected response 0.267 on average",
    ]
    told = rlaif("export", run, "--format", "dpo", "--min-margin", "0.5", "--out", out, "--json")
    assert json.loads(told.stdout)["left_out"]["under the least margin"] == 1
    assert len(read_lines(out)) == 2
    piped = rlaif("export", run, "--format", "dpo", "--out", "/dev/stdout")
    assert [json.loads(line)["id"] for line in piped.stdout.splitlines()] == ["sure", "other", "close"]
    assert "3 rows by overall" in piped.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--format", "dpo", "--weights", "a=1"), "--weights is not for --format dpo"),
        (("--format", "reward-model", "--ties", "both"), "--ties is not for --format reward-model"),
        (("--format", "dpo", "--min-margin", "-1"), "Invalid value for '--min-margin'"),
        (("more", "--format", "reward-model"), "takes one folder of HEADS"),
        (("--format", "csv"), "Invalid value for '--format'"),
    ],
)
def test_the_command_refuses_what_it_would_not_use(
    run: Path, tmp_path: Path, rlaif: Cli, arguments: tuple[str, ...], why: str
) -> None:
    done = rlaif("export", run, *arguments, "--out", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert why in done.stderr
    assert not os.path.lexists(tmp_path / "out.jsonl")
