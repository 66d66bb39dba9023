"""The artifact store: payloads by content hash, on a local folder or an object store."""
