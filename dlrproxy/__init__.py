"""What runs a node, over the machines of `ring` and the bytes of `protocols`. Where what is:

cli, config, demo   the commands; the configuration file; a ring to look at
node, term, front   a process; from an open store to its end; one operator's relay, binds and listeners
modes               ring, active-passive, quorum: when a node serves, and whom it is linked to
sessions            connections; `operators` and `gateways` make them
relay               the hot path: `mt` to the operator, `reports` to the gateways, `mo` to whichever of them
custody, keeping    what was answered for and is not delivered: the driver of the ring's machine, and its reads
store               open messages and rows of custody: in RocksDB, or in `store.sql`
admin               the HTTP API and the metrics
simulator           an operator and a gateway to play against
"""
