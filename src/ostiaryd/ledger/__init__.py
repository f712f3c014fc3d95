"""The tamper-evident ledger: every act leaves one entry, and each entry is a leaf of an RFC 6962 Merkle tree."""
