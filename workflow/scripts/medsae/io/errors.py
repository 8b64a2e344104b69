"""The one error a person at the terminal is meant to read."""


class UserError(Exception):
    """Bad input. The message is one sentence: file, row or key, and what to do.

    It must never quote the text of a note.
    """
