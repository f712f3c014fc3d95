"""Fleets of agents that nobody recorded: what they do day by day, how it changes, and fourteen kinds of attack in it.

Recorded runs say what one agent does in one session. Rates, hours, networks, peers and keys need many agents over many
days; here they are drawn from a seed, so that two runs give the same acts.
"""
