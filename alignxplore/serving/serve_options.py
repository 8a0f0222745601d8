"""Options of `vllm serve`, read as vLLM reads them: what is there, and what of it moves a number.

vLLM takes `--name value` and `--name=value`, underscores for dashes, an option's beginning for its name, and
`--name.key value` for one value of an option that is an object. Used by whoever asks what a server is told.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

SERVE_ARGUMENTS = (
    "more arguments for `vllm serve`, after an =: --serve_arguments=--enforce-eager or "
    "'--serve_arguments=--tensor-parallel-size 2'"
)
# Options that change weights, arithmetic, prompts, answers or defaults of sampling; not how the work is spread, and
# not which kernels do it.
MOVING = frozenset(
    f"--{name}"
    for name in (
        # which model: weights, architecture, adapters
        *("model", "revision", "code-revision", "config", "config-format", "hf-config-path", "hf-overrides"),
        *("model-impl", "model-class-overrides", "load-format", "model-loader-extra-config", "ignore-patterns"),
        *("lora-modules", "lora-dtype", "lora-target-modules", "rope-scaling", "rope-theta"),
        # how exactly it computes, and what each token may look at
        *("dtype", "quantization", "quantization-config", "override-attention-dtype", "disable-sliding-window"),
        *("kv-cache-dtype", "kv-cache-dtype-skip-layers", "calculate-kv-scales", "mamba-cache-dtype"),
        *("mamba-ssm-cache-dtype", "enable-mamba-cache-stochastic-rounding"),
        # what becomes of a prompt
        *("tokenizer", "tokenizer-mode", "tokenizer-revision", "chat-template", "chat-template-content-format"),
        *("default-chat-template-kwargs", "cohere-format"),
        # how an answer is drawn, and read
        *("generation-config", "override-generation-config", "logits-processors", "logprobs-mode", "diffusion-config"),
        *("speculative-config", "spec-method", "spec-model", "spec-tokens"),
        *("reasoning-parser", "reasoning-parser-plugin", "reasoning-config", "structured-outputs-config"),
    )
)
_SHORT = {
    "-q": "--quantization",
    "-sc": "--speculative-config",
    "-dc": "--diffusion-config",
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
}
_NUMBER = re.compile(r"-\.?\d")  # begins a value, and no option


@dataclass(frozen=True)
class ServeOption:
    """One option as it stands on a command line.

    Attributes:
        name: with dashes, in full where it is one of `MOVING`: `--hf-overrides`.
        key: what stands behind the name's first dot; empty for the whole option.
        values: the words that follow it.
    """

    name: str
    key: str = ""
    values: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Name and key."""
        return f"{self.name}.{self.key}" if self.key else self.name

    def means(self, name: str) -> bool:
        """Whether vLLM takes it for the option of this name: a beginning is enough."""
        return self.name.startswith("--") and len(self.name) > 2 and name.startswith(self.name)


def read_options(words: Sequence[str]) -> list[ServeOption]:
    """The options among the words of a command line, in their order. What stands before the first one is left out."""
    options: list[ServeOption] = []
    for word in words:
        if word.startswith("-") and not _NUMBER.match(word):
            head, _, value = word.partition("=")
            if word.startswith("-q") and head != "-q":  # -qfp8
                head, value = "-q", word[2:]
            name, _, key = head.partition(".")
            options.append(ServeOption(_full(name), key, [value] if value else []))
        elif options:
            options[-1].values.append(word)
    return options


def _full(name: str) -> str:
    """A name of `MOVING` for each way to write it; any other one with dashes."""
    name = _SHORT.get(name, name.replace("_", "-") if name.startswith("--") else name)
    names = [other for other in MOVING if len(name) > 2 and other.startswith(name)]
    return names[0] if name not in MOVING and len(names) == 1 else name


def has_option(words: Sequence[str], name: str) -> bool:
    """Whether an option is among these words, whole or in parts, in whatever way it is written."""
    return any(option.means(name) for option in read_options(words))


def last_value(words: Sequence[str], name: str) -> str | None:
    """The value that vLLM takes of an option: the last one; None where it has none."""
    values = [option.values[-1] for option in read_options(words) if option.means(name) and option.values]
    return values[-1] if values else None


def moving(words: Sequence[str]) -> list[str]:
    """The options that can move a number, each as one text, sorted by their names. Where one is repeated, the last
    counts, so that these stay in their order. Quotes tell nothing apart."""
    options = sorted((x for x in read_options(words) if x.name in MOVING), key=lambda option: option.place)
    return [re.sub("[\"']", "", " ".join([option.place, *option.values])) for option in options]
