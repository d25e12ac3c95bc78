"""The command `bac`."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from types import MappingProxyType

from bac_workbench.command_words import WORDS
from bac_workbench.locations import CHECKOUT

#: name -> (module of this package, what the command does)
COMMANDS = MappingProxyType(
    {
        "demo": ("demo", "full, Uniform and BAC on the bundled Push-T policy: one table in about three minutes"),
        "eval": ("eval", "evaluate a policy with a cache: success rate, FLOPs, speedup"),
        "compare": ("compare", "compare stored evaluations, paired with the full policy"),
        "dashboard": ("dashboard", "Uniform against BAC: a report in Weights & Biases, or a local page"),
        "check": ("check", "how far a faster setting is from the full policy on held-out recordings: a report"),
        "report": ("report", "one page of everything that is stored: tables, figures, videos"),
        "reproduce": ("reproduce", "run what is missing of the paper's tables, and write them to paper/"),
        "tune": ("tune", "find the fastest setting that is proven not worse than the full policy"),
        "profile_blocks": ("profile", "profile a policy and write its schedules"),
        "figures": ("figures", "draw similarity, its changes, two episodes, and errors under caching"),
        "stability": ("stability", "study how much schedules depend on what was profiled"),
        "calibrate": ("calibrate", "move a few-step sampler's timesteps nearest to the full policy"),
        "benchmark": ("benchmark", "time methods in every runtime, interleaved"),
        "serve": ("serve", "serve a policy to clients of openpi's protocol"),
        "train": ("train", "train a policy, or go on with a training"),
        "make_demos": ("demos", "make demonstrations with a task's scripted expert"),
        "collect": ("collect", "collect episodes of a policy as a LeRobot data set"),
        "inspect_data": ("inspect_data", "what a recording holds, and how it maps to a policy's observation"),
        "download_data": ("download_data", "download or verify the public demonstrations of a task"),
        "convert_actions": ("convert_actions", "turn relative into absolute actions in robomimic's data"),
        "download_checkpoint": ("download_checkpoint", "download a checkpoint that Diffusion Policy's authors publish"),
        "convert_checkpoint": ("convert_checkpoint", "write any loadable checkpoint in this project's form"),
        "push_checkpoint": (
            "push_checkpoint",
            "upload a policy to the Hugging Face Hub, with schedules and certificate",
        ),
        "doctor": ("doctor", "check this installation and machine, and name repairs"),
        "build": ("build", "compile the native library of runtime=compiled"),
    }
)
DISTRIBUTIONS = ("torch", "diffusers")


def main() -> int:
    """Runs the command that the first words of the command line name; returns the exit status."""
    return run(sys.argv[1:])


def run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(list(WORDS.values())))
        return 0 if words else 2
    if words[0] in ("--version", "version"):
        print(versions())
        return 0
    for command, typed in WORDS.items():
        parts = typed.split()
        if words[: len(parts)] == parts:
            return start(command, words[len(parts) :])
    group = [typed for typed in WORDS.values() if typed.split()[0] == words[0]]
    if group and words[1:] and words[1] in ("-h", "--help", "help"):
        print(overview(group))
        return 0
    return unknown(words, group)


def start(command: str, arguments: list[str]) -> int:
    """Runs a command by the name of its configuration, as if it had been started as a program of its own."""
    sys.argv = [f"bac {WORDS[command]}", *arguments]
    try:
        module = import_module(f"bac_workbench.commands.{COMMANDS[command][0]}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "diffusion_policy":
            raise
        print(f"error: {hidden(error.name)}", file=sys.stderr)
        return 1
    return module.main() or 0


def hidden(module: str) -> str:
    """What to do where another package of the name diffusion_policy is all that Python finds."""
    places = list(getattr(sys.modules.get("diffusion_policy"), "__path__", []))
    return (
        f"{module}, which is a part of this project, is not among what Python finds as diffusion_policy ({places}). "
        "A package of this name with a file __init__.py hides all others: delete that empty file, or use an "
        "environment without that package"
    )


def unknown(words: list[str], group: list[str]) -> int:
    """Says which words there are, on stderr; returns the exit status."""
    import difflib

    if group:
        message, known = f"{words[0]} needs a second word", [typed.split()[1] for typed in group]
        near = difflib.get_close_matches(words[1], known, 1) if words[1:] else []
        offered = [f"bac {words[0]} {word}" for word in near or known]
    else:
        message, known = f"there is no command {words[0]!r}", list(dict.fromkeys(t.split()[0] for t in WORDS.values()))
        near = difflib.get_close_matches(words[0], known, 1)
        offered = [f"bac {word}" for word in near]
    hint = f"use {' or '.join(offered)}" if offered else "bac --help lists them"
    print(f"error: {message}: {hint}", file=sys.stderr)
    return 2


def overview(listed: list[str]) -> str:
    lines = ["usage: bac COMMAND [<setting>=<value> ...]", ""]
    lines += [f"  bac {typed:<21} {COMMANDS[command][1]}" for command, typed in WORDS.items() if typed in listed]
    lines += ["", "bac COMMAND --help lists the settings of a command, with examples; bac --version what is installed."]
    return "\n".join(lines)


def versions() -> str:
    """Versions of everything that decides what a policy does, one a line."""
    from bac.native.build import sources_digest

    lines = [
        f"bac-diffusion {installed('bac-diffusion')}, native sources {sources_digest()[:12]}",
        f"bac-workbench {installed('bac-workbench')}" + ("" if CHECKOUT is None else f", checkout {CHECKOUT}"),
    ]
    lines += [f"{name} {installed(name)}" for name in DISTRIBUTIONS]
    return "\n".join([*lines, f"Python {sys.version.split()[0]}"])


def installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(run from its sources, not installed)" if distribution.startswith("bac-") else "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
