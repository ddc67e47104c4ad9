"""What is learnt from episodes: patterns, what they rest on, how strong they are, and what they recommend."""
