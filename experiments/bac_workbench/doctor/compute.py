"""Checks of torch, GPUs, the native library and the bundled policies."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

from bac_workbench.doctor.machine import write_problem
from bac_workbench.doctor.rows import FAIL, MISSING, PASS, Row, first_line, pip_install, quoted, restore
from bac_workbench.locations import SHIPPED

TOLERANCE = 1e-4  # of the largest action of the reference
NVIDIA = Path("/proc/driver/nvidia/version")


def torch_and_gpus() -> list[Row]:
    """The version, its threads, and a small product on every GPU that it sees."""
    import torch

    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    rows = [Row("torch", f"{torch.__version__}, {build}, {torch.get_num_threads()} threads", PASS)]
    if not torch.cuda.is_available():
        if NVIDIA.exists():
            if torch.version.cuda:
                why = "the driver is too old, or CUDA_VISIBLE_DEVICES hides it"
                repair = "nvidia-smi, then update the driver; device=cpu works"
            else:
                why = "this is the CPU build"
                repair = pip_install(f"--force-reinstall torch=={torch.__version__.split('+')[0]}")
            rows.append(
                Row("GPU", f"an NVIDIA driver is here, but torch sees no GPU: {why}", FAIL, repair, needed=False)
            )
        return rows
    rows += [_gpu(torch, index) for index in range(torch.cuda.device_count())]
    return rows


def _gpu(torch, index: int) -> Row:
    """Whether GPU `index` multiplies right: device=auto would choose it."""
    item = f"GPU cuda:{index}"
    try:
        name, memory = torch.cuda.get_device_name(index), torch.cuda.get_device_properties(index).total_memory
        numbers = torch.arange(64 * 64, dtype=torch.float32).view(64, 64) % 7  # products of small integers are exact
        right = torch.equal((numbers.to(f"cuda:{index}") @ numbers.to(f"cuda:{index}")).cpu(), numbers @ numbers)
    except RuntimeError as error:
        return Row(item, first_line(error), FAIL, f"nvidia-smi -i {index}; without a GPU: device=cpu")
    if not right:
        return Row(
            item, f"{name}: a product of integers is wrong", FAIL, f"nvidia-smi -i {index}; without a GPU: device=cpu"
        )
    return Row(item, f"{name}, {memory / 2**30:.0f} GiB, multiplies right", PASS)


def native() -> list[Row]:
    """The cache folder of the native library, the library and what it computes; on a GPU what runs there, too."""
    import torch

    from bac.native import build
    from bac.native.levels import choose_level

    folder = build.cache_folder()
    problem = write_problem(folder)
    rows = [
        Row(
            "write access: cache",
            str(folder) if problem is None else problem,
            PASS if problem is None else FAIL,
            "" if problem is None else "export BAC_CACHE=<a folder that can be written>",
            needed=False,
        )
    ]
    try:
        started = time.perf_counter()
        level = choose_level(build.library())
        how = f"compiled in {time.perf_counter() - started:.1f} s" if build.build_seconds else "from the cache"
        how += f", level {level.name} ({', '.join(level.precisions)})"
        rows.append(_agreement("native library", how, "cpu"))
    except build.CompilerMissing as error:
        if os.environ.get("CXX") or _has_compiler(build):
            repair = "unset CXX, or export CXX=<another compiler>; or use runtime=planned"
            rows.append(Row("native library", first_line(error), FAIL, repair))
        else:
            command = "xcode-select --install" if platform.system() == "Darwin" else "apt install g++"
            found = "no C++ compiler: runtime=compiled is not available on a CPU"
            rows.append(Row("native library", found, MISSING, command, needed=False))
    except OSError as error:
        rows.append(
            Row(
                "native library",
                first_line(error),
                FAIL,
                f"rm -r {quoted(folder)}, or export BAC_CACHE=<another folder>",
            )
        )
    if torch.cuda.is_available():
        rows.append(_agreement("compiled on a GPU", torch.cuda.get_device_name(0), "cuda"))
    return rows


def _has_compiler(build) -> bool:
    try:
        build.find_compiler()
    except build.CompilerMissing:
        return False
    return True


def _agreement(item: str, how: str, device: str) -> Row:
    """Whether a small policy acts the same in the compiled runtime as in the reference."""
    import torch

    from bac import accelerate

    policy = small_policy().to(device)
    obs = {"obs": torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(1)).to(device)}
    actions = {}
    for runtime in ("reference", "compiled"):
        with accelerate(policy, runtime=runtime) as fast:
            actions[runtime] = fast.predict_action(obs, torch.Generator().manual_seed(2))["action"]
    difference = (actions["compiled"] - actions["reference"]).abs().max() / actions["reference"].abs().max()
    runs = getattr(fast.sampler, "how", None)
    found = f"{how}, actions within {difference:.1g} of the reference" + (f": {runs}" if runs else "")
    if difference < TOLERANCE:  # false for NaN
        return Row(item, found, PASS)
    return Row(item, found, FAIL, "use runtime=planned, and report this processor or GPU")


def small_policy():
    """A random policy of 2 action and 3 observation numbers that every runtime can run."""
    import torch

    from diffusion_policy.common.light_diffusers import DDPMScheduler
    from diffusion_policy.model.common.normalizer import LinearNormalizer
    from diffusion_policy.model.diffusion.transformer_for_diffusion import TransformerForDiffusion
    from diffusion_policy.policy.diffusion_transformer_lowdim_policy import DiffusionTransformerLowdimPolicy

    torch.manual_seed(0)
    model = TransformerForDiffusion(
        input_dim=2,
        output_dim=2,
        horizon=6,
        n_obs_steps=2,
        cond_dim=3,
        n_layer=2,
        n_head=2,
        n_emb=32,
        p_drop_emb=0.0,
        p_drop_attn=0.0,
        causal_attn=True,
        time_as_cond=True,
        obs_as_cond=True,
        n_cond_layers=0,
    )
    scheduler = DDPMScheduler(num_train_timesteps=10, beta_schedule="squaredcos_cap_v2", variance_type="fixed_small")
    policy = DiffusionTransformerLowdimPolicy(
        model,
        scheduler,
        horizon=6,
        obs_dim=3,
        action_dim=2,
        n_action_steps=4,
        n_obs_steps=2,
        num_inference_steps=10,
        obs_as_cond=True,
    )
    policy.set_normalizer(LinearNormalizer.fit({"obs": torch.randn(50, 3), "action": 40 + 7 * torch.randn(50, 2)}))
    return policy.eval()


def checkpoints() -> list[Row]:
    """Every policy below checkpoint/<task>/ddpm100: it loads, and its profile in assets/ is of its weights."""
    from diffusion_policy.common.checkpoint import load_policy
    from diffusion_policy.common.config import CheckpointError

    rows = []
    for folder in sorted((SHIPPED / "checkpoint").glob("*/ddpm100")):
        task = folder.parent.name
        item, again = f"policy {task}", restore(f"checkpoint/{task}", f"assets/{task}")
        profile = SHIPPED / "assets" / task / "profile.json"
        try:
            found = load_policy(folder).hash
            expected = json.loads(profile.read_text())["checkpoint_hash"] if profile.exists() else None
        except (CheckpointError, OSError, ValueError, KeyError, TypeError) as error:
            rows.append(Row(item, first_line(error), FAIL, again))
            continue
        if expected is None:
            rows.append(Row(item, f"loads, hash {found[:12]}; no profile tells which it should be", PASS))
        elif found != expected:
            rows.append(
                Row(
                    item,
                    f"hash {found[:12]}, but the profile in {quoted(profile.parent)} is of {str(expected)[:12]}",
                    FAIL,
                    again,
                )
            )
        else:
            rows.append(Row(item, f"loads, hash {found[:12]} as profiled", PASS))
    if not rows:
        where = f"none in {SHIPPED / 'checkpoint'}"
        rows.append(Row("bundled policies", where, FAIL, restore("checkpoint"), needed=False))
    return rows
