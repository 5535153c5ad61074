"""`make chaos`: real nodes under load, faults by a seeded schedule, and the simulators' ledgers as the judge.

plan            which faults come when: pure, from a seed
lines           the TCP connections of the stage, which can be cut, held up and slowed down
disk            a small disk for a node, and how it is filled
configuration   the nodes' TOML
nodes           the nodes' processes, what they log, and what their API says
stage           who plays: an operator, nodes, gateways, and the lines between them
faults          what each fault does to them, and how it ends
scenario        load, faults, and the way back to rest
told            what the ledgers say beside who has what
judgement       what the ledgers prove, and what must be explained
excuses         what the faults of a ring explain
interruption    a run that a signal may end
display         the schedule while it runs, the table and the traces after it
"""
