"""The contract of web and workers: what tasks and queues are called."""

PROCESS_LLM = "chat.process_llm"
QUEUE = "llm"
