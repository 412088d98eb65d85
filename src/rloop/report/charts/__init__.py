"""Charts as Vega-Lite, made with Altair: rows in, figures out. Knows no files."""
