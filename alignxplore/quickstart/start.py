"""A pipeline is carried out, or only told what it will do: the one way in from the quick start and the studies."""

from alignxplore.quickstart.plan import AT_ONCE, Pipeline, planned_steps


def carry_out(pipeline: Pipeline, check: bool = False, at_once: int = AT_ONCE) -> str:
    """Do what is not done yet, or only say what that is. Returns what is said at the end.

    Raises:
        FolderError: the folder is another run's just now. OtherRun: it was made with other settings.
        StepError: a step failed.
    """
    if check:
        return planned_steps(pipeline, at_once)
    from alignxplore.quickstart.runner import run  # needs psutil, which a bare Python has not

    return run(pipeline, at_once)
