"""Figures, tables in words, the page and the model card.

Nothing here computes a score: it is given numbers and writes them down.
"""
