"""P(chosen | summary): the one judge, used to filter synthesis, as RL reward and in eval.

The downstream model's answer is prefilled with the start of the JSON (`{"selection": "Item`, cut where the tokenizer
itself cuts the whole answer) and one token is read: p = P(A) / (P(A) + P(B)), or one minus that. Both orders of the
two items are asked by default and averaged, so a judge that always says A scores exactly 50 %. Paper: reward and
evaluation sections; the published protocol samples 16 tokens in one order instead, and models that reason first have
no such position: both are asked in free form (`alignxplore/judging/free_form.py`).
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

from transformers import PreTrainedTokenizerBase

from alignxplore.errors import UserError
from alignxplore.journal import OK, REFUSED, TRANSPORT_ERROR
from alignxplore.judging.together import LONGEST, MASKED, ONE_TOKEN, Together
from alignxplore.prompts import Messages, PromptSet
from alignxplore.records import Interaction, hash_seed
from alignxplore.serving.endpoint import UNKNOWN_FIELD, Endpoint, RequestError, TransportError

TIE = 1e-6
MIN_MASS = 0.9
MAX_MASS = 1.01  # what rounding may add to a probability
TOP = 20  # vLLM's limit of `top_logprobs`
_LOOKS = 5  # replies that the check at the start takes before it believes what it sees
ORDERS = ("both", "one")


class JudgeError(UserError):
    """A judge that cannot be used as one. The message shows what it answered instead of a letter."""


@dataclass(frozen=True)
class Judgement:
    """How sure the downstream model is of the item the user chose.

    `p_chosen_first` is P(chosen) with the chosen item as A, `p_chosen_second` as B; None: that order was not asked.
    `mass` is the mean probability of the two letters together before renormalising (None: not known). `unparsed`
    counts the orders in which a free-form answer named no item, which is no opinion (0.5); `unread` are those answers.
    """

    status: str = OK
    p_chosen_first: float | None = None
    p_chosen_second: float | None = None
    mass: float | None = None
    error: str | None = None
    unparsed: int = 0
    unread: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def orders(self) -> tuple[float, ...]:
        return tuple(p for p in (self.p_chosen_first, self.p_chosen_second) if p is not None)

    @property
    def p(self) -> float:
        """Mean P(chosen) over the orders asked. Only a successful judgement has one."""
        if not self.ok:
            raise JudgeError(f"a failed judgement has no probability ({self.status}: {self.error})")
        return sum(self.orders) / len(self.orders)

    @property
    def correct(self) -> float:
        """1 if the chosen item is preferred, 0.5 within 1e-6 of a tie, else 0."""
        return correctness(self.p)

    @property
    def flipped(self) -> bool | None:
        """True if the two orders disagree about the item (position decided); None when only one was asked."""
        return None if len(self.orders) < 2 else (self.orders[0] > 0.5) != (self.orders[1] > 0.5)

    def row(self) -> dict:
        """JSON form, the inverse of `Judgement(**row)`."""
        return {name: value for name, value in asdict(self).items() if name != "unread" or value}


def chosen_first(purpose: str, key: Any, seed: int) -> bool:
    """Does the chosen item come first where one order is drawn? (`purpose`: "judge order", or "paper order".)"""
    return hash_seed(purpose, key, seed) % 2 == 0


def correctness(p: float) -> float:
    """P(chosen) → 1, 0.5 (tie) or 0."""
    return 0.5 if abs(p - 0.5) <= TIE else float(p > 0.5)


@dataclass(frozen=True)
class Letters:
    """Where the prefill ends and which token each letter is, as the judge's own tokenizer cuts the full answer."""

    prefill: str
    tokens: tuple[int, ...]
    texts: tuple[str, ...]


def find_letters(tokenizer: PreTrainedTokenizerBase, names: str = "AB") -> Letters:
    """Split `{"selection": "Item A"}` where the answers first differ in tokens (Qwen, SmolLM2: before ` A`/` B`)."""
    answers = [json.dumps({"selection": f"Item {letter}"}) for letter in names]
    ids = [tokenizer.encode(answer, add_special_tokens=False) for answer in answers]
    split = next((i for i, tokens in enumerate(zip(*ids)) if len(set(tokens)) > 1), 0)
    prefill = tokenizer.decode(ids[0][:split])
    # Decoded with what stands before it: a SentencePiece tokenizer drops the space of a token decoded alone.
    texts = tuple(tokenizer.decode(row[: split + 1]).removeprefix(prefill) for row in ids)
    if not answers[0].startswith(prefill + texts[0]) or [text.strip() for text in texts] != list(names):
        raise JudgeError(f"this tokenizer has no token of its own for the letter after {prefill!r}: it reads {texts}")
    return Letters(prefill, tuple(row[split] for row in ids), texts)


class Reading(NamedTuple):
    """What one question gave: P(A) renormalised over A and B, and the mass of both before (None: not known); `unread`:
    an answer in free form that names no item."""

    p_a: float
    mass: float | None
    unread: str | None = None


Q = TypeVar("Q")
T = TypeVar("T")


async def taken(questions: Sequence[Q], ask: Callable[[Q], Awaitable[T]]) -> tuple[list[Q], list[T]]:
    """The questions that the server takes, and what it answers to each. One that it refuses (an item longer than its
    window, say) tells nothing of the judge.

    Raises:
        RequestError: it takes none.
    """
    replies = await asyncio.gather(*map(ask, questions), return_exceptions=True)
    answers = [(asked, reply) for asked, reply in zip(questions, replies) if not isinstance(reply, BaseException)]
    for reply in replies:
        if isinstance(reply, BaseException) and (not answers or not isinstance(reply, RequestError)):
            raise reply
    return [asked for asked, _ in answers], [reply for _, reply in answers]


class Judge:
    """A downstream model behind an endpoint, whose answer is read from the letter's probabilities.

    Args:
        endpoint: connected endpoint of the model.
        tokenizer: the tokenizer of that model.
        prompts: the prompt set (`judge` and `direct` templates are used).
        orders: "both", or "one" drawn from a hash of the key and `seed`.
    """

    form = "plain"  # of its answers in protocol `paper`
    answer_tokens = 16  # of such an answer, at most
    direct_purpose = "direct"  # template of the direct setting
    sees_both = True  # items in one question, so that their places can matter

    def __init__(
        self,
        endpoint: Endpoint,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSet,
        *,
        orders: str = "both",
        seed: int = 0,
    ):
        if orders not in ORDERS:
            raise ValueError(f"orders must be one of {', '.join(ORDERS)}, not '{orders}'")
        self.endpoint, self.tokenizer, self.prompts = endpoint, tokenizer, prompts
        self.orders, self.seed = orders, seed
        self._together: Together | None = None  # once the server has shown that it can be asked so
        self._prepare()

    def _prepare(self) -> None:
        self.letters = find_letters(self.tokenizer)
        self._reads_ids: bool | None = None  # does the server report the log-probabilities of tokens named by id?

    @property
    def name(self) -> str:
        return self.endpoint.name

    async def score(self, summary: str | None, item: Interaction, key: Any) -> Judgement:
        """P(chosen) of one interaction given only a summary. `key` draws the order when one order is asked; see
        `Judgement`."""
        return await self._both(lambda a, b: self.prompts.judge(summary, item.query, a, b), item, key)

    async def score_direct(self, history: Sequence[Interaction], item: Interaction, key: Any) -> Judgement:
        """The same with the raw history in the prompt (the direct setting)."""
        return await self._both(lambda a, b: self.prompts.direct(history, item.query, a, b), item, key)

    def direct_messages(self, history: Sequence[Interaction], item: Interaction) -> Messages:
        """A prompt of the direct setting, as long as any that is asked about this item."""
        return self.prompts.direct(history, item.query, *item.items)

    def sample_messages(self, known: Any, item: Interaction) -> Messages:
        """A prompt for `check`; `known` is what this kind of judge reads (here a summary)."""
        return self.prompts.judge(known, item.query, *item.items)

    async def check(self, questions: Sequence[tuple[Any, Interaction]]) -> float:
        """Refuse a model that does not answer with a letter. Returns the mean mass on the two letters.

        Asked by token id where the server can: other requests of a batch may tear the most probable tokens.

        Raises:
            JudgeError: mass below 0.9 on average, the message then lists the most probable tokens; or above 1.
        """
        if not questions or any(item.rejected is None for _, item in questions):
            raise ValueError("a judge is checked on at least one interaction, each with an alternative")
        messages = [self.sample_messages(known, item) for known, item in questions]
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
                "with vLLM, or have its written answers read: --judge_format"
            ) from None
        messages, looks = await taken(messages, lambda m: self._look(m, self._how))
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
        first = self.orders == "both" or chosen_first("judge order", key, self.seed)
        second = self.orders == "both" or not first
        asked = [(item.chosen, item.rejected)] * first + [(item.rejected, item.chosen)] * second
        try:
            read = await asyncio.gather(*(self._read(build(a, b)) for a, b in asked))
        except TransportError as error:
            return Judgement(TRANSPORT_ERROR, error=str(error)[:300])
        except RequestError as error:
            return Judgement(REFUSED, error=str(error)[:300])
        masses = [reading.mass for reading in read if reading.mass is not None]
        return Judgement(
            p_chosen_first=read[0].p_a if first else None,
            p_chosen_second=1 - read[-1].p_a if second else None,
            mass=sum(masses) / len(masses) if masses else None,
            unparsed=sum(reading.unread is not None for reading in read),
            unread=tuple(reading.unread for reading in read if reading.unread is not None),
        )

    async def _read(self, messages: Messages) -> Reading:
        if self._reads_ids is None:
            self._reads_ids = await self._probe(messages)
        read = None
        if self._together and sum(len(message["content"]) for message in messages) <= LONGEST:
            read = await self._together.read(self._ids(messages))
        if read is None:
            read = await self._ask(messages, self._how)
        mass: float | None = self._mass(read)
        if not all(i in read for i in self.letters.tokens):
            # A letter outside the 20 best: ask for the two letters alone, which hides their mass but never a letter.
            read = await self._ask(
                messages, {"top_logprobs": TOP, "structured_outputs": {"choice": list(self.letters.texts)}}
            )
        log_a, log_b = (read.get(i, -math.inf) for i in self.letters.tokens)
        if math.isnan(log_a) or math.isnan(log_b) or max(log_a, log_b) == -math.inf:
            raise TransportError(f"{self.name}: neither letter in the reply, or not a number")
        return Reading(1 / (1 + math.exp(min(700.0, log_b - log_a))), mass)

    @property
    def _how(self) -> dict:
        """What the server is asked for: the two letters by id, or the most probable tokens."""
        return {"logprob_token_ids": list(self.letters.tokens)} if self._reads_ids else {"top_logprobs": TOP}

    def _mass(self, read: dict[int, float]) -> float:
        return sum(math.exp(min(read[i], 100.0)) for i in self.letters.tokens if i in read)

    async def _probe_any(self, messages: list[Messages]) -> list[Messages]:
        """Probe on the first prompt that the server takes; returns it and those after it."""
        for place, one in enumerate(messages):
            try:
                self._reads_ids = await self._probe(one, again=False)
                return messages[place:]
            except RequestError:
                if place + 1 == len(messages):
                    raise
        return messages

    async def _look(self, messages: Messages, how: dict) -> dict[int, float]:
        """What the check at the start is told: a torn reply is asked for again a few times, and then taken."""
        read: dict[int, float] = {}
        for _ in range(_LOOKS):
            read = self._log_probabilities(await self._reply(messages, how))
            if not self._torn(read):
                break
        return read

    async def _most_probable(self, messages: Messages) -> str:
        best = sorted((await self._look(messages, {"top_logprobs": TOP})).items(), key=lambda pair: -pair[1])[:8]
        return ", ".join(f"{self.tokenizer.decode([i])!r} {math.exp(min(log, 0.0)):.3f}" for i, log in best)

    def _torn(self, read: dict[int, float]) -> bool:
        """Whether a reply lacks a letter for another reason than that it is improbable.

        vLLM 0.27.1 overwrites the most probable tokens of all requests in a batch that holds one with
        `logprob_token_ids`: few are left, and they stand beside -9999.
        """
        if all(read.get(i, -math.inf) > MASKED for i in self.letters.tokens):
            return False
        return len(read) < TOP or any(log <= MASKED for log in read.values())

    async def _probe(self, messages: Messages, again: bool = True) -> bool:
        """Whether the server reports log-probabilities of tokens named by id; also finds out whether it can be asked
        many questions together."""
        try:
            asked = {"logprob_token_ids": list(self.letters.tokens), "return_token_ids": True}
            reply = await self._reply(messages, asked, self._all_numbers if again else None)
        except RequestError:  # a server that refuses fields it does not know, or a prompt that is refused either way
            await self._reply(messages, {"top_logprobs": TOP}, self._all_numbers if again else None)
            return False
        read = self._log_probabilities(reply)
        if not all(i in read for i in self.letters.tokens):
            return False
        if "prompt_token_ids" in reply and reply["prompt_token_ids"] == (ids := self._ids(messages)):
            together = Together(self.endpoint, self.letters.tokens)
            self._together = together if await together.agrees(ids, read) else None
        return True

    def _ids(self, messages: Messages) -> list[int]:
        """The prompt of a request, as the server should render it."""
        opened = self.opened(messages)
        return self.tokenizer.apply_chat_template(
            opened["messages"],
            tokenize=True,
            return_dict=False,
            add_generation_prompt=opened.get("add_generation_prompt", True),
            continue_final_message=opened.get("continue_final_message", False),
            **opened["chat_template_kwargs"],
        )

    def opened(self, messages: Messages) -> dict:
        """The request up to the position that is read: the answer, begun."""
        return {
            "messages": [*messages, {"role": "assistant", "content": self.letters.prefill}],
            "add_generation_prompt": False,
            "continue_final_message": True,
            "chat_template_kwargs": {"enable_thinking": False},
        }

    async def _ask(self, messages: Messages, how: dict) -> dict[int, float]:
        """Log-probabilities by token id at the letter's position. A reply without them, or whose numbers cannot be
        believed, is asked for again."""
        return self._log_probabilities(await self._reply(messages, how, self._believed))

    async def _reply(self, messages: Messages, how: dict, usable: Callable[[dict], None] | None = None) -> dict:
        return await self.endpoint.chat(
            **self.opened(messages),
            **ONE_TOKEN,
            logprobs=True,
            return_tokens_as_token_ids=True,
            usable=usable,
            **how,
        )

    def _all_numbers(self, reply: dict) -> None:
        if any(math.isnan(value) for value in self._log_probabilities(reply).values()):
            raise TransportError(f"{self.name}: a log-probability that is not a number")

    def _believed(self, reply: dict) -> None:
        self._all_numbers(reply)
        read = self._log_probabilities(reply)
        if self._torn(read):
            raise TransportError(f"{self.name}: neither letter in the reply, or one that another request has torn")
        if self._mass(read) > MAX_MASS:
            raise TransportError(f"{self.name}: letters with a probability of {self._mass(read):.3f}")

    def _log_probabilities(self, reply: dict) -> dict[int, float]:
        try:
            entries = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            return {int(entry["token"].removeprefix("token_id:")): float(entry["logprob"]) for entry in entries}
        except (KeyError, IndexError, TypeError, ValueError):
            message = f"{self.name}: a reply without log-probabilities of token ids; serve the judge with vLLM"
            raise TransportError(message) from None
