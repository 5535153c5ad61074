"""An operator and a gateway to play against: for the demo, the benchmarks, and users who try their own set-up.

`operator.Operator` is an SMSC that spreads reports over the binds of an account; `gateway.Gateway` is an ESME that
submits and keeps account of what comes back; `judge.judge` compares their ledgers. Nothing here imports the proxy.
"""
