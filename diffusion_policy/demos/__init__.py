"""Demonstrations made by scripted experts: one `Demonstrator` per task, one way to collect and store them."""
