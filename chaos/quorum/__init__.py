"""`make chaos-quorum`: a quorum of three nodes, each beside a real server of one Galera cluster, under load and faults.

    gateway gw1 --turnstile-- node gw1 --- operator        a turnstile puts a gateway through to the first node that
                                 |   \\                      listens for it, its own first
                             server a -- server b ...

configuration  the nodes' TOML
turnstile      where the gateways dial, and which node each of their sessions was with
skew           processes whose clocks are some seconds ahead or behind
hearing        what the nodes' logs say of the ways of reports, by the stage's own clock
inboxes        how long rows stay in inboxes, as the database has it
stage          who plays, what can be seen of them, and what is waited for
faults         each fault: it happens, and is over when all serve and messages flow
unfit          those in which a server, a line or a disk is there and does not do its part: the node says why
schedule       the faults of a run: one of each kind at any node, again and again, or the short schedule of `make test`
excuses        what explains a repeat, a late report, or one that stays parked: only what docs/quorum-custody.md allows
scenario       load, faults, the way back to rest, and the judgement
"""
