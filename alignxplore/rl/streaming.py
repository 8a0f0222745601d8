"""verl's rollout worker for streams: runs each user's chain, publishes its rows for the update, keeps a record of it.

verl hands the worker a batch of users and goes on; each user's chain (alignxplore/rl/chain.py) runs as a task of its
own on one event loop, so generation, judging and later stages of all users overlap. Rows go to verl's TransferQueue
under keys `<uid>_s<stage>_<rollout>_0`: verl groups an update by what stands before the first `_` (the user) and GRPO
by the field `uid` (user and stage), so that each stage is a group of its own and all of them land in one
update.

The runner (alignxplore/rl/runner.py) starts the actors before anything else, so that their imports overlap.
"""

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from transformers import PreTrainedTokenizerBase
from verl.experimental.agent_loop import AgentLoopWorker
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.llm_server import LLMServerClient

from alignxplore.history import fit
from alignxplore.prompts import FORMATS, PromptSet
from alignxplore.records import Interaction, content_hash, hash_seed
from alignxplore.rl.chain import Chain, ChainRunner, Generation, Group, Prompt
from alignxplore.rl.dataset import parse_row
from alignxplore.rl.reward import Judges, Watched
from alignxplore.rl.settings import Streaming
from alignxplore.rl.step_records import ChainRecord, chain_record, failed_record

log = logging.getLogger(__name__)
T = TypeVar("T")
INTERRUPTED = "aborted"  # verl's word for an answer that an engine had to leave unfinished


class VerlPolicy:
    """The policy behind verl's rollout engine.

    Args:
        sampling: parameters of the engine; `max_tokens` is the longest answer.
        budget: the longest prompt, in tokens. verl would cut a longer one from the left without a word, so every
            prompt is measured and fitted here.
        executor: one thread, in which all chains of a worker turn text into tokens and back: a long prompt takes
            some hundredths of a second, and the loop that streams every user must not wait for it. The tokenizer lets
            other threads run meanwhile; one thread alone, because it does not bear two.
    """

    def __init__(
        self,
        client: LLMServerClient,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptSet,
        sampling: dict,
        budget: int,
        form: str,
        step: int,
        executor: Executor,
    ):
        self.step, self.token_executor = step, executor
        self.client, self.tokenizer, self.prompts = client, tokenizer, prompts
        self.sampling, self.budget, self.form = sampling, budget, form

    async def prompt(self, interactions: Sequence[Interaction], past_summary: str | None) -> Prompt:
        """Token ids of the *infer* prompt, with as many of the newest interactions as fit. A prompt that fits is
        tokenised once."""
        return await self._aside(self._prompt, interactions, past_summary)

    async def _aside(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.token_executor, work, *arguments)

    def _prompt(self, interactions: Sequence[Interaction], past_summary: str | None) -> Prompt:
        ids_by_count: dict[int, list[int]] = {}  # by the number of interactions, which are always the newest

        def count(newer: Sequence[Interaction]) -> int:
            if len(newer) not in ids_by_count:
                ids_by_count[len(newer)] = self._ids(newer, past_summary)
            return len(ids_by_count[len(newer)])

        excerpt = fit(interactions, count, self.budget)
        return Prompt(ids_by_count[len(excerpt.interactions)], excerpt.dropped)

    def _ids(self, interactions: Sequence[Interaction], past_summary: str | None) -> list[int]:
        ids = self.tokenizer.apply_chat_template(
            self.prompts.infer(interactions, past_summary, self.form),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            enable_thinking=FORMATS[self.form].reasons,
        )
        return list(ids)

    async def write(self, prompt: Prompt, seed: int) -> Generation:
        """One sampled answer. The engine draws it from a generator of its own, so that neither who else is being
        written nor which engine writes it changes what is drawn.

        Asynchronous training interrupts an engine to send it new weights. The answer is then gone on with under
        these, drawn with another seed: the old one would repeat the draws of its beginning.
        """
        # The request id only chooses the server: members of a group go to one, where the prompt is cached. In another
        # step the same prompt is free to go to whoever has less to do.
        request = f"{self.step}_{hash(tuple(prompt.ids))}"
        ids: list[int] = []
        log_probs: list[float] = []
        versions: list[tuple[int | None, int]] = []  # step of the weights, tokens that they wrote
        while True:
            limit = {"max_tokens": self.sampling["max_tokens"] - len(ids)}
            draw = {"seed": hash_seed("continued", seed, len(ids)) if ids else seed}
            output = await self.client.generate(
                request_id=request, prompt_ids=prompt.ids + ids, sampling_params=self.sampling | limit | draw
            )
            ids += output.token_ids
            log_probs += output.log_probs or []
            if output.token_ids:
                versions.append((output.extra_fields.get("global_steps"), len(output.token_ids)))
            if output.stop_reason != INTERRUPTED or len(ids) >= self.sampling["max_tokens"]:
                break
        if not ids:
            raise RuntimeError(f"the rollout engine wrote nothing (stop reason: {output.stop_reason})")
        text = await self._aside(functools.partial(self.tokenizer.decode, skip_special_tokens=True), ids)
        return Generation(ids, log_probs or None, text, versions)


class StreamingWorker(AgentLoopWorker):
    """Runs chains. Training is fire and forget, as verl wants it; validation returns its records."""

    # Borrowed, not inherited: verl's class is wrapped for Ray and its zero-argument super() breaks when it is shipped.
    generate_sequences = AgentLoopWorkerTQ.__ray_actor_class__.generate_sequences

    def __init__(self, config: DictConfig, *args: object, **kwargs: object):
        super().__init__(config, *args, **kwargs)
        tq.init()
        self.background_tasks: set[asyncio.Task] = set()
        self.settings = Streaming.from_config(config.streaming)
        self.prompts = PromptSet(self.settings.prompts)
        self.records: list[ChainRecord] = []
        self.token_executor = ThreadPoolExecutor(1, "tokenise")

    async def connect(self) -> None:
        """Connect to the judges; chains may run after that. Each worker has its part of the requests in flight."""
        workers = self.config.actor_rollout_ref.rollout.agent.num_workers
        share = replace(self.settings, judge_concurrency=max(1, self.settings.judge_concurrency // workers))
        self.judges = await Judges.connect(share)
        self.observers = await Judges.connect_watching(share)

    def drain(self) -> tuple[list[ChainRecord], dict[str, int]]:
        """The records of all chains that ended since the last call, and how many requests to judges were repeated, by
        kind."""
        records, self.records = self.records, []
        return records, self.judges.repeated() | self.observers.repeated()

    async def validate(self, rows: Sequence[dict], step: int) -> list[ChainRecord]:
        """Run the chains of held-out users, one summary a stage, decoded as `streaming.val_temperature` says (the
        default is eval's). Returns their records with texts."""
        kwargs = self.config.actor_rollout_ref.rollout.val_kwargs
        sampling = {"temperature": kwargs.temperature, "top_p": kwargs.top_p, "top_k": kwargs.top_k}

        async def one(row: dict) -> ChainRecord:
            try:
                return chain_record(await self._run_chain(row, sampling, step, training=False), step, texts=True)
            except (
                Exception
            ) as error:  # as in training: counted by the trainer, which writes the step down before it stops
                log.exception("the validation chain of user %s failed", row["user"])
                return failed_record(row["user"], step, self.settings.stages, error)

        return list(await asyncio.gather(*(one(row) for row in rows)))

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        """verl's coroutine for one prompt, here for one user's chain."""
        uid, step = prompt["uid"], trajectory["step"]
        await tq.async_kv_put(key=uid, partition_id="train", tag={"status": "running"})
        try:
            chain = await self._run_chain(prompt["extra_info"], sampling_params, step, training=True)
            await self._publish(chain, uid, step)
            self.records.append(chain_record(chain, step))
        except Exception as error:  # whatever it was, the step must end: the trainer counts it and stops above a share
            log.exception("the chain of user %s failed", prompt["extra_info"]["user"])
            self.records.append(failed_record(prompt["extra_info"]["user"], step, self.settings.rows_per_user, error))
        # Also where it failed: verl's asynchronous buffer would fetch another user in the place of this one.
        await tq.async_kv_put(key=uid, partition_id="train", tag={"status": "finished"})

    async def _run_chain(self, row: dict, sampling: dict, step: int, training: bool) -> Chain:
        user, stages = parse_row(row, self.settings.targets if training else self.settings.val_targets)
        rollout = self.rollout_config
        policy = VerlPolicy(
            self.llm_client,
            self.tokenizer,
            self.prompts,
            {"max_tokens": rollout.response_length, "logprobs": training} | sampling,
            rollout.prompt_length,
            self.settings.form,
            step,
            self.token_executor,
        )
        count = self.settings.rollouts if training else 1
        judges = self.judges if training else Watched(self.judges, self.observers)
        return await ChainRunner(user, stages, policy, judges, self.settings, step, count).run(training)

    async def _publish(self, chain: Chain, uid: str, step: int) -> None:
        keys, fields, tags = [], [], []
        order = content_hash(["update", self.settings.seed, step, chain.user])
        for group in chain.groups:
            name = f"{uid}_s{group.stage + 1}"
            for i, rollout in enumerate(group.rollouts):
                if rollout.total is not None:
                    keys.append(f"{name}_{i}_0")
                    fields.append(training_row(group, i, name))
                    tags.append(row_tag(group, i, step, order))
        if keys:
            await tq.async_kv_batch_put(
                keys=keys, fields=list_of_dict_to_tensordict(fields), tags=tags, partition_id="train"
            )


def training_row(group: Group, i: int, name: str) -> dict:
    """The fields that verl's trainer reads of one rollout; its total reward stands at the last token."""
    rollout = group.rollouts[i]
    if rollout.generation.log_probs is None:
        raise RuntimeError(
            "the rollout engine gave no log-probabilities; set actor_rollout_ref.rollout.calculate_log_probs=true"
        )
    prompt, response = torch.tensor(group.prompt.ids), torch.tensor(rollout.generation.ids)
    mask, rewards = torch.ones_like(response), torch.zeros(len(response))
    rewards[-1] = rollout.total
    return {
        "uid": name,
        "session_id": i,
        "prompts": prompt,
        "responses": response,
        "response_mask": mask,
        "loss_mask": mask,
        "input_ids": torch.cat([prompt, response]),
        "position_ids": torch.arange(len(prompt) + len(response)),
        "rollout_log_probs": torch.tensor(rollout.generation.log_probs),
        "rm_scores": rewards,
        "num_turns": 2,
    }


def row_tag(group: Group, i: int, step: int, order: str) -> dict:
    """What verl's trainer knows of a row without fetching it; `stage` and `order` are ours (see updates.py)."""
    generation = group.rollouts[i].generation
    lengths = {
        "prompt_len": len(group.prompt.ids),
        "response_len": len(generation.ids),
        "seq_len": len(group.prompt.ids + generation.ids),
    }
    steps = [step for step, _ in generation.versions if step is not None]
    has_versions = bool(steps) and len(steps) == len(generation.versions)
    weights = {
        "min_global_steps": min(steps) if has_versions else None,
        "max_global_steps": max(steps) if has_versions else None,
    }
    about = {"status": "success", "global_steps": step, "stage": group.stage, "order": order}
    return about | lengths | weights | {"versions": list(generation.versions)}


class StreamingActor:
    """A worker in a Ray process of its own. It is there, with everything imported, before there is anything to roll
    out."""

    async def setup(self, config: DictConfig, *args: object) -> None:
        """Create the worker; the arguments are verl's for an AgentLoopWorker."""
        self.worker = StreamingWorker(config, *args)
        await self.worker.connect()

    async def generate_sequences(self, batch: TensorDict) -> None:
        """Start the chains of a batch of users; returns at once."""
        await self.worker.generate_sequences(batch)

    async def ping(self) -> None:
        """Answers as long as the process lives."""

    async def drain(self) -> tuple[list[ChainRecord], dict[str, int]]:
        """See `StreamingWorker.drain`."""
        return self.worker.drain()

    async def validate(self, rows: Sequence[dict], step: int) -> list[ChainRecord]:
        """See `StreamingWorker.validate`."""
        return await self.worker.validate(rows, step)


def start_actors(config: DictConfig) -> list[ray.actor.ActorHandle]:
    """One actor for each of `rollout.agent.num_workers`, spread over the nodes of the cluster."""
    actor = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(StreamingActor)
    return [actor.remote() for _ in range(config.actor_rollout_ref.rollout.agent.num_workers)]


class StreamingManager(AgentLoopManagerTQ):
    """Spreads users over the actors. `generate_sequences` is verl's own."""

    def __init__(self, actors: Sequence[ray.actor.ActorHandle], *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.actors = list(actors)

    async def _init_agent_loop_workers(self) -> None:
        self.agent_loop_workers = self.actors
        setups = (actor.setup.remote(self.config, self.llm_client, self.teacher_client, []) for actor in self.actors)
        await asyncio.gather(*setups)

    def drain(self) -> tuple[list[ChainRecord], dict[str, int]]:
        """The records of all chains that ended since the last call, and the sums of requests to judges that were
        repeated."""
        parts = ray.get([actor.drain.remote() for actor in self.actors])
        return [record for records, _ in parts for record in records], dict(
            sum((Counter(repeats) for _, repeats in parts), Counter())
        )

    def fault(self) -> str | None:
        """What has become of a process that runs users' streams, if one has ended; None while all live (a busy one may
        answer later)."""
        pings = [actor.ping.remote() for actor in self.actors]
        for answer in ray.wait(pings, num_returns=len(pings), timeout=1)[0]:
            try:
                ray.get(answer)
            except ray.exceptions.RayActorError as error:
                return f"a process that ran users' streams ended: {' '.join(str(error).split())[:300]}"
        return None

    def validate(self, rows: Sequence[dict], step: int) -> list[ChainRecord]:
        """Records of the chains of held-out users, in the order of `rows`."""
        count = len(self.actors)
        parts = ray.get(
            [actor.validate.remote(rows[w::count], step) for w, actor in enumerate(self.actors)],
            timeout=self.config.streaming.step_limit,
        )
        return [parts[i % count][i // count] for i in range(len(rows))]
