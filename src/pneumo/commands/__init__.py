"""What people run by hand: one module a command, which reads, calls the rooms and writes, as a stage does.

DVC runs none of it, and nothing that DVC runs depends on it.
"""
