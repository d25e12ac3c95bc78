"""A stand-in of the original Diffusion Policy project: its names and conventions, written anew and small.

As there, `diffusion_policy` has no `__init__.py`. With this folder on the path it is the original's package; tests in
this project's own environment import it under `tests.original_project`.
"""
