"""`rlaif reward best-of-n`."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.options import counted, data_options, engine_options, json_option, progress, starter_note
from rlaif.cli.score import rows_progress, weights_option
from rlaif.cli.words import aligned, cut, share, word

if TYPE_CHECKING:
    from rlaif.agreement.results import Rate
    from rlaif.optimize.gains import BestOfN, Gain, Mean

_WIDTH = 80
_LONGEST = 24


@click.command("best-of-n", short_help="Sample responses and pick the best by reward.")
@click.argument("prompts")
@click.option("--heads", required=True, metavar="HEADS", help="The folder that rlaif train-heads wrote, or a hub id.")
@click.option("--out", required=True, metavar="FILE", help="JSON Lines, a line a prompt; the same command continues.")
@click.option("--policy", metavar="starter|HUB_ID|PATH", help="Sample it; without, PROMPTS hold responses.")
@click.option("--n", type=click.IntRange(2), help="Responses a prompt: 16 with --policy, else all that a row holds.")
@click.option(
    "--pick",
    metavar="RULE",
    help="weighted, pareto, lower-bound, worst-member, or an objective's name; else the heads' own rule.",
)
@click.option(
    "--k", type=click.FloatRange(0), default=1.0, show_default=True, help="Deviations that lower-bound takes off."
)
@weights_option
@click.option("--temperature", type=click.FloatRange(0, 10), default=1.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=512, show_default=True, help="Longest response.")
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="Tokens of a scored batch, padding counted.")
@click.option("--device", metavar="cpu|cuda|…", help="Of the heads: the GPU where there is one, else the CPU.")
@data_options
@engine_options
@json_option
def best_of_n_command(prompts: str, out: str, as_json: bool, **options: Any) -> None:
    """Pick the best of n responses to each row of PROMPTS by the rewards of trained heads.

    With --policy the responses are sampled, and kept as they come: the same command again continues, and with a larger
    --n samples only what is missing. Without it PROMPTS hold them already, a list `responses` a row (as rlaif generate
    writes them) or pairs.

    \b
    Rules (--pick):
      weighted      the weighted mean of the rewards
      pareto        of the Pareto front, what comes nearest to an ideal where it
                    falls shortest
      lower-bound   mean of the ensemble's members less --k of their deviations
      worst-member  what the member says that likes a response least
      OBJECTIVE     one objective's reward alone, without floors
    Floors go first, and of equally good responses the first is taken.

    \b
    Written beside OUT (picks.jsonl, say):
      picks.candidates.jsonl  all candidates with their rewards, for rlaif score
                              and rlaif reward overoptimize
      picks.responses.jsonl   what was sampled, and its ledger (.db)
      picks.rejects.jsonl     rows that cannot be used

    \b
    Examples:
      rlaif reward best-of-n prompts.jsonl --policy starter --heads heads --n 16 --out picks.jsonl
      rlaif reward best-of-n responses.jsonl --heads heads --pick worst-member --out picks.jsonl
    """
    from rlaif.optimize.best_of_n import best_of_n

    note = starter_note(options) if options["policy"] else None
    with _Shown(note) as shown:
        found = best_of_n(prompts, out, watch_samples=shown.samples, watch_scores=shown.scores, **options)
    if found.truncated:
        click.echo(
            f"Note: {counted(found.truncated, 'conversation')} cut to the longest length the heads take; the end, "
            "with the response, was kept.",
            err=True,
        )
    if as_json:
        click.echo(found.model_dump_json())
        return
    for line in picks_shown(found):
        click.echo(line)


class _Shown(ExitStack):
    """Progress of the samples, and when scores come that of the rows in its place: a terminal has room for one bar."""

    def __init__(self, note: str | None) -> None:
        super().__init__()
        self.samples = self.enter_context(progress("prompts", note))
        self._rows: Callable[[int, int | None], None] | None = None
        self._scoring = False

    def scores(self, done: int, total: int | None) -> None:
        """Tell how many rows are scored."""
        if not self._scoring:
            self._scoring = True
            self.close()
            self._rows = self.enter_context(rows_progress())
        if self._rows is not None:
            self._rows(done, total)


def picks_shown(found: BestOfN) -> Iterator[str]:
    """The lines of a summary."""
    least, most = found.n
    of = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    yield f"{counted(found.prompts, 'pick')} of {counted(found.responses, 'candidate')} -> {word(found.out)}"
    if found.policy is not None:
        yield f"{found.asked:,} asked, {found.reused:,} reused, {found.rejected:,} rows rejected"
    else:
        yield f"{counted(found.rejected, 'row')} rejected"
    rule = f"{found.rule} with k = {found.k:g}" if found.k is not None else found.rule
    yield f"Rule {rule}; {of} a prompt, {found.distinct:.1f} of them different; KL at most {found.kl:.2f} nats."
    yield ""
    named = (("reward", found.reward), *found.objectives.items())
    rows = [[cut(name, _LONGEST), *_gain(one)] for name, one in named]
    for line in aligned(("", "picks", "candidates", "gain", "95% interval"), rows):
        yield f"  {line}".rstrip()
    yield ""
    for name, one in found.below_floors.items():
        yield from _wrapped(
            f"Under the floor of {name}: {_rate(one.picks)} of picks, {share(one.candidates)} of candidates."
        )
    others = ", ".join(f"{name} {_rate(rate)}" for name, rate in found.other_pick.items())
    yield from _wrapped(f"Prompts where another rule picks another response: {others}.")
    yield from _wrapped(
        "Rewards are in standard deviations, and the same heads chose and measure: what the gain is worth by another "
        "measure, rlaif reward overoptimize tells."
    )


def _gain(found: Gain) -> list[str]:
    return [_mean(found.picks), _mean(found.candidates), _mean(found.gain), _ci(found.gain)]


def _mean(found: Mean) -> str:
    return f"{found.mean:+.2f}"


def _ci(found: Mean) -> str:
    return "-" if found.ci is None else f"{found.ci[0]:+.2f} to {found.ci[1]:+.2f}"


def _rate(found: Rate) -> str:
    return share(found.value)


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
