"""The workloads against real engines, in real time: any OpenAI endpoint, or the reference engine."""
