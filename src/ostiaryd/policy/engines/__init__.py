"""Programs that load policy sets, or evaluate policies that are not Cedar, each in a separate process
(`ground.process.confined`).
"""
