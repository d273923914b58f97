"""Marian models, as Hugging Face stores them: written, and read."""
