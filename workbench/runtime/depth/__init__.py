"""Depth as it is executed: which token runs which unit how often, what is gathered for it, and where keys and values go."""
