"""An OpenAI-compatible HTTP server around the reference engine; needs the extras `engine` and `server`."""
