"""Ours, with a selection that may be rough: in bfloat16, or in int8 where that is faster."""

from trainers import ours


def make(architecture, train, load):
    return ours.make(architecture, train, load, compute="bfloat16")
