"""`dlrproxy demo`: a ring of real processes on this machine, simulators around it, and what became of every report.

plan         what to play
ports        free ports that stay ours
files        the TOML of each node, and its secrets
node_process one node's process and its log
routes       what the nodes' route events tell, pure
stage        the scenario, from the first process to the last
summary      the verdict of the ledgers, and the figures
display      progress while it runs, the table and the traces after it
"""
