"""Serve a policy to clients of openpi's protocol: bac serve checkpoint=... cache=tuned [host=127.0.0.1 port=8000 ...]

Without task= the checkpoint says which task it is for. SIGHUP loads the checkpoint anew, SIGTERM and Ctrl-C end the
server once what it was asked is answered. See docs/howto/serve.md.
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from bac_workbench.settings import check, launch


def main() -> None:
    from bac_workbench.console import readable_errors

    with readable_errors():
        sys.argv[1:] = with_task(sys.argv[1:])
    launch(serve_policy, "serve", __doc__)


def with_task(arguments: list[str]) -> list[str]:
    """The arguments with the task of the checkpoint, where they name a checkpoint and no task.

    Raises:
        ConfigError: the checkpoint does not say it, or it is none of this project's.
    """
    named = {text.partition("=")[0]: text.partition("=")[2].strip("'\"") for text in arguments if "=" in text}
    if "task" in named or "checkpoint" not in named or {"-h", "--help", "help"} & {*arguments}:
        return arguments
    from bac_workbench.locations import shipped
    from bac_workbench.setup.task_files import task_files
    from diffusion_policy.common.checkpoint import task_of
    from diffusion_policy.common.config import ConfigError

    said = task_of(shipped(named["checkpoint"]))
    choices = [file.choice for file in task_files().values() if said in (file.name, file.choice)]
    if len(choices) != 1:
        raise ConfigError(
            f"checkpoint={named['checkpoint']} does not say which task it is for ({said}): add task=..., the name of a "
            "file of config/task/"
        )
    return [f"task={choices[0]}", *arguments]


def serve_policy(cfg: DictConfig) -> None:
    from diffusion_policy.env.extras import import_extra

    settings = check(cfg, "serve")
    for module in ("websockets", "msgpack"):
        import_extra(module, "serve")
    from bac_workbench.console import console
    from bac_workbench.serving.run import run

    run(settings, lambda line: console.print(line, soft_wrap=True, markup=False))
