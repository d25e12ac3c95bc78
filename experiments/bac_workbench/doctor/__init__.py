"""What `bac doctor` checks.

Nothing here imports more than Python itself before a check needs it, in a process of its own.
"""
