"""Rewrites the arrays of a stored profile, as damage or another program would."""

import io
import json
import zipfile

import numpy as np


def rewrite(folder, change, compression=zipfile.ZIP_DEFLATED, keep_digest=False):
    """The stored arrays with `change` applied to {name: bytes}; as an older profile, which has no digest."""
    with zipfile.ZipFile(folder / "profile.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members = change(members) or members
    with zipfile.ZipFile(folder / "profile.npz", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    values = json.loads((folder / "profile.json").read_text())
    if not keep_digest:
        del values["npz_sha256"]
    (folder / "profile.json").write_text(json.dumps(values))


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: str, data: bytes = b"\0" * 100) -> bytes:
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117).encode() + b"\n" + data
