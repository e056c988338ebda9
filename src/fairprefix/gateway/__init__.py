"""A gateway that makes any OpenAI-compatible engine fair: extra `gateway`.

It routes each request to a worker, queues it there under a policy (DLPM by default), lets only a bounded window of
requests into the worker, and settles what was really computed and delivered. `fairprefix gateway` runs it.
"""
