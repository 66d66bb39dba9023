"""Jobs: their states, the ledger users see, the queue engine, workers and runners."""
