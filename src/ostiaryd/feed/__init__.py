"""The feed: messages to guards, reports of guards, and the time until a revocation reached them."""
