"""A model named on the command line, made ready to be asked: policies, judges and teachers all come through here.

    NAME=TARGET   TARGET is a folder, a hub id (with an optional @revision) or the base URL of an endpoint (with @MODEL where it
                  serves several, and #TOKENIZER where the hub knows it under another name than the server)

A folder or hub id is served by a local `vllm serve` for the length of the with-block; an endpoint is used as it is.
"""

import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignxplore.endpoint import Endpoint, is_url, parse_spec
from alignxplore.serving import serve

log = logging.getLogger(__name__)
_EDGE = 1 << 20  # bytes hashed at both ends of a weight file


@dataclass(frozen=True)
class Model:
    """An endpoint with its tokenizer. `identity` changes when the weights do; it goes into the id of everything they wrote."""

    name: str
    endpoint: Endpoint
    tokenizer: PreTrainedTokenizerBase | None
    identity: str


@dataclass(frozen=True)
class ModelSpec:
    """What the command line says of a model."""

    name: str
    target: str
    revision: str | None = None
    tokenizer: str | None = None
    served: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """Parse NAME=TARGET[@REVISION][#TOKENIZER] or NAME=URL[@MODEL][#TOKENIZER]; without NAME= it is the target's last part."""
        name, target = parse_spec(text)
        target, _, tokenizer = target.partition("#")
        name = name.partition("#")[0]
        revision = served = None
        if is_url(target) and "@" in urlsplit(target).path:  # one before the path would be a user and password
            target, _, served = target.partition("@")
            name = name if text.startswith(f"{name}=") else served.rsplit("/", 1)[-1]
        if not is_url(target) and not Path(target).exists():
            target, _, revision = target.partition("@")
            if target.startswith((".", "/", "~")) or target.count("/") > 1:
                raise FileNotFoundError(f"'{target}': no such model folder (for --model {text})")
        if (Path(target) / "adapter_config.json").is_file():
            raise FileNotFoundError(f"'{target}' holds a LoRA adapter and not a model; merge it into its base first: "
                                    f"python sft/merge_adapter.py --adapter {target} --output {target.rstrip('/')}_merged")
        return cls(name.partition("@")[0], target, revision or None, tokenizer or None, served or None)

    @property
    def identity(self) -> str:
        """Fingerprint of a folder, id@revision of a hub model, URL and model of an endpoint."""
        return fingerprint(self.target) if Path(self.target).is_dir() else f"{self.target}@{self.served or self.revision or 'main'}"


def choose(option: str, values: Sequence[str], names: Sequence[str], default: str) -> dict[str, str]:
    """What an option says of each model: VALUE holds for all of them, NAME=VALUE for one, `default` for those of which it says nothing.

    Raises:
        ValueError: a name that is none of `names`, or several values for all.
    """
    for_one = dict(parse_spec(value) for value in values if "=" in value)
    for_all = [value for value in values if "=" not in value]
    unknown = sorted(set(for_one) - set(names))
    if unknown or len(for_all) > 1:
        raise ValueError(f"--{option}: give one value for all models and NAME=VALUE for single ones of {', '.join(names)}; "
                         f"found {' '.join(values)}")
    return {name: for_one.get(name, *(for_all or [default])) for name in names}


def fingerprint(folder: str | Path) -> str:
    """Hash of a model folder: names, sizes and both ends of its weights, and its configuration and tokenizer files."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*")):
        if path.suffix in (".safetensors", ".bin", ".json", ".jinja") and path.name != "trainer_state.json":
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with path.open("rb") as file:
                digest.update(file.read(_EDGE))
                if size > _EDGE:
                    file.seek(-_EDGE, 2)
                    digest.update(file.read(_EDGE))
    return digest.hexdigest()[:16]


@contextlib.asynccontextmanager
async def open_model(spec: ModelSpec, *, log_folder: str | Path, arguments: Sequence[str] = (), tokenizer: bool = True,
                     **options: object) -> AsyncIterator[Model]:
    """Serve or connect; yields a `Model`. `options` go to `Endpoint`, `arguments` to `vllm serve`; some APIs' tokenizers are not public."""
    with contextlib.ExitStack() as stack:
        url = spec.target
        if not is_url(url):
            url = stack.enter_context(serve(spec.target, log_path=Path(log_folder) / f"serve_{spec.name}.log",
                                            revision=spec.revision, arguments=arguments))
        async with Endpoint(url, spec.served, name=spec.name, **options) as endpoint:
            source = spec.tokenizer or (spec.target if url != spec.target else endpoint.root)
            loaded = AutoTokenizer.from_pretrained(source, revision=spec.revision) if tokenizer else None
            yield Model(spec.name, endpoint, loaded, spec.identity)
