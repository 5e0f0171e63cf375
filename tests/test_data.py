"""Every shape that preference data comes in, and everything that can be wrong with a file as a whole."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.pairs import Reject, holds_only_prompts, parse_columns, read_pairs, read_prompts
from rlaif.data.sources import MAX_ROW_BYTES, open_source
from rlaif.errors import InputError
from rlaif.types import Message, Pair, Prompt
from tests.conftest import read_lines, write_lines

QUESTION = Message(role="user", content="What is 12 x 9?")
CHAT: list[dict[str, str]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "2+2?"},
]
CHAT_TURNS = tuple(Message.model_validate(turn) for turn in CHAT)
PLAIN: dict[str, Any] = {
    "id": "one",
    "prompt": "What is 12 x 9?",
    "response_a": "108",
    "response_b": "No.",
    "tags": {"topic": "sums"},
}


def load(path: Path, columns: str | None = None, split: str | None = None) -> list[tuple[int, Pair] | Reject]:
    return list(read_pairs(open_source(str(path), split=split), parse_columns(columns)))


def pairs_of(rows: list[tuple[int, Pair] | Reject]) -> list[Pair]:
    assert [row for row in rows if isinstance(row, Reject)] == []
    return [row[1] for row in rows if not isinstance(row, Reject)]


def rejects_of(rows: list[tuple[int, Pair] | Reject]) -> list[Reject]:
    return [row for row in rows if isinstance(row, Reject)]


def one(path: Path, row: dict[str, Any]) -> Pair:
    (pair,) = pairs_of(load(write_lines(path / "one.jsonl", [row])))
    return pair


def chosen_of(pair: Pair) -> tuple[str, str]:
    """The chosen and the rejected response, from the side that the tags name."""
    sides = (pair.response_a, pair.response_b)
    return sides if pair.tags["chosen"] == "a" else (sides[1], sides[0])


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SHAPES: dict[str, tuple[dict[str, Any], tuple[Message, ...]]] = {
    "prompt as a text": ({"prompt": "What is 12 x 9?", "chosen": "108", "rejected": "No."}, (QUESTION,)),
    "prompt as a chat": ({"prompt": CHAT, "chosen": "108", "rejected": "No."}, CHAT_TURNS),
    "conversational, explicit prompt": (
        {"prompt": CHAT, "chosen": [reply("108")], "rejected": [reply("No.")]},
        CHAT_TURNS,
    ),
    "conversational, implicit prompt": (
        {"chosen": [*CHAT, reply("108")], "rejected": [*CHAT, reply("No.")]},
        CHAT_TURNS,
    ),
    "conversational, prompt repeated": (
        {"prompt": "Hi", "chosen": [CHAT[0], reply("108")], "rejected": [CHAT[0], reply("No.")]},
        CHAT_TURNS[:1],
    ),
    "transcripts": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2+2?\n\nAssistant: 108",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2+2?\n\nAssistant: No.",
        },
        CHAT_TURNS,
    ),
    "names of other formats": (
        {
            "prompt": [{"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Hello"}, CHAT[2]],
            "chosen": "108",
            "rejected": "No.",
        },
        CHAT_TURNS,
    ),
    "content in parts": (
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]}
        | {"chosen": "108", "rejected": "No."},
        CHAT_TURNS[:1],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_chosen_and_rejected_in_every_shape(tmp_path: Path, shape: str) -> None:
    row, prompt = SHAPES[shape]
    pair = one(tmp_path, row)
    assert pair.prompt == prompt
    assert chosen_of(pair) == ("108", "No.")


def test_the_chosen_response_is_not_always_a(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(400)]
    pairs = pairs_of(load(write_lines(tmp_path / "p.jsonl", rows)))
    assert [chosen_of(pair) for pair in pairs] == [(f"good {n}", f"bad {n}") for n in range(400)]
    # A fair coin thrown 400 times: 200 within five standard deviations of 10.
    assert 150 < sum(pair.tags["chosen"] == "a" for pair in pairs) < 250


@pytest.mark.parametrize(
    ("tags", "read"),
    [
        ({"n": 1, "x": 0.5, "ok": True, "none": None}, {"n": 1, "x": 0.5, "ok": True, "none": None}),
        (["medical", 7], {"medical": True, "7": True}),
        ("medical", {"medical": True}),
        (None, {}),
    ],
)
def test_tags(tmp_path: Path, tags: object, read: dict[str, object]) -> None:
    assert one(tmp_path, {**PLAIN, "tags": tags}).tags == read


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()})


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def _folder(path: Path, rows: list[dict[str, Any]]) -> None:
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(str(path))


def _splits(path: Path, rows: list[dict[str, Any]]) -> None:
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(rows[::-1]), "test": Dataset.from_list(rows)}).save_to_disk(str(path))


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "p.jsonl": write_lines,
    "p.jsonl.gz": lambda path, rows: path.write_bytes(
        gzip.compress(b"".join(json.dumps(r).encode() + b"\n" for r in rows))
    ),
    "lines.json": write_lines,
    "array.json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    "bom.jsonl": lambda path, rows: path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8-sig"),
    "p.csv": _csv,
    "p.parquet": _parquet,
    "folder": _folder,
    "splits": _splits,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_way_of_storing_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    texts = ["108", 'He said "no",\nthen left.', "naïve 🙂 \u2028 done", "[1, 2]"]
    rows = [
        {"id": f"r{n}", "prompt": CHAT, "response_a": text, "response_b": "b", "tags": {"n": n}}
        for n, text in enumerate(texts)
    ]
    WRITERS[name](tmp_path / name, rows)
    pairs = pairs_of(load(tmp_path / name, split="test" if name == "splits" else None))
    expected = [
        Pair(id=f"r{n}", prompt=CHAT_TURNS, response_a=t, response_b="b", tags={"n": n}) for n, t in enumerate(texts)
    ]
    assert pairs == expected


def test_a_dataset_of_splits_asks_which(tmp_path: Path) -> None:
    _splits(tmp_path / "splits", [PLAIN])
    for split in (None, "validation"):
        with pytest.raises(InputError, match=r"splits: holds the splits train, test; choose one with --split"):
            open_source(str(tmp_path / "splits"), split=split)


def test_reading_parquet_leaves_standard_output_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _parquet(tmp_path / "p.parquet", [PLAIN])
    for _ in open_source(str(tmp_path / "p.parquet")).read():
        print("seen")
    assert capsys.readouterr().out == "seen\n"


def test_cells_of_csv_are_texts(tmp_path: Path) -> None:
    text = 'id,prompt,response_a,response_b,tags\n1,"[1, 2]",108,"{""a"": 1}",medical\n\n2,"{}","a\nb",c,\n3,p,d,e,\n'
    (tmp_path / "p.csv").write_text(text)
    rows = load(tmp_path / "p.csv")
    assert [row[0] for row in rows if not isinstance(row, Reject)] == [2, 4, 6]
    first, second, _ = pairs_of(rows)
    assert (first.id, first.prompt[0].content, first.response_a, first.response_b) == ("1", "[1, 2]", "108", '{"a": 1}')
    assert first.tags == {"medical": True}
    assert (second.prompt[0].content, second.response_a, second.tags) == ("{}", "a\nb", {})


def test_columns_are_renamed(tmp_path: Path) -> None:
    row = {"name": 7, "question": CHAT, "first": "108", "second": "No.", "labels": ["sums"]}
    expected = Pair(id="7", prompt=CHAT_TURNS, response_a="108", response_b="No.", tags={"sums": True})
    columns = "id=name, prompt=question,response_a=first,response_b=second,tags=labels"
    assert pairs_of(load(write_lines(tmp_path / "p.jsonl", [row]), columns)) == [expected]
    _csv(tmp_path / "p.csv", [{key: value for key, value in row.items() if key != "labels"}])
    assert pairs_of(load(tmp_path / "p.csv", columns)) == [expected.model_copy(update={"tags": {}})]


@pytest.mark.parametrize("text", ["prompt", "prompt=", "question=prompt", "=x", "prompt:x"])
def test_columns_that_mean_nothing(text: str) -> None:
    with pytest.raises(InputError, match="expected NAME=COLUMN with NAME one of id, prompt, response_a"):
        parse_columns(text)


def test_prompts_only(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "What is 12 x 9?"},
        {"id": "two", "prompt": CHAT, "tags": ["sums"]},
        {"question": "?"},
    ]
    source = open_source(str(write_lines(tmp_path / "p.jsonl", rows)))
    assert holds_only_prompts(source, {})
    assert not holds_only_prompts(open_source(str(write_lines(tmp_path / "q.jsonl", [PLAIN]))), {})
    first, second, third = read_prompts(source, {})
    name = hashlib.sha256(b'[["user", "What is 12 x 9?"]]').hexdigest()[:16]
    assert first == (1, Prompt(id=name, messages=(QUESTION,)))
    assert second == (2, Prompt(id="two", messages=CHAT_TURNS, tags={"sums": True}))
    assert third == Reject(3, "no prompt; the row has the columns question", {"question": "?"})


def test_ids_made_from_content(tmp_path: Path) -> None:
    rows = [{key: value for key, value in PLAIN.items() if key not in ("id", "tags")}] * 3
    rows = [*rows, {**rows[0], "response_b": "Yes."}]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    names = [pair.id for pair in pairs_of(load(write_lines(tmp_path / "p.jsonl", rows)))]
    content = b'[[["user", "What is 12 x 9?"]], "108", "No."]'
    name = hashlib.sha256(content).hexdigest()[:16]
    assert names[:3] == [name, f"{name}-2", f"{name}-3"]
    assert len(set(names)) == 4
    # The same rows stored otherwise, all on one line, have the same names; so have they in any order.
    assert [pair.id for pair in pairs_of(load(tmp_path / "p.json"))] == names
    reversed_names = [pair.id for pair in pairs_of(load(write_lines(tmp_path / "r.jsonl", rows[::-1])))]
    assert sorted(reversed_names) == sorted(names)


def test_equal_rows_take_no_longer_than_others(tmp_path: Path) -> None:
    # Looking for a free name from 2 on took 200 million steps for as many rows.
    row = {"prompt": "p", "response_a": "a", "response_b": "b"}
    pairs = pairs_of(load(write_lines(tmp_path / "p.jsonl", [row] * 20_000)))
    assert len({pair.id for pair in pairs}) == 20_000
    assert pairs[-1].id.endswith("-20000")


@pytest.mark.parametrize("name", ["p.jsonl", "array.json"])
def test_an_id_is_used_once(tmp_path: Path, name: str) -> None:
    rows = [PLAIN, {**PLAIN, "id": 7}, {**PLAIN, "response_a": "109"}, {**PLAIN, "id": "7"}]
    path = tmp_path / name
    path.write_text(json.dumps(rows)) if name == "array.json" else write_lines(path, rows)
    found = load(path)
    assert [row[1].id for row in found if not isinstance(row, Reject)] == ["one", "7"]
    on_one_line = name == "array.json"
    assert [reject.reason for reject in rejects_of(found)] == [
        "duplicate id 'one', first on line 1",
        f"duplicate id '7', first on line {1 if on_one_line else 2}",
    ]


def test_a_source_is_read_again_and_again(tmp_path: Path) -> None:
    source = open_source(str(write_lines(tmp_path / "p.jsonl", [PLAIN, PLAIN])))
    assert source.rows == 2
    assert list(read_pairs(source, {})) == list(read_pairs(source, {}))
    same = open_source(str(write_lines(tmp_path / "q.jsonl", [PLAIN, PLAIN])))
    other = open_source(str(write_lines(tmp_path / "r.jsonl", [PLAIN])))
    assert source.digest == same.digest != other.digest


def test_transcripts_of_real_data_come_back(shared: Path, tmp_path: Path) -> None:
    speakers = {"user": "Human", "assistant": "Assistant"}
    originals = read_lines(shared / "hh-rlhf" / "pairs.jsonl")
    rows = []
    for row in originals:
        talk = "".join(f"\n\n{speakers[turn['role']]}: {turn['content']}" for turn in row["prompt"])
        chosen, rejected = (f"{talk}\n\nAssistant: {row[side]}" for side in ("response_a", "response_b"))
        rows.append({"id": row["id"], "chosen": chosen, "rejected": rejected})
    pairs = pairs_of(load(write_lines(tmp_path / "hh.jsonl", rows)))
    assert len(pairs) == 1200
    for pair, row in zip(pairs, originals, strict=True):
        assert [turn.model_dump() for turn in pair.prompt] == row["prompt"]
        assert chosen_of(pair) == (row["response_a"], row["response_b"])
    # The files as they are: with the sides that they give.
    assert [
        {"id": pair.id, "a": pair.response_a, "b": pair.response_b}
        for pair in pairs_of(load(shared / "hh-rlhf" / "pairs.jsonl"))
    ] == [{"id": row["id"], "a": row["response_a"], "b": row["response_b"]} for row in originals]


@pytest.mark.parametrize("folder", ["hh-rlhf", "llmbar-natural", "pandalm"])
def test_real_pairs_are_all_usable(shared: Path, folder: str) -> None:
    path = shared / folder / "pairs.jsonl"
    assert len(pairs_of(load(path))) == len(path.read_bytes().splitlines())


@pytest.mark.parametrize("damage", ["cut short", "checksum", "block", "no gzip at all"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    good = b"".join(json.dumps({**PLAIN, "id": n, "response_a": "x" * n}).encode() + b"\n" for n in range(300))
    packed = gzip.compress(good)
    raw = {
        "cut short": packed[: len(packed) // 2],
        "checksum": packed[:-8] + bytes(8),
        # A second member whose deflate block is of a type that does not exist.
        "block": packed + packed[:10] + b"\x07" * 20,
        "no gzip at all": good,
    }
    (tmp_path / "p.jsonl.gz").write_bytes(raw[damage])
    *rows, last = load(tmp_path / "p.jsonl.gz")
    assert isinstance(last, Reject)
    assert last.reason.startswith("the file cannot be read on from here: ")
    assert last.line == len(rows) + 1
    assert [row[1].id for row in rows if not isinstance(row, Reject)] == [str(n) for n in range(len(rows))]
    assert {"no gzip at all": len(rows) == 0, "cut short": 0 < len(rows) < 300}.get(damage, len(rows) == 300)


def test_a_line_beyond_the_limit_costs_only_itself(tmp_path: Path) -> None:
    good = json.dumps(PLAIN).encode()
    with gzip.open(tmp_path / "p.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(good.replace(b'"one"', b'"before"') + b"\n" + b" " * (MAX_ROW_BYTES + 10) + b"\n" + good)
    before, long, after = load(tmp_path / "p.jsonl.gz")
    assert isinstance(long, Reject)
    assert (long.line, long.reason) == (2, "the line is longer than 64 MiB")
    assert [row[1].id for row in (before, after) if not isinstance(row, Reject)] == ["before", "one"]


@pytest.mark.parametrize("ending", ['{"prompt": ]', '{"id": "three', "", "nonsense, {}]"])
def test_a_broken_array_keeps_what_came_before(tmp_path: Path, ending: str) -> None:
    (tmp_path / "p.json").write_text(f"[\n{json.dumps(PLAIN)},\n{json.dumps({**PLAIN, 'id': 'two'})},\n{ending}")
    rows = load(tmp_path / "p.json")
    assert [row[1].id for row in rows if not isinstance(row, Reject)] == ["one", "two"]
    (reject,) = rejects_of(rows)
    assert reject.line == 4
    assert reject.reason == "invalid JSON from here to the end of the array"


def test_rows_of_an_array_that_cannot_be_used(tmp_path: Path) -> None:
    huge = "9" * 5000
    text = f'[{json.dumps(PLAIN)},\n{{"prompt": {huge}}}, 7,\n{{"prompt":"p","response_a":"a","response_b":NaN}}]'
    (tmp_path / "p.json").write_text(text)
    rows = load(tmp_path / "p.json")
    assert len(pairs_of(rows[:1])) == 1
    assert [(reject.line, reject.reason) for reject in rejects_of(rows)] == [
        (2, "no response_a and response_b; the row has the columns prompt"),
        (2, "the row is a number; expected an object with columns"),
        (3, "response_b is a number; expected a text"),
    ]


def test_csv_with_faults(tmp_path: Path) -> None:
    lines = [b"id,prompt,response_a,response_b", b"1,p,a,b", b"2,p,a", b"3,p,a,b,c", b"4,p,\xff\xfe,b", b"5,p,a,b"]
    (tmp_path / "p.csv").write_bytes(b"\r\n".join(lines))
    rows = load(tmp_path / "p.csv")
    assert [(row[0], row[1].id) for row in rows if not isinstance(row, Reject)] == [(2, "1"), (6, "5")]
    assert [(reject.line, reject.reason) for reject in rejects_of(rows)] == [
        (3, "3 cells; the header has 4"),
        (4, "5 cells; the header has 4"),
        (5, "invalid UTF-8"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b"", "p.jsonl: the file is empty; expected one row a line"),
        ("p.txt", b"x", r"p.txt: unknown ending; expected .jsonl, .jsonl.gz, .json, .csv or .parquet"),
        ("p.parquet", b"PAR1 nothing", "p.parquet: not a Parquet file"),
        ("absent.jsonl", None, r"absent.jsonl: no such file, and not a hub dataset"),
        ("absent", None, r"absent: no such file, and not a hub dataset"),
        (".", None, r"not a saved dataset \(no state.json\)"),
    ],
)
def test_files_that_cannot_be_opened(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_source(str(tmp_path / name))
