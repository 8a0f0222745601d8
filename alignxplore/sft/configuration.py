"""The options of `sft.py`: TRL's own, plus the data, the effective batch and what a machine without a GPU needs.

Everything of TRL's SFTConfig and ModelConfig can stand in the YAML file or on the command line; the line wins.
`run_settings` takes out of them what decides the result of a run: a run is resumed with the same values only.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
from accelerate import PartialState
from transformers.trainer_utils import IntervalStrategy
from trl import ModelConfig, SFTConfig

from alignxplore.command import Checkable, option
from alignxplore.devices import unusable_gpu
from alignxplore.errors import UserError, above_zero, at_least_one, not_negative, shares
from alignxplore.serving.fingerprints import model_identity
from alignxplore.wandb_login import missing_login

# Settings that are always named, in run.json and on the model card; others are where they differ from their default.
SETTINGS = (
    "effective_batch_size",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "max_grad_norm",
    "seed",
    "data_seed",
    "max_length",
    "loss_type",
    "bf16",
)
# Where a run lies, how it is spread over machines, what it reports and keeps: may change from one resumption to the
# next (`deepspeed` as far as the checkpoint can be read: `RunFolder.resumable`).
WITHOUT_EFFECT = {
    *"output_dir logging_dir run_name project report_to push_to_hub disable_tqdm debug resume_from_checkpoint".split(),
    # packs hold the rows of the same steps
    *"per_device_train_batch_size gradient_accumulation_steps packing packed_tokens".split(),
    *"gradient_checkpointing gradient_checkpointing_kwargs activation_offloading".split(),
    *"processes deepspeed local_rank use_cpu accelerator_config parallelism_config".split(),
    *"auto_find_batch_size torch_empty_cache_steps skip_memory_metrics include_num_input_tokens_seen".split(),
    *"prediction_loss_only include_for_metrics batch_eval_metrics per_device_eval_batch_size".split(),
    *"bf16_full_eval fp16_full_eval keep_optimizer restore_callback_states_from_checkpoint".split(),
    # sft.py sets them, or has no use for them
    *"completion_only_loss dataset_kwargs dataset_num_proc remove_unused_columns".split(),
    # told below; shown by transformers as if they were secrets
    *"model_init_kwargs pad_token eos_token".split(),
}
WITHOUT_EFFECT_PREFIXES = (
    "logging_",
    "log_",
    "eval_",
    "save_",
    "hub_",
    "trackio_",
    "dataloader_",
    "ddp_",
    "fsdp",
    "do_",
    "torch_compile",
)


# What would change the rows of a step, or save what no run can go on from, without a word.
UNSUPPORTED = {
    "padding_free": "leaves max_length unheard and cuts nothing; take it out (--packing pads nothing either)",
    "eval_packing": "held-out rows are packed as --packing says; take it out",
    "auto_find_batch_size": "would change the rows of a step; lower --per_device_train_batch_size, which does not",
    "parallelism_config": "context and sequence parallelism would change the rows of a step; take it out",
    "fsdp": "its checkpoints are not told whole from torn, nor resumed; use --deepspeed configs/zero3.json",
    "enable_jit_checkpoint": "processes would not agree on a step; SIGTERM saves without it",
    "hub_token": "would be written into training_args.bin; put it into the environment variable HF_TOKEN",
}
SWITCHED_ON = {  # by `accelerate launch`, past the options
    "ACCELERATE_USE_FSDP": "fsdp",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "parallelism_config",
}


def refuse_unsupported(args: SFTConfig, environment: Mapping[str, str]) -> None:
    """Raise a ValueError for an option of TRL's that a run here cannot be meant with."""
    names = [name for name in UNSUPPORTED if getattr(args, name)]
    names += [name for variable, name in SWITCHED_ON.items() if environment.get(variable, "").lower() in ("true", "1")]
    for name in names:
        raise ValueError(f"{name} is not supported: {UNSUPPORTED[name]}")
    if args.packing_strategy != "bfd":
        raise ValueError("packing_strategy is not supported: whole rows are packed, those of a step; take it out")


def refuse_secrets(args: SFTConfig) -> None:
    """Raise a ValueError for a key among the options that a run writes down."""
    init_options = args.model_init_kwargs or {}
    if not isinstance(init_options, dict):
        raise ValueError(
            f"model_init_kwargs {init_options!r} is no JSON object; give one, as in '{{\"use_cache\": false}}'"
        )
    for name in ("token", "use_auth_token"):
        if init_options.get(name):
            raise ValueError(
                f"model_init_kwargs holds a {name}, which would be written into run.json and the model card; put it "
                "into the environment variable HF_TOKEN"
            )


def refuse_impossible(args: "TrainArguments") -> None:
    """Raise a ValueError for a number that no training can be meant with; it names the option."""
    if args.max_length is None:
        raise ValueError("--max_length has no value: give the longest row in tokens")
    at_least_one(args, "effective_batch_size", "per_device_train_batch_size", "per_device_eval_batch_size")
    at_least_one(args, "max_length", "packed_tokens", "pad_to_multiple_of", "eval_new_tokens")
    at_least_one(args, "eval_accumulation_steps", "torch_empty_cache_steps", "dataloader_prefetch_factor")
    at_least_one(args, "ddp_bucket_cap_mb", "ddp_timeout", "processes")
    above_zero(args, "num_train_epochs", "learning_rate", "logging_steps", "save_steps", "eval_steps", "save_minutes")
    not_negative(args, "warmup_steps", "weight_decay", "max_grad_norm", "neftune_noise_alpha", "router_aux_loss_coef")
    not_negative(args, "eval_delay", "eval_samples", "save_total_limit", "dataloader_num_workers", "seed", "data_seed")
    shares(args, "adam_beta1", "adam_beta2", "label_smoothing_factor", "warmup_ratio")
    not_negative(args, "adam_epsilon")
    if args.max_steps < 1 and args.max_steps != -1:
        raise ValueError(f"--max_steps {args.max_steps}: at least 1, or -1 for as many as num_train_epochs has")
    for name in ("adam_beta1", "adam_beta2"):
        if getattr(args, name) == 1:
            raise ValueError(f"--{name} 1: below 1, or no gradient would count")


def refuse_impossible_adapter(model: ModelConfig) -> None:
    """The same for the numbers of an adapter."""
    if model.use_peft:
        at_least_one(model, "lora_r", "lora_alpha")
        shares(model, "lora_dropout")


def split_batch(effective: int, processes: int, limit: int) -> tuple[int, int]:
    """Rows per optimizer step → (rows of one forward pass, at most `limit`; forward passes per step) of each
    process."""
    if effective % processes:
        raise ValueError(
            f"effective_batch_size {effective} cannot be split over {processes} processes; use a multiple of "
            f"{processes}"
        )
    rows = effective // processes
    micro = max(n for n in range(1, limit + 1) if rows % n == 0)
    return micro, rows // micro


@dataclass(kw_only=True)
class DataArguments(Checkable):
    """What to train on."""

    train_data: str = option(
        "folder written by prepare_dataset.py; or rows to prepare first: a JSONL file or a Hub data set",
        "tokenized_dataset",
    )
    eval_data: str | None = option(
        "the same for held-out rows; evaluated after each epoch, or as --eval_strategy and --eval_steps say", None
    )
    published_steps: int | None = option(
        "steps of the published run that this one repeats; the plan is shown beside them, with a warning where it "
        "differs by more than a tenth",
        None,
    )

    def __post_init__(self) -> None:
        at_least_one(self, "published_steps")


@dataclass
class TrainArguments(SFTConfig):
    """SFTConfig whose batch is given as rows per optimizer step, whatever the number of processes.

    Raises ValueError when the effective batch cannot be split over the processes, and for numbers that cannot be
    meant.
    """

    output_dir: str | None = option("folder of the run: checkpoints, log, the model", None, "--out")
    effective_batch_size: int = option(
        "rows per optimizer step over all processes; gradient accumulation is derived from it, so that the training "
        "does not change with the number of GPUs",
        16,
    )
    per_device_train_batch_size: int = option(
        "most rows in one forward pass of one process; lowered where it does not divide the batch; packs have tokens",
        1,
    )
    packing: bool | None = option(
        "lay the rows of each step end to end, without padding, in passes of packed_tokens; changes speed alone. "
        "Default: on a GPU with FlashAttention",
        None,
    )
    packed_tokens: int | None = option(
        "with packing: most tokens in one forward pass of one process; default: max_length", None
    )
    save_minutes: float | None = option(
        "save a checkpoint every so many minutes, and at the last step (--save_strategy no: only so)", None
    )
    keep_optimizer: bool = option(
        "keep what a run goes on from once it is finished: six times the weights, in each checkpoint", False
    )
    eval_samples: int = option(
        "at each evaluation, write summaries for so many held-out rows, and log the share of bad format", 0
    )
    eval_new_tokens: int = option("most tokens of such a summary", 4096)
    processes: int | None = option(
        "with --check: so many processes, of one GPU each, are reckoned with; sft.sh gives NNODES x NPROC", None
    )
    longest_first: bool = option(
        "open with the steps that have the longest rows, so that what does not fit into memory shows at once", False
    )

    def __post_init__(self):
        refuse_unsupported(self, os.environ)
        refuse_impossible(self)
        processes = self.processes or int(os.environ.get("WORLD_SIZE", "1"))
        if self.gradient_accumulation_steps != 1:
            raise ValueError(
                "gradient_accumulation_steps is derived; set effective_batch_size (rows per optimizer step) instead"
            )
        self.per_device_train_batch_size, self.gradient_accumulation_steps = split_batch(
            self.effective_batch_size, processes, self.per_device_train_batch_size
        )
        if self.save_strategy == "steps" and self.save_steps % self.logging_steps:
            raise ValueError(
                f"save_steps {self.save_steps} must be a multiple of logging_steps {self.logging_steps}; otherwise a "
                "resumed run would average its log lines over other steps"
            )
        if self.save_total_limit == 1:
            raise ValueError(
                "save_total_limit 1 deletes the only complete checkpoint before the next is complete; use 2 or more"
            )
        if self.eval_steps and self.eval_strategy == "no":
            self.eval_strategy = "steps"
        self.is_reckoned, self._on_gpus, self._falls_back = False, dict[str, Any](), False
        if not torch.accelerator.is_available():
            self._falls_back = not self.use_cpu
            if (self.bf16 or self.fp16) and not self.use_cpu:
                self._on_gpus = {name: getattr(self, name) for name in ("use_cpu", "bf16", "fp16", "tf32")}
            self._use_cpu()
        super().__post_init__()
        refuse_secrets(self)  # the command line's JSON is an object only now
        if "wandb" in self.report_to and self.process_index == 0 and (sentence := missing_login()):
            raise ValueError(f"report_to wandb: {sentence}")

    @property
    def order_seed(self) -> int:
        """What the order of rows is drawn with."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def world_size(self) -> int:
        """Processes of the run, or those that --check reckons with."""
        return self.processes or super().world_size

    def unusable_gpu(self) -> str | None:
        """Why the run would be on the CPU although there is a GPU, in a sentence; None where it was asked for."""
        return unusable_gpu("--use_cpu true", needs_cuda=bool(self._on_gpus)) if self._falls_back else None

    def reckon_for_gpus(self) -> None:
        """On a machine without a GPU, take options that are meant for GPUs (bf16, fp16) as on one: for --check."""
        self.is_reckoned = bool(self._on_gpus)
        for name, value in self._on_gpus.items():
            setattr(self, name, value)

    def accumulate(self, passes: int) -> None:
        """Take so many passes of packs to an optimizer step, from here on."""
        self.per_device_train_batch_size, self.gradient_accumulation_steps = 1, passes
        sizes = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": passes}
        sizes["train_batch_size"] = passes * self.world_size
        if self.deepspeed:
            self.hf_deepspeed_config.config |= sizes

    def _use_cpu(self):
        """What accelerate and DeepSpeed need on a machine without an accelerator; both fail silently or late without
        it."""
        self.use_cpu, self.bf16, self.fp16, self.tf32 = True, False, False, None
        if "WORLD_SIZE" not in os.environ or not self.deepspeed:
            return
        import deepspeed

        # Its shared-memory collectives would be compiled for a minute with g++; gloo does the same without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # With --deepspeed and use_cpu, accelerate takes each process for a run of its own unless its state is made
        # beforehand, and that only happens with gloo while this variable is set.
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        PartialState(backend="gloo")
        del os.environ["ACCELERATE_USE_DEEPSPEED"]
        self.accelerator_config = {"use_configured_state": True}


def settle_evaluation(data: DataArguments, args: TrainArguments) -> None:
    """Held-out rows are evaluated after each epoch where nothing else is said.

    Raises:
        UserError: there are none to be evaluated.
    """
    if data.eval_data:
        if args.eval_strategy == "no":
            args.eval_strategy, args.do_eval = IntervalStrategy.EPOCH, True
    elif args.eval_strategy != "no" or args.do_eval or args.eval_on_start:
        raise UserError(
            "--eval_strategy, --eval_steps, --eval_on_start and --do_eval need held-out rows: add --eval_data "
            "(prepare_dataset.py --held_out writes them), or take them out"
        )


def spread(args: TrainArguments) -> dict[str, int | None]:
    """How a run is spread: DeepSpeed's ZeRO stage (None: without DeepSpeed) and the number of processes."""
    plugin = args.deepspeed_plugin
    return {"zero_stage": plugin.zero_stage if plugin else None, "processes": args.world_size}


def run_settings(args: TrainArguments, model: ModelConfig, manifest: dict) -> dict[str, Any]:
    """What decides the result of a run: model, data, and each training option that is not among those without
    effect."""
    values = args.to_dict()
    defaults = {
        f.name: f.default_factory() if f.default is MISSING and f.default_factory is not MISSING else f.default
        for f in fields(args)
    }
    other_settings = {
        name: value
        for name, value in values.items()
        if name not in WITHOUT_EFFECT and not name.startswith(WITHOUT_EFFECT_PREFIXES) and value != defaults.get(name)
    }
    adapter = [f.name for f in fields(model) if f.name.startswith("lora_") or f.name in ("use_rslora", "use_dora")]
    if model.load_in_4bit:
        adapter += [f.name for f in fields(model) if f.name == "load_in_4bit" or "bnb_" in f.name]
    return {
        "model": model_identity(model.model_name_or_path, model.model_revision),
        "data": manifest["identity"],
        **{name: values[name] for name in SETTINGS},
        **other_settings,
        **{name: getattr(args, name) for name in ("pad_token", "eos_token") if getattr(args, name)},
        **args.model_init_kwargs,
        "peft": {name: getattr(model, name) for name in adapter} if model.use_peft else None,
    }
