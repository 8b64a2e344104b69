"""Figures and words: tables of the other rooms in, what a reader sees out."""
