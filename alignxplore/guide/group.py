"""One user's stream of RL with the models of a finished quick start, in this process: prompts, rollouts, rewards,
returns and advantages by the very code that trains. Only the engines are others: transformers writes and reads where
vLLM does in training, so the draws of sampling are others too. Suffix of arrays: `V` vocabulary.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignxplore.judging.letter_tokens import find_letters
from alignxplore.prompts import PromptSet
from alignxplore.records import Interaction
from alignxplore.rl.chain import Chain, ChainRunner, Generation, Group, Prompt
from alignxplore.rl.dataset import cut_stages
from alignxplore.rl.reward import Reward
from alignxplore.rl.settings import Streaming


class LocalModel:
    """A model folder, in float32 on the CPU."""

    def __init__(self, folder: Path):
        self.name = folder.name
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.prompts = PromptSet()


class LocalPolicy(LocalModel):
    """Writes; the seed decides what is drawn."""

    def __init__(self, folder: Path, max_tokens: int):
        super().__init__(folder)
        self.max_tokens = max_tokens

    async def prompt(self, interactions: Sequence[Interaction], past_summary: str | None) -> Prompt:
        """Token ids of the *infer* prompt."""
        messages = self.prompts.infer(interactions, past_summary)
        ids = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=True
        )
        return Prompt(list(ids), 0)

    async def write(self, prompt: Prompt, seed: int) -> Generation:
        """One answer at temperature 1."""
        torch.manual_seed(seed)
        with torch.inference_mode():
            ids = self.model.generate(
                torch.tensor([prompt.ids]), do_sample=True, top_k=0, max_new_tokens=self.max_tokens
            )[0, len(prompt.ids) :].tolist()
        return Generation(ids, None, self.tokenizer.decode(ids, skip_special_tokens=True), ())


class LocalJudge(LocalModel):
    """Reads the two letters, in both orders."""

    async def score(
        self, summary: str | None, target: Interaction, group: Sequence[object], rollout: int = 0
    ) -> Reward:
        """See `alignxplore.rl.reward.Judges.score`."""
        return Reward(self.p_chosen(summary, target), by_judge={self.name: [self.p_chosen(summary, target)]})

    def p_chosen(self, summary: str | None, target: Interaction) -> float:
        """Mean probability of the chosen item over both orders."""
        chosen, rejected = target.items
        p_a_when_first = self._letter_a(self.prompts.judge(summary, target.query, chosen, rejected))
        p_a_when_second = self._letter_a(self.prompts.judge(summary, target.query, rejected, chosen))
        return (p_a_when_first + 1 - p_a_when_second) / 2

    def _letter_a(self, messages: list[dict[str, str]]) -> float:
        letters = find_letters(self.tokenizer)
        ids = self.tokenizer.apply_chat_template(
            [*messages, {"role": "assistant", "content": letters.prefill}],
            tokenize=True,
            return_dict=False,
            add_generation_prompt=False,
            continue_final_message=True,
            enable_thinking=False,
        )
        with torch.inference_mode():
            logits_V = self.model(torch.tensor([ids])).logits[0, -1]
        return float(logits_V[list(letters.tokens)].softmax(-1)[0])


def run_chain(
    history: Sequence[Interaction], positions: Sequence[int], user: str, settings: Streaming, run: Path, tokens: int
) -> Chain:
    """The stream of one user at step 1: the SFT model writes, the judge of the reward reads."""
    policy, judge = LocalPolicy(run / "models/sft", tokens), LocalJudge(run / "models/judge")
    stages = cut_stages(history, positions, settings.targets)
    return asyncio.run(ChainRunner(user, stages, policy, judge, settings, 1, settings.rollouts).run())


def advantages(group: Group) -> list[float | None]:
    """What verl's GRPO makes of the returns of one group; None of what is not trained on."""
    import numpy as np
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    totals = [rollout.total for rollout in group.rollouts if rollout.total is not None]
    values, _ = compute_grpo_outcome_advantage(
        torch.tensor(totals)[:, None], torch.ones(len(totals), 1), np.array(["group"] * len(totals))
    )
    advantage_iterator = iter(values[:, 0].tolist())
    return [None if rollout.total is None else next(advantage_iterator) for rollout in group.rollouts]
