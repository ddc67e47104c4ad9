"""Who may have a database open: one owner at a time, whichever process or machine it is."""
