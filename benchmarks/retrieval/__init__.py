"""How well recall finds what a question asks for, measured on conversations and on documents of another kind."""
