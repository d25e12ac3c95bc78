"""The commands of `bac`, one module each, with `main()`; its docstring is the first part of the command's help.

What takes long to import (torch, simulators) is imported inside the function that does the work, which runs once the
whole command line is right.
"""
