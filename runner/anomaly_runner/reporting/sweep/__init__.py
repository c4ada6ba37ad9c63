"""What a sweep leaves for people: a page, a table of its trials, and a journal that Optuna reads.

trials     what each trial's report says of it, read from the output location or from a folder
findings   the trials as points, ranked, with what the search's summary says of them
table      a row for each trial, as Parquet and CSV
journal    a study for Optuna's dashboard
pivot      the table that papers print
leaders    the leaderboard, and the values of each parameter, as rows of tables
charts     the pictures, as inline SVG
page       sweep.html
files      all of them in one folder
"""
