"""TRL's SFTTrainer with these changes: the rows of a step and their packs, a proof of the label mask and of the packs,
marks on whole checkpoints, no step too many.

Used by `sft.py`; it has no command of its own.
"""

import logging
import time
from pathlib import Path
from typing import NoReturn

import torch
from accelerate.utils import is_peft_model
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from trl import SFTTrainer

from alignxplore.errors import UserError, naming
from alignxplore.model_folders import share
from alignxplore.records import write_text
from alignxplore.sft.adapters import name_base_from_here
from alignxplore.sft.batches import Packs, PackSampler, StepSampler
from alignxplore.sft.configuration import spread
from alignxplore.sft.run_folder import RunError, RunFolder
from alignxplore.sft.saving import Saves, heedless
from alignxplore.sft.speed import Work
from alignxplore.sft.tokenised_set import row_lengths

CHECKED_BATCHES = 4  # micro-batches whose labels are proved at the start of every run, in each process
PROBE = 32  # tokens of two rows with which it is proved that packs keep rows apart
LEAK = 1e-4  # nats by which the loss of one may differ with the other: rounding; a real leak is tens of this and more


class LabelError(RuntimeError):
    """A batch that would train something else than the completion with its end of turn."""


class PackError(UserError):
    """Rows that would see each other."""


def generation_prompt(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that open the assistant's turn, e.g. `<|im_start|>assistant\\n`; empty where a template has none."""
    turn = [{"role": "user", "content": "x"}]
    turn_text = tokenizer.apply_chat_template(turn, tokenize=False)
    prompt_text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return (
        tokenizer(prompt_text.removeprefix(turn_text), add_special_tokens=False)["input_ids"]
        if prompt_text.startswith(turn_text)
        else []
    )


def check_labels(batch: dict[str, torch.Tensor], opening: list[int], end_of_turn: int) -> int:
    """Prove on a collated batch (plain, padded or packed) that each row trains its completion, end of turn included,
    and no more.

    Each document must be: masked tokens that end with the assistant's opening, then trained tokens up to the
    document's end, the end of turn among the last two. Returns the number of documents; raises LabelError.
    """
    documents = 0
    for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), batch["labels"].tolist())):
        if "position_ids" in batch:  # packed: a document starts where positions start again
            positions = batch["position_ids"][row].tolist()
            starts = [i for i, position in enumerate(positions) if position == 0]
            ends = [*starts[1:], len(ids)]
        else:
            starts, ends = [0], [int(batch["attention_mask"][row].sum())]
        if any(label != -100 for label in labels[ends[-1] :]):
            raise LabelError(f"row {row} trains padding")
        for start, end in zip(starts, ends):
            first_label = next((i for i in range(start, end) if labels[i] != -100), end)
            place = f"document {documents} of a batch"
            if first_label == end:
                raise LabelError(f"{place} trains nothing")
            if labels[first_label:end] != ids[first_label:end]:
                raise LabelError(
                    f"{place} has labels that are not its own next tokens, or masked ones within the completion"
                )
            if ids[max(start, first_label - len(opening)) : first_label] != opening:
                raise LabelError(f"{place} is not trained from the beginning of the assistant's turn")
            if end_of_turn not in ids[end - 2 : end]:
                raise LabelError(f"{place} does not train the end of turn")
            documents += 1
    return documents


def check_letters(batch: dict[str, torch.Tensor], letters: tuple[int, int]) -> int:
    """Prove on a batch of the signal model's streams that every label is a letter in its own place. Returns their
    number."""
    mask = batch["labels"] != -100
    labels, ids = batch["labels"][mask], batch["input_ids"][mask]
    if not mask.any(dim=-1).all() or not torch.isin(labels, torch.tensor(letters, device=labels.device)).all():
        raise LabelError("a stream of the batch trains something else than letters, or nothing")
    if not torch.equal(labels, ids):
        raise LabelError("a letter of the batch is not the label of its own token")
    return len(labels)


@torch.no_grad()
def check_apart(model: torch.nn.Module, device: torch.device) -> None:
    """Prove that a row of a pack does not see the one before it: its loss stays the same when that one changes.

    The loss and not the logits, for this is what is trained: under ZeRO-3 a forward pass fetches the modules that the
    one before it used, and must not meet one (the head) that the training leaves out or fetches by itself.

    Raises:
        PackError: it does not, as where attention drops the borders, or a model mixes tokens in another way, too.
    """
    half = PROBE // 2
    ids = torch.arange(PROBE, device=device).unsqueeze(0) + 1
    positions = torch.arange(half, device=device).repeat(2).unsqueeze(0)
    labels = ids.masked_fill(torch.arange(PROBE, device=device) <= half, -100)  # its first token follows the other row
    changed_ids = ids.clone()
    changed_ids[:, :half] += half
    training = model.training
    model.eval()  # dropout would differ from call to call
    loss, changed_loss = (
        model(input_ids=row, position_ids=positions, labels=labels, use_cache=False).loss for row in (ids, changed_ids)
    )
    model.train(training)
    if (loss - changed_loss).abs() > LEAK:
        raise PackError(
            "rows of a pack see each other with this model and --attn_implementation; take --packing out, or use "
            "flash_attention_2"
        )


def train_in_32_bits(model: torch.nn.Module, in_16_bits: bool) -> None:
    """Give what an adapter trains 32-bit weights: TRL makes those of a quantised model coarse, and peft leaves layers
    that are trained whole as the model has them. A step is smaller than what bf16 can tell apart.

    Args:
        in_16_bits: passes compute in 16 bits whatever the weights are; else whole layers must be as those around them.
    """
    for name, weights in model.named_parameters():
        if weights.requires_grad and (in_16_bits or "modules_to_save" not in name):
            weights.data = weights.data.float()


def undoubted(record: logging.LogRecord) -> bool:
    """Not what TRL fears of packs without flash attention: `check_apart` knows."""
    return "supported Flash Attention variant" not in str(record.msg)


class Trainer(SFTTrainer):
    """SFTTrainer on prepared rows (see module docstring).

    Args:
        letters: token ids of the two letters, for the streams of signal_model.py; None for prompt/completion rows.
    """

    def __init__(self, *, run: RunFolder, letters: tuple[int, int] | None = None, **arguments):
        self.run, self._letters, self._proofs_left = run, letters, CHECKED_BATCHES
        logging.getLogger("trl.trainer.sft_trainer").addFilter(undoubted)
        super().__init__(**arguments)
        if is_peft_model(self.model) and not self.args.deepspeed:  # which has 32-bit copies of its own
            train_in_32_bits(self.model, self.args.bf16 or self.args.fp16)
        self._opening = [] if letters else generation_prompt(self.processing_class)
        self.saves = Saves(self.args.save_minutes)
        self.add_callback(self.saves)
        self.steps_per_epoch = len(self.train_dataset) // self.args.effective_batch_size

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        if not self.args.packing:
            return super().get_train_dataloader()
        return self._get_dataloader(
            dataset=Packs(self.train_dataset),
            description="Training",
            batch_size=1,
            sampler_fn=lambda _: self._get_train_sampler(self.train_dataset),
            is_training=True,
        )

    def _get_dataloader(self, *arguments, **keywords) -> torch.utils.data.DataLoader:
        """Behind the loaders of training and evaluation alike: a SIGTERM comes in either."""
        loader = super()._get_dataloader(*arguments, **keywords)
        base = loader.base_dataloader  # accelerate's loader starts the workers of this one
        base.worker_init_fn = heedless(base.worker_init_fn)
        return loader

    def _get_train_sampler(self, train_dataset=None) -> StepSampler:
        args, lengths = self.args, row_lengths(train_dataset or self.train_dataset)

        def epoch() -> int:
            return self.state.global_step // self.steps_per_epoch

        order = (lengths, args.effective_batch_size, args.order_seed, epoch, args.longest_first)
        if not args.packing:
            return StepSampler(*order)
        return PackSampler(*order, passes=args.gradient_accumulation_steps, processes=args.world_size)

    def _run_epoch(self, **arguments):
        if (
            self.state.global_step >= self.state.max_steps
        ):  # resumed after its last step; the base class would look after one more
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**arguments)

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self._proofs_left:
            if self.args.packing and self._proofs_left == CHECKED_BATCHES:
                with self.compute_loss_context_manager():
                    check_apart(model, self.args.device)
            if self._letters:
                check_letters(inputs, self._letters)
            else:
                check_labels(inputs, self._opening, self.processing_class.eos_token_id)
            self._proofs_left -= 1
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):  # transformers would show the mean of the losses before it
            self._lost(f"the loss is {float(loss)}")
        return loss

    def _lost(self, symptom: str) -> NoReturn:
        checkpoint = self.run.last_complete()
        raise RunError(
            f"after step {self.state.global_step}: {symptom}, so nothing more can be learnt; "
            f"{f'{checkpoint} is the last that is sound' if checkpoint else 'no checkpoint was saved'}. Look at the "
            "rows, lower --learning_rate, or train in 32 bits, into another --out"
        )

    def _save_checkpoint(self, model, trial):
        weights = (getattr(p, "ds_tensor", p) for p in self.model.parameters() if p.requires_grad)
        if not all(torch.isfinite(part).all() for part in weights):
            self._lost("weights are no numbers (NaN)")
        with naming(self.run.path / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # other ranks may still be writing their shards
        if self.is_world_process_zero():
            self.run.mark_complete(self.state.global_step, spread(self.args))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """What is made to be passed on names no folder of this machine, and is uploaded as it is saved."""
        folder = Path(output_dir or self.args.output_dir)
        card = folder / "README.md"
        card_text = card.read_text(encoding="utf-8") if card.is_file() else None
        super()._save(output_dir, state_dict)
        (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # run.json has the settings
        if card_text is None:  # the card of an adapter, which peft writes, has the folder of its base in it
            card.unlink(missing_ok=True)
        else:
            write_text(card, card_text)
        name_base_from_here(folder)
        share(folder)

    def create_model_card(self, *_, **__) -> None:
        """TRL writes a general card at every save; `sft.py` writes one with counts and settings at the end."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing goes up while it is trained: `sft.py` uploads the folder once it has a card."""

    def _send_telemetry(self) -> None:
        """TRL would tell the Hub what is trained on which machines; Ray and vLLM are kept from it likewise."""


class Progress(TrainerCallback):
    """One line per log step, the last step among them, with the time left; the same numbers into the run's
    log.jsonl."""

    def __init__(self, run: RunFolder, work: Work):
        self.run, self.work = run, work

    def on_train_begin(self, args, state, control, **_):
        self.start, self.first_step, self.previous_seconds = time.monotonic(), state.global_step, self.run.seconds()

    def on_step_end(self, args, state, control, **_):
        if state.global_step >= state.max_steps:  # whatever logging_steps says, the run ends with its loss
            control.should_log = True

    def on_log(self, args, state, control, logs=None, **_):
        if not state.is_world_process_zero or not logs:
            return
        values = {
            k: v
            for k, v in logs.items()
            if k.startswith("eval_") or k in ("loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy")
        }
        if not values:
            return
        duration = time.monotonic() - self.start
        pace = (state.global_step - self.first_step) / duration if duration else 0.0
        speed = self.work.at(pace) if "loss" in values and pace else {}
        self.run.log(
            {"step": state.global_step, **values, **speed, "seconds": round(self.previous_seconds + duration, 3)}
        )
        if "loss" in values and pace:
            minutes, seconds = divmod(int((state.max_steps - state.global_step) / pace), 60)
            print(
                f"[sft] step {state.global_step}/{state.max_steps}  loss {values['loss']:.4f}  "
                f"lr {values['learning_rate']:.2e}  {1000 / pace:.0f} ms/step  "
                f"{pace * self.work.tokens:,.0f} tokens/s  left {minutes}:{seconds:02d}",
                flush=True,
            )
