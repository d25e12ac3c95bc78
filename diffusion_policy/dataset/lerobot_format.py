"""LeRobotDataset v3.0: where its files are and what its columns are called, for who reads and who writes one.

Source: the documentation of huggingface/lerobot, docs/source/lerobot-dataset-v3.mdx, and its release 0.6.1. Many
episodes share a Parquet file, and a video of each camera; meta/episodes says where in them each episode lies.
"""

from __future__ import annotations

from types import ModuleType

from diffusion_policy.env.extras import MissingExtraError

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_FILES = 1000  # files in a chunk-... folder
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200  # sizes at which the next file is begun

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
REWARD, DONE, SUCCESS = "next.reward", "next.done", "next.success"
#: columns that every data set has, besides its own
INDEX_FEATURES = {
    "timestamp": "float32",  # s since the episode's first frame
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",  # of all frames
    "task_index": "int64",
}


def pyarrow() -> ModuleType:
    """The packages `pyarrow` and `pyarrow.parquet`, imported when they are needed.

    Raises:
        MissingExtraError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "LeRobot data sets hold Parquet files, for which pyarrow is missing. "
            "Install with: pip install 'bac-workbench[lerobot]'"
        ) from error
    return pyarrow
