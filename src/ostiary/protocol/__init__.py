"""Formats that both sides must agree on: canonical JSON, JOSE, DPoP, signed envelopes, the Merkle tree and its
proofs. Pure.
"""
