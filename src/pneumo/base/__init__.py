"""What every room uses: configuration, labels, paths, tables, files that are complete or absent, errors.

Nothing here imports another room, and nothing here computes a result.
"""
