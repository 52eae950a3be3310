"""The simulator: pure cores on one heap, virtual time, everything from one seed (beside the floors).

`scheduler` is time, `network` what becomes of a message, `world` the members of a cluster and their faults,
`scenarios` the questions that are asked of it. `coherd simulate` runs them for people.
"""
