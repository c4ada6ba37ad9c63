"""Checks and benchmarks on a machine with a GPU and without a network: what to carry there, one command, one page.

- ``wheels``: the packages that such a machine lacks, collected into a folder here;
- ``run``: the command on that machine: installs the wheels, then starts ``session``;
- ``session``: the tests, then the benchmarks, each with its share of the time;
- ``results``, ``page``: what they wrote line by line, and the page that shows it.
"""
