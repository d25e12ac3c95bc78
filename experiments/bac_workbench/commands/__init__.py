"""The commands of `bac`, one module each, with `main()`; its docstring is the first part of the command's help.

Modules import what takes long (torch, simulators) only inside the function that does the work, which runs once the whole
command line is right.
"""
