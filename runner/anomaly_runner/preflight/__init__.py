"""The step check: find out on a CPU, before a GPU is asked for, all that can be known before the work.

It goes through the same functions in the same order as the run itself, so that what is wrong is told in the same words.
What cannot be known here is named. Nothing is published but the listing of the images, and no run is tracked.
"""
