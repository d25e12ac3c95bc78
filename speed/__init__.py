"""Speed beside other inference engines, `python -m speed.peers`, and how it grows, `python -m speed.growth`."""
