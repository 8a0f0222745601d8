"""P(chosen | summary): the one judge, used to filter synthesis, as RL reward and in eval.

The downstream model's answer is prefilled with the start of the JSON (`{"selection": "Item`, cut where the tokenizer
itself cuts the whole answer) and one token is read: p = P(A) / (P(A) + P(B)), or one minus that. Both orders of the
two items are asked by default and averaged, so a judge that always says A scores exactly 50 %. Paper: reward and
evaluation sections; the published protocol samples 16 tokens in one order instead, and models that reason first have
no such position: both are asked in free form (`free_form.py`, `sampled.py`).
"""

import asyncio
import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from string import ascii_uppercase
from typing import Any

from transformers import PreTrainedTokenizerBase

from alignxplore.journal import REFUSED, TRANSPORT_ERROR
from alignxplore.judging.judgement import JudgeError, Judgement, PaperJudgement, Reading, Said, chosen_first, taken
from alignxplore.judging.letter_tokens import Letters, find_letters, letters_known, letters_of
from alignxplore.judging.sampled import ask_paper, check_written
from alignxplore.judging.together import LONGEST, MASKED, MAX_MASS, ONE_TOKEN, Together, mass_of
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction
from alignxplore.serving.endpoint import UNKNOWN_FIELD, Endpoint, RequestError, TransportError

MIN_MASS = 0.9
TOP = 20  # vLLM's limit of `top_logprobs`
_LOOKS = 5  # replies that the check at the start takes before it believes what it sees
ORDERS = ("both", "one")
MOST = len(ascii_uppercase)  # items in one question
WRITTEN = ", or have its written answers read: --judge_format"
_NEVER = -9999.0  # what vLLM writes for a probability of zero


class LetterReader(ABC):
    """A downstream model behind an endpoint, whose answer is read from the probabilities of one token of two.

    Args:
        endpoint: connected endpoint of the model.
        tokenizer: the tokenizer of that model.
        prompts: the prompt set.
        orders: "both", or "one" drawn from a hash of the key and `seed`.
        remedy: what to do about a server that cannot be asked for letters, besides serving the model with vLLM.
    """

    form = "plain"  # of its answers in protocol `paper`
    answer_tokens = 16  # of such an answer, at most
    least_mass = MIN_MASS

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSet,
        *,
        orders: str = "both",
        seed: int = 0,
        remedy: str = WRITTEN,
    ):
        if orders not in ORDERS:
            raise ValueError(f"orders must be one of {', '.join(ORDERS)}, not '{orders}'")
        self.endpoint, self.tokenizer, self.prompts = endpoint, tokenizer, prompts
        self.orders, self.seed, self.remedy = orders, seed, remedy
        self._together: Together | None = None  # once the server has shown that it can be asked so
        self._reads_ids: bool | None = None  # does the server report the log-probabilities of tokens named by id?
        self._probing: asyncio.Task[bool] | None = None
        self._prepare()

    def _prepare(self) -> None:
        self.letters = find_letters(self.tokenizer)

    @property
    def name(self) -> str:
        return self.endpoint.name

    @abstractmethod
    def sample_messages(self, context: Any, item: Interaction) -> Messages:
        """A prompt for `check`; `context` is what this kind of judge reads."""

    async def check(self, questions: Sequence[tuple[Any, Interaction]]) -> float:
        """Refuse a model that does not answer with a letter. Returns the mean mass on the two letters.

        Asked by token id where the server can: other requests of a batch may tear the most probable tokens.

        Raises:
            JudgeError: mass below 0.9 on average, the message then lists the most probable tokens; or above 1.
        """
        if not questions or any(item.rejected is None for _, item in questions):
            raise ValueError("a judge is checked on at least one interaction, each with an alternative")
        messages = [self.sample_messages(context, item) for context, item in questions]
        try:
            messages = await self._probe_any(messages)
        except RequestError as error:
            if "Out of range float" in str(error):  # vLLM, of what JSON has no sign for
                problem = "its probabilities are no numbers (NaN), as of weights that have diverged"
                raise JudgeError(f"{self.name} is no judge: {problem}; take an earlier checkpoint") from None
            if "continue_final_message" not in str(error) or not UNKNOWN_FIELD.search(str(error)):
                raise
            raise JudgeError(
                f"{self.name}: its server cannot be asked for the probability of a letter ({error}); serve the judge "
                f"with vLLM{self.remedy}"
            ) from None
        messages, looks = await taken(messages, lambda m: self._look(m, self._fields))
        mass = sum(map(self._mass, looks)) / len(looks)
        if mass > MAX_MASS:
            raise JudgeError(
                f"{self.name} is no judge: its letters have a probability of {mass:.3f}, so it reports no "
                "log-probabilities; serve it without --logprobs-mode"
            )
        if not mass >= MIN_MASS:  # nor if it is NaN
            raise JudgeError(
                f"{self.name} is no judge: only {mass:.3f} of its probability is on the letters after "
                f"{self.letters.prefill!r}; most probable: {await self._most_probable(messages[0])}"
            )
        return mass

    async def _both(self, build: Any, item: Interaction, key: Any) -> Judgement:
        if item.rejected is None:
            raise ValueError("only an interaction with an alternative can be judged")
        with_first = self.orders == "both" or chosen_first("judge order", key, self.seed)
        with_second = self.orders == "both" or not with_first
        pairs = [(item.chosen, item.rejected)] * with_first + [(item.rejected, item.chosen)] * with_second
        try:
            readings = await asyncio.gather(*(self._read(build(a, b)) for a, b in pairs))
        except TransportError as error:
            return Judgement(TRANSPORT_ERROR, error=str(error)[:300])
        except RequestError as error:
            return Judgement(REFUSED, error=str(error)[:300])
        masses = [reading.mass for reading in readings if reading.mass is not None]
        return Judgement(
            p_chosen_first=readings[0].p_a if with_first else None,
            p_chosen_second=1 - readings[-1].p_a if with_second else None,
            mass=sum(masses) / len(masses) if masses else None,
            unparsed=sum(reading.unread is not None for reading in readings),
            unread=tuple(reading.unread for reading in readings if reading.unread is not None),
        )

    async def _read(self, messages: Messages) -> Reading:
        logs, mass = await self._letters(messages)
        log_a, log_b = (logs.get(i, -math.inf) for i in self.letters.tokens)
        if math.isnan(log_a) or math.isnan(log_b) or max(log_a, log_b) == -math.inf:
            raise TransportError(f"{self.name}: neither letter in the reply, or not a number")
        return Reading(1 / (1 + math.exp(min(700.0, log_b - log_a))), mass)

    async def _letters(self, messages: Messages) -> tuple[dict[int, float], float]:
        """(log-probabilities by token id, mass of the letters). Of many letters some may be missing."""
        await self._find_out(messages)
        logs = None
        if self._together and sum(len(message["content"]) for message in messages) <= LONGEST:
            logs = await self._together.read(messages)
        if logs is None:
            logs = await self._ask(messages, self._fields)
        mass = self._mass(logs)
        if not all(i in logs for i in self.letters.tokens):
            # Letters outside the 20 best: ask for the letters alone, which hides their mass but never the 20 best.
            logs = await self._ask(
                messages, {"top_logprobs": TOP, "structured_outputs": {"choice": list(self.letters.texts)}}
            )
        return logs, mass

    @property
    def _fields(self) -> dict:
        """What the server is asked for: the two letters by id, or the most probable tokens."""
        return {"logprob_token_ids": list(self.letters.tokens)} if self._reads_ids else {"top_logprobs": TOP}

    def _mass(self, logs: dict[int, float]) -> float:
        return mass_of(logs[i] for i in self.letters.tokens if i in logs)

    async def _probe_any(self, messages: list[Messages]) -> list[Messages]:
        """Probe on the first prompt that the server takes; returns it and those after it."""
        for place, prompt in enumerate(messages):
            try:
                self._reads_ids = await self._probe(prompt, again=False)
                return messages[place:]
            except RequestError:
                if place + 1 == len(messages):
                    raise
        return messages

    async def _look(self, messages: Messages, fields: dict) -> dict[int, float]:
        """What the check at the start is told: a torn reply is asked for again a few times, and then taken."""
        logs: dict[int, float] = {}
        for _ in range(_LOOKS):
            logs = self._log_probabilities(await self._reply(messages, fields))
            if not self._torn(logs):
                break
        return logs

    async def _most_probable(self, messages: Messages) -> str:
        top = sorted((await self._look(messages, {"top_logprobs": TOP})).items(), key=lambda pair: -pair[1])[:8]
        return ", ".join(f"{self.tokenizer.decode([i])!r} {math.exp(min(log, 0.0)):.3f}" for i, log in top)

    def _torn(self, logs: dict[int, float]) -> bool:
        """Whether a reply lacks a letter for another reason than that it is improbable.

        vLLM 0.27.1 overwrites the most probable tokens of all requests in a batch that holds one with
        `logprob_token_ids`: few are left, and they stand beside -9999.
        """
        if all(logs.get(i, -math.inf) > MASKED for i in self.letters.tokens):
            return False
        return len(logs) < TOP or any(log <= MASKED for log in logs.values())

    async def _find_out(self, messages: Messages) -> None:
        """Probe, once for all questions that come before the answer: each probe copies the tokenizer.

        Raises:
            RequestError: this prompt is refused; those that waited probe with one of theirs.
            TransportError: no usable reply in the time given, which those that waited have waited as well.
        """
        while self._reads_ids is None:
            if is_own := self._probing is None:
                self._probing = asyncio.create_task(self._probe(messages))
            probing = self._probing
            try:
                self._reads_ids = await asyncio.shield(probing)  # who asked first may be cancelled, not the others
            except RequestError:
                if is_own:
                    raise
            finally:
                if probing.done() and self._probing is probing:
                    self._probing = None

    async def _probe(self, messages: Messages, again: bool = True) -> bool:
        """Whether the server reports log-probabilities of tokens named by id; also finds out whether it can be asked
        many questions together."""
        try:
            fields = {"logprob_token_ids": list(self.letters.tokens), "return_token_ids": True}
            reply = await self._reply(messages, fields, self._all_numbers if again else None)
        except RequestError:  # a server that refuses fields it does not know, or a prompt that is refused either way
            await self._reply(messages, {"top_logprobs": TOP}, self._all_numbers if again else None)
            return False
        logs = self._log_probabilities(reply)
        if not all(i in logs for i in self.letters.tokens):
            return False
        if "prompt_token_ids" in reply and reply["prompt_token_ids"] == (ids := self._ids(messages)):
            tokenizer = copy.deepcopy(self.tokenizer)  # one alone does not bear two threads
            together = Together(self.endpoint, self.letters.tokens, partial(self._ids, tokenizer=tokenizer))
            self._together = together if await together.agrees(ids, logs) else None
        return True

    def _ids(self, messages: Messages, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int]:
        """The prompt of a request, as the server should render it."""
        request = self.opened(messages)
        return (tokenizer or self.tokenizer).apply_chat_template(
            request["messages"],
            tokenize=True,
            return_dict=False,
            add_generation_prompt=request.get("add_generation_prompt", True),
            continue_final_message=request.get("continue_final_message", False),
            **request["chat_template_kwargs"],
        )

    def opened(self, messages: Messages) -> dict:
        """The request up to the position that is read: the answer, begun."""
        return {
            "messages": [*messages, {"role": "assistant", "content": self.letters.prefill}],
            "add_generation_prompt": False,
            "continue_final_message": True,
            "chat_template_kwargs": {"enable_thinking": False},
        }

    async def _ask(self, messages: Messages, fields: dict) -> dict[int, float]:
        """Log-probabilities by token id at the letter's place; a reply that cannot be believed is asked for again."""
        return self._log_probabilities(await self._reply(messages, fields, self._believed))

    async def _reply(self, messages: Messages, fields: dict, usable: Callable[[dict], None] | None = None) -> dict:
        return await self.endpoint.chat(
            **self.opened(messages),
            **ONE_TOKEN,
            logprobs=True,
            return_tokens_as_token_ids=True,
            usable=usable,
            **fields,
        )

    def _all_numbers(self, reply: dict) -> None:
        if any(math.isnan(value) for value in self._log_probabilities(reply).values()):
            raise TransportError(f"{self.name}: a log-probability that is not a number")

    def _believed(self, reply: dict) -> None:
        self._all_numbers(reply)
        logs = self._log_probabilities(reply)
        if self._torn(logs):
            raise TransportError(f"{self.name}: neither letter in the reply, or one that another request has torn")
        if self._mass(logs) > MAX_MASS:
            raise TransportError(f"{self.name}: letters with a probability of {self._mass(logs):.3f}")

    def _log_probabilities(self, reply: dict) -> dict[int, float]:
        try:
            entries = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            return {int(entry["token"].removeprefix("token_id:")): float(entry["logprob"]) for entry in entries}
        except (KeyError, IndexError, TypeError, ValueError):
            message = f"{self.name}: a reply without log-probabilities of token ids; serve the judge with vLLM"
            raise TransportError(message) from None


class Judge(LetterReader):
    """Reads a summary, or in its place a history, and names one of two or more items by a letter (templates `judge`,
    `direct` and `choose`)."""

    direct_purpose = "direct"
    reads_summaries = True
    sees_both = True
    most_choices: int | None = None
    most_tokens: int | None = None

    async def check_written(self, questions: Sequence[tuple[str | None, Interaction]]) -> float:
        """`check` for protocol `paper` alone, which reads no probabilities: any server will do."""
        return await check_written(self, [self.sample_messages(summary, item) for summary, item in questions])

    async def score(self, summary: str | None, item: Interaction, key: Any) -> Judgement:
        """P(chosen) of one interaction given only a summary. `key` draws the order when one order is asked; see
        `Judgement`."""
        return await self._both(lambda a, b: self.prompts.judge(summary, item.query, a, b), item, key)

    async def score_direct(self, history: Sequence[Interaction], item: Interaction, key: Any) -> Judgement:
        """The same with the raw history in the prompt (the direct setting)."""
        return await self._both(lambda a, b: self.prompts.direct(history, item.query, a, b), item, key)

    async def answer(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> Judgement:
        """`score`, or `score_direct` where there is a history."""
        return await (self.score(summary, item, key) if history is None else self.score_direct(history, item, key))

    async def select(
        self, summary: str | None, history: Sequence[Interaction] | None, item: Interaction, key: Any
    ) -> PaperJudgement:
        """The published protocol: the item that a sampled answer names."""
        return await ask_paper(self, summary, item, key, history)

    def direct_messages(self, history: Sequence[Interaction], item: Interaction) -> Messages:
        """A prompt of the direct setting, as long as any that is asked about this item."""
        return self.prompts.direct(history, item.query, *item.items)

    def sample_messages(self, summary: Any, item: Interaction) -> Messages:
        """A prompt for `check`."""
        return self.prompts.judge(summary, item.query, *item.items)

    @property
    def items_at_once(self) -> int:
        """26, or two where only A and B are tokens: these are asked about by the question about a pair."""
        return letters_known(self.tokenizer)

    def about(
        self, summary: str | None, history: Sequence[Interaction] | None, query: str | None, items: Sequence[str]
    ) -> Messages:
        """The question about so many items."""
        if self.items_at_once > 2:
            return self.prompts.choose(summary, history, query, list(zip(ascii_uppercase, items)))
        a, b = items
        if history is None:
            return self.prompts.judge(summary, query, a, b)
        return self.prompts.direct(history, query, a, b)

    async def say(self, messages: Messages, count: int) -> Said:
        """The log-probabilities of the first `count` letters."""
        await self._find_out(messages)
        letters = letters_of(self.tokenizer, ascii_uppercase[:count])
        reader = self if letters == self.letters else self._with(letters)
        log_of, mass = await reader._letters(messages)
        if absent_tokens := [i for i in letters.tokens if i not in log_of]:
            log_of |= await self._rest(messages, letters, absent_tokens, log_of)
        logs = [log_of.get(i, _NEVER) for i in letters.tokens]
        if any(map(math.isnan, logs)) or max(logs) <= _NEVER:
            raise TransportError(f"{self.name}: no letter in the reply, or not a number")
        return Said([max(_NEVER, log) for log in logs], mass)

    def _with(self, letters: Letters) -> "Judge":
        """The same judge, asked for other letters, each question in a request of its own."""
        judge = copy.copy(self)
        judge.letters, judge._together = letters, None
        return judge

    async def _rest(
        self, messages: Messages, letters: Letters, absent_tokens: Sequence[int], log_of: dict[int, float]
    ) -> dict[int, float]:
        """The letters that a reply of the 20 best lacks, asked for once more beside the most probable one."""
        anchor = max((i for i in letters.tokens if i in log_of), key=lambda i: log_of[i], default=None)
        if anchor is None:
            return {}
        texts = dict(zip(letters.tokens, letters.texts))
        choice = Letters(
            letters.prefill, (anchor, *absent_tokens), (texts[anchor], *(texts[i] for i in absent_tokens))
        )
        fields = {"top_logprobs": TOP, "structured_outputs": {"choice": list(choice.texts)}}
        answers = await self._with(choice)._ask(messages, fields)
        level = log_of[anchor] - answers.get(anchor, math.nan)
        return {i: answers[i] + level for i in absent_tokens if i in answers}
