"""The deciding part: what should exist for a run, what to do about it, and what its status says.

Pure: frozen values in, frozen values out. Nothing here reads a clock, draws a random number, looks at the environment
or does any I/O; an import contract and this folder's list of banned calls hold that.
"""
