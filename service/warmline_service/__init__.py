"""Claude Code over gRPC: a pool of warm CLI processes, lent to one conversation each."""
