"""What the worked edit shows is what its prose tells; links; and how a page's commands are read and compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.console import Console, Step, difference, read_steps, rewritten
from tests.docs_pages import blocks_of, program_steps, rlaif_commands, with_programs_shown

PAGE = ROOT / "docs" / "editing.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

SMALL_PAGE = """\
# A page

```console
$ cat > a.txt <<'EOF'
$ 1 for an apple
EOF
$ cat a.txt
$ ls b.txt \\
    2> /dev/null
$ echo $?
2
```

```bash
echo not run
```

```console
$ printf 'two\\nlines\\n'
two
lines
```
"""


def shown_by(*words: str) -> list[str]:
    """What the page shows of each command that has all these words."""
    steps = read_steps(PAGE.read_text(encoding="utf-8"))
    outputs = [step.output for step in steps if all(word in step.command for word in words)]
    assert outputs
    return outputs


def test_the_figures_of_the_page_tell_what_its_prose_tells() -> None:
    broken, mended = shown_by("constitution lint")
    assert re.findall(r"^phone\.yaml:(\d+): error: ", broken, re.MULTILINE) == ["3", "14"]
    assert mended == "1 file: no problem found.\n"
    (cases,) = shown_by("constitution test")
    assert "phone: 2 of 2 cases passed (100%" in cases
    (cost,) = shown_by("--dry-run")
    outputs = [output for output in shown_by("rlaif label") if " judgments: " in output]
    asked = [re.findall(r"judgments: (\d+) asked, (\d+) reused", output) for output in outputs]
    # 40 pairs, three objectives, both orders; helpfulness, a third of them, shows the reworded principle.
    assert asked == [[("240", "0")], [("80", "160")], [("0", "240")]]
    assert "240 requests, 160 answered already, 80 to ask" in cost
    (moved,) = shown_by("constitution diff", "runs/hhh")
    flips = dict(re.findall(r"^(\w+) +40 +(\d+) ", moved, re.MULTILINE))
    assert int(flips["helpfulness"]) > 0
    assert flips["harmlessness"] == flips["honesty"] == "0"
    lean = re.search(r"^helpfulness +40 +[\d.]+% +[\d.]+% +(\d+) +(\d+) ", moved, re.MULTILINE)
    assert lean
    only_old_is_longer, only_new_is_longer = map(int, lean.groups())
    assert only_old_is_longer > only_new_is_longer
    assert "flip 1 of 2 shown: " in moved


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_linked_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_commands_are_read_with_their_continuations_and_output() -> None:
    assert read_steps(SMALL_PAGE) == [
        Step(4, "cat > a.txt <<'EOF'\n$ 1 for an apple\nEOF", ""),
        Step(7, "cat a.txt", ""),
        Step(8, "ls b.txt \\\n    2> /dev/null", ""),
        Step(10, "echo $?", "2\n"),
        Step(19, "printf 'two\\nlines\\n'", "two\nlines\n"),
    ]


def test_output_without_a_command_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2: output without a command"):
        read_steps("```console\nhello\n```\n")


def test_a_page_is_run_and_rewritten_with_what_it_prints(tmp_path: Path) -> None:
    page = SMALL_PAGE.replace("$ echo $?\n2\n", "$ echo $?\n7\n").replace("two\nlines\n", "old\n")
    printed = Console.fresh(tmp_path).follow(read_steps(page))
    # What cat prints looks like a command, so that it cannot be shown on a page.
    assert printed == ["", "$ 1 for an apple\n", "", "2\n", "two\nlines\n"]
    with pytest.raises(ValueError, match="looks like a command"):
        rewritten(page, printed)
    printed[1] = ""
    assert rewritten(page, printed) == SMALL_PAGE


def test_a_command_that_fails_unannounced_stops_the_page(tmp_path: Path) -> None:
    steps = [Step(3, "rlaif constitution lint nowhere.yaml", ""), Step(4, "ls", "")]
    with pytest.raises(AssertionError, match=r"line 3: \$ rlaif constitution lint nowhere\.yaml\n"):
        Console.fresh(tmp_path).follow(steps)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("p_a 0.503, gap 0.01", "p_a 0.504, gap 0.02", True),
        ("p_a 0.503", "p_a 0.505", False),
        ("p_a 0.503", "p_a 0.50", False),
        ("gap 0.999  case 1", "gap 1.000 case 1", True),
        ("80 asked", "81 asked", False),
        ("22.5%", "22.6%", False),
        ("version: 1.00.0", "version: 1.01.0", False),
        ("phone 1.1", "phone 1.2", False),
        ("1 passed in 0.51s", "1 passed in 61.42s (0:01:01)", True),
        ("1 passed in 0.51s", "2 passed in 0.51s", False),
        ("frozen, 5 members, 4 s", "frozen, 5 members, 61 s", True),
        ("frozen, 5 members, 4 s", "frozen, 6 members, 4 s", False),
        ("a line\n", "a line  \n", True),
        ("a line\n", "a line\nmore\n", False),
        ("a line\n\n", "a line\n", False),
        ("a  line", "a line", False),
        ("a line: 0.503", "a line: 0.503 0.503", False),
    ],
)
def test_only_last_digits_and_durations_may_differ(shown: str, printed: str, same: bool) -> None:
    assert (difference(Step(1, "cat", shown), printed) is None) is same


def test_decimals_may_all_be_others_where_that_is_said() -> None:
    step = Step(1, "rlaif score", "reward  +0.58 of 60\n")
    assert difference(step, "reward -1.3 of 60\n", any_decimals=True) is None
    assert difference(step, "reward -1.3 of 61\n", any_decimals=True)
    assert difference(step, "rewards -1.3 of 60\n", any_decimals=True)


def test_blocks_that_are_skipped_are_left_as_they_are() -> None:
    skip = {"$ printf 'two\\nlines\\n'"}
    assert [step.line for step in read_steps(SMALL_PAGE, skip)] == [4, 7, 8, 10]
    shown = rewritten(SMALL_PAGE, ["", "", "", "7\n"], skip)
    assert shown == SMALL_PAGE.replace("$ echo $?\n2\n", "$ echo $?\n7\n")


PROGRAM_PAGE = """\
```python
print(1 + 1)
```

```text
3
```

```python
answer = 42
```

Said below it:

```text
an illustration
```
"""


def test_programs_of_a_page_are_steps_whose_output_is_the_text_right_below() -> None:
    steps = program_steps(PROGRAM_PAGE)
    assert [(step.line, step.output) for step in steps] == [(2, "3\n"), (10, "")]
    assert with_programs_shown(PROGRAM_PAGE, ["2\n", ""]) == PROGRAM_PAGE.replace("3\n```", "2\n```", 1)


def test_indented_blocks_are_blocks_and_commands_are_found_in_any() -> None:
    (block,) = blocks_of("text\n\n    rlaif label pairs.jsonl \\\n        --out run\n")
    assert (block.line, block.language) == (3, "")
    assert [" ".join(command.split()) for command in rlaif_commands(block.text)] == [
        "rlaif label pairs.jsonl --out run"
    ]
