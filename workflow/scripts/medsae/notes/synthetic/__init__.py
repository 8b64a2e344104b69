"""A corpus of clinical notes that this project owns, with gold spans and gold senses."""

from medsae.notes.synthetic.corpus import SyntheticCorpus, generate_corpus
from medsae.notes.synthetic.writers import write_corpus

__all__ = ["SyntheticCorpus", "generate_corpus", "write_corpus"]
