"""A model named on the command line, made ready to be asked: policies, judges and teachers all come through here.

    NAME=TARGET   TARGET is a folder, a hub id (with an optional @revision) or the base URL of an endpoint (with @MODEL
                  where it serves several, and #TOKENIZER where the hub knows it under another name than the server)

A folder or hub id is served by a local `vllm serve` for the length of the with-block; an endpoint is used as it is.
"""

import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transformers import PreTrainedTokenizerBase

from alignxplore.errors import once
from alignxplore.prompts import Messages
from alignxplore.records import content_hash
from alignxplore.serving.beforehand import check_files, load_tokenizer, of_an_adapter
from alignxplore.serving.endpoint import Endpoint, is_url, last_part, parse_spec
from alignxplore.serving.fingerprints import commit, tokenizer_fingerprint, weights_fingerprint
from alignxplore.serving.serve_options import moving
from alignxplore.serving.server import check_alive, serve

log = logging.getLogger(__name__)
SERVED = "served:"  # begins the identity of what an endpoint serves
TOKENIZER = "#tokenizer="  # in an identity before the hash of a tokenizer that the command line names


@dataclass(frozen=True)
class Model:
    """An endpoint with its tokenizer. `identity` goes into the id of everything the model wrote. It changes when the
    weights do, as far as that can be seen from here: of an endpoint, its folder if it is on this machine, or else the
    name that the server gives them; its address only where that is no name (`_identity`). A tokenizer
    that is named behind the # and read here stands in it, too (`with_tokenizer`). `serving` is what `vllm serve` is
    told of one that is served here."""

    name: str
    endpoint: Endpoint
    tokenizer: PreTrainedTokenizerBase | None
    identity: str
    serving: tuple[str, ...] = ()

    @property
    def named(self) -> str:
        """What wrote: `identity`, as served, without what tells endpoints from models that are served here. A
        tokenizer wrote nothing."""
        return as_served(weights_of(self.identity), self.serving).removeprefix(SERVED)


@dataclass(frozen=True)
class ModelSpec:
    """What the command line says of a model."""

    name: str
    target: str
    revision: str | None = None
    tokenizer: str | None = None
    served_name: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """Parse NAME=TARGET[@REVISION][#TOKENIZER] or NAME=URL[@MODEL][#TOKENIZER]; without NAME= it is the target's
        last part."""
        name, target = parse_spec(text)
        prefix, equals, url = text.partition("=")
        if equals and "/" in prefix and not prefix.startswith(("http://", "https://")) and is_url(url):
            raise ValueError(f"'{prefix}' in {text}: a name becomes the name of files and cannot have a '/'")
        is_given = target != text  # a name that is given may have any sign: NAME#1, NAME#2 are training runs
        target, tokenizer = _split_tokenizer(target)
        revision = served_name = None
        if is_url(target) and "@" in urlsplit(target).path:  # one before the path would be a user and password
            target, _, served_name = target.partition("@")
        if not is_url(target) and not Path(target).exists():
            target, _, revision = target.partition("@")
            if target.startswith((".", "/", "~")) or target.count("/") > 1:
                raise FileNotFoundError(f"'{target}': no such model folder (for --model {text})")
        if sentence := of_an_adapter(target):
            raise FileNotFoundError(sentence)
        if not is_given:
            name = last_part(served_name or target)
        if not target.strip():
            raise ValueError(f"'{text}' names no model; give NAME=TARGET, whose target is a folder, a hub id or a URL")
        if not name.strip() or name in (".", "..") or "/" in name or not name.isprintable():
            raise ValueError(f"'{text}': '{name}' cannot be the name of a file; give the model one: NAME=TARGET")
        return cls(name, target, revision or None, tokenizer or None, served_name or None)

    @property
    def identity(self) -> str:
        """Fingerprint of a folder, id@commit of a hub model, URL@model of an endpoint (`Model.identity` knows what
        it serves)."""
        if is_url(self.target):
            return f"{self.target}@{self.served_name or 'main'}"
        return (
            weights_fingerprint(self.target)
            if Path(self.target).is_dir()
            else f"{self.target}@{commit(self.target, self.revision or 'main')}"
        )


def _split_tokenizer(target: str) -> tuple[str, str]:
    """TARGET[#TOKENIZER] → (target, tokenizer or ""). An existing path is one, whatever signs it has."""
    if Path(target).exists():
        return target, ""
    folder, _, tokenizer = target.rpartition("#")
    if folder and Path(folder).exists():
        return folder, tokenizer
    target, _, tokenizer = target.partition("#")
    return target, tokenizer


def parse_all(texts: Sequence[str]) -> list[ModelSpec]:
    """The models of one option. A ValueError names two that have one name: they would write into the same files."""
    specs = [ModelSpec.parse(text) for text in texts]
    for spec in specs:
        targets = [other.target for other in specs if other.name == spec.name]
        if len(targets) > 1:
            problem = f"{len(targets)} models are named {spec.name} ({', '.join(targets)})"
            raise ValueError(f"{problem}; give each one its own: NAME=TARGET")
    return specs


def served_here(specs: Iterable[ModelSpec]) -> int:
    """How many of these models are no endpoints."""
    return sum(not is_url(spec.target) for spec in specs)


def whereabouts(spec: ModelSpec, api_key_env: str | None = None, arguments: Sequence[str] = ()) -> str:
    """Where a model is to come from, in words: what `--check` says of it. The files of a folder are looked at; no
    server is started, no hub and no endpoint asked.

    Args:
        api_key_env: name of the variable with the key of its endpoint; empty where it has none.
        arguments: for `vllm serve`.

    Raises:
        ValueError: neither a model folder nor a hub id nor the URL of an endpoint, or a key that is not there.
        ModelError: a folder that cannot be served.
    """
    if is_url(spec.target):
        Endpoint(spec.target, spec.served_name, api_key_env=api_key_env)  # looks at what it is given
        model = f", model {spec.served_name}" if spec.served_name else ""
        key = f", key in {api_key_env}" if api_key_env else ""
        return f"endpoint {spec.target}{model}{key}"
    if Path(spec.target).exists() or spec.target.endswith(".gguf"):
        check_files(spec.target, spec.revision, arguments)
        return f"folder {spec.target}"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec.target):
        raise ValueError(f"'{spec.target}' is neither a model folder nor a hub id (OWNER/NAME) nor a URL")
    return f"hub model {spec.target}" + (f"@{spec.revision}" if spec.revision else "")


def choose(option: str, values: Sequence[str], names: Sequence[str], default: str) -> dict[str, str]:
    """What an option says of each model: VALUE holds for all of them, NAME=VALUE for one, `default` for those of which
    it says nothing.

    Raises:
        ValueError: a name that is none of `names`, one that is given twice, or several values for all.
    """
    pairs = [parse_spec(value) for value in values if "=" in value]
    once(option, (name for name, _ in pairs))
    for_one = dict(pairs)
    for_all = [value for value in values if "=" not in value]
    unknown = sorted(set(for_one) - set(names))
    if unknown or len(for_all) > 1:
        raise ValueError(
            f"--{option}: give one value for all models and NAME=VALUE for single ones of {', '.join(names)}; "
            f"found {' '.join(values)}"
        )
    return {name: for_one.get(name, *(for_all or [default])) for name in names}


def of_endpoint(identity: str) -> bool:
    """Is it the identity of a model behind an endpoint, and not of one that is served here?"""
    return identity.startswith(SERVED) or is_url(identity.partition("@")[0])


def weights_of(identity: str) -> str:
    """The identity without a tokenizer that was named."""
    return identity.partition(TOKENIZER)[0]


def with_tokenizer(identity: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The identity of a model for which a tokenizer is named: that one says which prompts fit, and which tokens are
    letters."""
    return f"{identity}{TOKENIZER}{content_hash(tokenizer_fingerprint(tokenizer))}"


def foreseen(spec: ModelSpec, weights: str | None, earlier: str) -> str:
    """`Model.identity` as far as it can be known without asking a server or the hub: the rest is as it was.

    Args:
        weights: identity of a model that is served here; None of an endpoint.
        earlier: the identity in an earlier run.
    """
    identity, _, tokenizer = earlier.partition(TOKENIZER)
    if weights is not None:
        identity = weights
    if not spec.tokenizer:
        return identity
    if Path(spec.tokenizer).is_dir():
        return with_tokenizer(identity, load_tokenizer(spec.name, spec.tokenizer))
    return f"{identity}{TOKENIZER}{tokenizer}"


def as_served(identity: str, arguments: Sequence[str]) -> str:
    """The identity of a model with those of its serving options that can move a number (`serve_options.MOVING`).

    An endpoint of others is served as it is: its options are not known.

    Args:
        arguments: for `vllm serve`.
    """
    return identity if of_endpoint(identity) else " ".join([identity, *moving(arguments)])


def _identity(endpoint: Endpoint) -> str:
    """What the server says stands behind the model's name (vLLM: a folder or hub id), by its weights where they lie
    here: the same at another address. A folder of another machine (`/model`) is no name: there the address stays."""
    name = served_weights(endpoint) or endpoint.model or ""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return f"{endpoint.url}@{endpoint.model}" + (f"={name}" if name != endpoint.model else "")
    return f"{SERVED}{name}"


def served_weights(endpoint: Endpoint) -> str:
    """What a connected endpoint's server says that it serves, wherever it is: the weights of a folder that lies here,
    else the folder or hub id that it names."""
    root = endpoint.root or ""
    return weights_fingerprint(root) if root and Path(root, "config.json").is_file() else root


async def look_up(spec: ModelSpec, window: int, api_key_env: str | None = None) -> tuple[str, int]:
    """(`Model.identity` of one with a tokenizer, tokens of its window) without opening the model: an endpoint's server
    is asked what it serves.

    Args:
        window: of a model that is served here; an endpoint's own is used where it is smaller.
    """
    identity = "" if is_url(spec.target) else spec.identity
    if is_url(spec.target):
        async with Endpoint(spec.target, spec.served_name, api_key_env=api_key_env) as endpoint:
            identity, window = _identity(endpoint), endpoint.window(window)
    if spec.tokenizer:
        identity = with_tokenizer(identity, load_tokenizer(spec.name, spec.tokenizer, spec.revision))
    return identity, window


@contextlib.asynccontextmanager
async def open_model(
    spec: ModelSpec,
    *,
    log_folder: str | Path,
    arguments: Sequence[str] = (),
    tokenizer: bool = True,
    sample: Messages | None = None,
    **options: Any,
) -> AsyncIterator[Model]:
    """Serve or connect; yields a `Model`. What can be known of it beforehand is known before anything is served.

    Args:
        arguments: for `vllm serve`.
        tokenizer: whether one is needed; some APIs' are not public.
        sample: a prompt that its chat template must take.
        options: those of `Endpoint`.
    """
    async with contextlib.AsyncExitStack() as stack:
        url, watch, model_tokenizer = spec.target, None, None
        if not is_url(url):
            check_files(spec.target, spec.revision, arguments)
            if tokenizer:
                model_tokenizer = load_tokenizer(spec.name, spec.tokenizer or spec.target, spec.revision, sample)
            url = await stack.enter_async_context(
                serve(
                    spec.target,
                    log_path=Path(log_folder) / f"serve_{spec.name}.log",
                    revision=spec.revision,
                    arguments=arguments,
                )
            )
            watch = partial(check_alive, url)
        async with Endpoint(url, spec.served_name, name=spec.name, watch=watch, **options) as endpoint:
            if tokenizer and model_tokenizer is None:
                model_tokenizer = load_tokenizer(
                    spec.name, spec.tokenizer or endpoint.root or "", spec.revision, sample
                )
            is_ours = url != spec.target
            identity = spec.identity if is_ours else _identity(endpoint)
            if spec.tokenizer and model_tokenizer is not None:
                identity = with_tokenizer(identity, model_tokenizer)
            yield Model(spec.name, endpoint, model_tokenizer, identity, tuple(arguments) if is_ours else ())
