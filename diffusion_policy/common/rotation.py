"""Rotations in three dimensions: matrices, axis-angle vectors and the six numbers of Zhou et al. 2019.

The six numbers are the first two rows of the matrix (PyTorch3D's convention, which the original checkpoints speak).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

MIN_LENGTH = 1e-6  # of the row that two vectors define together; shorter ones have no reliable direction


def matrix_to_rotation_6d(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] -> [..., 6]."""
    matrix = _checked(matrix, (3, 3))
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def rotation_6d_to_matrix(rotation_6d: np.ndarray) -> np.ndarray:
    """Any [..., 6] -> rotation matrices [..., 3, 3], by Gram-Schmidt (Zhou et al. 2019, section 4.2).

    Raises:
        ValueError: a value is not finite, or two vectors are too short or too parallel to define a rotation.
    """
    rotation_6d = _checked(rotation_6d, (6,))
    first = _normalized(rotation_6d[..., :3])
    second = rotation_6d[..., 3:]
    second = _normalized(second - np.sum(first * second, axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def axis_angle_to_matrix(axis_angle: np.ndarray) -> np.ndarray:
    """Axis times angle (rad) [..., 3] -> rotation matrices [..., 3, 3]."""
    axis_angle = _checked(axis_angle, (3,))
    matrix = Rotation.from_rotvec(axis_angle.reshape(-1, 3)).as_matrix()
    return matrix.reshape(*axis_angle.shape[:-1], 3, 3)


def matrix_to_axis_angle(matrix: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] -> axis times angle [..., 3], the angle in [0, pi]; at pi it is either axis."""
    matrix = _checked(matrix, (3, 3))
    return Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec().reshape(*matrix.shape[:-2], 3)


def axis_angle_to_rotation_6d(axis_angle: np.ndarray) -> np.ndarray:
    """[..., 3] -> [..., 6]."""
    return matrix_to_rotation_6d(axis_angle_to_matrix(axis_angle))


def rotation_6d_to_axis_angle(rotation_6d: np.ndarray) -> np.ndarray:
    """[..., 6] -> [..., 3]; see `rotation_6d_to_matrix` for its errors."""
    return matrix_to_axis_angle(rotation_6d_to_matrix(rotation_6d))


def _normalized(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    if (length < MIN_LENGTH).any():
        raise ValueError(
            "six numbers whose two vectors are zero or parallel are no rotation: the policy's weights or "
            "normalizer are broken, or the numbers mean something else"
        )
    return vector / length


def _checked(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape[values.ndim - len(shape) :] != shape:
        raise ValueError(f"expected an array [..., {', '.join(map(str, shape))}], not {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError("a rotation holds a value that is not finite")
    return values
