"""Episodes: what an agent tried, how it went, and what is learnt from that."""
