"""From an uploaded file to an object on a transparent ground. Knows nothing of geometry."""
