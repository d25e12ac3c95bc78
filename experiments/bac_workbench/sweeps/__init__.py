"""Many runs of one command on a launcher of Hydra: cells that survive each other's failures, and a table at the end."""
