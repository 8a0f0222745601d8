"""The run of `sft/sft.py`: rows, trainer, checkpoints; from the start or from the last complete checkpoint.

TRL's trainer on prompt/completion rows: plain, DDP or DeepSpeed ZeRO, all parameters or LoRA.
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import disable_progress_bars
from peft import PeftConfig
from transformers import PreTrainedTokenizerBase, PrinterCallback, set_seed
from transformers.utils import is_bitsandbytes_available, is_flash_attn_2_available, is_liger_kernel_available
from trl import ModelConfig, get_peft_config, get_quantization_config

from alignxplore.environment import git_commit, recorded_versions, say_problems
from alignxplore.errors import UserError
from alignxplore.journal import RunLock
from alignxplore.serving.beforehand import check_files, read_tokenizer
from alignxplore.serving.fingerprints import commit
from alignxplore.sft.configuration import (
    DataArguments,
    TrainArguments,
    refuse_impossible_adapter,
    run_settings,
    settle_evaluation,
    spread,
)
from alignxplore.sft.plan import (
    batch_in_words,
    compare_steps,
    evaluations_in_words,
    plan_passes,
    reckoned_in_words,
    saves_in_words,
    say,
    say_arithmetic,
    steps_in_words,
)
from alignxplore.sft.rows import identity_of, load_rows, look_at
from alignxplore.sft.run_folder import RunError, RunFolder, in_words
from alignxplore.sft.samples import Samples, prompts_of
from alignxplore.sft.saving import STOPPED
from alignxplore.sft.speed import work_of_a_step
from alignxplore.sft.tokenised_set import row_lengths
from alignxplore.sft.trainer import Progress, Trainer


def refuse_coarse(dtype: object, args: TrainArguments, use_peft: bool = False) -> None:
    """RunError for weights that training would have to step in fewer than 32 bits.

    Args:
        dtype: of what is trained.
    """
    if not args.deepspeed and str(dtype).removeprefix("torch.") in ("bfloat16", "float16"):
        raise RunError(
            f"weights in {dtype} are too coarse for the steps of the optimizer, which only DeepSpeed gives 32-bit "
            f"copies; add --deepspeed configs/zero3.json, or {'--bf16 true' if use_peft else '--dtype float32'}"
        )


def adapter_config(args: TrainArguments, model: ModelConfig) -> PeftConfig | None:
    """The adapter that is trained, with the commit of the model that it is trained on: `merge_adapter.py` loads that
    one."""
    config = get_peft_config(model)
    if config and not Path(model.model_name_or_path).is_dir():
        config.revision = commit(model.model_name_or_path, args.model_init_kwargs["revision"] or "main")
    return config


def make_trainer(
    args: TrainArguments, model: ModelConfig, run: RunFolder, tokenizer, rows, held_out, manifest: dict
) -> Trainer:
    """The trainer, after a check that the processes know of each other."""
    set_seed(args.seed)  # an adapter's first weights are drawn before the trainer sets it
    trainer = Trainer(
        run=run,
        model=model.model_name_or_path,
        args=args,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=adapter_config(args, model),
        quantization_config=get_quantization_config(model),
        letters=manifest["identity"].get("letters"),
    )
    processes, ranks = trainer.accelerator.num_processes, int(os.environ.get("WORLD_SIZE", "1"))
    if processes != ranks:
        raise RunError(
            f"accelerate sees {processes} process(es), the launcher started {ranks}: they would train apart and "
            "overwrite each other; check --deepspeed and --use_cpu"
        )
    trainer.remove_callback(PrinterCallback)
    steps = len(trainer.train_dataset) / args.effective_batch_size
    lengths, trained_tokens = row_lengths(rows), manifest["trained_tokens"]
    work = work_of_a_step(trainer.model, lengths, trained_tokens, steps, args.device, processes)
    trainer.add_callback(Progress(run, work))
    if held_out is not None and args.eval_samples:
        prompts = prompts_of(held_out, args.eval_samples)
        trainer.add_callback(Samples(trainer, tokenizer, prompts, args.eval_new_tokens))
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    for dtype in {p.dtype for p in parameters}:
        refuse_coarse(dtype, args, model.use_peft)
    say(
        f"{sum(getattr(p, 'ds_numel', p.numel()) for p in parameters):,} trained parameters, {parameters[0].dtype}, "
        f"{args.device.type}, {batch_in_words(args)}"
    )
    return trainer


def settle_packing(args: TrainArguments, model: ModelConfig) -> None:
    """Settle whether rows are packed, and with which attention: packs need one that knows of borders, or they take a
    mask of tokens x tokens."""
    init_options = dict(args.model_init_kwargs or {})
    attention = init_options.get("attn_implementation") or model.attn_implementation
    if attention is None and (args.is_reckoned or (not args.use_cpu and is_flash_attn_2_available())):
        attention = model.attn_implementation = "flash_attention_2"
    knows_borders = "flash" in str(attention)
    if args.packing is None:
        args.packing = knows_borders
        if not knows_borders and not args.use_cpu:
            say("rows are not packed: FlashAttention is not installed (requirements.txt says how)")
    elif args.packing and not knows_borders and not args.use_cpu:
        say(
            "warning: packing without flash attention is slow, with a mask of length x length a pack; add "
            "--attn_implementation flash_attention_2"
        )


def resolve(args: TrainArguments, model: ModelConfig) -> PreTrainedTokenizerBase:
    """Settle in `args` what the model is loaded with, and load the tokenizer.

    Raises:
        RunError: options that cannot be met.
    """
    if not model.model_name_or_path:
        raise RunError("no model is named; give --model_name_or_path, a folder or a hub id, or set it in the YAML")
    if model.load_in_8bit or (model.load_in_4bit and not model.use_peft):
        raise RunError(
            "load_in_8bit, and load_in_4bit of a model that is trained itself, are not supported; with load_in_4bit "
            "train an adapter (--use_peft)"
        )
    if model.load_in_4bit and not is_bitsandbytes_available():
        raise RunError("load_in_4bit needs bitsandbytes, which is not among the pinned packages: pip install it")
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise RunError("use_liger_kernel needs liger-kernel, which is not among the pinned packages: pip install it")
    if args.n_gpu > 1:  # transformers would spread each batch over them, which multiplies the rows of a step
        raise RunError(
            f"one process sees {args.n_gpu} GPUs; start one process a GPU with sft.sh, or show it one: "
            "CUDA_VISIBLE_DEVICES=0"
        )
    if args.device.type == "cpu":  # of several processes it is called cpu:0, to which torch loads no optimizer
        args.__dict__["_setup_devices"] = torch.device("cpu")
    settle_packing(args, model)
    args.model_init_kwargs = {
        "dtype": "float32" if args.use_cpu else model.dtype,
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        **(args.model_init_kwargs or {}),
    }
    # Prepared rows carry their labels, and packs are those of a step (`batches.py`), not TRL's.
    args.completion_only_loss, args.dataset_kwargs = True, {"skip_prepare_dataset": True}
    check_files(model.model_name_or_path, model.model_revision, ["--load-format"])  # weights are looked at later
    return read_tokenizer(model.model_name_or_path, model.model_revision)


def refuse_another_run(
    run: RunFolder, data: DataArguments, args: TrainArguments, model: ModelConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """`OtherRun` if the folder holds a run with other settings or on other rows."""
    identity = identity_of(data.train_data, tokenizer, args.max_length)
    run.refuse_other(run_settings(args, model, {"identity": identity}))


def train(data: DataArguments, args: TrainArguments, model: ModelConfig) -> None:
    """One run, from the start or from the last complete checkpoint."""
    settle_evaluation(data, args)
    run, is_first = RunFolder(str(args.output_dir)), args.process_index == 0
    tokenizer = resolve(args, model)
    if is_first:  # before its own rows are replaced
        refuse_another_run(run, data, args, model, tokenizer)
    rows, manifest = load_rows(data.train_data, tokenizer, args, "train")
    plan_passes(args, row_lengths(rows))
    held_out = load_rows(data.eval_data, tokenizer, args, "eval")[0] if data.eval_data else None
    if held_out:
        say(f"held-out rows are evaluated {evaluations_in_words(args)}")
    settings = run_settings(args, model, manifest)
    if is_first:
        run.refuse_other(settings)
        compare_steps(args, manifest, data.published_steps)
    if run.summary():
        say(f"{args.output_dir}: this run is finished (summary.json); nothing to do")
        if is_first and not args.keep_optimizer:
            run.drop_optimizers()
        return
    checkpoint = run.resumable(spread(args))  # before anything is deleted
    with args.main_process_first(local=False, desc="clean the output folder"):
        stumps = run.clean() if is_first else []
    trainer = make_trainer(args, model, run, tokenizer, rows, held_out, manifest)
    if is_first:
        run.claim(settings)  # nothing is refused any more
    say(
        f"resuming from {checkpoint.name}" if checkpoint else "starting",
        f"(deleted, torn by a kill: {', '.join(stumps)})" if stumps else "",
    )
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise RuntimeError("the training itself failed") from error  # a sentence alone would not say where
    if trainer.saves.has_stopped:
        step = trainer.state.global_step
        say(f"told to end (SIGTERM): step {step} is saved; run the same command again to go on")
        sys.exit(STOPPED)
    trainer.save_model(args.output_dir, _internal_call=True)  # or it would be uploaded before it has a card
    trainer.accelerator.wait_for_everyone()
    summary = summary_of(run, trainer, settings, manifest, checkpoint)
    if is_first:
        run.describe(summary)
    if args.push_to_hub:
        trainer.push_to_hub()  # every process takes part
    if is_first:
        run.finish(summary)
        if not args.keep_optimizer:
            run.drop_optimizers()
        result = summary["result"]
        seconds = f"{result['seconds']:.0f} s"
        say(f"finished: {run.path}, {result['steps']} steps, loss {result['last_loss']:.4f}, {seconds}")


def summary_of(
    run: RunFolder, trainer: Trainer, settings: dict, manifest: dict, checkpoint: Path | None
) -> dict[str, Any]:
    """What summary.json and the model card tell."""
    result = {
        "steps": trainer.state.global_step,
        "last_loss": next(entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry),
        "seconds": run.seconds(),
        "resumed_from": checkpoint.name if checkpoint else None,
    }
    about = {"settings": settings, "data": manifest, "processes": trainer.args.world_size, "result": result}
    return about | {"versions": recorded_versions(), "commit": git_commit()}


def check(data: DataArguments, args: TrainArguments, model: ModelConfig) -> None:
    """Say what `train` would do, from the same options; loads no weights and writes nothing.

    Raises:
        UserError: what `train` would raise before its first step.
    """
    settle_evaluation(data, args)
    run = RunFolder(str(args.output_dir))
    if not run.is_of_cpu():
        args.reckon_for_gpus()
    tokenizer = resolve(args, model)
    if args.is_reckoned:
        say(reckoned_in_words(args))
    if not model.use_peft:  # an adapter has weights of its own, which are looked at once they are there
        refuse_coarse(args.model_init_kwargs["dtype"], args)
    refuse_another_run(run, data, args, model, tokenizer)
    measures = look_at(data.train_data, tokenizer, args.max_length, "train")
    if data.eval_data:
        look_at(data.eval_data, tokenizer, args.max_length, "eval")
        say(f"held-out rows are evaluated {evaluations_in_words(args)}")
    if measures:
        plan_passes(args, measures[1])
    say(batch_in_words(args))
    if measures:
        manifest, lengths = measures
        say(steps_in_words(args, manifest))
        compare_steps(args, manifest, data.published_steps)
        say_arithmetic(args, model, lengths, manifest["trained_tokens"])
    precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "32 bits"
    say(f"computes in {precision}, weights in {args.model_init_kwargs['dtype']}, {in_words(spread(args))}")
    say(
        f"checkpoints {saves_in_words(args)} in {args.output_dir}/checkpoint-N, the newest "
        f"{args.save_total_limit or 'all'} are kept"
    )
    checkpoint = run.resumable(spread(args))
    say("is finished already" if run.summary() else f"would go on from {checkpoint}" if checkpoint else "would start")
    say("check: nothing was started, nothing written")


def sft(data: DataArguments, args: TrainArguments, model: ModelConfig) -> None:
    """The work of sft.py: train, or with --check say what would be trained."""
    refuse_impossible_adapter(model)
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    try:
        with ExitStack() as stack:
            is_first = args.process_index == 0
            if sentence := args.unusable_gpu():
                if not data.check:
                    raise RunError(sentence)
                say(f"warning: {sentence}")
            if is_first:
                say_problems()
            if is_first and data.check:
                check(data, args, model)
            if not data.check:
                if args.processes:
                    raise RunError("--processes is for --check; a run has those that sft.sh starts (NPROC, NNODES)")
                if is_first:
                    stack.enter_context(RunLock(str(args.output_dir)))
                train(data, args, model)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
