"""Spreading and repair under every fault that is known, in virtual time: one seed, one history.

Members run the cores that agents run (`Spread`, `Replica`, `Repair`, `answer`, `Freshness`); journals,
caches, readers and connections are simulated. `plan` draws what befalls a world, `checks` looks for what must
not be.

    truth      what was really issued, written to the source, and lost for good
    disk       a journal with group commit: what is committed survives
    readers    caches with copies of their own, and watchers: both read arrivals by one rule
    links      connections, cuts, and messages under way
    messages   what members say while they mend
    offering   when a publisher offers rows of what it does not hold
    mending    when a member tells, compares, fetches and resets
    member     one host: its cores, journal, cache and watcher
    world      all of them, and time
    plan       what befalls them, drawn from the seed
    checks     what must be true
    run        one history, or many
"""
