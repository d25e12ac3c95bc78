"""Attacks on this project by itself: damaged and hostile files, kills, races, full disks, a native engine in need.

`make stress`, or `python -m stress [key=value ...]`. What is promised and what was found: docs/reliability.md.
"""
