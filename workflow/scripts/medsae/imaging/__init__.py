"""Slices of CT and MR volumes, their embeddings, and what sparse features of them mean."""
