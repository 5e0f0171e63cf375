"""A dataset in parts: every row once, conversations whole, ids as in the whole, the same bytes each time."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.pairs import Reject, parse_columns, read_pairs
from rlaif.data.sources import open_source
from rlaif.errors import InputError, RunError
from rlaif.files import making_folder
from rlaif.labeling.settings import DataSettings
from rlaif.labeling.shard import Conversations, ShardSummary, shard
from rlaif.types import Pair
from tests.conftest import Cli, made_pairs, read_lines, write_lines
from tests.merging import varied_rows
from tests.processes import start


def read(path: Path | str, columns: str | None = None) -> tuple[list[Pair], list[Reject]]:
    """Pairs and rejects as `rlaif label` reads them."""
    rows = list(read_pairs(open_source(str(path)), parse_columns(columns)))
    return [row[1] for row in rows if not isinstance(row, Reject)], [row for row in rows if isinstance(row, Reject)]


def split(data: Path, parts: int, out: Path, **options: Any) -> ShardSummary:
    """Split a file."""
    return shard(DataSettings(data=str(data), **options), parts, out)


def conversation(pair: Pair) -> tuple[tuple[str, str], ...]:
    """What makes two prompts one conversation."""
    return tuple((turn.role, " ".join(turn.content.split())) for turn in pair.prompt)


@pytest.mark.parametrize("seed", range(6))
def test_every_pair_is_in_one_part_as_it_is_in_the_whole(seed: int, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", varied_rows(seed))
    pairs, rejects = read(data)
    assert rejects
    assert any("-" in pair.id for pair in pairs)
    parts = 1 + seed % 5
    summary = split(data, parts, tmp_path / "parts")
    assert (summary.rows, summary.rejected, len(summary.parts)) == (len(pairs), len(rejects), parts)
    found: list[Pair] = []
    home: dict[tuple[tuple[str, str], ...], str] = {}
    for part in summary.parts:
        mine, faults = read(part.file)
        assert not faults
        assert len(mine) == part.rows > 0
        assert len({conversation(pair) for pair in mine}) == part.conversations
        texts = [turn.content for pair in mine for turn in pair.prompt]
        texts += [text for pair in mine for text in (pair.response_a, pair.response_b)]
        assert sum(map(len, texts)) == part.characters
        assert all(home.setdefault(conversation(pair), part.file) == part.file for pair in mine)
        order = [pair.id for pair in pairs]
        assert [pair.id for pair in mine] == sorted((pair.id for pair in mine), key=order.index)
        found += mine
    assert Counter(pair.model_dump_json() for pair in found) == Counter(pair.model_dump_json() for pair in pairs)
    told = [(line["line"], line["reason"]) for line in read_lines(tmp_path / "parts" / "rejects.jsonl")]
    assert told == [(reject.line, reject.reason) for reject in rejects]


def test_parts_are_about_equally_much_work(tmp_path: Path) -> None:
    draws = random.Random(7)
    rows = [
        {"prompt": f"{number}", "response_a": "a" * int(draws.paretovariate(1) * 300), "response_b": "b"}
        for number in range(400)
    ]
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    loads = [part.characters + 2000 * part.rows for part in split(data, 7, tmp_path / "parts").parts]
    largest = max(len(row["response_a"]) + len(row["prompt"]) + 2001 for row in rows)
    # What giving the largest out first promises: no part is over its share by more than the last it was given.
    assert max(loads) <= max(largest, sum(loads) / 7 + 2000 + 300)
    assert sum(loads) == sum(len(row["response_a"]) + len(row["prompt"]) + 2001 for row in rows)


def test_the_same_call_makes_the_same_bytes_and_is_no_mistake(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", varied_rows(1))
    one, two = split(data, 3, tmp_path / "one"), split(data, 3, tmp_path / "two")
    assert [Path(part.file).read_bytes() for part in one.parts] == [Path(part.file).read_bytes() for part in two.parts]
    assert split(data, 3, tmp_path / "one") == one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "pairs.jsonl", "two"]


def test_every_format_makes_the_same_parts(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [{**row, "tags": None} for row in made_pairs(30)]
    plain = write_lines(tmp_path / "plain.jsonl", rows)
    expected = [Path(part.file).read_bytes() for part in split(plain, 4, tmp_path / "parts").parts]
    with gzip.open(tmp_path / "zipped.jsonl.gz", "wt") as file:
        file.write(plain.read_text())
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "question", "response_a", "response_b"])
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {"question": row["prompt"], **{name: row[name] for name in ("id", "response_a", "response_b")}}
            )
    (tmp_path / "array.json").write_text(json.dumps(rows))
    bare = [{name: value for name, value in row.items() if name != "tags"} for row in rows]
    Dataset.from_list(bare).to_parquet(str(tmp_path / "table.parquet"))
    Dataset.from_list(bare).save_to_disk(str(tmp_path / "saved"))
    for name in ("zipped.jsonl.gz", "table.csv", "array.json", "table.parquet", "saved"):
        columns = {"prompt": "question"} if name.endswith("csv") else {}
        summary = split(tmp_path / name, 4, tmp_path / f"parts of {name}", columns=columns)
        assert [Path(part.file).read_bytes() for part in summary.parts] == expected, name


def test_prompts_are_split_for_a_policy(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"Name {number % 8} rivers.", "tags": ["water"]} for number in range(12)]
    summary = split(write_lines(tmp_path / "prompts.jsonl", rows), 2, tmp_path / "parts")
    assert summary.prompts_only
    lines = [line for part in summary.parts for line in read_lines(Path(part.file))]
    assert sorted(line["prompt"][0]["content"] for line in lines) == sorted(row["prompt"] for row in rows)
    assert all(line.keys() == {"id", "prompt", "tags"} and line["tags"] == {"water": True} for line in lines)
    assert len({line["id"] for line in lines}) == 12
    assert "--policy MODEL" in summary.commands[0]
    assert "--data" not in summary.commands[-1]


def test_what_is_printed_next_are_commands(tmp_path: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "my pairs.jsonl", [*made_pairs(12), {"prompt": "Hello?"}])
    out = tmp_path / "my parts"
    done = rlaif("runs", "shard", data, "--parts", "10", "--out", out, "--limit", "11")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"11 pairs in 10 parts, 0 rows rejected -> {out}"
    assert f"  rlaif label '{out}/part-01-of-10.jsonl' --out 'runs/my parts'-01-of-10" in lines
    merge = f"  rlaif runs merge 'runs/my parts'-??-of-10 --data '{data}' --limit 11 --out 'runs/my parts'-merged"
    assert lines[-1] == merge
    done = rlaif("runs", "shard", data, "--parts", "2", "--out", tmp_path / "more", "--json")
    assert json.loads(done.stdout)["rejected"] == 1
    done = rlaif("runs", "shard", data, "--parts", "2", "--out", tmp_path / "more")
    assert done.stderr == f"Why rows were rejected, with their lines: {tmp_path}/more/rejects.jsonl\n"


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(5))
    with pytest.raises(InputError, match=r"has only 5 different prompts, .* give --parts 5 or fewer\.$"):
        split(data, 6, tmp_path / "parts")
    with pytest.raises(InputError, match=r"--parts 0: expected 1 to 500"):
        split(data, 0, tmp_path / "parts")
    useless = write_lines(tmp_path / "useless.jsonl", [{"prompt": 1, "response_a": "", "response_b": ""}])
    with pytest.raises(InputError, match=r"no row can be used; line 1: prompt is a number"):
        split(useless, 1, tmp_path / "parts")
    with pytest.raises(InputError, match="no such file"):
        split(tmp_path / "absent.jsonl", 1, tmp_path / "parts")
    with pytest.raises(InputError, match="a file; expected a folder"):
        split(data, 2, data)
    with pytest.raises(InputError, match=r"holds pairs.jsonl already; choose another --out"):
        split(data, 2, tmp_path)
    split(data, 2, tmp_path / "held")
    other = write_lines(tmp_path / "other.jsonl", made_pairs(6))
    with pytest.raises(InputError, match=r"holds another part-1-of-2.jsonl already"):
        split(other, 2, tmp_path / "held")
    with making_folder(tmp_path / "busy"), pytest.raises(RunError, match="another process is making it"):
        split(data, 2, tmp_path / "busy")
    (tmp_path / "busy").rmdir()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["held", "other.jsonl", "pairs.jsonl", "useless.jsonl"]


def test_data_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(5))
    (first, *others), _ = read(data)
    with closing(Conversations(open_source(str(data)))) as conversations:
        for pair in others:
            conversations.add(pair)
        conversations.share_out(2)
        with pytest.raises(RunError, match="changed while it was read; give the same command again"):
            conversations.part_of(first)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(400))
    out = tmp_path / "parts"
    arguments = ("runs", "shard", data, "--parts", "2", "--out", out)
    process = start(*arguments, limit_bytes=20_000)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(f"Error: {out}/part-")
    assert err.count("\n") == 1
    assert "cannot be written (File too large); free some space" in err
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]
    assert rlaif(*arguments).returncode == 0


def test_killed_it_leaves_no_folder_and_the_same_command_makes_it(tmp_path: Path, rlaif: Cli) -> None:
    data = write_lines(tmp_path / "pairs.jsonl", made_pairs(4000))
    out = tmp_path / "parts"
    arguments = ("runs", "shard", data, "--parts", "3", "--out", out)
    process = start(*arguments)
    while not (tmp_path / ".parts.unfinished").exists() and process.poll() is None:
        pass
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert not out.exists()
    assert rlaif(*arguments).returncode == 0
    assert sum(len(read_lines(out / f"part-{number}-of-3.jsonl")) for number in (1, 2, 3)) == 4000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "parts"]
