"""Who may do what: keys, tokens, revocation."""
