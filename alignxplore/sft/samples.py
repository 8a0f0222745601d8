"""What the model writes for a few held-out prompts at each evaluation, and the share of it that breaks the format.

    samples.jsonl     step, number of the held-out row, text, problem (null: well-formed)
    log.jsonl         {"step", "bad_format", "samples", "seconds"}

Used by `trainer.py`. Sampled as in eval/ (temperature 0.6, top_p 0.95, top_k 20), the same draws at each evaluation.
"""

from pathlib import Path

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback
from trl.models import unwrap_model_for_generation

from alignxplore.prompts import parse_answer
from alignxplore.step_log import StepLog
from alignxplore.summarize import Sampling

FILE = "samples.jsonl"


def prompts_of(rows: Dataset, count: int) -> list[list[int]]:
    """Tokens of the first rows, up to what is trained."""
    head = rows.select(range(min(count, len(rows))))
    return [row["input_ids"][: next(i for i, label in enumerate(row["labels"]) if label != -100)] for row in head]


class Samples(TrainerCallback):
    """Writes and counts them after each evaluation; all processes share the prompts.

    Args:
        new_tokens: the longest text; one that was cut off is bad format.
    """

    def __init__(
        self, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], new_tokens: int
    ):
        self.trainer, self.tokenizer, self.prompts, self.new_tokens = trainer, tokenizer, prompts, new_tokens

    def on_evaluate(self, args, state, control, **_):
        places = list(range(args.process_index, len(self.prompts), args.world_size))
        # Under ZeRO-3 all processes step through the tokens together: one without a prompt writes the first one, too.
        answers = self._write([self.prompts[i] for i in places or [0]])
        texts = gather_object(list(zip(places, answers)))
        if not state.is_world_process_zero:
            return
        rows = []
        for number, text in sorted(texts):
            rows.append(
                {"step": state.global_step, "row": number, "text": text, "problem": parse_answer(text).problem}
            )
        log = StepLog(Path(args.output_dir) / FILE)
        log.keep_until(state.global_step - 1)
        log.append(*rows)
        bad_share = sum(row["problem"] is not None for row in rows) / len(rows)
        self.trainer.run.log(
            {
                "step": state.global_step,
                "bad_format": bad_share,
                "samples": len(rows),
                "seconds": self.trainer.run.seconds(),
            }
        )
        example = repr(rows[0]["text"][:200])
        print(f"[sft] step {state.global_step}  bad format {bad_share:.0%} of {len(rows)}, e.g. {example}")

    def _write(self, prompts: list[list[int]]) -> list[str]:
        """One text a prompt; the training's own random numbers are left alone."""
        trainer, s = self.trainer, Sampling()
        width, pad = max(map(len, prompts)), self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=trainer.args.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=ids.device)
        devices = [ids.device] if ids.device.type == "cuda" else []
        with (
            unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
            torch.random.fork_rng(devices),
            torch.no_grad(),
            trainer.compute_loss_context_manager(),
        ):
            torch.manual_seed(s.seed)
            training = model.training
            model.eval()
            sequences = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=self.new_tokens,
                do_sample=True,
                temperature=s.temperature,
                top_p=s.top_p,
                top_k=s.top_k,
                pad_token_id=pad,
                eos_token_id=self.tokenizer.eos_token_id,
            )
            model.train(training)
        return [self._text(row[width:].tolist()) for row in sequences]

    def _text(self, ids: list[int]) -> str:
        end = self.tokenizer.eos_token_id
        return self.tokenizer.decode(ids[: ids.index(end)] if end in ids else ids, skip_special_tokens=False)
