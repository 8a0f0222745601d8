"""What the policy is asked, tried before Ray starts: the prompt set, its tokenizer, its chat template, and whether it
was trained on these prompts."""

import sys

from omegaconf import DictConfig

from alignxplore.prompts import Messages, PromptSet
from alignxplore.rl.settings import SettingsError, Streaming
from alignxplore.serving.beforehand import check_template, other_wording, read_tokenizer


def check_prompts(settings: Streaming) -> Messages:
    """Raise `PromptError` where the prompt set cannot ask the policy or a judge; returns what the policy is asked."""
    prompts = PromptSet(settings.prompts)
    for summary, query in ((None, None), ("a", "b")):
        prompts.judge(summary, query, "a", "b")
    return prompts.try_out(settings.form)


def check_chat_template(config: DictConfig) -> None:
    """The policy's tokenizer can be read, and its chat template takes our prompts and leaves the reasoning to it.

    Raises:
        ModelError, SettingsError: what of it cannot be trained with.
    """
    model, settings = config.actor_rollout_ref.model, Streaming.from_config(config.streaming)
    tokenizer = read_tokenizer(model.get("tokenizer_path") or model.path)
    tokenizer.chat_template = model.get("custom_chat_template") or tokenizer.chat_template
    sample = check_prompts(settings)
    check_template(f"MODEL={model.path}", tokenizer, sample)
    prompt = tokenizer.apply_chat_template(
        sample, add_generation_prompt=True, tokenize=False, enable_thinking=settings.thinking
    )
    if prompt.rstrip().endswith("<think>"):
        raise SettingsError(
            f"MODEL={model.path}: its chat template opens the reasoning itself, so that every answer would be in bad "
            "format; take a model whose template does not (Qwen3-8B)"
        )


def note_other_wording(config: DictConfig) -> None:
    """Say on stderr that SFT, or an RL before this one, trained the policy on other prompts."""
    model = config.actor_rollout_ref.model.path
    if sentence := other_wording(model, PromptSet(config.streaming.prompts)):
        print(f"note: {sentence}", file=sys.stderr)
