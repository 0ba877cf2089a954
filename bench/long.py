PARTS = ("idle", "fan-out", "depth", "enqueue", "join")


async def measure(targets, part, messages):
    return ""
