"""The simulator: pure cores on one heap, virtual time, everything from one seed (beside the floors).

Membership: `network` is what becomes of a datagram, `world` the members and their faults, `scenarios` and
`lifeguard` the questions. Spreading: `streams` is what becomes of a message on a connection, `mender` the
repair of one member, `spread_world` the region and its faults, `spread_run` the question, `curve` its
picture. `faults` is spreading and repair under every fault. All run on `scheduler`, which is time.
`coherd simulate` runs them for people.
"""
