"""accelerate(): attached and removed without a trace, counted, refused where it would be wrong."""

import statistics

import pytest
import torch

from bac import ScheduleError, accelerate
from bac.blocks import decoder_blocks
from bac.denoiser import model_blocks
from bac.runtime.choose import make_sampler
from bac.solver import UnsupportedSolver
from bac.uniform import uniform
from tests.bac.tiny_policies import (
    TOLERANCE,
    act,
    error,
    every_runtime,
    hoisting_runtime,
    observation,
    random_schedule,
    seeded,
    tiny_policy,
)

# ---- attaching and removing ------------------------------------------------------------------------------------------


@every_runtime
def test_leaving_restores_the_policy(runtime):
    policy = tiny_policy()
    before, own, attributes = act(policy), policy.sampler, set(vars(policy))
    state = {key: value.clone() for key, value in policy.state_dict().items()}
    with accelerate(policy, random_schedule(policy.model, 10, 0.3, 0), runtime) as fast:
        assert not torch.equal(act(fast), before), "the schedule caches, so actions differ a little"
        assert torch.equal(act(policy), act(fast)), (
            "inside the block the policy's own predict_action is accelerated too"
        )
        assert policy.state_dict().keys() == state.keys()
    assert policy.sampler is own and set(vars(policy)) == attributes
    assert torch.equal(act(policy), before)
    assert all(torch.equal(value, state[key]) for key, value in policy.state_dict().items())


@every_runtime
def test_an_exception_inside_restores_the_policy(runtime):
    policy = tiny_policy()
    before, own = act(policy), policy.sampler
    with pytest.raises(ZeroDivisionError):
        with accelerate(policy, random_schedule(policy.model, 10, 0.3, 0), runtime):
            raise ZeroDivisionError
    assert policy.sampler is own and torch.equal(act(policy), before)


@every_runtime
def test_a_failed_call_does_not_disturb_the_next(runtime):
    policy = tiny_policy()
    with accelerate(policy, random_schedule(policy.model, 10, 0.3, 0), runtime) as fast:
        expected = act(fast)
        with pytest.raises(ValueError, match="NaN"):
            fast.predict_action({"obs": torch.full((1, 2, 3), float("nan"))})
        with pytest.raises(ValueError, match="1 generators for a batch of 2"):
            fast.predict_action(observation(2), seeded(0))
        assert torch.equal(act(fast), expected)


def test_accelerating_twice_is_an_error():
    policy = tiny_policy()
    with accelerate(policy) as fast:
        with pytest.raises(ValueError, match="already accelerated: leave that block first"):
            accelerate(policy)
        with pytest.raises(ValueError, match="already accelerated: leave that block first"):
            fast.__enter__()
        act(fast)
    with fast:  # the same preparation may be used again
        act(fast)
    assert fast.report().chunks == 2


def test_entering_after_the_sampler_was_replaced_is_an_error():
    policy = tiny_policy()
    fast = accelerate(policy)
    policy.sampler = tiny_policy("ddim").sampler
    with pytest.raises(ValueError, match=r"another sampler since accelerate\(\) prepared"):
        fast.__enter__()


def test_predicting_outside_the_block_is_an_error():
    fast = accelerate(tiny_policy())
    with pytest.raises(ValueError, match="not attached: call this inside `with accelerate"):
        fast.predict_action(observation())


def test_something_without_a_denoising_loop_is_refused():
    with pytest.raises(ValueError, match="this Linear has no `sampler` to replace"):
        accelerate(torch.nn.Linear(1, 1))
    policy = tiny_policy()
    policy.sampler.model = torch.nn.Linear(1, 1)
    with pytest.raises(TypeError, match="works on TransformerForDiffusion .* model is Linear"):
        accelerate(policy)


# ---- schedules -------------------------------------------------------------------------------------------------------


def test_full_budget_in_the_reference_is_the_plain_policy_bit_for_bit():
    policy = tiny_policy()
    plain = act(policy, batch=3)
    for schedule in (None, uniform(model_blocks(policy.model), 10, 10)):
        with accelerate(policy, schedule, "reference", horizon="full") as fast:
            assert torch.equal(act(fast, batch=3), plain)


@every_runtime
def test_schedules_of_another_model_or_sampler_are_refused(runtime):
    policy = tiny_policy()
    with pytest.raises(ScheduleError, match="another model: it has 9 blocks.*the model 6 blocks"):
        accelerate(policy, uniform(decoder_blocks(3), 10, 5), runtime)
    with pytest.raises(ScheduleError, match="for 100 denoising steps, the sampler takes 10"):
        accelerate(policy, uniform(decoder_blocks(2), 100, 10), runtime)


@every_runtime
def test_counts_and_report(runtime):
    policy = tiny_policy()
    schedule = random_schedule(policy.model, 10, 0.3, 0)
    with accelerate(policy, schedule, runtime) as fast:
        assert fast.report().ms_per_chunk is None and "no chunk yet" in str(fast.report())
        for seed in range(3):
            act(fast, seed, batch=seed + 1)
    report = fast.report()
    assert fast.sampler.block_updates == {name: 3 * n for name, n in schedule.updates_per_block.items()}
    assert (report.runtime, report.chunks) == (runtime, 3)
    assert (report.scheduled_updates, report.full_updates) == (schedule.update_count, 60)
    assert report.block_updates == 3 * schedule.update_count
    assert report.ms_per_chunk == statistics.median(fast.milliseconds) > 0
    assert report.prepare_seconds >= 0
    for part in (
        f"runtime {runtime}: 3 chunks",
        "ms per chunk",
        f"{schedule.update_count} of 60",
        "x fewer than the full policy's",
    ):
        assert part in str(report)


# ---- what is refused -------------------------------------------------------------------------------------------------


def optimizer_step(policy):
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.1)
    batch = {"obs": torch.randn(2, 6, 3), "action": torch.randn(2, 6, 2)}
    policy.compute_loss(batch).backward()
    optimizer.step()


def assigned_state(policy):
    policy.load_state_dict({key: value.clone() for key, value in policy.state_dict().items()}, assign=True)


WEIGHT_CHANGES = {
    "optimizer": optimizer_step,
    "load_state_dict": lambda policy: policy.load_state_dict(tiny_policy(seed=1).state_dict()),
    "load_state_dict(assign)": assigned_state,
    "new parameter": lambda policy: setattr(
        policy.model.head, "weight", torch.nn.Parameter(policy.model.head.weight * 2)
    ),
    "double and back": lambda policy: policy.double().float(),
}


@hoisting_runtime
@pytest.mark.parametrize("change", WEIGHT_CHANGES)
def test_changed_weights_are_noticed(runtime, change):
    policy = tiny_policy()
    with accelerate(policy, runtime=runtime) as fast:
        act(fast)
        WEIGHT_CHANGES[change](policy)
        with pytest.raises(RuntimeError, match=r"weights changed after it was accelerated: call accelerate\(\) again"):
            act(fast)
    plain = act(policy)
    with accelerate(policy, runtime=runtime) as fast:
        assert error(act(fast), plain) < TOLERANCE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "fast"}, "unknown runtime 'fast': use reference, planned, compiled"),
        ({"runtime": "planned", "precision": "fp8"}, "unknown precision 'fp8': use fp32, bf16, fp16, int8"),
        ({"runtime": "planned", "precision": "int8"}, "precision=int8 needs runtime=compiled: use that"),
        ({"runtime": "planned", "precision": "fp16"}, "fp16 needs a GPU: on a CPU use fp32, bf16 or int8"),
        ({"runtime": "reference", "precision": "bf16"}, "reference computes in fp32"),
        ({"runtime": "compiled", "precision": "fp16"}, "fp16 needs a GPU: on a CPU use fp32, bf16 or int8"),
        ({"runtime": "compiled", "threads": 0}, "threads must lie in 1..1024, got 0"),
        ({"runtime": "planned", "threads": 2}, "threads is an option of runtime=compiled on a CPU"),
    ],
)
def test_options_that_are_not_available(options, message):
    policy = tiny_policy()
    own = policy.sampler
    with pytest.raises(ValueError, match=message):
        accelerate(policy, **options)
    assert policy.sampler is own


@hoisting_runtime
def test_samplers_only_the_reference_can_run(runtime):
    policy = tiny_policy()
    policy.sampler.scheduler.register_to_config(thresholding=True)
    with pytest.raises(UnsupportedSolver, match="thresholding=True.*use runtime=reference"):
        accelerate(policy, runtime=runtime)
    assert make_sampler(policy.sampler, None, "reference").name == "reference"
