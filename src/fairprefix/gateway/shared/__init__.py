"""Several gateways that are fair together: one ledger per worker, kept in Redis. Needs the extra `redis`."""
