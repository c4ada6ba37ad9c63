"""The output of a run for people: tables, pictures, charts and the HTML report. Computes no metric."""
