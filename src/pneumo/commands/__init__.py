"""What people run by hand; each command reads, calls the rooms and writes, as a stage does.

DVC runs none of it.
"""
