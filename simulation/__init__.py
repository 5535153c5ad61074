"""Whole rings of the machines that ship, in virtual time, over a network, disks, gateways and an operator that fail.

`docs/simulation.md` says what is simulated, what is checked and how to read a failing trace. Run it with `make sim`, or
one seed with `python -m simulation --seeds 17 --trace`.
"""
