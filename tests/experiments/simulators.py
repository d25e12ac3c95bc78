"""Packages of the simulators and other extras, by the names that a check may say."""

SIMULATORS = (
    "pymunk",
    "pygame",
    "shapely",
    "cv2",
    "opencv",
    "pybullet",
    "mujoco",
    "robosuite",
    "gymnasium_robotics",
    "h5py",
    "wandb",
)
