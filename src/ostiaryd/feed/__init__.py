"""The feed: what guards hear, what they report, and how fast a revocation reached them."""
