"""The tables of the BAC paper again: what is missing of them, and the folder that they end in."""
