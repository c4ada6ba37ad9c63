"""What should be, and what to do about it.

Pure: frozen values in, frozen values out. Nothing here reads a clock, draws a random number, looks at the environment
or does any I/O; an import contract and the folder's own list of banned calls hold that.
"""
