"""What tests of the native library do to it and around it."""

import json
import shutil

from bac.native import build


def again(monkeypatch):
    """As in a new process."""
    monkeypatch.setattr(build, "_loaded", {})
    return build.library_info()


def without_compilers(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


def edit(record, **changes):
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))
