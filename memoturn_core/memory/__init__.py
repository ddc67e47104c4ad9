"""Typed memory: facts, events, instructions and tasks, with supersession, recall, sessions, transcript."""
