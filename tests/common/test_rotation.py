"""Rotations: every representation tells the same rotation, also at its awkward angles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffusion_policy.common.rotation import (
    axis_angle_to_matrix,
    axis_angle_to_rotation_6d,
    matrix_to_axis_angle,
    matrix_to_rotation_6d,
    rotation_6d_to_axis_angle,
    rotation_6d_to_matrix,
)

ANGLES = [0.0, 1e-12, 1e-7, 1e-3, 1.0, 2.5, np.pi - 1e-3, np.pi - 1e-7, np.pi]
vectors = arrays(np.float64, 3, elements=st.floats(-1, 1)).filter(lambda v: np.linalg.norm(v) > 0.1)
sixes = arrays(np.float64, 6, elements=st.floats(-2, 2)).filter(lambda v: np.linalg.norm(np.cross(v[:3], v[3:])) > 0.1)


def assert_rotation(matrix):
    np.testing.assert_allclose(
        matrix @ np.swapaxes(matrix, -1, -2), np.broadcast_to(np.eye(3), matrix.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0)


@pytest.mark.parametrize("angle", ANGLES)
@given(axis=vectors)
def test_round_trips_at_every_angle(angle, axis):
    vector = angle * axis / np.linalg.norm(axis)
    matrix = axis_angle_to_matrix(vector)
    assert_rotation(matrix)
    np.testing.assert_allclose(axis_angle_to_matrix(matrix_to_axis_angle(matrix)), matrix, atol=1e-9)
    np.testing.assert_allclose(rotation_6d_to_matrix(matrix_to_rotation_6d(matrix)), matrix, atol=1e-12)
    found = rotation_6d_to_axis_angle(axis_angle_to_rotation_6d(vector))
    assert np.linalg.norm(found) <= np.pi + 1e-12
    same = vector if angle < np.pi - 1e-5 else np.sign(found @ vector) * vector  # either axis at half a turn
    np.testing.assert_allclose(found, same, atol=1e-6)


def test_a_quarter_turn_about_z_and_the_rows_of_its_matrix():
    matrix = axis_angle_to_matrix(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(matrix @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(matrix_to_rotation_6d(matrix), [0, -1, 0, 1, 0, 0], atol=1e-12)


@given(six=sixes)
def test_noisy_numbers_become_a_rotation_that_keeps_the_first_direction_and_the_plane(six):
    matrix = rotation_6d_to_matrix(six)
    assert_rotation(matrix)
    np.testing.assert_allclose(matrix[0], six[:3] / np.linalg.norm(six[:3]), atol=1e-9)
    assert matrix[2] @ six[3:] == pytest.approx(0, abs=1e-9) and matrix[1] @ six[3:] > 0
    np.testing.assert_allclose(rotation_6d_to_matrix(matrix_to_rotation_6d(matrix)), matrix, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
def test_batches_of_any_shape(batch):
    vectors = np.random.default_rng(0).normal(size=(*batch, 3))
    six = axis_angle_to_rotation_6d(vectors)
    assert six.shape == (*batch, 6) and rotation_6d_to_matrix(six).shape == (*batch, 3, 3)
    assert rotation_6d_to_axis_angle(six).shape == (*batch, 3)
    for index in np.ndindex(*batch):
        np.testing.assert_allclose(six[index], axis_angle_to_rotation_6d(vectors[index]))


@pytest.mark.parametrize("six", [np.zeros(6), [1, 0, 0, 2, 0, 0], [1, 0, 0, 0, 0, 0]])
def test_numbers_without_a_rotation_are_refused(six):
    with pytest.raises(ValueError, match="zero or parallel"):
        rotation_6d_to_matrix(six)


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(ValueError, match=r"\[\.\.\., 6\], not \[5\]"):
        rotation_6d_to_matrix(np.zeros(5))
    with pytest.raises(ValueError, match=r"\[\.\.\., 3, 3\], not \[3\]"):
        matrix_to_axis_angle(np.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        axis_angle_to_matrix([np.nan, 0, 0])
