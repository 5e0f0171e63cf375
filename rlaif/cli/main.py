"""`rlaif`: the commands, each loaded when it is used."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from rlaif.cli.lazy import LazyGroup
from rlaif.errors import Interrupted, RlaifError
from rlaif.version import __version__

_COMMANDS = {
    "label": ("rlaif.cli.label", "label_command", "Label preference data with a judge and a constitution."),
    "generate": ("rlaif.cli.generate", "generate_command", "Sample a policy's responses to prompts."),
    "revise": ("rlaif.cli.revise", "revise_command", "Write critiques and revisions, and the pairs they make."),
    "select": ("rlaif.cli.select", "select_command", "Pick the pairs most worth a person's time, with reasons."),
    "review": ("rlaif.cli.review", "review_command", "Label pairs by hand, on a local page."),
    "compare": ("rlaif.cli.compare", "compare_command", "Compare a judge's labels with people's."),
    "train-heads": ("rlaif.cli.train_heads", "train_heads_command", "Train reward heads from preference labels."),
    "evaluate": ("rlaif.cli.evaluate", "evaluate_command", "Measure trained heads on labels."),
    "score": ("rlaif.cli.score", "score_command", "Score responses with trained heads."),
    "reward": ("rlaif.cli.reward", "reward_group", "Use rewards, and see when they stop meaning what they should."),
    "export": ("rlaif.cli.export", "export_command", "Write labels or heads as other trainers take them."),
    "show": ("rlaif.cli.show", "show_command", "Show one pair of a run with its rationales, side by side."),
    "runs": ("rlaif.cli.runs", "runs_group", "Label on several machines without a cluster."),
    "constitution": ("rlaif.cli.constitution", "constitution_group", "Write, check, test and compare constitutions."),
    "prompt": ("rlaif.cli.prompt", "prompt_group", "Check templates, and look at the prompts a judge reads."),
}


@click.group(
    cls=LazyGroup,
    places=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="rlaif")
def cli() -> None:
    """Preference labels from a judge model and a constitution.

    \b
    Example:
      vllm serve Qwen/Qwen3-8B
      rlaif label pairs.jsonl --base-url http://127.0.0.1:8000 --out runs/first
      rlaif show runs/first ID
    """


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _end(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    # A model that is still loading or computing in a child process must not hold up the end.
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        # A stream that was closed before the start is None.
        if stream is not None:
            stream.flush()
    os._exit(code)


def main() -> None:
    """Run the command line; every error is one line, and `RLAIF_DEBUG=1` shows where it came from."""
    # A scheduler's SIGTERM ends a run as Ctrl-C does: what was answered is kept.
    signal.signal(signal.SIGTERM, _stop)
    debug = os.environ.get("RLAIF_DEBUG") == "1"
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RlaifError as error:
        if debug:
            raise
        if isinstance(error, Interrupted):
            _end(f"\n{error}", error.exit_code)
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _end("\nInterrupted; nothing that was written is lost. Give the same command to continue.", 1)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        fact = " ".join(str(error).split())[:300]
        click.echo(f"Error: unexpected {type(error).__name__}: {fact}. Set RLAIF_DEBUG=1 to see where.", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
