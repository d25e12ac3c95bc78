"""No C++ exception leaves the native library: what fails there is a Python error, and no thread is left behind."""

import subprocess
import sys
from ctypes import byref, create_string_buffer

import pytest

from bac import accelerate
from bac.native import build, engine, structs
from tests.bac.tiny_policies import needs_compiler, observation, seeded, tiny_policy
from tests.conftest import ROOT

pytestmark = needs_compiler

CHILD = """
import os, resource
import torch
from bac import accelerate
from tests.bac.tiny_policies import observation, seeded, tiny_policy

torch.set_num_threads(1)
policy = tiny_policy(steps=3)

def run(threads, batch):
    with accelerate(policy, runtime="compiled", threads=threads) as fast:
        return fast.predict_action(observation(batch), seeded(*range(batch)))["action"]

expected = run(1, 1)
tasks = len(os.listdir("/proc/self/task"))
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,) * 2)
for batch in (1, 300):
    try:
        run(300, batch)
    except (RuntimeError, MemoryError) as error:
        print(type(error).__name__, "use fewer threads" in str(error), len(os.listdir("/proc/self/task")) - tasks)
print(torch.equal(run(1, 1), expected))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_threads_that_cannot_be_started_are_an_error():
    """Too little address space for their stacks: the process goes on, and so does the policy with fewer of them."""
    result = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["NativeError True 0", "NativeError True 0", "True"]


@pytest.mark.parametrize("threads", [1025, 10**6, 2**31 - 1])
def test_more_threads_than_any_machine_has_are_refused(threads):
    with pytest.raises(ValueError, match=r"threads must lie in 1..1024"):
        accelerate(tiny_policy(), runtime="compiled", threads=threads)


class Recorded:
    """The last model and call that a policy gave to the library."""

    def __init__(self, monkeypatch):
        original = engine.sample

        def keep(library, model, call):
            self.library, self.model, self.call = library, model, call
            original(library, model, call)

        with monkeypatch.context() as patched:
            patched.setattr(engine, "sample", keep)
            self.policy = tiny_policy()
            self.fast = accelerate(self.policy, runtime="compiled", threads=1)
            with self.fast:
                self.fast.predict_action(observation(), seeded(0))


WRONG_MODELS = {
    "layers": [0, -1, 5000],
    "heads": [0, 3, 64],
    "d": [0, 24, -16],
    "d_in": [0, 9],
    "d_out": [0, 40],
    "tokens": [0, 2**30],
    "skip": [-1, 6],
    "steps": [0, -5],
    "embed": [None],
    "segments": [None],
    "solver": [None],
    "final_gain": [None],
}
WRONG_CALLS = {
    "batch": [0, -1, 2**31 - 1],
    "memory": [-1, 2**30],
    "trajectory": [None],
    "noise": [None],
    "token": [None],
    "level": [-1, 99],
    "cross_mask": [None],
}


@pytest.mark.parametrize(("part", "field", "value"), [
    (part, field, value)
    for part, wrong in (("model", WRONG_MODELS), ("call", WRONG_CALLS))
    for field, values in wrong.items()
    for value in values
])  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(monkeypatch, part, field, value):
    recorded = Recorded(monkeypatch)
    setattr(getattr(recorded, part), field, value)
    with pytest.raises(build.NativeError, match="does not fit together .*use runtime=planned"):
        engine.sample(recorded.library, recorded.model, recorded.call)


def test_plans_and_weights_that_do_not_fit_are_refused(monkeypatch):
    recorded = Recorded(monkeypatch)
    recorded.model.segments[0].block = 6
    with pytest.raises(build.NativeError, match="the plan"):
        engine.sample(recorded.library, recorded.model, recorded.call)
    recorded.model.segments[0].block = 0
    recorded.model.segments[0].gap = 1
    with pytest.raises(build.NativeError, match="the plan"):
        engine.sample(recorded.library, recorded.model, recorded.call)
    recorded.model.segments[0].gap = 0
    recorded.model.layer[1].qkv.k = 16
    with pytest.raises(build.NativeError, match="attention weights"):
        engine.sample(recorded.library, recorded.model, recorded.call)


def test_no_model_is_refused():
    message = create_string_buffer(64)
    assert build.library().bac_sample(None, byref(structs.Call()), message, 64) == 3


def test_the_mirror_lists_every_field_the_library_reports():
    numbers = structs.layout()
    assert numbers[:2] == [structs.ABI, structs.LANES] and build.library().bac_layout(None, 0) == len(numbers)
