"""The documentation's site and its diagrams."""
