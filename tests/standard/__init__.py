"""LangChain's own standard suites for chat models, over routed models, their tiers alone, and others that wrap several models."""
