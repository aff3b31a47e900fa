"""Many runs at a time: engines that run calls in other processes, and the order in which stages may run.

Nothing here knows what a stage computes. A call is named by a string, so that no room is imported for it.
"""
