"""What vLLM's workers have beside verl's own extension: the socket of this run for new weights (sockets.py). Named to
vLLM by `rollout.engine_kwargs.vllm.worker_extension_cls`."""

from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from alignxplore.rl.sockets import of_this_run


class WeightReceiver(vLLMColocateWorkerExtension):
    """verl's extension."""

    def _get_zmq_handle(self) -> str:
        return of_this_run(super()._get_zmq_handle())
