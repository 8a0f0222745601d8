"""Full-parameter SFT (or LoRA with --use_peft) of a causal model on prompt/completion rows: TRL, plain, DDP or
DeepSpeed ZeRO.

    python sft.py --config configs/tiny.yaml --train_data rows.jsonl --output_dir out          # one process, also on a CPU
    bash sft.sh                                                                                # all GPUs, the 8B settings
    NPROC=2 bash sft.sh --config configs/tiny.yaml --deepspeed configs/zero3.json ...          # several processes

Every option of TRL's SFTConfig and ModelConfig can stand in the YAML and on the command line (the line wins). Run the
same command again after a kill: it goes on from the last complete checkpoint; a finished run is not redone.
Comes after prepare_dataset.py; the folder it writes is the policy that verl/ trains further and eval/ measures.
"""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, set_seed
from trl import ModelConfig, TrlParser, get_peft_config

from alignxplore.environment import git_commit, recorded_versions, say_problems
from alignxplore.journal import RunLock, RunLocked
from alignxplore.records import RecordError
from alignxplore.sft.configuration import DataArguments, TrainArguments, run_settings, spread
from alignxplore.sft.run_folder import RunError, RunFolder, model_card
from alignxplore.sft.tokenised_set import MANIFEST, PrepareError, load_prepared, prepare, row_lengths
from alignxplore.sft.trainer import Progress, Trainer


def say(*words: object) -> None:
    """Print from the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print("[sft]", *words, flush=True)


def load_rows(
    source: str, tokenizer: PreTrainedTokenizerBase, args: TrainArguments, name: str
) -> tuple[Dataset, dict]:
    """A prepared set as it is; other rows are prepared into the output folder by the first process, while the others
    wait."""
    if not (Path(source) / MANIFEST).is_file():
        if Path(source).is_dir():
            raise PrepareError(
                f"{source}: a folder without {MANIFEST}; it was not written, or not finished, by prepare_dataset.py"
            )
        prepared = Path(args.output_dir) / f"{name}_data"
        with args.main_process_first(local=False, desc=f"prepare {name} rows"):  # all nodes share the folder
            prepare([source], tokenizer, prepared, args.max_length)
        source = str(prepared)
    rows, manifest = load_prepared(source, tokenizer)
    lengths = row_lengths(rows)
    fitting = [i for i, length in enumerate(lengths) if length <= args.max_length]
    if len(fitting) < len(rows):
        dropped = manifest["dropped_too_long"] + len(rows) - len(fitting)
        rows = rows.select(fitting).flatten_indices()
        labels = [chunk.flatten().to_numpy() for chunk in rows.with_format("arrow")["labels"].chunks]
        trained = sum(int((chunk != -100).sum()) for chunk in labels)
        counts = {"rows": len(rows), "tokens": sum(map(len, labels)), "trained_tokens": trained}
        manifest = manifest | counts | {"dropped_too_long": dropped}
    say(
        f"{name} data: {manifest['rows']:,} rows, {manifest['tokens']:,} tokens;",
        f"{manifest['dropped_too_long']:,} rows too long",
    )
    return rows, manifest


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
        peft_config=get_peft_config(model),
        letters=manifest["identity"].get("letters"),
    )
    processes, launched = trainer.accelerator.num_processes, int(os.environ.get("WORLD_SIZE", "1"))
    if processes != launched:
        raise RunError(
            f"accelerate sees {processes} process(es), the launcher started {launched}: they would train apart and overwrite "
            "each other; check --deepspeed and --use_cpu"
        )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress(run, args.effective_batch_size * manifest["tokens"] / len(trainer.train_dataset)))
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    if not args.deepspeed and not model.use_peft and any(p.dtype != torch.float32 for p in trained):
        raise RunError(
            f"weights in {trained[0].dtype} are too coarse for the steps of the optimizer, which only DeepSpeed gives 32-bit copies; add "
            "--deepspeed configs/zero3.json, or --dtype float32"
        )
    say(
        f"{sum(getattr(p, 'ds_numel', p.numel()) for p in trained):,} trained parameters, {trained[0].dtype}, {args.device.type}, "
        f"{args.effective_batch_size} rows a step = {args.per_device_train_batch_size} rows x "
        f"{args.gradient_accumulation_steps} accumulated x {processes} process(es)"
    )
    return trainer


def train(data: DataArguments, args: TrainArguments, model: ModelConfig) -> None:
    """One run, from the start or from the last complete checkpoint."""
    run, first = RunFolder(args.output_dir), args.process_index == 0
    if model.load_in_4bit or model.load_in_8bit:
        raise RunError(
            "load_in_4bit and load_in_8bit are not supported: models are loaded in --dtype; take the option out"
        )
    if args.n_gpu > 1:  # transformers would spread each batch over them, which multiplies the rows of a step
        raise RunError(
            f"one process sees {args.n_gpu} GPUs; start one process a GPU with sft.sh, or show it one: CUDA_VISIBLE_DEVICES=0"
        )
    args.model_init_kwargs = {
        "dtype": "float32" if args.use_cpu else model.dtype,
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        **(args.model_init_kwargs or {}),
    }
    # Prepared rows carry their labels. Only packing needs TRL's preparation, and that leaves labels as they are.
    if args.packing and not args.use_cpu and "flash" not in str(args.model_init_kwargs["attn_implementation"]):
        say(
            "warning: packing without flash attention is slow, with a mask of length x length a pack; add --attn_implementation flash_attention_2"
        )
    args.completion_only_loss, args.dataset_kwargs = True, {"skip_prepare_dataset": not args.packing}
    tokenizer = AutoTokenizer.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    rows, manifest = load_rows(data.train_data, tokenizer, args, "train")
    held_out = load_rows(data.eval_data, tokenizer, args, "eval")[0] if data.eval_data else None
    settings = run_settings(args, model, manifest)
    if first:
        run.claim(settings)
    if run.summary():
        say(f"{args.output_dir}: this run is finished (summary.json); nothing to do")
        return
    checkpoint = run.resumable(spread(args))  # before anything is deleted
    with args.main_process_first(local=False, desc="clean the output folder"):
        torn = run.clean() if first else []
    trainer = make_trainer(args, model, run, tokenizer, rows, held_out, manifest)
    say(
        f"resuming from {checkpoint.name}" if checkpoint else "starting",
        f"(deleted, torn by a kill: {', '.join(torn)})" if torn else "",
    )
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(args.output_dir)
    trainer.accelerator.wait_for_everyone()
    if first:
        result = {
            "steps": trainer.state.global_step,
            "last_loss": next(entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry),
            "seconds": run.seconds(),
            "resumed_from": checkpoint.name if checkpoint else None,
        }
        summary = {"settings": settings, "data": manifest, "processes": args.world_size, "result": result}
        summary |= {"versions": recorded_versions(), "commit": git_commit()}
        run.finish(summary, model_card(summary))
        say(
            f"finished: {args.output_dir}, {result['steps']} steps, loss {result['last_loss']:.4f}, {result['seconds']:.0f} s"
        )


def main() -> None:
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    parser = TrlParser(
        (DataArguments, TrainArguments, ModelConfig),
        usage="%(prog)s --config FILE [--option value ...]",
        description="SFT on prompt/completion rows. Options marked by TRL and transformers follow ours.",
    )
    try:
        data, args, model = parser.parse_args_and_config()
    except ValueError as error:
        sys.exit(f"sft.py: {error}")
    try:
        with ExitStack() as stack:
            if args.process_index == 0:
                say_problems()
                stack.enter_context(RunLock(args.output_dir))
            train(data, args, model)
    except (PrepareError, RecordError, RunError, RunLocked) as error:
        sys.exit(f"sft.py: {error}")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
