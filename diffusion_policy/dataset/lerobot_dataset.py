"""A LeRobotDataset v3.0 as training windows of any task: which of its features are what the policy sees and does."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_policy.dataset import lerobot_format as form
from diffusion_policy.dataset.errors import DatasetError
from diffusion_policy.dataset.image_cache import cached_images
from diffusion_policy.dataset.lerobot_files import LeRobotFiles
from diffusion_policy.dataset.lerobot_video import VideoReader
from diffusion_policy.dataset.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.sequence_dataset import ImageSequenceDataset, SequenceDataset, Windows

SOURCE = re.compile(r"(?P<feature>[^:]+)(?::(?P<start>\d{1,6}):(?P<stop>\d{1,6}))?")
Source = tuple[str, slice]
AnySequenceDataset = SequenceDataset | ImageSequenceDataset


def load_lerobot(
    path: str | Path,
    windows: Windows,
    obs_dim: int | None = None,
    action_dim: int | None = None,
    shape_meta: Mapping[str, Any] | None = None,
    n_obs_steps: int | None = None,
    features: Mapping[str, str | Sequence[str] | None] | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[AnySequenceDataset, AnySequenceDataset | None]:
    """Training and validation windows (validation is None for val_ratio 0).

    What the policy calls "obs" is the feature `observation.state`, "action" is `action`, an image is
    `observation.images.<name>`, and a further vector those components of `observation.state` that are called
    <name>_0, <name>_1, ..., or else the feature `observation.<name>`; `features` says otherwise.

    Args:
        path: folder of the data set.
        obs_dim, action_dim: of a policy that sees one vector.
        shape_meta: of a policy that sees several things: `obs.<name>.shape` and `type` (rgb or low_dim), and
            `action.shape`.
        n_obs_steps: fetch only the first images of a window, those that the policy looks at.
        features: by the policy's names, "<feature>", "<feature>:<start>:<stop>" for some of its components, or a list
            of such, laid one behind the other.
        cache_dir: where the images are laid out for reading at random, once (see `cached_images`); None: beside the
            data set.

    Raises:
        DatasetError: the data set is missing or damaged, or does not hold what the policy needs.
    """
    files = LeRobotFiles(path)
    images, vectors = wanted_shapes(obs_dim, action_dim, shape_meta)
    named = {name: value for name, value in (features or {}).items() if value is not None}
    if unknown := sorted(set(named) - set(images) - set(vectors)):
        raise DatasetError(
            f"dataset.features names {', '.join(unknown)}, and the policy has {', '.join([*vectors, *images])}"
        )
    sources = {name: sources_of(files, name, width, named.get(name)) for name, width in vectors.items()}
    values = files.read(list(dict.fromkeys(feature for parts in sources.values() for feature, _ in parts)))
    fields = {
        name: np.concatenate([values[feature][:, columns] for feature, columns in parts], axis=1)
        for name, parts in sources.items()
    }
    buffer = ReplayBuffer(fields, np.array([span.stop for span in files.spans]))
    if shape_meta is None:
        return windows.split(partial(SequenceDataset, {n: torch.from_numpy(v) for n, v in fields.items()}), buffer)
    cameras = {name: camera_of(files, name, shape, named.get(name)) for name, shape in images.items()}
    folder = Path(cache_dir) if cache_dir else files.path.absolute().parent
    pixels = read_images(files, cameras, folder / f"{files.path.absolute().name}.cache") if cameras else {}
    return windows.split(partial(ImageSequenceDataset, {**pixels, **fields}, n_obs_steps=n_obs_steps), buffer)


def wanted_shapes(
    obs_dim: int | None, action_dim: int | None, shape_meta: Mapping[str, Any] | None
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """What the policy needs: shapes [C, H, W] of images and lengths of vectors, by its own names."""
    if shape_meta is None:
        if obs_dim is None or action_dim is None:
            raise DatasetError("the task says neither obs_dim and action_dim nor shape_meta: nothing can be looked for")
        return {}, {"obs": obs_dim, "action": action_dim}
    shapes = {name: (tuple(entry["shape"]), entry.get("type", "low_dim")) for name, entry in shape_meta["obs"].items()}
    images = {name: shape for name, (shape, kind) in shapes.items() if kind == "rgb"}
    vectors = {name: int(np.prod(shape)) for name, (shape, kind) in shapes.items() if kind != "rgb"}
    return images, {**vectors, "action": int(np.prod(tuple(shape_meta["action"]["shape"])))}


def sources_of(files: LeRobotFiles, name: str, width: int, asked: str | Sequence[str] | None) -> list[Source]:
    """Features, and their components, that make up the vector `name` of `width` numbers."""
    texts = [] if asked is None else [asked] if isinstance(asked, str) else list(asked)
    parts = [parsed(files, name, text) for text in texts] or usual_sources(files, name, width)
    found = sum(len(range(*columns.indices(files.width(feature)))) for feature, columns in parts)
    if not parts or found != width:
        what = ", ".join(shown(feature, columns) for feature, columns in parts) or "none"
        raise DatasetError(
            f"{files.path} has no {name} of {width} numbers: its features for it are {what}, with {found}. Name others "
            f"with +dataset.features.{name}=<feature> or <feature>:<start>:<stop>, or a list of such; {offered(files)}"
        )
    return parts


def usual_sources(files: LeRobotFiles, name: str, width: int) -> list[Source]:
    usual = {"obs": form.STATE, "action": form.ACTION}.get(name)
    if usual is None and form.STATE in files.vectors:
        components = files.component_names(form.STATE)
        named = [f"{name}_{i}" for i in range(width)]
        for start in range(len(components) - width + 1):
            if components[start : start + width] == named:
                return [(form.STATE, slice(start, start + width))]
    feature = usual or f"observation.{name}"
    return [(feature, slice(None))] if feature in files.vectors else []


def parsed(files: LeRobotFiles, name: str, text: str) -> Source:
    """'observation.state:0:2' -> ('observation.state', slice(0, 2))."""
    match = SOURCE.fullmatch(str(text))
    feature = match["feature"] if match else str(text)
    if feature not in files.vectors:
        raise DatasetError(f"dataset.features.{name}={text}: {files.path} has no such vector; {offered(files)}")
    return feature, slice(None) if match["start"] is None else slice(int(match["start"]), int(match["stop"]))


def shown(feature: str, columns: slice) -> str:
    return feature if columns.start is None else f"{feature}:{columns.start}:{columns.stop}"


def offered(files: LeRobotFiles) -> str:
    """What there is, for messages."""
    there = [f"{name} [{files.width(name)}]" for name in files.vectors]
    there += ["{} [{}, {}, 3]".format(name, *files.size(name)) for name in files.cameras]
    return f"it has {', '.join(there) or 'nothing'}"


def camera_of(files: LeRobotFiles, name: str, shape: tuple[int, ...], asked: Any) -> str:
    """The video that is the image `name` of shape [C, H, W]."""
    feature = str(asked) if asked is not None else form.IMAGES + name
    if feature not in files.cameras:
        stored = files.features.get(feature, {}).get("dtype")
        kind = " (it is stored as single images, which are not read: make it a video)" if stored == "image" else ""
        raise DatasetError(
            f"{files.path} has no video {feature}{kind} for the image {name}: name it with "
            f"+dataset.features.{name}=<feature>; {offered(files)}"
        )
    if (3, *files.size(feature)) != tuple(shape):
        raise DatasetError(
            f"{files.path}: {feature} has frames {[3, *files.size(feature)]}, and {name} of the policy is "
            f"{list(shape)}: give task.shape_meta.obs.{name}.shape this size, or scale the videos"
        )
    return feature


def read_images(files: LeRobotFiles, cameras: Mapping[str, str], folder: Path) -> dict[str, np.ndarray]:
    """Memory-mapped frames uint8 [N, H, W, 3] by the policy's names."""
    readers = {name: VideoReader(files.size(camera)) for name, camera in cameras.items()}
    lengths = [span.stop - span.start for span in files.spans]
    videos = {
        str(path.relative_to(files.path)): [path.stat().st_size, path.stat().st_mtime_ns]
        for camera in cameras.values()
        for path in dict.fromkeys(files.video(camera, episode)[0] for episode in range(len(lengths)))
    }
    description = hashlib.sha256((files.path / form.INFO).read_bytes()).hexdigest()
    source = {"info": description, "videos": videos, "cameras": dict(cameras)}

    def read(episode: int, name: str) -> np.ndarray:
        path, first = files.video(cameras[name], episode)
        return readers[name].read(path, first, lengths[episode])

    try:
        shapes = {name: (*files.size(camera), 3) for name, camera in cameras.items()}
        return cached_images(folder, source, shapes, lengths, read)
    finally:
        for reader in readers.values():
            reader.close()
