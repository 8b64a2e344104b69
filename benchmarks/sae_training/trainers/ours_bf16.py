"""Ours, with the encoder product and the selection in bfloat16."""

from trainers import ours


def make(architecture, train, load):
    return ours.make(architecture, train, load, compute="bfloat16")
