"""A rollout engine that takes new weights and loses them: what the check of every step must catch."""

from alignxplore.rl.cpu_vllm import UpdatableWorker


class BrokenWorker(UpdatableWorker):
    """Receives the weights and does not load them."""

    def _update_weights(self, weights: object, peft_config: object = None, base_sync_done: bool = False) -> None:
        return
