"""Encoded draws on disk or in an object store: shards of latents with an index and checksums."""
