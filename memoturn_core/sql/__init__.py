"""The user's own SQL over the user's own tables."""
