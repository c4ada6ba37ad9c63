"""Mutation testing: small wrong changes to the deciding modules, and whether a unit test notices each of them."""
