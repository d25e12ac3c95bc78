"""Wrong command lines of every script: one screen that names the setting, its value and what is allowed; nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bac_workbench.settings.arguments import read_arguments, read_positional
from bac_workbench.settings.launch import check_command_line
from diffusion_policy.common.config import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))

# What follows `eval task=pusht_lowdim`, and what the message has to say. | stands between arguments of which one has spaces in it.
EVAL = [
    # numbers
    ("eval.n_test=0", "nothing to evaluate"),
    ("eval.n_test=-1", "from 0"),
    ("eval.n_test=abc", "a whole number"),
    ("eval.n_test=null", "a whole number"),
    ("eval.n_test=2.5", "a whole number"),
    ("eval.n_test=true", "a whole number"),
    ("eval.n_test=1e3", "a whole number"),
    ("eval.n_test=50.0", "a whole number"),
    ("eval.n_test=[50]", "a whole number"),
    ("eval.n_test={a:1}", "a whole number"),
    ("eval.n_test=", "(nothing)"),
    ("eval.n_test='50'", "a whole number"),
    ("eval.n_test=0x10", "a whole number"),
    ("eval.n_test=nan", "a whole number"),
    ("eval.n_test=inf", "a whole number"),
    ("eval.n_test=1000000000000", "1,000,000"),
    ("eval.n_test=${nowhere}", "cannot be worked out"),
    ("eval.n_test=???", "needs a value"),
    ("eval.n_test=50;ls", "a whole number"),
    ("eval.n_test=$(ls)", "a whole number"),
    ("eval.n_test=5,10", "-m"),
    ("eval.n_train=-6", "from 0"),
    ("eval.n_train=six", "a whole number"),
    ("eval.n_envs=0", "from 1"),
    ("eval.n_envs=-2", "from 1"),
    ("eval.n_envs=null", "from 1"),
    ("eval.n_envs=1.5", "from 1"),
    ("eval.n_workers=-1", "or null"),
    ("eval.n_workers=two", "or null"),
    ("eval.n_workers=1.0", "or null"),
    ("eval.n_videos=-1", "from 0"),
    ("eval.n_videos=all", "from 0"),
    ("eval.n_videos=null", "from 0"),
    ("seed=null", "a whole number"),
    ("seed=-1", "from 0"),
    ("seed=1.5", "a whole number"),
    ("seed=abc", "a whole number"),
    ("seed=false", "a whole number"),
    ("seed=9223372036854775808", "9,223,372,036,854,775,807"),
    ("seed=1e400", "a whole number"),
    ("threads=0", "or null"),
    ("threads=-4", "or null"),
    ("threads=1.5", "or null"),
    ("threads=all", "or null"),
    ("threads=100000", "1,024"),
    ("cache.budget=null", "from 1"),
    ("cache.budget=4.7", "a whole number"),
    ("cache.budget=0", "from 1"),
    ("cache.budget=-10", "from 1"),
    ("cache.budget=ten", "a whole number"),
    ("cache.budget=999999", "100,000"),
    ("sampler.steps=16 cache.budget=17 sampler.type=ddim", "1 to 16"),
    ("cache.top_k=-1", "from 0"),
    ("cache.top_k=2.5", "from 0"),
    ("cache.top_k=null", "from 0"),
    ("cache.forced_refresh=99", "a list"),
    ("cache.forced_refresh=[x]", "a list"),
    ("cache.forced_refresh=[-1]", "a list"),
    ("cache.forced_refresh=[1,1]", "without repeats"),
    ("sampler.type=ddim sampler.steps=8 cache.budget=4 cache.forced_refresh=[8]", "0 to 7"),
    ("profile.n_episodes=0", "from 1"),
    ("profile.n_episodes=x", "from 1"),
    ("profile.seed_start=-5", "from 0"),
    ("profile.n_episodes=2 profile.seed_start=4294967295", "last seed"),
    ("profile.seed_start=4294967296", "4,294,967,295"),
    ("profile.n_observations=0", "from 1"),
    ("profile.noise_seeds=[]", "a list"),
    ("profile.noise_seeds=[0,0]", "without repeats"),
    ("profile.noise_seeds=0", "a list"),
    ("profile.noise_seeds=[0.5]", "0.5 is none"),
    ("profile.noise_seeds=[-1]", "-1 is none"),
    ("profile.noise_seeds=[null]", "a list"),
    ("profile.batch_size=-1", "from 1"),
    ("profile.batch_size=0", "from 1"),
    ("profile.batch_size=null", "from 1"),
    ("benchmark.n_chunks=-1", "from 0"),
    ("benchmark.n_chunks=x", "from 0"),
    ("benchmark.warmup=-1", "from 0"),
    ("benchmark.warmup=0.5", "from 0"),
    ("benchmark=null", "a group of settings"),
    ("eval=5", "eval.n_test=..."),
    ("profile=[1]", "a group of settings"),
    ("sampler.steps=0", "from 1"),
    ("sampler.steps=-16", "from 1"),
    ("++sampler.eta=2", "at most 1"),
    ("sampler.steps=16.5", "from 1"),
    ("sampler.steps=many", "from 1"),
    # choices
    ("device=null", "auto, cpu, cuda"),
    ("device=cup", "did you mean cpu?"),
    ("device=gpu", "auto, cpu, cuda"),
    ("device=0", "cuda:<index>"),
    ("device=cuda:x", "cuda:<index>"),
    ("device=cuda:-1", "cuda:<index>"),
    ("device=mps", "cuda:<index>"),
    ("device=cuda:999", "use"),
    ("runtime=complied", "did you mean compiled?"),
    ("runtime=fast", "reference, planned or compiled"),
    ("runtime=null", "planned"),
    ("runtime=Planned", "did you mean planned?"),
    ("runtime=1", "planned"),
    ("precision=fp64", "fp32, bf16 or fp16"),
    ("precision=32", "fp32"),
    ("precision=bfloat16", "did you mean bf16?"),
    ("precision=bf16 runtime=compiled device=cpu", "runtime=planned for bf16"),
    ("precision=bf16 runtime=reference", "fp32"),
    ("precision=fp16 device=cpu", "needs a GPU"),
    ("weights=emma", "did you mean ema?"),
    ("weights=null", "ema or raw"),
    ("cache.method=bca", "did you mean bac?"),
    ("cache.metric=cosin", "did you mean cosine?"),
    ("cache.metric=null", "cosine"),
    ("cache.objective=first", "cached_to_skipped or consecutive"),
    ("sampler.type=ddmp", "did you mean dd"),
    ("sampler.type=euler", "ddim"),
    ("cache=full cache.method=bac", "cache=bac"),
    ("wandb.mode=onlin", "did you mean online?"),
    ("wandb.mode=true", "online, offline or disabled"),
    ("overwrite=maybe", "overwrite=true or overwrite=false"),
    ("overwrite=1", "=true"),
    ("overwrite=null", "=true"),
    # names of settings and choices
    ("eval.n_tests=5", "did you mean eval.n_test?"),
    ("n_test=5", "did you mean eval.n_test?"),
    ("budget=7", "did you mean cache.budget?"),
    ("sed=1", "did you mean seed?"),
    ("divice=cpu", "did you mean device?"),
    ("cach=bac", "did you mean cache?"),
    ("task.environment.max_step=5", "did you mean task.environment.max_steps?"),
    ("cache.budgets=5", "did you mean cache.budget?"),
    ("foo=1", "--help"),
    ("foo.bar=1", "--help"),
    ("eval.n_test.x=5", "unknown setting"),
    ("eval-n_test=5", "eval.n_test"),
    ("training.batch_size=4", "task.training.batch_size"),
    ("cache=full cache.budget=5", "no setting of this cache"),
    ("cache=uniform cache.metric=l1", "no setting of this cache"),
    ("cache=bca", "did you mean bac?"),
    ("cache=BAC", "did you mean bac?"),
    ("cache=null", "use one of bac"),
    ("cache=5", "use one of bac"),
    ("cache=", "bac"),
    ("sampler=ddim17", "sampler.type=ddim sampler.steps=17"),
    ("sampler=ddpm50", "sampler.type=ddpm sampler.steps=50"),
    ("sampler=dimm16", "did you mean ddim16?"),
    ("cache=bac,full", "-m"),
    ("hydra/launcher=joblibb", "basic"),
    ("tsak=pusht_image", "did you mean task?"),
    ("cache@x=bac", "cache"),
    ("eval@foo=bac", "eval"),
    # added and removed settings
    ("+eval.n_tests=5", "did you mean eval.n_test?"),
    ("++eval.n_tests=5", "did you mean eval.n_test?"),
    ("+seed=3", "leave out the +"),
    ("++seed=-3", "from 0"),
    ("+budget=7", "did you mean cache.budget?"),
    ("+foo=1", "--help"),
    ("+wandb.entity=me", "unknown setting"),
    ("+task.n_action_step=4", "did you mean task.n_action_steps?"),
    ("+task.environment.max_step=4", "did you mean task.environment.max_steps?"),
    ("+task.dataset.zarrpath=x", "did you mean task.dataset.zarr_path?"),
    ("+cache=full", "leave out the +"),
    ("~seed", "is needed"),
    ("~cache", "is needed"),
    ("~eval.n_test", "is needed"),
    ("~foo", "unknown setting"),
    ("cache=full +cache.budget=5", "does not read it"),
    # the task's own settings
    ("task.n_action_steps=0", "from 1"),
    ("task.n_action_steps=abc", "from 1"),
    ("task.n_obs_steps=2.5", "from 1"),
    ("task.horizon=null", "from 1"),
    ("task.n_latency_steps=-1", "from 0"),
    ("task.environment.max_steps=0", "or null"),
    ("task.environment.max_steps=long", "or null"),
    ("task.seeds.test_start_seed=-1", "from 0"),
    ("task.seeds.test_start_seed=4294967290", "last seed"),
    ("task.environment.legacy_test=1", "=true"),
    ("task.environment=5", "a group of settings"),
    ("task.adapter.max_steps=16", "called task.environment.max_steps now"),
    ("++task.adapter.max_steps=16", "called task.environment.max_steps now"),
    ("task.adapter.test_start_seed=16", "called task.seeds.test_start_seed now"),
    ("+task.adapter={max_steps:3}", "called task.environment now"),
    ("task.name=../x", "without /"),
    ("task.name=..", "without /"),
    ("task.fps=0", "above 0"),
    ("task.policy.model.n_layer=0", "from 1"),
    ("task.policy.model.p_drop_attn=1.5", "below 1"),
    ("task.policy.noise_scheduler.prediction_type=eps", "epsilon"),
    ("task.dataset.windows.val_ratio=2", "below 1"),
    # texts and quotes
    ("output_dir=", "a path"),
    ("assets_dir=null", "a path"),
    ("output_dir=None", "output_dir=null"),
    ("output_dir=[a]", "a path"),
    ("output_dir={a:1}", "a path"),
    ("output_dir=${nowhere}", "cannot be worked out"),
    ("checkpoint=", "a path"),
    ("checkpoint=a/epoch=0650.ckpt", """'checkpoint="a/epoch=0650.ckpt"'"""),
    ("output_dir=a,b", """'output_dir="a,b"'"""),
    ("output_dir=x(1)", """'output_dir="x(1)"'"""),
    ("output_dir='x", "not closed"),
    ("wandb.project=", "not empty"),
    # the form
    ("--device cpu", "device=..."),
    ("--device=cpu", "device=cpu"),
    ("-seed=1", "seed=1"),
    ("pusht_lowdim", "task=pusht_lowdim"),
    ("seed:5", "<setting>=<value>"),
    ("seed==5", "a whole number"),
    ("=5", "name a setting"),
    ("|seed = 5", "seed=5"),
    ("+", "<setting>=<value>"),
    ("--config-dir nowhere", "no such folder"),
    # sweeps: every job is checked before the first one runs
    ("-m seed=0,1,-1", "seed=-1"),
    ("-m|seed=range(-1,2)", "seed=-1"),
    ("-m cache=full,bca", "did you mean bac?"),
    ("-m runtime=planned,complied seed=0,1", "did you mean compiled?"),
]
TRAIN = [
    ("training.batch_size=-4", "from 1"),
    ("training.batch_size=0", "from 1"),
    ("training.batch_size=8.5", "from 1"),
    ("training.max_steps=0", "from 1"),
    ("training.max_steps=1e5", "a whole number"),
    ("training.learning_rate=-1", "at least 0"),
    ("training.learning_rate=fast", "a finite number"),
    ("training.learning_rate=nan", "a finite number"),
    ("training.learning_rate=inf", "finite"),
    ("training.learning_rate=null", "finite"),
    ("training.weight_decay=-0.1", "at least 0"),
    ("training.grad_clip=-1", "above 0"),
    ("training.grad_clip=0", "above 0"),
    ("training.grad_clip=null", "above 0"),
    ("training.snr_gamma=-5", "above 0 or null"),
    ("training.snr_gamma=0", "above 0 or null"),
    ("training.betas=[0.9]", "two numbers"),
    ("training.betas=[0.9,1.0]", "below 1"),
    ("training.betas=0.9", "a list"),
    ("training.betas=[-0.1,0.9]", "at least 0"),
    ("training.lr_schedule=cosin", "did you mean cosine?"),
    ("training.lr_schedule=null", "cosine or trapezoid"),
    ("training.warmup_steps=-1", "from 0"),
    ("training.decay_fraction=1.5", "at most 1"),
    ("training.noise_draws=0", "from 1"),
    ("training.precision=fp16", "bf16, fp32 or tf32"),
    ("training.precision=tf32 device=cpu", "NVIDIA"),
    ("training.cuda_graph=yes", "=true"),
    ("training.num_threads=0", "or null"),
    ("training.num_workers=-1", "from 0"),
    ("training.num_workers=null", "from 0"),
    ("training.log_every=-1", "from 0"),
    ("training.save_every=often", "from 0"),
    ("training.topk=-1", "from 0"),
    ("ema.max_value=2", "below 1"),
    ("ema.max_value=1", "below 1"),
    ("ema.power=0", "above 0"),
    ("ema.inv_gamma=0", "above 0"),
    ("+ema.min_value=0.99999", "above ema.max_value"),
    ("+ema.decay=0.9", "unknown setting"),
    ("rollout.n_episodes=-1", "from 0"),
    ("rollout.n_envs=0", "from 1"),
    ("rollout.runtime=plan", "did you mean planned?"),
    ("rollout.seed_start=-1", "from 0"),
    ("seed=-1", "from 0"),
    ("seed=9223372036854775807", "4,398,046,511,104"),
    ("resume=no", "=true"),
    ("init_checkpoint=a transfer_from=b", "set one of them"),
    ("output_dir=null", "a path"),
    ("init_checkpoint=None", "init_checkpoint=null"),
    ("objective=conditon", "did you mean condition?"),
    ("objective=condition objective.min_scale=0", "above 0"),
    ("objective=condition +objective.mods=3", "did you mean objective.modes?"),
    ("objective=frozen_encoder", "init_checkpoint"),
    ("objective=condition rollout.n_episodes=2", "leave it at 0"),
    ("task.policy.model.n_emb=30", "n_head=4"),
    ("batch_size=4", "training.batch_size"),
    ("task.dataset.windows.max_train_episodes=0", "or null"),
    ("task.policy.num_inference_steps=0", "or null"),
    ("task.training.betas=x", "a list"),
    ("wandb.mode=on", "online"),
    ("training=null", "a group of settings"),
]
OTHERS = [
    ("benchmark", "task=pusht_lowdim batch=0", "from 1"),
    ("benchmark", "task=pusht_lowdim batch=[]", "[1,28]"),
    ("benchmark", "task=pusht_lowdim batch=[1,1]", "without repeats"),
    ("benchmark", "task=pusht_lowdim batch=1.5", "[1,28]"),
    ("benchmark", "task=pusht_lowdim batch=null", "[1,28]"),
    ("benchmark", "task=pusht_lowdim n_chunks=0", "from 1"),
    ("benchmark", "task=pusht_lowdim warmup=-1", "from 0"),
    ("benchmark", "task=pusht_lowdim methods=full", "a list"),
    ("benchmark", "task=pusht_lowdim methods=[]", "a list"),
    ("benchmark", "task=pusht_lowdim methods=[full,full]", "without repeats"),
    ("benchmark", "task=pusht_lowdim methods=[full,bca_s10]", "bca_s10"),
    ("benchmark", "task=pusht_lowdim methods=[full,bac_s0]", "budget of 0"),
    ("benchmark", "task=pusht_lowdim methods=[full,bac_sten]", "bac_sten"),
    ("benchmark", "task=pusht_lowdim methods=[full,bac_s17@ddim16]", "1 to 16"),
    ("benchmark", "task=pusht_lowdim methods=[full,7]", "7"),
    ("benchmark", "task=pusht_lowdim runtimes=[]", "a list"),
    ("benchmark", "task=pusht_lowdim runtimes=[reference,complied]", "did you mean compiled?"),
    ("benchmark", "task=pusht_lowdim runtimes=planned", "a list"),
    ("benchmark", "task=pusht_lowdim precision=bf16 device=cpu", "runtime=compiled"),
    ("benchmark", "task=pusht_lowdim threads=0", "or null"),
    ("benchmark", "task=pusht_lowdim device=null", "auto"),
    ("benchmark", "task=pusht_lowdim trace=yes", "=true"),
    ("benchmark", "task=pusht_lowdim sampler=ddim16", "no choice of sampler"),
    ("benchmark", "task=pusht_lowdim eval.n_test=3", "unknown setting"),
    ("benchmark", "", "task is missing"),
    ("profile_blocks", "task=pusht_lowdim sampler=ddpm100 schedules=[bac_s999]", "1 to 100"),
    ("profile_blocks", "task=pusht_lowdim schedules=bac_s10", "a list"),
    ("profile_blocks", "task=pusht_lowdim schedules=[magic_s10]", "magic_s10"),
    ("profile_blocks", "task=pusht_lowdim profile.noise_seeds=[] profile.batch_size=-1", "2 settings are wrong"),
    ("profile_blocks", "task=pusht_lowdim profile.noise_seeds=[1,1]", "without repeats"),
    ("profile_blocks", "task=pusht_lowdim overwrite=please", "=true"),
    ("profile_blocks", "task=pusht_lowdim cache=bac", "no choice of cache"),
    ("profile_blocks", "", "task is missing"),
    ("train", "", "task is missing"),
    ("make_demos", "", "task is missing"),
    ("convert_actions", "", "task is missing"),
    ("make_demos", "task=block_pushing seed_start=-5", "from 0"),
    ("make_demos", "task=block_pushing n_episodes=0", "from 1"),
    ("make_demos", "task=block_pushing n_episodes=ten", "from 1"),
    ("make_demos", "task=block_pushing n_workers=-1", "or null"),
    ("make_demos", "task=block_pushing output=null", "a path"),
    ("make_demos", "task=block_pushing output=", "a path"),
    ("make_demos", "task=block_pushing seed_start=4294967000", "last seed"),
    ("make_demos", "task=pusht_lowdim", "no scripted expert"),
    ("make_demos", "task=block_pushing task.demos.demonstrator.perturbation_rate=2", "at most 1"),
    ("make_demos", "task=block_pushing task.demos.demonstrator.action_noise=-1", "at least 0"),
    ("make_demos", "task=block_pushing n_episode=5", "did you mean n_episodes?"),
    ("convert_actions", "task=can_ph n_workers=-1", "or null"),
    ("convert_actions", "task=can_ph evaluate=maybe", "=true"),
    ("convert_actions", "task=can_ph output=null", "a path"),
    ("convert_actions", "task=pusht_lowdim", "none of robomimic"),
    ("convert_actions", "task=can_ph input=", "a path"),
    ("eval", "", "task is missing"),
    ("eval", "task=pusht_lowdm", "did you mean pusht_lowdim?"),
    ("eval", "task=null", "use one of"),
    ("eval", "task=can", "this task is called can_scripted_demos now; use task=can_scripted_demos"),
    ("train", "task=kitchen", "use task=kitchen_scripted_demos"),
    ("make_demos", "task=block_pushing task.demos.demonstrator.excursion_rate=0.1", "perturbation_rate now"),
    ("eval", "task=1", "use one of"),
    ("eval", "task=", "use one of"),
    ("eval", "task=pusht_lowdim,can_ph", "-m"),
    ("eval", "task=can_ph task.environment.max_steps=16", "+task.environment.max_steps=16"),
    ("eval", "-m task=pusht_lowdim,can_hp", "did you mean can_"),
]
LINES = [
    ("eval", f"task=pusht_lowdim{'' if line[0] == '|' else ' ' if '|' not in line else '|'}{line}", says)
    for line, says in EVAL
]
LINES += [("train", f"task=pusht_lowdim {line}", says) for line, says in TRAIN] + OTHERS


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


def one_screen(message: str) -> str:
    lines = message.splitlines()
    assert len(lines) <= 15 and all(len(line) < 700 for line in lines) and "Traceback" not in message
    return message


@pytest.mark.parametrize(("command", "line", "says"), LINES, ids=[f"{command} {line}" for command, line, _ in LINES])
def test_a_wrong_setting_is_named_with_what_is_allowed(command, line, says):
    with pytest.raises(ConfigError) as error:
        check_command_line(line.split("|") if "|" in line else line.split(), command)
    message = one_screen(str(error.value))
    assert says in message
    names = [
        part.partition("=")[0].strip("+~-'\"")
        for part in line.replace("|", " ").split()
        if not part.startswith("task=") or len(line.split()) == 1
    ]
    assert any(name in message for name in names) or not names


CONVERT = {"checkpoint": None, "output": None, "weights": "ema", "half": True, "overwrite": False}
DATA = {"task": None, "verify": False, "data_dir": "data", "url": None, "sha256": None}
DOWNLOAD = {
    "task": None,
    "name": "latest.ckpt",
    "train": 0,
    "checkpoint_dir": "checkpoint",
    "url": None,
    "sha256": None,
}
PAIRS = [
    ("convert_checkpoint", CONVERT, "", "checkpoint=<path> is missing"),
    ("convert_checkpoint", CONVERT, "a.ckpt", "key=value"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=", "a path"),
    ("convert_checkpoint", CONVERT, "checkpoint=null output=b", "a path"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b weights=emma", "did you mean ema?"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b half=1", "half=true or half=false"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b half=[", "half=true or half=false"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b overwrite=please", "overwrite=true"),
    ("convert_checkpoint", CONVERT, "checkpoint=a ouput=b", "did you mean output?"),
    ("convert_checkpoint", CONVERT, "checkpoint=a output=b a.b=1", "unknown setting a.b"),
    ("convert_checkpoint", CONVERT, "--checkpoint=a output=b", "key=value"),
    ("download_data", DATA, "task=pusht_lowdim verify=1", "verify=true or verify=false"),
    ("download_data", DATA, "task=pusht_lowdim url=abc", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=http://", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=ftp://x/y", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=http://[::1", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=http://host:port/", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim url=http://host:99999/", "https://host"),
    ("download_data", DATA, "task=pusht_lowdim data_dir=", "a path"),
    ("download_data", DATA, "task=pusht_lowdim data_dir=null", "a path"),
    ("download_data", DATA, "task=pusht_lowdim sha256=123", "64 hexadecimal digits"),
    ("download_data", DATA, "tsak=x", "did you mean task?"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph train=3", "0, 1 or 2"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph train=1.0", "0, 1 or 2"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph train=true", "0, 1 or 2"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph url=x", "https://"),
    ("download_checkpoint", DOWNLOAD, "task=can_ph name=", "not empty"),
    ("download_checkpoint", DOWNLOAD, "nmae=best", "did you mean name?"),
]


@pytest.mark.parametrize(("command", "defaults", "line", "says"), PAIRS, ids=[f"{item[0]} {item[2]}" for item in PAIRS])
def test_arguments_of_commands_without_hydra(command, defaults, line, says):
    with pytest.raises(ConfigError) as error:
        read_arguments(line.split(), command, defaults)
    assert says in one_screen(str(error.value))


@pytest.mark.parametrize("arguments", [[], ["a", "b"], [""], ["--force", "a"], ["--all"]])
def test_a_command_with_one_folder_takes_exactly_one(arguments):
    with pytest.raises(ConfigError, match="usage: python scripts/compare.py RESULTS_FOLDER"):
        read_positional(arguments, "compare", ("RESULTS_FOLDER",))
    assert read_positional(["x"], "compare", ("RESULTS_FOLDER",)) == ["x"] and read_positional([], "demo", ()) == []


def test_all_wrong_settings_are_listed_at_once():
    line = "task=pusht_lowdim cache=bca eval.n_tests=5 eval.n_envs=0 runtime=complied seed=-1"
    with pytest.raises(ConfigError) as error:
        check_command_line(line.split(), "eval")
    lines = one_screen(str(error.value)).splitlines()
    assert lines[0] == "5 settings are wrong" and len(lines) == 6
    assert all(any(item in line for line in lines) for item in line.split()[1:])


def test_very_many_wrong_settings_still_fit_on_a_screen():
    line = ["task=pusht_lowdim", *(f"+nothing{index}=1" for index in range(40))]
    with pytest.raises(ConfigError, match="and 28 more") as error:
        check_command_line(line, "eval")
    one_screen(str(error.value))


def start(script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("eval", ["task=pusht_lowdim", "eval.n_test=-1", "runtime=complied"], "did you mean compiled?"),
        ("train", ["task=pusht_lowdim", "training.batch_size=-4"], "from 1"),
        ("benchmark", ["task=pusht_lowdim", "batch=0"], "[1,28]"),
        ("make_demos", ["task=block_pushing", "seed_start=-5"], "from 0"),
        ("convert_checkpoint", ["checkpoint=a", "half=maybe"], "output=<path> is missing"),
        ("download_data", ["task=pusht_lowdim", "url=abc"], "https://host"),
        ("compare", ["nowhere"], "there is no folder nowhere"),
        ("demo", ["task=pusht_lowdim"], "no arguments"),
    ],
)
def test_the_scripts_end_with_status_one_and_one_screen(script, arguments, says):
    result = start(script, *arguments)
    assert result.returncode == 1 and says in one_screen(result.stderr) and not result.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_usage_settings_and_examples(script):
    result = start(script, "--help")
    assert result.returncode == 0 and not result.stderr
    assert f"python scripts/{script}.py" in result.stdout and len(result.stdout.splitlines()) < 80
