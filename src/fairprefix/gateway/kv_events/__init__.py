"""Exact knowledge of what each worker has cached, from the event streams of vLLM and SGLang.

Engines publish what they store in, and remove from, their prefix caches: numbered batches in MessagePack over
ZeroMQ, with a second socket that repeats what was missed. `KvEventFeed` follows one such stream and keeps an exact
index (`fairprefix.core.worker_index.ExactIndex`) up to date. Needs the extra `events`.
"""
