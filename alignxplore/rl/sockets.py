"""verl's training worker, with two things of the run's own: the socket by which it sends new weights to the rollout
engine on its GPU, and how long its ranks wait for each other.

verl 0.9.1 names it /tmp/rl-colocate-zmq-JOB-..., and Ray's job is the first in every Ray: two runs on one machine,
each with a Ray of its own, would take each other's weights. The trainer's end is named here, the engine's in
alignxplore/rl/engine.py. It reads no `actor_rollout_ref.nccl_timeout` either. By NCCL's own ten minutes a run would
end where the first rank writes the model for longer: the others wait for it.
"""

import tempfile

from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import distributed
from verl.workers.engine_workers import ActorRolloutRefWorker

LONGEST = 107  # bytes of the path of a socket


def of_this_run(handle: str) -> str:
    """The same socket in the folder for temporary files, which a Ray of its own has for itself
    (alignxplore/rl/cluster.py); where its path would be too long for a socket, as it was."""
    path = f"{tempfile.gettempdir()}/{handle.rpartition('/')[2]}"
    return f"ipc://{path}" if len(path.encode()) <= LONGEST else handle


class WeightSender(ActorRolloutRefWorker):
    """verl's worker, which trains and sends."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        # verl's own call comes later, gives no time, and finds this group.
        distributed.initialize_global_process_group_ray(timeout_second=self.config.nccl_timeout)
        super().init_model()
        if hasattr(self.rollout, "zmq_handle"):  # another engine may be told its weights in another way
            self.rollout.zmq_handle = of_this_run(self.rollout.zmq_handle)
