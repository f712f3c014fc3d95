"""What runs policies that are not Cedar, each in a process of its own (`ground.confined`)."""
