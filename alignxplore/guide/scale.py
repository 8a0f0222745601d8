"""What summaries of very many persons take: GPUs, hours, money, storage. Arithmetic; nothing here is measured.

    python -m alignxplore.guide.scale                                      # the tables of docs/scale.md
    python -m alignxplore.guide.scale --persons 5000000 --card A100 --price 1.8

A GPU writes as many summaries at once as its memory holds (`rl/step_model.py` has the engine). Each gets one token a
decoding step, and a step reads the weights and the cache once. Prompts are read between the steps. Every assumption is
an option, and stands below the tables.
"""

from dataclasses import asdict, dataclass, fields, replace

from alignxplore.command import Checkable, option, planned, run
from alignxplore.errors import UserError, at_least_one, not_negative, shares, shares_above_zero
from alignxplore.evaluation.report.tables import Table, markdown
from alignxplore.rl.step_model import CARDS, MODELS, engine_of
from alignxplore.rl.step_model import Assumptions as StepAssumptions

HOUR, GPUS = 3600, (8, 64, 512)


@dataclass(kw_only=True)
class ScaleOptions(Checkable):
    """How many persons, on what, and everything that is assumed."""

    persons: int = option("persons", 100_000_000)
    card: str = option(f"one of {', '.join(CARDS)}", "H100")
    model: str = option(f"policy, one of {', '.join(MODELS)}", "Qwen3-8B")
    choices: int = option("choices of a history", 60)
    choice_tokens: int = option("tokens of a choice in the prompt: what was chosen and what was passed over", 40)
    instruction: int = option("tokens of a prompt besides", 300)
    answer: int = option("mean tokens of reasoning and summary", 1500)
    summary: int = option("tokens of the summary alone", 200)
    gpu_memory: float = option("share of a GPU's memory that vLLM takes", 0.9)
    sequences: int = option("summaries that one engine writes at once, at most", 256)
    writing_share: float = option("of the memory's speed while writing", 0.6)
    reading_share: float = option("of the card's operations while prompts are read", 0.4)
    decode_overhead: float = option("seconds of a decoding step besides reading memory", 0.003)
    useful: float = option(
        "share of the GPUs' time in which they write: the rest is starts, tails and lost nodes", 0.85
    )
    price: float = option("dollars a GPU-hour", 2.5)
    active: float = option("share of the persons with new choices in a week", 0.1)
    fresh: int = option("new choices of such a person in a week", 10)
    text_bytes: float = option("bytes of a token's text", 4.0)
    client_ms: float = option("milliseconds of processor for a person, besides the model", 4.0)
    disk_price: float = option("dollars a month for a terabyte", 25.0)

    def __post_init__(self) -> None:
        for name, table in (("card", CARDS), ("model", MODELS)):
            if getattr(self, name) not in table:
                raise ValueError(f"--{name} {getattr(self, name)}: one of {', '.join(table)}")
        at_least_one(self, "persons", "choices", "answer", "sequences")
        shares_above_zero(self, "gpu_memory", "writing_share", "reading_share", "useful")
        shares(self, "active")
        not_negative(self, "choice_tokens", "instruction", "summary", "fresh")
        not_negative(self, "decode_overhead", "price", "text_bytes", "client_ms", "disk_price")


def seconds_each(options: ScaleOptions, prompt: int) -> float:
    """Seconds of one GPU for one answer to a prompt of so many tokens, when the GPU is full.

    Raises:
        UserError: the weights, or one prompt and answer, do not fit on the card.
    """
    engine = engine_of(
        StepAssumptions(
            card=options.card,
            model=options.model,
            tp=1,
            gpu_memory=options.gpu_memory,
            sequences=options.sequences,
            writing_share=options.writing_share,
            reading_share=options.reading_share,
            decode_overhead=options.decode_overhead,
        )
    )
    at_once = min(engine.slots, int(engine.cache / (prompt + options.answer)))
    if at_once < 1:
        raise UserError(f"{options.model} and one history do not fit on a {options.card} of {options.gpu_memory:g}")
    step = engine.weights + at_once * (prompt + options.answer / 2) * engine.token
    return (options.answer * step / at_once + prompt * engine.prompt) / options.useful


@dataclass(frozen=True)
class Job:
    """One way of writing summaries of all persons, or of those with new choices."""

    name: str
    persons: float
    prompts: tuple[int, ...]  # tokens of each stage's prompt

    def gpu_hours(self, options: ScaleOptions) -> float:
        """All its answers."""
        return self.persons * sum(seconds_each(options, prompt) for prompt in self.prompts) / HOUR


def jobs(options: ScaleOptions) -> list[Job]:
    """Full history, a stream of two slices, and a week's updates."""
    prompt, past_summary = options.instruction + options.choices * options.choice_tokens, options.summary
    half = options.instruction + options.choices // 2 * options.choice_tokens
    week = options.instruction + past_summary + options.fresh * options.choice_tokens
    return [
        Job("all, full history", options.persons, (prompt,)),
        Job("all, streaming, K = 2", options.persons, (half, half + past_summary)),
        Job("a week's updates (`--continue`)", options.persons * options.active, (week,)),
    ]


def rounded(value: float) -> str:
    """Three digits that count; arithmetic on assumptions knows no more."""
    return f"{float(f'{value:.3g}'):,g}" if value < 1e6 else f"{float(f'{value:.3g}') / 1e6:,g} million"


def gpu_table(options: ScaleOptions) -> Table:
    """GPU-hours, money and days of each job."""
    body = []
    for job in jobs(options):
        hours = job.gpu_hours(options)
        days = [rounded(hours / gpus / 24) for gpus in GPUS]
        body.append([job.name, rounded(job.persons), rounded(hours), rounded(hours * options.price), *days])
    head = ["job", "persons", "GPU-hours", "dollars", *(f"days on {gpus}" for gpus in GPUS)]
    return Table("gpus", f"{options.model} on {options.card}", head, body)


def storage_table(options: ScaleOptions) -> Table:
    """Terabytes of each file of a full-history run."""
    answer, choice = options.answer * options.text_bytes, options.choice_tokens * options.text_bytes
    sizes = {
        "histories (JSONL)": options.choices * (choice + 40),  # names of fields
        "journals: answer, reasoning and summary": 2 * answer + 500,
        "summaries alone": options.summary * options.text_bytes + 50,
    }
    body = [
        [name, rounded(size / 1e3), rounded(tb := size * options.persons / 1e12), rounded(tb * options.disk_price)]
        for name, size in sizes.items()
    ]
    return Table("storage", "On disk", ["file", "kB a person", "TB", "dollars a month"], body)


def assumed(options: ScaleOptions) -> Table:
    """Every assumption, by its option."""
    card = CARDS[options.card]
    body = [
        [f"`--{field.name}`", field.metadata["help"], f"{value:,}" if isinstance(value, int) else str(value)]
        for field in fields(options)
        if field.name != "check" and (value := asdict(options)[field.name]) is not None
    ]
    sheet = f"{card.operations:.3g} operations and {card.memory_speed:.3g} bytes a second, {card.memory:.3g} bytes"
    return Table(
        "assumed", "Assumed", ["option", "what", "value"], [*body, ["", f"data sheet of {options.card}", sheet]]
    )


def page(options: ScaleOptions) -> str:
    """The tables of docs/scale.md."""
    prompt = jobs(options)[0].prompts[0]
    rate = 1 / seconds_each(options, prompt)
    client = options.persons * options.client_ms / 1e3 / HOUR
    one_gpu = replace(options, useful=1.0)
    lines = [
        f"One {options.card} writes {rounded(rate)} summaries a second ({rounded(rate * options.answer)} tokens), "
        f"of prompts of {prompt:,} tokens.",
        f"Full to the brim it would be {rounded(1 / seconds_each(one_gpu, prompt))}.",
        f"Everything but the model takes {rounded(client)} hours of one processor, over all shards.",
    ]
    tables = (gpu_table(options), storage_table(options), assumed(options))
    return "\n\n".join([" ".join(lines), *map(markdown, tables)])


def scale(options: ScaleOptions) -> str:
    """The page, or with `--check` the options."""
    return planned(options) if options.check else page(options)


if __name__ == "__main__":
    run(scale, ScaleOptions, __doc__)
