"""A rollout engine that from its third weight update on loses what it is sent: what the check of every step must
catch.

Only one engine of a run breaks, the first to take the file that BROKEN_SYNC names: the other replicas are sound.
"""

import os

from alignxplore.rl.cpu_vllm import UpdatableWorker


class BrokenWorker(UpdatableWorker):
    """Receives the weights and does not load them."""

    def update_weights_from_ipc(self, *args: object, **kwargs: object) -> None:
        if not hasattr(self, "updates"):
            self.updates, self.breaks = 0, _first()
        self.updates += 1
        return super().update_weights_from_ipc(*args, **kwargs)

    def _update_weights(self, *args: object, **kwargs: object) -> None:
        if not (self.breaks and self.updates > 2):
            super()._update_weights(*args, **kwargs)


def _first() -> bool:
    try:
        os.close(os.open(os.environ["BROKEN_SYNC"], os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False
