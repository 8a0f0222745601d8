"""A user whom a colour describes, and a server that is teacher and judge in one."""

import math
import re

from alignxplore.judging.letters import find_letters
from alignxplore.records import Interaction

ITEMS = [Interaction(f"red thing {i}", f"blue thing {i}") for i in range(18)]
SURE = dict.fromkeys(range(18), 0.95)
GOOD = "<think>\nchooses red\n</think>\n\nLikes red."
MERGED = (
    "<joined_reasoning>\nchooses red\n</joined_reasoning>\n<joined_description>\nLikes red.\n</joined_description>"
)
MERGING = "Annotator 1 concluded"


def good(text: str) -> str:
    return MERGED if MERGING in text else GOOD


def leaking(text: str) -> str:
    """A teacher that names the items of some hints in its drafts, and repeats in a merge what its first draft said."""
    if MERGING in text:
        return MERGED.replace("chooses red", re.search(r"Annotator 1 reasoned:\n(.*)", text)[1])
    hint = re.search(r"^Item A: (\w+ thing (?:7|13))$", text, re.MULTILINE)
    return GOOD.replace("chooses red", f"chooses red, so {hint[1]}?") if hint else GOOD


def is_judge(body: dict) -> bool:
    return body.get("max_tokens") == 1


def asked(body: dict) -> str:
    """The question of a request."""
    return body["messages"][-2 if is_judge(body) else -1]["content"]


def hinted(body: dict) -> bool:
    """Is it one for a draft?"""
    return not is_judge(body) and "next have to choose" in asked(body)


class Models:
    """Teacher and judge in one: the judge follows the colour that the summary names; `say` is the teacher's answer."""

    def __init__(self, tokenizer, say=good):
        self.letters, self.say, self.asked = find_letters(tokenizer), say, []

    def __call__(self, body: dict) -> dict:
        text = body["messages"][-2 if is_judge(body) else -1]["content"]
        self.asked.append((is_judge(body), text))
        if not is_judge(body):
            answer = self.say(text)  # text, or the message's fields
            message = {"role": "assistant"} | (answer if isinstance(answer, dict) else {"content": answer})
            return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        colour = re.search(r"Likes (\w+)\.", text)
        sure = 0.9 if colour and re.search(rf"Item A: {colour[1]}", text) else 0.1 if colour else 0.5
        pairs = [(self.letters.tokens[0], sure), (self.letters.tokens[1], 1 - sure)]
        tops = [{"token": f"token_id:{token}", "logprob": math.log(p)} for token, p in pairs]
        content = [tops[0] | {"top_logprobs": tops}]
        return {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "A"}, "logprobs": {"content": content}}
            ]
        }
