"""`make chaos-pair`: the active of a pair and its database are killed under load, again and again.

    gateway --[address that moves]-- node gw1 --+-- operator
                                        |       |
                                     MariaDB 1  |
                                        |       |
                                     MariaDB 2  |
                                        |       |
            [address that moves]----- node gw2 -+

places      where the two machines are: on loopback, or in network namespaces of their own
machine     one machine: a real database server, a real node, and the commands that are given there
address     who moves the address and calls the notify script: the stage by hand, or keepalived
rounds      load, a kill, the other one takes over, the first one rejoins, service moves back; and the judgement
"""
