"""The commands of the released BAC project, with its flags, folders and files, on this project's code."""
