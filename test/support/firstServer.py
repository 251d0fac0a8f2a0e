"""The first Surfing Weights, as published on PyPI, beside the weight server: its own server answers commands, and its own
client fetches weights. Only torch and transformers are replaced: tensors are left as the bytes of their file.

    pip install --no-deps streaming-weights==0.1.1 websockets
    python firstServer.py answers DIRECTORY < commands    one answer a line
    python firstServer.py fetch URL COMPONENT ID          the bytes that the client receives, in hexadecimal
"""
import asyncio
import sys
from types import ModuleType
from unittest.mock import MagicMock


class Replaced(ModuleType):
    __path__ = []

    def __getattr__(self, name):
        return MagicMock()


for name in ["torch", "torch.nn", "transformers"]:
    sys.modules[name] = Replaced(name)
for name in ["bert.modeling_bert", "gpt2.modeling_gpt2", "llama.modeling_llama", "bert", "gpt2", "llama"]:
    sys.modules["transformers.models." + name] = Replaced(name)
sys.modules["transformers.models"] = Replaced("models")
torch = sys.modules["torch"]
torch.load = lambda buffer, map_location: buffer.read()
torch.save = lambda content, buffer: buffer.write(content)
sys.modules["torch.nn"].Module = object
torch.nn = sys.modules["torch.nn"]

from streaming_weights import WeightServer  # noqa: E402
from streaming_weights.models.base import StreamingBaseModel  # noqa: E402


async def main(action, *args):
    if action == "answers":
        server = WeightServer(chunks_dir=args[0])
        for line in sys.stdin:
            print(await server.process_request(line))
    if action == "fetch":
        client = StreamingBaseModel("model", websocket_uri=args[0])
        print((await client._fetch_weights(args[1], args[2])).hex())


asyncio.run(main(*sys.argv[1:]))
