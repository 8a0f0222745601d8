"""Where the time of an RL step goes, by arithmetic: writing, judging, training and what lies between, on any number of
GPUs. `benchmarks/step_model.py` prints it.

Nothing here is measured; every assumption is a field of `Assumptions`. Writing is simulated: an engine holds as many
summaries as its cache does, each gets one token a decoding step, and a step reads the weights and the cache once.
Lengths are drawn by seed from a long-tailed distribution (log-normal, cut at the limit). Stage 2 of a user begins when
the drawn summary of stage 1 is whole. Training: rows go to the ranks, a rank cuts its rows into passes; a pass
computes, gathers the weights it lacks and scatters gradients.
"""

import heapq
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignxplore.command import option
from alignxplore.records import hash_seed
from alignxplore.rl.memory import SHAPES, STATES, parameters, qwen3

NODE = 8  # GPUs
MODES = ("sync", "partial", "separate")


@dataclass(frozen=True)
class Card:
    """Figures of the data sheet: dense bf16 operations a second, bytes a second of memory and of NVLink one way,
    bytes of memory."""

    operations: float
    memory_speed: float
    link: float
    memory: float


CARDS = {
    "A100": Card(312e12, 2.04e12, 300e9, 80e9),
    "H100": Card(989e12, 3.35e12, 450e9, 80e9),
    "H200": Card(989e12, 4.8e12, 450e9, 141e9),
}


@dataclass(frozen=True)
class Model:
    """Sizes of a Qwen3 model: all parameters, layers, heads of keys and values times their width, query heads times
    theirs."""

    parameters: float
    layers: int
    keys: int
    queries: int

    @property
    def cache_bytes(self) -> float:
        """Of one token, keys and values in bf16."""
        return 2 * self.layers * self.keys * 2


def _model(layers: int, width: int, inner: int, heads: int, ties: bool) -> Model:
    config = qwen3(layers, width, inner, heads, ties)
    head = config.head_dim
    return Model(parameters(config), layers, config.num_key_value_heads * head, heads * head)


MODELS = {name.partition("/")[2]: _model(*shape) for name, shape in SHAPES.items()}


@dataclass(kw_only=True)
class Assumptions:
    """What is trained on which machine, and everything that is assumed; times are seconds, sizes bytes."""

    card: str = option(f"one of {', '.join(CARDS)}", "H100")
    model: str = option(f"policy, one of {', '.join(MODELS)}", "Qwen3-8B")
    judge: str = option("judge, of the same", "Qwen3-8B")
    judge_gpus: int = option("GPUs of the judge, besides; 0: one for each eight of the policy", 0)
    between_nodes: float = option("bytes a second and GPU between nodes, one way", 50e9)
    users: int = option("users a step", 1024)
    stages: int = option("stages of a stream", 2)
    rollouts: int = option("summaries a user and stage", 4)
    updates: int = option("updates a step", 4)
    prompt: int = option("mean tokens of a prompt, assumed", 4000)
    answer: int = option("mean tokens of reasoning and summary, assumed", 1500)
    spread: float = option("of the logarithm of an answer's length, assumed", 0.5)
    longest_prompt: int = option("PROMPT_LENGTH", 8192)
    longest_answer: int = option("RESPONSE_LENGTH", 4096)
    question: int = option("mean tokens of a judge's prompt, assumed", 1500)
    tp: int = option("GPUs of one engine", 2)
    gpu_memory: float = option("share of a GPU's memory that vLLM takes", 0.6)
    sequences: int = option("summaries that one engine writes at once, at most", 256)
    tokens_per_gpu: int = option("tokens of a pass", 24576)
    fsdp_size: int = option("GPUs that share one copy of the weights; 0: all", 0)
    balance: str = option("rows are dealt to ranks by `update` or by `step`", "update")
    training_share: float = option("of the card's operations while training, assumed", 0.4)
    reading_share: float = option("of the card's operations while prompts are read, assumed", 0.4)
    writing_share: float = option("of the memory's speed while writing, assumed", 0.6)
    network_share: float = option("of the links' speed, assumed", 0.7)
    overlap: float = option("share of the traffic that hides behind computing, as far as that lasts; assumed", 0.8)
    decode_overhead: float = option("seconds of a decoding step besides reading memory, assumed", 0.003)
    transfer: float = option("seconds of sending weights to the engines besides the bytes, assumed", 5.0)
    driver: float = option("bytes a second that the driver's thread moves, assumed", 1e9)
    driver_tensors: int = option("padded tensors of 8 bytes a token that the driver moves", 10)
    seed: int = option("of the drawn lengths", 1)


@dataclass(frozen=True)
class Writing:
    """Seconds of the slowest engine, those in which it was less than half full, and tokens of each row."""

    seconds: float
    tail: float
    rows: np.ndarray


@dataclass(frozen=True)
class Step:
    """Seconds of a step's parts on so many GPUs; `reason` says why it cannot be, and then nothing else counts."""

    gpus: int
    mode: str
    write: float = 0.0
    tail: float = 0.0
    judge: float = 0.0  # what judging adds to writing
    train: float = 0.0  # old probabilities and updates; of it:
    traffic: float = 0.0  # waiting for weights and gradients
    imbalance: float = 0.0  # waiting for the slowest rank
    serial: float = 0.0
    total: float = 0.0
    reason: str = ""

    def gpu_hours(self, users: int) -> float:
        """Of the policy's GPUs, for 1,024 users."""
        return self.gpus * self.total / 3600 * 1024 / users


def lengths(options: Assumptions, users: int, name: str, mean: int, limit: int, times: int) -> np.ndarray:
    """Tokens, (users, stages, times): log-normal around the mean, cut at the longest."""
    rng = np.random.default_rng(hash_seed("step model", options.seed, name))
    size = (users, options.stages, times)
    draws = rng.lognormal(np.log(mean) - options.spread**2 / 2, options.spread, size)
    return np.clip(draws, 1, limit).astype(int)


@dataclass(frozen=True)
class Engine:
    """One vLLM: `slots` summaries at once as far as its cache holds their tokens, and seconds of reading the weights
    once (with what else a decoding step takes), one token of the cache, and one token of a prompt."""

    slots: int
    cache: float
    weights: float
    token: float
    prompt: float

    def write(self, prompts: np.ndarray, answers: np.ndarray) -> tuple[float, float]:
        """(seconds until all is written, those in which it was less than half full). Tokens of prompts (users,
        stages) and of answers (users, stages, rollouts); the next stage waits for a group's first answer, which
        stands for the drawn one."""
        users, stages, rollouts = answers.shape
        queue = [(0, user, 0, k) for user in range(users) for k in range(rollouts)]  # (since tick, ...)
        streams: list[tuple[int, int, int, int]] = []  # (tick of its end, ...)
        tick, cache_tokens, read_tokens, seconds, tail, peak = 0, 0.0, 0.0, 0.0, 0.0, 0
        while queue or streams:
            while queue and len(streams) < self.slots:
                _, user, stage, k = queue[0]
                tokens, answer = float(prompts[user, stage]), int(answers[user, stage, k])
                if streams and cache_tokens + tokens + answer > self.cache:
                    break
                heapq.heappop(queue)
                cache_tokens, read_tokens = cache_tokens + tokens + answer, read_tokens + tokens + answer / 2
                seconds += tokens * self.prompt if k == 0 else 0.0  # a group shares its prompt
                heapq.heappush(streams, (tick + answer, user, stage, k))
            peak = max(peak, len(streams))
            took = (streams[0][0] - tick) * (self.weights + self.token * read_tokens)
            seconds += took
            tail += took if 2 * len(streams) < peak else 0.0
            tick, user, stage, k = heapq.heappop(streams)
            tokens, answer = float(prompts[user, stage]), int(answers[user, stage, k])
            cache_tokens, read_tokens = cache_tokens - tokens - answer, read_tokens - tokens - answer / 2
            if k == 0 and stage + 1 < stages:
                for rollout in range(rollouts):
                    heapq.heappush(queue, (tick, user, stage + 1, rollout))
        return seconds, tail


def engine_of(options: Assumptions) -> Engine:
    """The engine that `--tp` GPUs make; a cache below nothing says that the weights do not fit."""
    card, model, tp = CARDS[options.card], MODELS[options.model], options.tp
    speed = tp * card.memory_speed * options.writing_share
    free = tp * card.memory * options.gpu_memory - 2 * model.parameters
    return Engine(
        options.sequences,
        free / model.cache_bytes,
        2 * model.parameters / speed + options.decode_overhead,
        model.cache_bytes / speed,
        2 * model.parameters / (tp * card.operations * options.reading_share),
    )


def write(options: Assumptions, gpus: int, times: int = 1) -> tuple[float, float]:
    """(seconds of the slowest engine, of its tail) for `times` steps' users, dealt to the engines in turn."""
    engines, users = max(1, gpus // options.tp), options.users * times
    prompts = lengths(options, users, "prompts", options.prompt, options.longest_prompt, 1)[..., 0]
    answers = lengths(options, users, "answers", options.answer, options.longest_answer, options.rollouts)
    engine = engine_of(options)
    shares = [slice(rank, None, engines) for rank in range(min(engines, users, 32))]  # the slowest of 32 will do
    return max(engine.write(prompts[share], answers[share]) for share in shares)


def row_tokens(options: Assumptions) -> np.ndarray:
    """Tokens of each row of a step, in the order in which updates take them."""
    prompts = lengths(options, options.users, "prompts", options.prompt, options.longest_prompt, 1)
    answers = lengths(options, options.users, "answers", options.answer, options.longest_answer, options.rollouts)
    rows = (prompts + answers).ravel()
    return np.random.default_rng(hash_seed("step model", options.seed, "order")).permutation(rows)


def deal(rows: np.ndarray, ranks: int) -> list[list[int]]:
    """Rows to ranks, equally many to each: the longest goes to the rank with the fewest tokens."""
    room = -(-len(rows) // ranks)
    loads = [(0, rank) for rank in range(ranks)]
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for row in sorted(rows.tolist(), reverse=True):
        tokens, rank = heapq.heappop(loads)
        dealt[rank].append(row)
        if len(dealt[rank]) < room:
            heapq.heappush(loads, (tokens + row, rank))
    return dealt


def updates(options: Assumptions, ranks: int) -> Iterator[list[list[int]]]:
    """Each update's rows by rank."""
    rows = row_tokens(options)
    if options.balance == "update":
        for update in np.array_split(rows, options.updates):
            yield deal(update, ranks)
        return
    order = np.random.default_rng(hash_seed("step model", options.seed, "ranks"))
    shares = [order.permutation(share) for share in deal(rows, ranks)]  # equal over the step, not over an update
    for number in range(options.updates):
        yield [list(np.array_split(share, options.updates)[number]) for share in shares]


def passes(rows: Sequence[int], limit: int) -> list[int]:
    """Tokens of each pass: rows first-fit into bins, the longest first."""
    bins: list[int] = []
    for row in sorted(rows, reverse=True):
        place = next((i for i, tokens in enumerate(bins) if tokens + row <= limit), None)
        if place is None:
            bins.append(row)
        else:
            bins[place] += row
    return bins


def seconds_of_pass(options: Assumptions, tokens: int, ranks: int, with_update: bool) -> tuple[float, float]:
    """(seconds of one pass, those of them that wait for weights and gradients)."""
    card, model = CARDS[options.card], MODELS[options.model]
    share = ranks if options.fsdp_size == 0 else min(options.fsdp_size, ranks)
    link = (card.link if share <= NODE else options.between_nodes) * options.network_share
    gather_bytes = 2 * model.parameters * (share - 1) / share
    attention = 2 * model.layers * model.queries * (options.prompt + options.answer)  # a token sees half of its row
    factor = 8 if with_update else 2  # forward, again for the backward pass, backward twice
    work = factor * (model.parameters + attention) * tokens / (card.operations * options.training_share)
    traffic = gather_bytes / link
    if with_update:
        traffic += (gather_bytes + 2 * gather_bytes) / link  # weights again, gradients in float32
        copies = ranks // share
        if copies > 1:  # gradients of a share, summed over the copies
            network = options.between_nodes * options.network_share
            traffic += 2 * 4 * model.parameters / share * (copies - 1) / copies / network
    wait = traffic - min(traffic * options.overlap, work)
    return work + wait, wait


def train(options: Assumptions, ranks: int) -> tuple[float, float, float]:
    """(seconds of old probabilities and all updates, of waiting for traffic, of waiting for the slowest rank)."""
    total = traffic = imbalance = 0.0
    for update in updates(options, ranks):
        times = []
        for rows in update:
            parts = [
                seconds_of_pass(options, tokens, ranks, with_update)
                for tokens in passes(rows, options.tokens_per_gpu)
                for with_update in (False, True)
            ]
            times.append((sum(part[0] for part in parts), sum(part[1] for part in parts)))
        slowest = max(times)
        total, traffic = total + slowest[0], traffic + slowest[1]
        imbalance += slowest[0] - statistics.fmean(seconds for seconds, _ in times)
    return total, traffic, imbalance


def judging(options: Assumptions, gpus: int) -> float:
    """Seconds of all questions of a step."""
    card, cards = CARDS[options.card], options.judge_gpus or max(1, gpus // NODE)
    questions = options.users * options.stages * options.rollouts
    work = 2 * MODELS[options.judge].parameters * options.question * questions
    return work / (cards * card.operations * options.reading_share)


def serial(options: Assumptions, gpus: int) -> float:
    """Seconds in which the GPUs do nothing: weights to the engines, the driver's tensors."""
    rows = options.users * options.stages * options.rollouts
    driver_bytes = rows * (options.longest_prompt + options.longest_answer) * 8 * options.driver_tensors
    link = CARDS[options.card].link if gpus <= NODE else options.between_nodes
    send_seconds = 2 * MODELS[options.model].parameters / (link * options.network_share) if gpus > 1 else 0.0
    return driver_bytes / options.driver + options.transfer + send_seconds


def too_big(options: Assumptions, gpus: int) -> str:
    """Why the policy cannot be trained on so many GPUs, or nothing."""
    card, model = CARDS[options.card], MODELS[options.model]
    share = gpus if options.fsdp_size == 0 else min(options.fsdp_size, gpus)
    states = STATES * model.parameters / share
    if states > 0.8 * card.memory:
        return f"weights, gradients and Adam take {states / 1e9:.0f} GB a GPU"
    if engine_of(options).cache < options.longest_prompt + options.longest_answer:
        return "the cache of an engine does not hold one longest row"
    return ""


def a_step_behind(alone: float, with_next: float) -> float:
    """Seconds in which a step waits for writing where the next step's users are written behind its own: what these
    add, which has no tail. But no stream is let off: each has the time of two steps, so half of a step's writing is
    the least.

    Args:
        alone: seconds of writing one step's users.
        with_next: of writing two steps' users.
    """
    return max(with_next - alone, alone / 2)


def step(options: Assumptions, gpus: int, mode: str) -> Step:
    """A step in one of `MODES`; of `separate` the split that takes the least time."""
    options = replace(options, tp=min(options.tp, gpus))
    if reason := too_big(options, gpus):
        return Step(gpus, mode, reason=reason)
    if mode == "separate":
        return separate(options, gpus)
    seconds, tail = write(options, gpus)
    if mode == "partial":
        seconds, tail = a_step_behind(seconds, write(options, gpus, 2)[0]), 0.0
    judge = max(0.0, judging(options, gpus) - seconds)
    train_seconds, traffic, imbalance = train(options, gpus)
    alone = serial(options, gpus)
    total = seconds + judge + train_seconds + alone
    return Step(gpus, mode, seconds, tail, judge, train_seconds, traffic, imbalance, alone, total)


def separate(options: Assumptions, gpus: int) -> Step:
    """Writing on some GPUs and training on the others, at the same time. Only sending weights stops both."""
    fastest = Step(gpus, "separate", reason="too few GPUs to part")
    unit = max(options.tp, gpus // 16)
    for writers in range(unit, gpus, unit):
        if too_big(options, gpus - writers) and not too_big(options, gpus):
            continue
        own = replace(options, gpu_memory=0.9)  # nothing else on these
        seconds = write(own, writers, 2)[0] - write(own, writers)[0]
        train_seconds, traffic, imbalance = train(options, gpus - writers)
        busy = max(seconds, train_seconds + serial(options, gpus) - options.transfer, judging(options, gpus))
        total = busy + options.transfer
        if fastest.reason or total < fastest.total:
            fastest = Step(
                gpus, f"separate, {writers} write", seconds, 0.0, 0.0, train_seconds, traffic, imbalance,
                total - max(seconds, train_seconds), total,
            )  # fmt: skip
    return fastest
