"""Block-wise Adaptive Caching: fast sampling from Transformer Diffusion Policies without retraining."""
from bac.accelerate import Acceleration, accelerate
from bac.schedule import Schedule, ScheduleError

__all__ = ["Acceleration", "Schedule", "ScheduleError", "accelerate"]
