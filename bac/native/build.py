"""The native denoiser for this machine: prebuilt, from the user's cache folder, or compiled on first use.

A library holds the denoiser for several instruction sets (`compiler.LEVELS`) and chooses when it is called, so it runs
on every processor of its kind of machine. In the cache it belongs to these sources, these flags and $CXX; with which
compiler it was made is in its record. So it is used without a compiler, and another compiler makes a new one only when
asked: through $CXX, or by `python -m bac build`. Options in $CXX may name further instruction sets, which all of the
code then needs; such a library belongs to this processor, too.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import platform
import pwd
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bac.native import compiler, processor, store
from bac.native.compiler import find_compiler
from bac.native.errors import CacheError, CompilerMissing, DamagedLibrary, NativeError

__all__ = [
    "CacheError",
    "CompilerMissing",
    "DamagedLibrary",
    "LibraryInfo",
    "NativeError",
    "build",
    "cache_folder",
    "find_compiler",
    "library",
    "library_info",
]

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".hpp", ".cpp")))
ADVICE = "set BAC_CACHE to a folder of your own, or use runtime=planned"
PREBUILT_ADVICE = (
    "build it again on such a machine (python -m bac build --output FOLDER), "
    "or unset BAC_PREBUILT to compile on first use"
)
#: seconds the last compilation in this process took; 0 when none was needed
build_seconds = 0.0
_loaded: dict[tuple[str, str], tuple[ctypes.CDLL, LibraryInfo]] = {}
_lock = threading.Lock()  # two threads of a process compile once
_log = logging.getLogger("bac.native")


@dataclass(frozen=True)
class LibraryInfo:
    """Where the native library in use comes from.

    Attributes:
        origin: ``prebuilt`` ($BAC_PREBUILT), ``cached`` (made by an earlier process) or ``built`` (by this one).
        path, sha256: the file and its content.
        compiler: what the compiler says of itself.
        flags: its options, $CXX's own included.
        sources: SHA-256 of the C++ sources.
    """

    origin: str
    path: str
    sha256: str
    compiler: str
    flags: tuple[str, ...]
    sources: str


def cache_folder() -> Path:
    """$BAC_CACHE, or bac/ in $XDG_CACHE_HOME or ~/.cache; an empty variable counts as unset.

    Raises:
        CacheError: there is neither a variable nor a home.
    """
    base, xdg = os.environ.get("BAC_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base).absolute()
    if xdg and os.path.isabs(xdg):  # its specification ignores relative paths
        return Path(xdg) / "bac"
    home = os.environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError as error:
            raise CacheError(f"this user has no home folder to keep the native library in: {ADVICE}") from error
    return Path(home).absolute() / ".cache" / "bac"


def sources_digest() -> str:
    """SHA-256 of the C++ sources."""
    digest = hashlib.sha256()
    for name in SOURCES:
        content = (FOLDER / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def library() -> ctypes.CDLL:
    """The loaded library: from $BAC_PREBUILT if that is set, else from the cache, else compiled into the cache.

    A library that is damaged or does not fit is never loaded: in the cache it is replaced, which is said in one line.

    Raises:
        CompilerMissing: no library and no compiler, or the compiler failed; the message holds its output.
        CacheError: the cache folder is not safe or cannot be written.
        NativeError: $BAC_PREBUILT holds no library that can be used here.
    """
    return _library()[0]


def library_info() -> LibraryInfo:
    """Provenance of what `library` returns, for reports."""
    return _library()[1]


def _library() -> tuple[ctypes.CDLL, LibraryInfo]:
    with _lock:
        prebuilt = os.environ.get("BAC_PREBUILT")
        folder = Path(prebuilt).absolute() if prebuilt else cache_folder()
        slot = ("prebuilt" if prebuilt else _cache_name(), str(folder))
        if slot not in _loaded:
            _loaded[slot] = _prebuilt(folder) if prebuilt else _cached_or_built(folder, slot[0])
        return _loaded[slot]


def _cache_name() -> str:
    requested = compiler.requested()
    parts = [sources_digest(), *compiler.FLAGS, *_level_options(), platform.machine(), "CXX", *requested]
    if len(requested) > 1:
        parts.append(processor.identity())
    return f"denoiser-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


def _level_options(levels: dict[str, tuple[str, ...]] | None = None) -> list[str]:
    return [" ".join([name, *options]) for name, options in (levels or compiler.levels()).items()]


def _cached_or_built(folder: Path, name: str) -> tuple[ctypes.CDLL, LibraryInfo]:
    owners = {os.geteuid()}
    damage = ""
    if folder.exists() or folder.is_symlink():
        with store.opened(folder, owners, ADVICE) as descriptor:
            for _ in range(2):  # another process may have replaced both files between one look and the next
                try:
                    record = store.read_record(descriptor, name, owners)
                    if record is not None and record["sources"] != sources_digest():
                        raise DamagedLibrary(f"{name}.json belongs to other sources")
                    if record is not None:
                        return store.load(descriptor, folder, record, owners), _info("cached", folder, record)
                    break
                except DamagedLibrary as error:
                    damage = str(error)
    if damage:
        _log.warning("the native library in %s is not used: %s; it is compiled anew", folder, damage)
    try:
        built = build(folder, name=name)
    except CompilerMissing as error:
        raise CompilerMissing(f"{error}\nThe library in {folder} cannot be used: {damage}") from (
            error if damage else error
        )
    with store.opened(folder, owners, ADVICE) as descriptor:
        try:
            return store.load(descriptor, folder, built, owners), _info("built", folder, built)
        except DamagedLibrary as error:
            raise NativeError(
                f"the native library was compiled in {folder} but cannot be used: {error}. "
                f"If that file system does not allow to run programs, {ADVICE}; else try another compiler through CXX"
            ) from error


def _prebuilt(folder: Path) -> tuple[ctypes.CDLL, LibraryInfo]:
    owners = {0, os.geteuid()}
    refused = []
    with store.opened(folder, owners, PREBUILT_ADVICE) as descriptor:
        names = sorted(
            name[: -len(".json")] for name in os.listdir(descriptor) if re.fullmatch(r"denoiser-.+\.json", name)
        )
        candidates: list[dict[str, Any]] = []
        for name in names:
            try:
                record = store.read_record(descriptor, name, owners)
            except DamagedLibrary as error:
                refused.append(f"{name}: {error}")
                continue
            reason = "it is gone" if record is None else _unfit(record)
            if record is not None and reason is None:
                candidates.append(record)
            else:
                refused.append(f"{name}: {reason}")
        # first the one that makes most of this processor
        for candidate in sorted(candidates, key=lambda candidate: -len(candidate["needs"])):
            try:
                return store.load(descriptor, folder, candidate, owners), _info("prebuilt", folder, candidate)
            except DamagedLibrary as error:
                refused.append(f"{candidate['library']}: {error}")
                break  # a less suited library would be slower without a word
    found = "\n".join(refused[:10]) if refused else "it holds no library"
    raise NativeError(f"BAC_PREBUILT={folder} has no library to use here: {PREBUILT_ADVICE}.\n{found}")


def _unfit(record: dict[str, Any]) -> str | None:
    """Why a recorded library must not run here; None if it may."""
    if record["sources"] != sources_digest():
        return "built from other sources (another version of this project)"
    if record["machine"] != platform.machine():
        return f"for {record['machine']}, this is {platform.machine()}"
    if (record["unknown_needs"] or (record["needs"] and not processor.features())) and record[
        "processor"
    ] != _processor_digest():
        return "for the very kind of processor it was built on, which this is not"
    missing = sorted(set(record["needs"]) - processor.features()) if processor.features() else []
    return f"needs {', '.join(missing)}, which this processor lacks" if missing else None


def _processor_digest() -> str:
    return hashlib.sha256(processor.identity().encode()).hexdigest()


def _info(origin: str, folder: Path, record: dict[str, Any]) -> LibraryInfo:
    return LibraryInfo(
        origin,
        str(folder / record["library"]),
        record["sha256"],
        record["compiler"],
        tuple(record["flags"]),
        record["sources"],
    )


def build(folder: Path | None = None, name: str | None = None) -> dict[str, Any]:
    """Compiles the library, whether or not there is one, and stores it.

    Args:
        folder: where to; the cache folder when None. Any other one can be shipped and named by $BAC_PREBUILT.
        name: of the record; after the machine when None.

    Returns:
        the record: library, sha256, compiler, flags, levels, needs (processor features beyond the machine's), ...

    Raises:
        CompilerMissing, CacheError: as `library`.
    """
    global build_seconds
    private = folder is None or name is not None
    if folder is None:
        folder, name = cache_folder(), _cache_name()
    advice = ADVICE if private else "give another folder"
    command = find_compiler()
    known, unknown = processor.needed(compiler.added_macros(command))
    store.create(folder, private, advice)
    with store.opened(folder, {os.geteuid()}, advice):
        started = time.perf_counter()
        content = compiler.compile_library(command, FOLDER, folder, advice)
        build_seconds = time.perf_counter() - started
        return store.write(
            folder,
            name or f"denoiser-{platform.machine()}",
            content,
            {
                "sources": sources_digest(),
                "machine": platform.machine(),
                "compiler": compiler.version(command),
                "flags": [*command[1:], *compiler.FLAGS],
                "levels": _level_options(compiler.known_levels(command)),
                "needs": sorted(known),
                "unknown_needs": sorted(unknown),
                "processor": _processor_digest(),
            },
            private,
            advice,
        )
