"""All decisions about a run: what should exist for it, what to do about that, and what its status says.

Pure functions: frozen values in, frozen values out. Nothing here reads a clock, draws a random number, looks at the
environment or does any I/O; an import contract and this folder's list of banned calls enforce that.
"""
