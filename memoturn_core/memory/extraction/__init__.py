"""Extraction by rules: what a conversation states explicitly, without a language model."""
