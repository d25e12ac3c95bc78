"""What Push-T is, apart from its simulation: the table, the tee, the goal. Imports no simulator."""

from __future__ import annotations

import numpy as np

TABLE_SIZE = 512  # px
SIM_HZ, CONTROL_HZ = 100, 10
K_P, K_V = 100.0, 20.0  # PD gains of the agent, 1/s^2 and 1/s
AGENT_RADIUS = 15.0  # px
WALL_RADIUS = 2.0  # px
WALL_LOW, WALL_HIGH = 5.0, 506.0  # px
BAR = ((-60.0, 0.0), (60.0, 0.0), (60.0, 30.0), (-60.0, 30.0))  # the two rectangles of the tee, px,
STEM = ((-15.0, 30.0), (15.0, 30.0), (15.0, 120.0), (-15.0, 120.0))  # in the frame of the block
OUTLINE = (*BAR[:3], *STEM[1:], STEM[0], BAR[3])  # the tee as one polygon
GOAL_POSE = (256.0, 256.0, np.pi / 4)  # px, px, rad
SUCCESS_COVERAGE = 0.95
