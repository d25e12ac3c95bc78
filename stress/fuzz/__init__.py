"""Mutated files for everything that reads files."""
