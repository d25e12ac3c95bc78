"""A demonstrator that needs no simulator; its own module, so that worker processes can import it.

Run as a script, it collects slowly until somebody kills it: toy_demonstrator.py <output> <n_episodes> <n_workers>
[<seconds>].
"""

import os
import signal
import sys
import time
from functools import partial

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())

from diffusion_policy.env.offscreen import RenderingError

FAILING = (2, 5)  # seeds without a demonstration


class ToyDemonstrator:
    def __init__(self, seconds=0.0, broken=None, always_fails=False):
        if broken == "from the start":
            raise RenderingError("no OpenGL here")
        self.seconds, self.broken, self.always_fails = seconds, broken, always_fails

    def record(self, seed):
        time.sleep(self.seconds * (1 + seed % 3))
        if seed == 3 and self.broken == "raises":
            raise ArithmeticError("the toy broke")
        if seed == 3 and self.broken == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if seed in FAILING or self.always_fails:
            return None
        rng = np.random.default_rng(seed)
        action = np.full((4 + seed % 5, 2), seed)
        if seed == 3 and self.broken == "nan":
            action = np.where(np.arange(len(action))[:, None] == 2, np.nan, action)
        return {"obs": rng.normal(size=(4 + seed % 5, 3)).astype(np.float32), "action": action}

    def close(self):
        pass


if __name__ == "__main__":
    from toy_demonstrator import ToyDemonstrator as Importable

    from diffusion_policy.demos.collect import collect

    seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 0.2
    collect(partial(Importable, seconds=seconds), sys.argv[1], int(sys.argv[2]), n_workers=int(sys.argv[3]))
