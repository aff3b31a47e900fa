"""What DVC runs: one module a stage, which reads, calls the rooms and writes.

A stage computes nothing itself and never imports another stage.
"""
