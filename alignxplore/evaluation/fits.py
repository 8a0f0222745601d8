"""What the stages of a summary are shown of a history: our way, and the published one for comparison with its tables.

ours        the slices of the protocol; each loses its oldest interactions until its prompt leaves room for the answer
published   the whole history is halved, newest part kept, until its prompt is below the window (streaming: below
            window / 1.2), and only then cut into slices; what an answer in bad format holds is handed on. Streams of
            selection and generation sets are not halved. A stage whose prompt does not fit, with which the published
            run ends, loses its oldest interactions

A row is *shown otherwise* if, given the same answers, the other way would have shown some stage anything else.
What a stage of a row was shown, whoever wants to know it learns from `stage_slices`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from alignxplore.history import HistoryError, halve, protocol_slices
from alignxplore.prompts import FORMATS, PromptSet
from alignxplore.records import Interaction
from alignxplore.summarize import Plan, StageSummary, count_tokens, fit_prompt

FITS = ("ours", "published")
STREAMING_SHARE = 1.2  # by which the published streams divide the window
T = TypeVar("T")


def fit_of(meta: Mapping[str, Any] | None) -> str:
    """The fit of a set of summaries (`SummarySet.meta`); an earlier version, which did not name it, had ours alone."""
    return (meta or {}).get("fit", FITS[0])


def stage_slices(fit: str, task: str, history: Sequence[T], drop_counts: Sequence[int]) -> list[tuple[T, ...]]:
    """What the stages of a finished summary were written from: of each a slice of the history, of which the stage was
    shown all but its oldest ones.

    Where the published fit halves, it leaves out the oldest interactions before it cuts. They are the beginning of the
    first slice, and among those that its stage dropped.

    Args:
        task: of the benchmark (`history.protocol_slices`).
        history: all of the record's interactions, oldest first, or their places.
        drop_counts: `dropped` of each stage of the row; where there are no stages, nothing was shown.
    """
    if not drop_counts:
        return []
    # A first stage drops nothing that halving left. A single slice of the other sets is all of a history anyway.
    older_count = drop_counts[0] if fit == "published" and task == "recommendation" else 0
    first, *others = protocol_slices(history[older_count:], task, len(drop_counts))
    return [(*history[:older_count], *first), *others]


def stage_excerpts(fit: str, task: str, history: Sequence[T], drop_counts: Sequence[int]) -> list[tuple[T, ...]]:
    """The interactions, or places, that each stage of a finished summary was shown (arguments of `stage_slices`)."""
    slices = stage_slices(fit, task, history, drop_counts)
    return [part[count:] for part, count in zip(slices, drop_counts)]


def read_interactions(fit: str, task: str, history: Sequence[T], row: Mapping[str, Any]) -> tuple[T, ...]:
    """All that the stages of a row of summaries were shown of a history, oldest first."""
    excerpts = stage_excerpts(fit, task, history, [stage["dropped"] for stage in row["stages"]])
    return tuple(x for excerpt in excerpts for x in excerpt)


class Fit:
    """The plans of one set of summaries.

    Args:
        task: of the benchmark (`history.protocol_slices`).
        setting: "full", or "streaming" in `stages` slices.
        window: tokens of prompt and answer together, of which an answer takes up to `max_tokens`.
        form: format of the policy's answers.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSet,
        *,
        task: str,
        setting: str,
        stages: int,
        window: int,
        max_tokens: int,
        form: str,
    ):
        self.tokenizer, self.prompts, self.form = tokenizer, prompts, form
        self.task, self.stages = task, stages
        self.window, self.max_tokens = window, max_tokens
        self.is_streaming = setting == "streaming"

    def plan(self, fit: str, history: Sequence[Interaction], whole_tokens: int | None = None) -> Plan:
        """What a history's stages are shown by one of `FITS`; `whole_tokens` are those of the prompt with all
        of it, if known.

        Raises:
            HistoryError: nothing of the history fits, or too little for thirds (published; ours finds out stage by
                stage, and shows one interaction of fewer than three).
        """
        if fit == "ours":
            return Plan(protocol_slices(history, self.task, self.stages), self.window - self.max_tokens)
        if self.is_streaming and self.task != "recommendation":
            return Plan(protocol_slices(history, self.task, self.stages), self.window - 1, as_it_is=True)
        half = halve(
            history,
            lambda xs: whole_tokens if whole_tokens and len(xs) == len(history) else self._tokens(xs),
            self.window / STREAMING_SHARE if self.is_streaming else self.window,
        )
        if self.task == "recommendation" and len(half.interactions) < 3:
            raise HistoryError(
                f"nothing is left to show: {len(half.interactions)} of {len(history)} interactions fit, and the "
                "first two thirds of them are none"
            )
        slices = protocol_slices(half.interactions, self.task, self.stages)
        return Plan(slices, self.window - 1, half.dropped, as_it_is=True)

    def shown_otherwise(
        self, plan: Plan, fit: str, history: Sequence[Interaction], stages: Sequence[StageSummary]
    ) -> bool:
        """Whether the other one of `FITS` would have shown some stage anything else than `plan`, which is of `fit`."""
        try:
            first = stages[0]
            whole_tokens = first.prompt_tokens if len(plan.slices[0]) - first.dropped == len(history) else None
            other = self.plan("published" if fit == "ours" else "ours", history, whole_tokens)
            excerpts = stage_excerpts(fit, self.task, history, [stage.dropped for stage in stages])
            return len(excerpts) != len(other.slices) or any(
                self._differs(plan, other, number, stages, excerpt) for number, excerpt in enumerate(excerpts)
            )
        except HistoryError:
            return True

    def _differs(
        self,
        plan: Plan,
        other: Plan,
        number: int,
        stages: Sequence[StageSummary],
        own_excerpt: tuple[Interaction, ...],
    ) -> bool:
        stage, last = stages[number], stages[number - 1] if number else None
        past, other_slice = other.past(last), tuple(other.slices[number])
        if past != plan.past(last):
            return True
        if own_excerpt == other_slice and stage.prompt_tokens <= other.budget:
            return False
        excerpt = fit_prompt(self.tokenizer, self.prompts, other_slice, past, other.budget, self.form)
        return own_excerpt != excerpt.interactions

    def _tokens(self, interactions: Sequence[Interaction]) -> int:
        return count_tokens(
            self.tokenizer, self.prompts.infer(interactions, None, self.form), FORMATS[self.form].reasons
        )
