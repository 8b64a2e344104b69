"""Tokens and hidden states of the notes, and where spans of text lie among the tokens.

``source`` finds a model, ``check`` refuses a bad one before any work, ``prepare`` converts
packaged weights; ``tokenize``, ``windows``, ``language_model`` and ``extract`` turn notes
into activation shards; ``align`` places spans of characters among the tokens.

Nothing is imported here: alignment runs in an environment without torch.
"""
