"""Every prompt of the project and the one parser of a model's answer. SFT, RL and eval render and parse through here.

A prompt set is a folder with one Jinja template a purpose (`infer.jinja`, `judge.jinja`, ...). In a template a line
`#--- system`, `#--- user` or `#--- assistant` opens a chat message; the cut is made before anything is filled in, so
no slot can open a message. Every filled slot passes through `break_markup`, so no slot can hold a control token.
`--prompt-set DIR` swaps the whole set, e.g. for the wording that a published checkpoint was trained on.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from alignxplore.errors import UserError
from alignxplore.records import Interaction, content_hash
from alignxplore.texts import mistaken, not_utf_8

SETS = Path(__file__).parent
SHORT = "short"  # the template that is added to infer where a summary is to be short
_TRIED = (Interaction("a", "b", "c"), Interaction("a"))  # what a row may have, and what it must
Messages = list[dict[str, str]]

# What chat formats write as control tokens: <|im_end|>, <｜User｜>, <think>, </s>, <start_of_turn>, <repo_name>,
# [INST], <<SYS>>.
_MARKUP = re.compile(
    r"<(?=[|｜])"
    r"|<(?=/?(?:think|answer|s|bos|eos|pad|unk|mask|cls|sep|filename|reponame|[a-z0-9]+(?:_[a-z0-9]+)+)>)"
    r"|\[(?=/?(?:INST|THINK|IMG|AUDIO|CLS|SEP|PAD|UNK|MASK|PREFIX|MIDDLE|SUFFIX|[A-Z]+(?:_[A-Z]+)+)\])"
    r"|<(?=<?/?SYS>)",
    re.IGNORECASE,
)
# What an expression of a template may raise: `None | length`, `1 / 0`, `"a".index("b")`.
_OF_TEMPLATES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
_EMPTY_BLOCK = re.compile(r"^\s*<think>\s*</think>")
_JOINED = re.compile(
    r"\s*<joined_reasoning>(.*)</joined_reasoning>\s*<joined_description>(.*)</joined_description>\s*", re.DOTALL
)
_WITNESS = re.compile(
    r"\bannotators?\b", re.IGNORECASE
)  # how the merge template calls those whose descriptions are joined
_ANSWER = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>(.*?)(?=<\|(?:start|channel|message|end|return|call)\|>|\Z)", re.DOTALL
)
_SECTION = re.compile(r"^#--- (system|user|assistant)$\n?", re.MULTILINE)
# The hardened set also takes the shape from what imitates our own markup or an answer.
_IMITATION = str.maketrans(
    {"<": "‹", ">": "›", "{": "(", "}": ")", "[": "(", "]": ")"}
    | dict.fromkeys("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", " ")
)


class PromptError(UserError, ValueError):
    """A prompt set that cannot be used: a missing template, a missing slot, no message. The message names the file."""


def break_markup(value: Any) -> Any:
    """Put a space into whatever a tokenizer could take for a control token; all other text is left as it is."""
    return _MARKUP.sub(lambda match: match.group() + " ", value) if isinstance(value, str) else value


def _inert(value: str) -> str:
    """Filter of the hardened set: one line, no brackets of any kind, so no label at a line's start."""
    return value.translate(_IMITATION)


class PromptSet:
    """The templates of one folder.

    Args:
        source: a folder, or the name of a set that comes with the project ("default", "hardened").
        summary_tokens: a policy is asked for a summary of at most so many tokens (template `short`); None: it is not.
    """

    def __init__(self, source: str | Path = "default", summary_tokens: int | None = None):
        folder = SETS / str(source)
        self.folder = folder if str(source).isidentifier() and folder.is_dir() else Path(source)
        if not any(self.folder.glob("*.jinja")):
            raise PromptError(f"{self.folder}: no *.jinja templates here; give a folder like {SETS / 'default'}")
        self.name, self.summary_tokens = self.folder.name, summary_tokens
        self._environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, finalize=break_markup, trim_blocks=True, lstrip_blocks=True
        )
        self._environment.filters["inert"] = _inert
        self._environment.globals["fence"] = lambda *parts: content_hash(parts, 8)
        self._sections: dict[str, list[tuple[str, jinja2.Template]]] = {}

    def _load(self, purpose: str) -> list[tuple[str, jinja2.Template]]:
        if purpose not in self._sections:
            path = self.folder / f"{purpose}.jinja"
            if not path.is_file():
                raise PromptError(f"{path}: no such template; the set '{self.name}' cannot be used for '{purpose}'")
            try:
                preamble, *pieces = _SECTION.split(path.read_text(encoding="utf-8-sig"))
            except UnicodeDecodeError as error:
                problem = mistaken(path.read_bytes()[:512]) or not_utf_8(error)
                raise PromptError(f"{path}: {problem}") from None
            if preamble.strip() or not pieces:
                raise PromptError(f"{path}: the first line must be '#--- system' or '#--- user'")
            sections = []
            lines = preamble.count("\n")  # of the file, before the section's own first line
            for role, text in zip(pieces[::2], pieces[1::2]):
                lines += 1
                try:
                    sections.append((role, self._environment.from_string(text.rstrip("\n"))))
                except jinja2.TemplateSyntaxError as error:
                    raise PromptError(f"{path}:{lines + error.lineno}: {error.message}") from None
                except RecursionError:
                    raise PromptError(f"{path}:{lines + 1}: brackets nested too deep in this section") from None
                lines += text.count("\n")
            self._sections[purpose] = sections
        return self._sections[purpose]

    def render(self, purpose: str, **slots: Any) -> Messages:
        """Chat messages of one purpose with its slots filled in."""
        sections = self._load(purpose)
        try:
            return [{"role": role, "content": template.render(**slots).rstrip("\n")} for role, template in sections]
        except (jinja2.TemplateError, *_OF_TEMPLATES) as error:
            problem = "a template of a prompt set cannot include others" if "no loader" in str(error) else error
            raise PromptError(f"{self.folder / purpose}.jinja: {problem}") from None

    def infer(
        self, interactions: Sequence[Interaction], past_summary: str | None = None, form: str = "think"
    ) -> Messages:
        """Ask the policy for a summary of `interactions`, on top of what an earlier stage wrote (None: first stage).

        `form` is the name of the format (`FORMATS`) in which this policy answers; templates also get `thinking`.
        """
        messages = self.render(
            "infer",
            interactions=interactions,
            past_summary=past_summary or None,
            form=form,
            thinking=FORMATS[form].reasons,
        )
        if self.summary_tokens is not None:
            (instruction,) = self.render(SHORT, tokens=self.summary_tokens)
            messages[-1]["content"] += "\n" + instruction["content"]
        return messages

    def try_out(self, form: str = "think") -> Messages:
        """The *infer* prompt of a made-up row, so that a template that cannot be filled is a `PromptError` before
        anything starts: without a question, without an item passed over, in the first stage and in a later one."""
        self.infer(_TRIED, "a", form)
        return self.infer(_TRIED, None, form)

    def judge(self, summary: str | None, query: str | None, item_a: str, item_b: str) -> Messages:
        """Ask the downstream model which item the user will choose, given only the summary."""
        return self.render("judge", summary=summary or None, query=query, item_a=item_a, item_b=item_b)

    def direct(self, interactions: Sequence[Interaction], query: str | None, item_a: str, item_b: str) -> Messages:
        """Ask the downstream model the same with the raw history instead of a summary (the direct setting)."""
        return self.render("direct", interactions=interactions, query=query, item_a=item_a, item_b=item_b)

    def pair(
        self,
        summary: str | None,
        interactions: Sequence[Interaction] | None,
        query: str | None,
        item_a: str,
        item_b: str,
    ) -> Messages:
        """`judge`, or `direct` where there is a history."""
        if interactions is None:
            return self.judge(summary, query, item_a, item_b)
        return self.direct(interactions, query, item_a, item_b)

    def choose(
        self,
        summary: str | None,
        interactions: Sequence[Interaction] | None,
        query: str | None,
        items: Sequence[tuple[str, str]],
    ) -> Messages:
        """Ask the downstream model which of several (letter, item) the user will choose, given a summary or, in its
        place, the raw history."""
        return self.render(
            "choose", summary=summary or None, interactions=interactions, query=query, items=list(items)
        )

    def hash(self, purpose: str) -> str:
        """Hash of one template's text; it goes into every output made with it."""
        self._load(purpose)
        digest = hashlib.sha256((self.folder / f"{purpose}.jinja").read_bytes()).hexdigest()[:12]
        if purpose == "infer" and self.summary_tokens is not None:
            return content_hash([digest, self.hash(SHORT), self.summary_tokens], 12)
        return digest

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Hash of every template of the set, by purpose."""
        return {path.stem: self.hash(path.stem) for path in sorted(self.folder.glob("*.jinja"))}


@dataclass(frozen=True)
class Answer:
    """A model's answer taken apart; `problem` says why it is bad format (None: well-formed)."""

    reasoning: str
    summary: str
    problem: str | None = None

    @property
    def well_formed(self) -> bool:
        return self.problem is None


def _one_block(text: str) -> Answer:
    """`<think>reasoning</think>summary`: exactly one think block, non-empty reasoning, non-empty summary."""
    if text.count("<think>") != 1 or text.count("</think>") != 1:
        is_unfinished = "<think>" in text and "</think>" not in text
        return Answer("", "", "unfinished reasoning" if is_unfinished else "not exactly one think block")
    preamble, body = text.split("<think>")
    if preamble.strip():
        return Answer("", "", "text before the think block")
    reasoning, summary = (part.strip() for part in body.split("</think>"))
    if not reasoning or not summary:
        return Answer("", "", "empty summary" if reasoning else "empty reasoning")
    return Answer(reasoning, summary)


def _opened_block(text: str) -> Answer:
    """`reasoning</think>summary`: the chat template wrote the opening tag, which is then no part of the answer."""
    return _one_block(text if "<think>" in text else f"<think>{text}")


def _answer_tag(text: str) -> Answer:
    """A think block (opened by the model or by its template), then `<answer>summary</answer>` and nothing else."""
    block = _opened_block(text)
    if block.problem:
        return block
    match = _ANSWER.fullmatch(block.summary)
    if match is None or not match[1].strip():
        return Answer("", "", "empty summary" if match else "not exactly one answer block")
    return Answer(block.reasoning, match[1].strip())


def _no_reasoning(text: str) -> Answer:
    """The whole answer is the summary, less an empty think block at its start (Qwen3 repeats its template's)."""
    summary = _EMPTY_BLOCK.sub("", text).strip()
    problem = "empty summary" if not summary else "reasoning in an answer without" if "think>" in summary else None
    return Answer("", "" if problem else summary, problem)


def _channels(text: str) -> Answer:
    """gpt-oss: reasoning in the analysis channel, the summary in the final one, which may also come alone.

    A server that takes the channels apart leaves the reasoning in a field of its own (`answer_text`), or nothing but
    the final channel; one that knows nothing of channels must be told to keep the control tokens.
    """
    if "<|channel|>" not in text:
        if "<think>" in text:
            return _one_block(text)
        has_lost_tokens = text.lstrip().startswith("analysis") or "assistantfinal" in text
        problem = (
            "channels without their control tokens" if has_lost_tokens else None if text.strip() else "empty summary"
        )
        return Answer("", "" if problem else text.strip(), problem)
    channels = [(name, words.strip()) for name, words in _CHANNEL.findall(text)]
    finals = [words for name, words in channels if name == "final"]
    if len(finals) != 1 or not finals[0]:
        return Answer(
            "",
            "",
            "unfinished reasoning"
            if not finals
            else "not exactly one final channel"
            if len(finals) > 1
            else "empty summary",
        )
    return Answer("\n".join(words for name, words in channels if name != "final"), finals[0])


class Format(NamedTuple):
    """How a family of models writes its answers.

    Attributes:
        parse: takes an answer's text apart.
        reasons: the chat template is asked for reasoning (`enable_thinking`), and an answer needs room for it.
        control_tokens: control tokens carry the format, so the server must not strip them.
    """

    parse: Callable[[str], Answer]
    reasons: bool = True
    control_tokens: bool = False


FORMATS = {
    "think": Format(_one_block),  # this project's policies, Qwen3 thinking
    "plain": Format(_no_reasoning, reasons=False),  # Qwen3 non-thinking, instruct models
    "r1": Format(_opened_block),  # DeepSeek-R1 and the models distilled from it
    "answer": Format(_answer_tag),  # AlignXplore
    "harmony": Format(_channels, control_tokens=True),  # gpt-oss
}


def parse_answer(text: str, form: str = "think") -> Answer:
    """Take the answer of a model apart that writes in the given format.

    What breaks the format is a recorded outcome with an empty summary, never an exception.
    """
    return FORMATS[form].parse(text)


def after_reasoning(text: str) -> str:
    """What stands after the last `</think>`, whatever it is: the published reading of an answer. Reasoning that was
    never closed is all of it."""
    return text.rpartition("</think>")[2].strip()


def parse_merge(text: str) -> Answer:
    """Take the answer to the merge template apart: the joined reasoning, the joined description, and nothing else.

    What a model thought of the task itself, in a block before them, is no part of either: it is thrown away.
    """
    match = _JOINED.fullmatch(text.rpartition("</think>")[2].strip().removeprefix("<think>"))
    if not match or any("joined_" in part for part in match.groups()):
        return Answer("", "", "not one joined reasoning and one joined description")
    if any(_WITNESS.search(part) for part in match.groups()):
        return Answer("", "", "names the annotators")
    return _one_block("<think>{}</think>{}".format(*match.groups()))


def answer_text(message: dict) -> str:
    """The whole answer as one text, also where the server already took the reasoning out into a field of its own.

    Reasoning with nothing after it was cut off: its block stays open.
    """
    content = message.get("content") or ""
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    if not reasoning:
        return content
    return f"<think>\n{reasoning}\n</think>\n\n{content}" if content else f"<think>\n{reasoning}"
