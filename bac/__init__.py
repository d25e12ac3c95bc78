"""Block-wise Adaptive Caching: fast sampling from Transformer Diffusion Policies without retraining."""

try:
    from bac.accelerate import Acceleration, accelerate
    from bac.schedule import Schedule, ScheduleError
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "diffusion_policy":
        raise
    import sys

    found = getattr(sys.modules.get("diffusion_policy"), "__path__", "nothing")
    raise ImportError(
        f"{error.name}, which is a part of this project, is not among what Python finds as diffusion_policy ({list(found)}). A package of "
        "this name with a file __init__.py hides all others: delete that empty file, or use an environment without that package"
    ) from error

__all__ = ["Acceleration", "Schedule", "ScheduleError", "accelerate"]
