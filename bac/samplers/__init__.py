"""Samplers that are a solver's table on a grid of timesteps: few evaluations, and noise shared with the full policy."""
