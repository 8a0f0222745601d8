"""The probabilities of letters as answers: a server is asked for them in the best way that it knows.

Where it reports tokens by their ids it is asked for these, many prompts at a time if it can (`together.py`); else for
the twenty most probable ones, and then for the letters that are not among them.
"""

import asyncio
import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from transformers import PreTrainedTokenizerBase

from alignxplore.judging.judgement import JudgeError, Reading, Said, taken
from alignxplore.judging.letter_tokens import Letters
from alignxplore.judging.next_token import MOST_PROBABLE, NextToken
from alignxplore.judging.together import LONGEST, MAX_MASS, Together
from alignxplore.prompts import Messages
from alignxplore.serving.endpoint import UNKNOWN_FIELD, Endpoint, RequestError, TransportError

MIN_MASS = 0.9
WRITTEN = ", or have its written answers read: --judge_format"
_NEVER = -9999.0  # what vLLM writes for a probability of zero


class TokenReader:
    """Reads the probabilities of letters at one position of a model's answers.

    Args:
        endpoint: connected endpoint of the model.
        tokenizer: the tokenizer of that model.
        letters: the two that `read` compares.
        opened: a prompt and the start of its answer → the request up to the position that is read.
        remedy: what to do about a server that cannot be asked for letters, besides serving the model with vLLM.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: PreTrainedTokenizerBase,
        letters: Letters,
        opened: Callable[[Messages, str], dict],
        remedy: str = WRITTEN,
    ):
        self.tokenizer, self.remedy = tokenizer, remedy
        self._chat = NextToken(endpoint, letters, opened)
        self._together: Together | None = None  # once the server has shown that it can be asked so
        self._reads_ids: bool | None = None  # does the server report the log-probabilities of tokens named by id?
        self._probing: asyncio.Task[bool] | None = None

    async def check(self, prompts: Sequence[Messages]) -> float:
        """Refuse a model that does not answer with a letter. Returns the mean mass on the two letters.

        Asked by token id where the server can: other requests of a batch may tear the most probable tokens.

        Raises:
            JudgeError: mass below 0.9 on average, the message then lists the most probable tokens; or above 1.
        """
        name = self._chat.endpoint.name
        try:
            prompts = await self._probe_any(prompts)
        except RequestError as error:
            if "Out of range float" in str(error):  # vLLM, of what JSON has no sign for
                problem = "its probabilities are no numbers (NaN), as of weights that have diverged"
                raise JudgeError(f"{name} is no judge: {problem}; take an earlier checkpoint") from None
            if "continue_final_message" not in str(error) or not UNKNOWN_FIELD.search(str(error)):
                raise
            raise JudgeError(
                f"{name}: its server cannot be asked for the probability of a letter ({error}); serve the judge "
                f"with vLLM{self.remedy}"
            ) from None
        prompts, looks = await taken(prompts, lambda prompt: self._chat.look(prompt, self._fields(self._chat)))
        mass = sum(map(self._chat.mass, looks)) / len(looks)
        if mass > MAX_MASS:
            raise JudgeError(
                f"{name} is no judge: its letters have a probability of {mass:.3f}, so it reports no "
                "log-probabilities; serve it without --logprobs-mode"
            )
        if not mass >= MIN_MASS:  # nor if it is NaN
            raise JudgeError(
                f"{name} is no judge: only {mass:.3f} of its probability is on the letters after "
                f"{self._chat.letters.prefill!r}; most probable: {await self._most_probable(prompts[0])}"
            )
        return mass

    async def read(self, messages: Messages) -> Reading:
        """The probability of the first of the two letters."""
        logs, mass = await self._ask(self._chat, messages)
        log_a, log_b = (logs.get(i, -math.inf) for i in self._chat.letters.tokens)
        if math.isnan(log_a) or math.isnan(log_b) or max(log_a, log_b) == -math.inf:
            raise TransportError(f"{self._chat.endpoint.name}: neither letter in the reply, or not a number")
        return Reading(1 / (1 + math.exp(min(700.0, log_b - log_a))), mass)

    async def read_all(self, messages: Messages, letters: Letters) -> Said:
        """The log-probabilities of other letters, of which there may be more than two."""
        chat = replace(self._chat, letters=letters)
        log_of, mass = await self._ask(chat, messages)
        if not chat.has_all(log_of):
            log_of |= await self._rest(chat, messages, log_of)
        logs = [log_of.get(i, _NEVER) for i in letters.tokens]
        if any(map(math.isnan, logs)) or max(logs) <= _NEVER:
            raise TransportError(f"{chat.endpoint.name}: no letter in the reply, or not a number")
        return Said([max(_NEVER, log) for log in logs], mass)

    async def _ask(self, chat: NextToken, messages: Messages) -> tuple[dict[int, float], float]:
        """(log-probabilities by token id, mass of the letters). Of many letters some may be missing."""
        await self._find_out(messages)
        logs = None
        if self._together and chat == self._chat and sum(len(message["content"]) for message in messages) <= LONGEST:
            logs = await self._together.read(messages)
        if logs is None:
            logs = await chat.ask(messages, self._fields(chat))
        mass = chat.mass(logs)
        if not chat.has_all(logs):  # some are outside the 20 best, of which a choice lets each be
            logs = await chat.ask(messages, chat.choice)
        return logs, mass

    async def _rest(self, chat: NextToken, messages: Messages, log_of: dict[int, float]) -> dict[int, float]:
        """The letters that a reply of the 20 best lacks, asked for once more beside the most probable one."""
        letters, texts = chat.letters, dict(zip(chat.letters.tokens, chat.letters.texts))
        absent_tokens = [i for i in letters.tokens if i not in log_of]
        anchor = max((i for i in letters.tokens if i in log_of), key=lambda i: log_of[i], default=None)
        if anchor is None:
            return {}
        tokens = (anchor, *absent_tokens)
        others = replace(chat, letters=Letters(letters.prefill, tokens, tuple(texts[i] for i in tokens)))
        answers = await others.ask(messages, others.choice)
        level = log_of[anchor] - answers.get(anchor, math.nan)
        return {i: answers[i] + level for i in absent_tokens if i in answers}

    def _fields(self, chat: NextToken) -> dict:
        """What the server is asked for: the letters by id, or the most probable tokens."""
        return chat.by_id if self._reads_ids else MOST_PROBABLE

    async def _most_probable(self, messages: Messages) -> str:
        top = sorted((await self._chat.look(messages, MOST_PROBABLE)).items(), key=lambda pair: -pair[1])[:8]
        return ", ".join(f"{self.tokenizer.decode([i])!r} {math.exp(min(log, 0.0)):.3f}" for i, log in top)

    async def _probe_any(self, prompts: Sequence[Messages]) -> Sequence[Messages]:
        """Probe on the first prompt that the server takes; returns it and those after it."""
        for place, prompt in enumerate(prompts):
            try:
                self._reads_ids = await self._probe(prompt, again=False)
                return prompts[place:]
            except RequestError:
                if place + 1 == len(prompts):
                    raise
        return prompts

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
        chat = self._chat
        try:
            reply = await chat.try_out(messages, chat.by_id | {"return_token_ids": True}, again)
        except RequestError:  # a server that refuses fields it does not know, or a prompt that is refused either way
            await chat.try_out(messages, MOST_PROBABLE, again)
            return False
        logs = chat.log_probabilities(reply)
        if not chat.has_all(logs):
            return False
        if "prompt_token_ids" in reply and reply["prompt_token_ids"] == (ids := self._ids(messages)):
            tokenizer = copy.deepcopy(self.tokenizer)  # one alone does not bear two threads
            together = Together(chat.endpoint, chat.letters.tokens, partial(self._ids, tokenizer=tokenizer))
            self._together = together if await together.agrees(ids, logs) else None
        return True

    def _ids(self, messages: Messages, tokenizer: PreTrainedTokenizerBase | None = None) -> list[int]:
        """The prompt of a request, as the server should render it."""
        request = self._chat.request(messages)
        return (tokenizer or self.tokenizer).apply_chat_template(
            request["messages"],
            tokenize=True,
            return_dict=False,
            add_generation_prompt=request.get("add_generation_prompt", True),
            continue_final_message=request.get("continue_final_message", False),
            **request["chat_template_kwargs"],
        )
