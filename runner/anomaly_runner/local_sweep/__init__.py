"""A sweep without a cluster: its trials are processes on this machine, its history is in the folder that stands for all
storage.

command    what the command line calls
finale     the end: a leaderboard, and the best point trained in full
search     the loop: asks what comes next, starts it, waits for an end
view       the table that grows on a terminal, or plain lines
children   processes of the trials
trial      what such a process does
records    what is known of the search and of its trials, as files
"""
