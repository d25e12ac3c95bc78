"""The commands under kills, races and full disks."""
