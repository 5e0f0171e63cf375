"""`--dry-run`: what a run would ask and read, without asking."""

from __future__ import annotations

from contextlib import closing, nullcontext

from rlaif.data.pairs import Reject
from rlaif.engines.chat import ChatTokenizer
from rlaif.engines.logprobs import longer_choices
from rlaif.errors import InputError
from rlaif.labeling.ask import chunks
from rlaif.labeling.run import LabelRun
from rlaif.labeling.settings import LabelSettings
from rlaif.store import Ledger
from rlaif.types import Frozen

_COUNTED_EXACTLY = 2_000
_CHARS_PER_TOKEN = 4.0


class DryRun(Frozen):
    """What would be asked. `prompt_tokens` is exact when `tokens_exact`, else projected from the text's length."""

    pairs: int
    rejected: int
    requests: int
    answered: int
    to_ask: int
    prompt_tokens: int
    most_new_tokens: int
    tokens_exact: bool


def count_requests(settings: LabelSettings) -> DryRun:
    """Count the requests and prompt tokens of a run, and how many are answered already.

    Raises:
        InputError: as `label` does; also for prompts whose responses are yet to be sampled.
    """
    if settings.policy is not None:
        raise InputError("--dry-run counts pairs; sample the responses first (rlaif generate), then label that file.")
    run = LabelRun(settings)
    engine, judge = run.resolve_judge()
    # Asks nothing, and is refused here as it would be there.
    run.calibration(judge)
    chat = None if engine == "server" else ChatTokenizer.load(judge.source, None)
    planner = run.planner(judge)
    pairs = rejected = requests = to_ask = chars = counted = counted_chars = tokens = 0
    path = settings.out / "judgments.db"
    with closing(Ledger(path)) if path.is_file() else nullcontext() as ledger:
        for part in chunks(run.rows(), 50):
            usable = [row[1] for row in part if not isinstance(row, Reject)]
            pairs, rejected = pairs + len(usable), rejected + len(part) - len(usable)
            asked = [request for pair in usable for request in planner.requests(pair)]
            requests += len(asked)
            if ledger is not None:
                missing = ledger.missing([request.key for request in asked])
                asked = [request for request in asked if request.key in missing]
            to_ask += len(asked)
            lengths = [sum(len(turn.content) for turn in request.messages) for request in asked]
            chars += sum(lengths)
            if chat is not None and counted < _COUNTED_EXACTLY:
                tokens += sum(map(len, chat.encode([chat.request_text(request) for request in asked])))
                counted, counted_chars = counted + len(asked), counted_chars + sum(lengths)
    head = run.template.head
    # A choice that longer ones begin with may take a second token to read.
    most_each = (settings.max_tokens if head.rationale else 0) + 1 + len(longer_choices(head.choices))
    rate = tokens / counted_chars if counted_chars else 1 / _CHARS_PER_TOKEN
    return DryRun(
        pairs=pairs,
        rejected=rejected,
        requests=requests,
        answered=requests - to_ask,
        to_ask=to_ask,
        prompt_tokens=tokens if counted == to_ask and chat else round(chars * rate),
        most_new_tokens=to_ask * most_each,
        tokens_exact=chat is not None and counted == to_ask,
    )
