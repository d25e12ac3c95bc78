"""accelerate() in processes that live long: attach and detach, warm-up, verification, deadlines, copies, threads."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.modules import module as modules

from bac import Schedule, ScheduleError, UserError, accelerate
from bac.known_modules import UnknownModule
from bac.provenance import Provenance
from bac.report import KEPT, Latencies
from bac.verification import VerificationError
from tests.bac.tiny_policies import act, every_runtime, hoisting_runtime, observation, random_schedule, tiny_policy


def schedule_of(policy, seed=0):
    return random_schedule(policy.model, 10, 0.4, seed)


# ---- attach and detach -----------------------------------------------------------------------------------------------


@every_runtime
def test_attach_and_detach_are_the_block(runtime):
    policy = tiny_policy()
    plain, own = act(policy), policy.sampler
    fast = accelerate(policy, schedule_of(policy), runtime)
    assert not fast.attached and torch.equal(act(policy), plain)
    with fast:
        expected = act(fast)
    for _ in range(2):
        assert fast.attach() is fast and fast.attached
        assert torch.equal(act(fast), expected) and torch.equal(act(policy), expected)
        fast.detach()
        assert policy.sampler is own and torch.equal(act(policy), plain)
    assert fast.report().chunks == 5 and fast.report().timed == 3, "the policy's own calls are chunks, but not timed"


def test_attaching_and_detaching_twice_are_errors():
    policy = tiny_policy()
    fast = accelerate(policy)
    with pytest.raises(ValueError, match="not attached: there is nothing to detach"):
        fast.detach()
    fast.attach()
    with pytest.raises(ValueError, match=r"already accelerated: leave that block first, or call its detach\(\)"):
        fast.attach()
    with pytest.raises(ValueError, match=r"already accelerated.*detach\(\)"):
        accelerate(policy)
    fast.detach()
    with pytest.raises(ValueError, match=r"not attached: .* or after attach\(\)"):
        act(fast)


def test_detaching_inside_a_block_leaves_the_policy_alone():
    policy = tiny_policy()
    own = policy.sampler
    with accelerate(policy) as fast:
        fast.detach()
        assert policy.sampler is own
    assert policy.sampler is own


def test_only_one_of_two_preparations_is_attached():
    policy = tiny_policy()
    first, second = accelerate(policy), accelerate(policy, schedule_of(policy))
    first.attach()
    with pytest.raises(ValueError, match="already accelerated"):
        second.attach()
    with pytest.raises(ValueError, match="nothing to detach"):
        second.detach()
    assert first.attached


@every_runtime
def test_weights_that_changed_while_detached_are_noticed(runtime):
    policy = tiny_policy()
    made = schedule_of(policy)
    own = Schedule(made.updates, made.blocks, Provenance("custom", checkpoint_hash=policy.weights_hash()))
    fast = accelerate(policy, own, runtime)
    fast.attach().detach()
    with torch.no_grad():
        policy.model.head.bias.add_(1e-3)
    with pytest.raises(ScheduleError, match="made for the weights"):
        fast.attach()
    assert not fast.attached


# ---- warm-up and verification ----------------------------------------------------------------------------------------


@every_runtime
def test_warm_up_counts_nowhere_and_changes_nothing(runtime):
    policy = tiny_policy()
    schedule = schedule_of(policy)
    with accelerate(policy, schedule, runtime) as fast:
        expected = act(fast)
    warm = accelerate(policy, schedule, runtime, warm_up=3)
    assert not warm.attached and warm.report().chunks == warm.report().block_updates == 0
    with warm:
        assert torch.equal(act(warm), expected)
        warm.warm_up(2, observation(3))
    report = warm.report()
    assert (report.chunks, report.timed, report.block_updates) == (1, 1, schedule.update_count)


@hoisting_runtime
@pytest.mark.parametrize("sampler", ["ddpm", "ddim stochastic", "dpm-solver++ clipped"])
def test_a_sound_runtime_is_verified_and_says_so(runtime, sampler):
    policy = tiny_policy(sampler)
    fast = accelerate(policy, schedule_of(policy), runtime, verify=True)
    found = fast.verification
    assert 0 < found.difference < 1e-5 < found.tolerance
    assert fast.verify(observation(2)).difference < 1e-5
    assert fast.report().chunks == 0
    assert f"verified: one chunk of runtime {runtime} differs from the reference by" in str(fast.report())


@hoisting_runtime
def test_actions_unlike_the_references_are_an_error(runtime):
    """Writing through .data is the one change of weights that nothing else notices."""
    policy = tiny_policy()
    fast = accelerate(policy, schedule_of(policy), runtime, verify=True)
    policy.model.decoder.layers[0].multihead_attn.in_proj_weight.data.mul_(1.3)
    with pytest.raises(VerificationError, match=f"runtime {runtime} differs from the reference by .*at most 0.001"):
        fast.verify()
    policy.model.head.weight.data.fill_(float("nan"))
    with pytest.raises(VerificationError, match="by nan of its largest"):
        fast.verify()


def test_verifying_the_reference_is_refused():
    policy = tiny_policy()
    with pytest.raises(UserError, match="reference is what others are verified against: leave verify out"):
        accelerate(policy, runtime="reference", verify=True)
    assert isinstance(policy.sampler, type(tiny_policy().sampler))


def test_bf16_is_verified_with_a_tolerance_of_its_own():
    policy = tiny_policy()
    fast = accelerate(policy, schedule_of(policy), "planned", "bf16", verify=True)
    assert 1e-6 < fast.verification.difference < fast.verification.tolerance == 0.2


# ---- deadlines -------------------------------------------------------------------------------------------------------


def test_chunks_later_than_the_deadline_are_counted():
    policy = tiny_policy()
    with accelerate(policy, deadline_ms=1e-3) as late, accelerate(tiny_policy(), deadline_ms=1e6) as early:
        for _ in range(3):
            act(late)
            act(early)
    assert (late.report().timed, late.report().missed) == (3, 3)
    assert early.report().missed == 0
    assert "3 of 3 later than 0.001 ms" in str(late.report()) and "0 of 3 later than" in str(early.report())


def test_percentiles_are_of_the_last_chunks_and_misses_of_all():
    latencies = Latencies(50)
    for ms in (*[100.0] * 10, *range(1, 101)):
        latencies.add(float(ms))
    assert (latencies.timed, latencies.missed) == (110, 60)
    for ms in range(1, KEPT + 1):
        latencies.add(ms / KEPT)
    assert len(latencies.milliseconds) == KEPT and latencies.missed == 60
    times = latencies.percentiles()
    assert times == pytest.approx({"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}, abs=1e-3)
    assert Latencies().percentiles() is None


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), "50", True])
def test_a_deadline_that_is_no_time_is_refused(deadline):
    with pytest.raises(UserError, match="deadline_ms=.* is no time: give milliseconds above 0"):
        accelerate(tiny_policy(), deadline_ms=deadline)


# ---- copies and threads ----------------------------------------------------------------------------------------------


@every_runtime
@pytest.mark.parametrize("attached", [False, True])
def test_a_deep_copy_is_independent(runtime, attached):
    policy = tiny_policy()
    fast = accelerate(policy, schedule_of(policy), runtime, deadline_ms=1e-3)
    expected = act(fast.attach())
    if not attached:
        fast.detach()
    twin = copy.deepcopy(fast)
    assert twin.policy is not policy and twin.attached is attached
    assert (twin.report().chunks, twin.report().timed, twin.report().block_updates) == (0, 0, 0)
    if attached:
        fast.detach()
        with torch.no_grad():
            policy.model.head.weight.mul_(2.0)
    else:
        twin.attach()
    assert torch.equal(act(twin), expected)
    assert (twin.report().chunks, twin.report().missed, fast.report().chunks) == (1, 1, 1)
    twin.detach()
    assert twin.policy.sampler is twin.replaced and twin.policy.sampler.model is twin.policy.model


@hoisting_runtime
def test_counts_and_actions_of_many_threads(runtime, one_torch_thread):
    policy = tiny_policy(steps=4)
    fast = accelerate(policy, random_schedule(policy.model, 4, 0.4, 0), runtime, deadline_ms=1e-3).attach()
    expected = [act(fast, seed) for seed in range(5)]
    start = threading.Barrier(4)

    def work(_):
        one_torch_thread()
        start.wait()
        return [act(fast, seed) for seed in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(work, range(4)):
            assert all(torch.equal(a, b) for a, b in zip(got, expected))
    report = fast.report()
    assert (report.chunks, report.timed, report.missed) == (25, 25, 25)


# ---- what a runtime would leave out ----------------------------------------------------------------------------------


@every_runtime
@pytest.mark.parametrize("register", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_a_hook_of_all_modules_is_refused(runtime, register):
    policy = tiny_policy()
    handle = getattr(modules, register)(lambda *arguments: None)
    try:
        with pytest.raises(UnknownModule, match="hook of all modules .* would bypass: take it off"):
            accelerate(policy, runtime=runtime)
    finally:
        handle.remove()
    accelerate(policy, runtime=runtime)


@hoisting_runtime
@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel])
def test_a_wrapped_model_is_refused(runtime, wrap):
    policy = tiny_policy()
    policy.model = wrap(policy.model)
    with pytest.raises(UserError, match="OptimizedModule|DataParallel"):
        accelerate(policy, runtime=runtime)
