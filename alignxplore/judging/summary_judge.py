"""Judges that see all items of a question beside a summary, and name one of them by a letter: how they are asked."""

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from alignxplore.judging.downstream import Downstream
from alignxplore.judging.judgement import Judgement, PaperJudgement
from alignxplore.judging.sampled import ask_paper, check_written
from alignxplore.prompts import Messages
from alignxplore.records import Interaction


class SummaryJudge(Downstream):
    """Reads a summary, or in its place a history, and names one of two or more items by a letter (templates `judge`,
    `direct` and `choose`)."""

    direct_purpose = "direct"
    reads_summaries = True
    sees_both = True

    async def score(self, summary: str | None, item: Interaction, key: Any) -> Judgement:
        """`answer` after a summary."""
        return await self.answer(summary, None, item, key)

    async def answer(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> Judgement:
        """P(chosen) of one interaction given only a summary, or the raw history (the direct setting)."""
        return await self._both(lambda a, b: self.prompts.pair(summary, history, item.query, a, b), item, key)

    async def select(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> PaperJudgement:
        """The published protocol: the item that a sampled answer names."""
        return await ask_paper(self, summary, item, key, history)

    async def check_written(self, questions: Sequence[tuple[str | None, Interaction]]) -> float:
        """`check` for protocol `paper` alone, which reads no probabilities: any server will do."""
        return await check_written(self, [self._sample(summary, item) for summary, item in questions])

    def about(
        self, summary: str | None, history: Sequence[Interaction] | None, query: str | None, items: Sequence[str]
    ) -> Messages:
        """The question about so many items."""
        if self.items_at_once > 2:
            return self.prompts.choose(summary, history, query, list(zip(ascii_uppercase, items)))
        a, b = items
        return self.prompts.pair(summary, history, query, a, b)

    def direct_messages(self, history: Sequence[Interaction], item: Interaction) -> Messages:
        """A prompt of the direct setting, as long as any that is asked about this item."""
        return self.prompts.direct(history, item.query, *item.items)

    def _sample(self, summary: str | None, item: Interaction) -> Messages:
        return self.prompts.judge(summary, item.query, *item.items)
