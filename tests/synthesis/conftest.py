"""What the tests of synthesis share: a careful judge, a user's way through the rounds, options of a run."""

import math

import pytest

from alignxplore.judging.letters import find_letters
from alignxplore.world.text import item_values, summary_statements


class CarefulJudge:
    """A server that foresees a choice exactly as far as the summary tells."""

    def __init__(self, tokenizer):
        self.tokens = find_letters(tokenizer).tokens

    def __call__(self, body: dict) -> dict:
        summary, items = body["messages"][-2]["content"].split("\nItem A: ")
        value = {}
        for liked, disliked, strength in summary_statements(summary):
            value |= {liked: strength, disliked: -strength}
        a, b = (sum(value.get(v, 0) for v in item_values(text)) for text in items.split("\nItem B: "))
        p = 1 / (1 + math.exp(b - a))
        tops = [{"token": f"token_id:{token}", "logprob": math.log(q)} for token, q in zip(self.tokens, (p, 1 - p))]
        return {
            "choices": [
                {"index": 0, "message": {"content": "A"}, "logprobs": {"content": [tops[0] | {"top_logprobs": tops}]}}
            ]
        }


@pytest.fixture
def careful_judge(tokenizer) -> CarefulJudge:
    return CarefulJudge(tokenizer)


@pytest.fixture
def through(fake_server, tokenizer, tmp_path):
    """`await through(items, signal, say)` → (row of the user, the requests made)."""
    from alignxplore.journal import Journal
    from alignxplore.judging.letters import Judge
    from alignxplore.prompts import PromptSet
    from alignxplore.serving.endpoint import Endpoint
    from alignxplore.serving.models import Model
    from alignxplore.summarize import Sampling
    from alignxplore.synthesis.pipeline import journalled
    from alignxplore.synthesis.rounds import Thresholds, Workshop, synthesise_user
    from tests.synthesis.teachers import ITEMS, SURE, Models, good

    async def run(items=ITEMS, signal=SURE, say=good, window=16384):
        models = Models(tokenizer, say)
        async with fake_server(models) as server, Endpoint(server.url) as endpoint:
            with Journal(tmp_path / "calls.jsonl") as journal:
                teacher = Model("teacher", endpoint, tokenizer, "t")
                judge, sampling = Judge(endpoint, tokenizer, PromptSet()), Sampling(max_tokens=64)
                shop = Workshop(teacher, judge, PromptSet(), sampling, Thresholds(), window, journalled(journal), "x")
                return await synthesise_user(shop, "u", items, signal), models.asked

    return run


@pytest.fixture
def arguments(tmp_path, model_folder):
    """`arguments(url, users=2, **options)` → options of a run over users of whom every choice can be foreseen."""
    from alignxplore.benchmark_files import user_row
    from alignxplore.records import UserRecord, write_jsonl
    from alignxplore.synthesis.pipeline import SynthesisOptions
    from tests.synthesis.teachers import ITEMS

    def make(url: str, users: int = 2, **options) -> "SynthesisOptions":
        records = [UserRecord(f"u{n}", tuple(ITEMS[:17]), ITEMS[17]) for n in range(users)]
        write_jsonl(tmp_path / "users.jsonl", map(user_row, records))
        scores = [{"position": i, "p": 0.95} for i in range(18)]
        write_jsonl(
            tmp_path / "scores.jsonl", ({"id": record.id, "scores": scores, "dropped": 0} for record in records)
        )
        return SynthesisOptions(
            data=str(tmp_path / "users.jsonl"),
            scores=str(tmp_path / "scores.jsonl"),
            out=str(tmp_path / "out"),
            **{"teacher": f"m={url}#{model_folder}", "max_tokens": 64} | options,
        )

    return make
