"""A LoRA adapter of `sft.py --use_peft` → a model folder like any other, which vLLM serves and eval/ measures.

    python merge_adapter.py --adapter outputs/tallrec --output outputs/tallrec_merged

The adapter's weights are added to its base model's in 32 bits and stored in the base's own type. Written aside, then
renamed.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignxplore.records import write_json
from alignxplore.serving.fingerprints import model_identity


def merge(adapter: Path, output: Path, base: str | None = None) -> None:
    """Write `output`: the base model (by default the one the adapter names) with the adapter's weights added.

    Raises:
        FileNotFoundError: `adapter` holds no adapter; FileExistsError: `output` is there already.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise FileNotFoundError(f"{adapter}: no adapter_config.json; give the output folder of sft.py --use_peft")
    if output.exists():
        raise FileExistsError(f"{output}: exists; choose another --output, or delete it")
    config = PeftConfig.from_pretrained(adapter)
    base = base or config.base_model_name_or_path
    model = AutoModelForCausalLM.from_pretrained(base, revision=config.revision, dtype="auto")
    stored = model.dtype
    merged = PeftModel.from_pretrained(model.float(), adapter).merge_and_unload().to(stored)
    aside = output.with_name(f".{output.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    merged.save_pretrained(aside)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(aside)
    write_json(aside / "merged.json", {"base": model_identity(base, config.revision), "adapter": str(adapter)})
    os.replace(aside, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True, help="output folder of sft.py --use_peft")
    parser.add_argument("--output", type=Path, required=True, help="folder for the merged model")
    parser.add_argument("--base", help="Hub id or folder of the base model (default: the one that the adapter names)")
    arguments = parser.parse_args()
    try:
        merge(arguments.adapter, arguments.output, arguments.base)
    except (FileNotFoundError, FileExistsError) as error:
        sys.exit(f"merge_adapter.py: {error}")
    print(f"{arguments.output}: a whole model, ready for vLLM and eval/")
