"""A LoRA adapter of `sft.py --use_peft` → a model folder like any other. `sft/merge_adapter.py` runs it."""

import os
import shutil
from dataclasses import MISSING, dataclass
from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignxplore.command import Checkable, option, planned
from alignxplore.environment import portable
from alignxplore.journal import RunLock
from alignxplore.model_folders import save
from alignxplore.records import read_object, write_json
from alignxplore.serving.fingerprints import model_identity


@dataclass(kw_only=True)
class MergeOptions(Checkable):
    """Which adapter, and where the whole model goes."""

    adapter: str = option("output folder of sft.py --use_peft")
    out: str = option("folder for the merged model", MISSING, "--output")
    base: str | None = option("Hub id or folder of the base model; default: the one that the adapter names", None)


def base_of(adapter: Path, output: Path, base: str | None = None) -> tuple[str, str | None]:
    """(base model, its revision) of an adapter that is to be merged into `output`.

    Raises:
        FileNotFoundError: `adapter` holds no adapter, or its base is a folder that is not there;
        FileExistsError: `output` is there already.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise FileNotFoundError(f"{adapter}: no adapter_config.json; give the output folder of sft.py --use_peft")
    if output.exists():
        raise FileExistsError(f"{output}: exists; choose another --out, or delete it")
    read_object(adapter / "adapter_config.json", remedy="copy it again")  # a damaged one: peft would not name it
    config = PeftConfig.from_pretrained(adapter)
    base_name = str(config.base_model_name_or_path)
    if base or not base_name.startswith((f"..{os.sep}", f"{os.sep}")):  # a hub id
        return base or base_name, config.revision
    if not (adapter / base_name).is_dir():
        raise FileNotFoundError(
            f"{adapter}: its base model {Path(base_name).name!r} is not at {base_name}; give --base"
        )
    return os.path.normpath(adapter / base_name), config.revision


def name_base_from_here(folder: Path) -> None:
    """Where the adapter in `folder` names a folder as its base, say it as seen from there: adapters are passed on."""
    path = folder / "adapter_config.json"
    config = read_object(path) if path.is_file() else {}
    base_name = str(config.get("base_model_name_or_path", ""))
    if os.path.isabs(base_name) or (base_name and Path(base_name).is_dir()):
        is_near = os.path.commonpath([os.path.abspath(base_name), os.path.abspath(folder)]) != os.sep
        relative_name = os.path.relpath(base_name, folder) if is_near else os.path.join("..", Path(base_name).name)
        write_json(path, config | {"base_model_name_or_path": relative_name})


def merge(adapter: Path, output: Path, base: str | None = None) -> None:
    """Write `output`: the base model (by default the one the adapter names) with the adapter's weights added; raises
    what `base_of` raises, and RunLocked."""
    with RunLock(output, beside=True):
        _merge(adapter, output, base)


def _merge(adapter: Path, output: Path, base: str | None) -> None:
    base, revision = base_of(adapter, output, base)
    model = AutoModelForCausalLM.from_pretrained(base, revision=revision, dtype="auto")
    dtype = model.dtype
    full_model = PeftModel.from_pretrained(model.float(), adapter).merge_and_unload().to(dtype)
    aside = output.with_name(f".{output.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    save(full_model, AutoTokenizer.from_pretrained(adapter), aside)
    write_json(aside / "merged.json", {"base": model_identity(base, revision), "adapter": portable(adapter)})
    os.replace(aside, output)


def merge_adapter(options: MergeOptions) -> str:
    """Merge; says where the model is."""
    if options.check:
        base, revision = base_of(Path(options.adapter), Path(options.out), options.base)
        return planned(options, f"base model: {model_identity(base, revision)}")
    merge(Path(options.adapter), Path(options.out), options.base)
    return f"{options.out}: a whole model, ready for vLLM and eval/"
