"""Figures and words of the imaging study."""
